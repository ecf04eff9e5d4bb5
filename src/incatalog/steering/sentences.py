"""Vectors of texts by one encoder; those of items are kept on the disk, by what they say."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Float32
from rich.console import Console

from incatalog.artifacts import atomic_path
from incatalog.checksums import file_checksums
from incatalog.data.vectors import unit_rows, unusable_rows
from incatalog.embedding.encoders import MINILM, TextEncoder, encoder_folder, load_encoder
from incatalog.errors import ConfigError, VectorError
from incatalog.progress import with_progress
from incatalog.recent import RecentlyUsed

Vectors = Float32[np.ndarray, "texts hidden"]

# More says little of an item, and takes time.
_MOST_TOKENS = 48
_BATCH = 32
# Texts of a file: what an interrupted start has to do again at most.
_SHARD = 1024
_SHARDS_KEPT = 1024
_QUESTIONS_KEPT = 2048


@dataclass(frozen=True, eq=False)
class Sentences:
    """Makes unit vectors of texts; several threads may ask.

    Attributes:
        encoder: What reads the texts.
        name: What its vectors are filed under; another encoder has another name.
        folder: Where vectors of items are kept; None keeps none.
    """

    encoder: TextEncoder
    name: str
    folder: Path | None = None
    _asked: RecentlyUsed[str, np.ndarray] = field(
        init=False, repr=False, default_factory=lambda: RecentlyUsed(_QUESTIONS_KEPT)
    )
    # Tokenizers of sentence models are changed by every call.
    _lock: threading.Lock = field(init=False, repr=False, default_factory=threading.Lock)

    @classmethod
    def load(cls, model: str, folder: Path | None = None, device: str = "cpu") -> Sentences:
        """Takes ``minilm`` or the folder of a sentence-transformers model.

        Args:
            model: The model; none is fetched from anywhere.
            folder: Where vectors are kept, made where it is lacking; None keeps none.
            device: Where the model runs.

        Raises:
            BackboneError: The model is damaged, or MiniLM is not installed.
            ConfigError: There is no such folder, or it holds another kind of model.
        """
        if model != MINILM and not (Path(model) / "modules.json").exists():
            expected = "expected minilm, words, off or a folder of sentence-transformers"
            why = "holds no modules.json" if Path(model).is_dir() else "no such folder"
            raise ConfigError(f"--encoder {model}: {why}; {expected}")
        path = encoder_folder("sentence", model)
        assert path is not None
        encoder = load_encoder("sentence", model, torch.device(device), max_tokens=_MOST_TOKENS)
        digest = hashlib.sha256(repr(sorted(file_checksums(path).items())).encode()).hexdigest()
        return cls(encoder, f"{digest[:24]}-{encoder.max_tokens}", folder)

    def questions(self, texts: Sequence[str]) -> list[Float32[np.ndarray, " hidden"]]:
        """The vectors of what people say; those that are new are read in one pass."""
        found = self._asked.get_all(texts, lambda new: list(self._encoded(list(new))))
        return [found[text] for text in texts]

    def items(self, texts: Sequence[str], console: Console | None = None) -> Vectors:
        """The vectors of items' texts, read once and kept on the disk.

        Raises:
            VectorError: The encoder gives no numbers for a text.
        """
        keys = [hashlib.sha256(text.encode()).digest()[:16] for text in texts]
        wanted = dict(zip(keys, texts, strict=True))
        found = self._kept(set(wanted))
        missing = sorted((key for key in wanted if key not in found), key=lambda k: len(wanted[k]))
        parts = [missing[at : at + _SHARD] for at in range(0, len(missing), _SHARD)]
        shown = parts if len(missing) < 2 * _BATCH else with_progress(
            parts, len(missing), "reading items", console or Console(stderr=True)
        )  # fmt: skip
        for part in shown:
            own = [wanted[key] for key in part]
            batches = [own[at : at + _BATCH] for at in range(0, len(own), _BATCH)]
            vectors = np.concatenate([self._encoded(batch) for batch in batches])
            self._keep(part, vectors)
            found.update(zip(part, vectors, strict=True))
        return np.stack([found[key] for key in keys]).astype(np.float32, copy=False)

    def _encoded(self, texts: list[str]) -> Vectors:
        with self._lock:
            vectors = self.encoder.encode(texts)
        if len(wrong := unusable_rows(vectors)):
            raise VectorError(
                f"--encoder: gives NaN or infinity for the text {texts[wrong[0]][:60]!r}; "
                "choose another model"
            )
        found: Vectors = unit_rows(vectors.astype(np.float64)).astype(np.float32)
        return found

    @property
    def _files(self) -> Path | None:
        return None if self.folder is None else self.folder / self.name

    def _kept(self, wanted: set[bytes]) -> dict[bytes, np.ndarray]:
        """Vectors that lie on the disk; a file that cannot be read counts as none."""
        found: dict[bytes, np.ndarray] = {}
        files = self._files
        for path in sorted(files.glob("*.npz")) if files is not None else ():
            try:
                with np.load(path, allow_pickle=False) as shard:
                    keys = [key.tobytes() for key in shard["keys"]]
                    places = [at for at, key in enumerate(keys) if key in wanted]
                    vectors = shard["vectors"] if places else None
            except (OSError, ValueError, KeyError, EOFError, BadZipFile):
                continue
            if vectors is not None and len(vectors) == len(keys):
                found.update((keys[at], vectors[at]) for at in places)
            if len(found) == len(wanted):
                break
        return found

    def _keep(self, keys: Sequence[bytes], vectors: Vectors) -> None:
        files = self._files
        if files is None:
            return
        files.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(b"".join(keys)).hexdigest()[:24]
        with atomic_path(files / f"{name}.npz") as partial, partial.open("wb") as stream:
            np.savez(stream, keys=np.array([list(key) for key in keys], np.uint8), vectors=vectors)
        old = sorted(files.glob("*.npz"), key=lambda path: path.stat().st_mtime)[:-_SHARDS_KEPT]
        for path in old:
            path.unlink(missing_ok=True)
