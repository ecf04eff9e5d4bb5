"""Vectors joined from blocks, and what it takes to make others of their kind."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32

from incatalog.artifacts import MANIFEST, read_json, write_json
from incatalog.checksums import verify_checksums
from incatalog.errors import VectorError

BLOCKS_FILE = "blocks.json"

_ENCODERS = ("sentence", "causal")
_ROWS_AT_ONCE = 1 << 14


@dataclass(frozen=True)
class TextBlock:
    """How the part of a vector that comes from the item's text is made."""

    encoder: str
    model: str
    wording: str
    max_tokens: int
    center: tuple[float, ...]  # taken off what the encoder gives
    scale: float  # what it is divided by afterwards

    @property
    def width(self) -> int:
        """Numbers an item."""
        return len(self.center)

    def part(self, vectors: Float[np.ndarray, "some width"]) -> Float32[np.ndarray, "some width"]:
        """This part of vectors, from what the encoder gives for the texts."""
        return standardised(vectors, np.array(self.center), self.scale)


@dataclass(frozen=True)
class TeacherBlock:
    """Where the part of a vector that comes from a teacher was taken from."""

    run: str
    kind: str
    fingerprint: str  # of the run folder
    width: int


@dataclass(frozen=True)
class VectorBlocks:
    """The blocks of a vector in their order: that of the text, if there is one, then the others.

    A teacher knows only the items it was fitted on. Its blocks have mean 0 over them, so zeros
    stand for an item that it does not know.
    """

    text: TextBlock | None
    teachers: tuple[TeacherBlock, ...]

    @property
    def width(self) -> int:
        """Numbers an item."""
        own = 0 if self.text is None else self.text.width
        return own + sum(block.width for block in self.teachers)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, found: Any) -> VectorBlocks:
        """Reads :meth:`to_json`.

        Raises:
            ValueError: Something else; so do `LookupError` and `TypeError`.
        """
        text = None if found["text"] is None else TextBlock(**found["text"])
        teachers = tuple(TeacherBlock(**block) for block in found["teachers"])
        if text is not None:
            if text.encoder not in _ENCODERS or type(text.max_tokens) is not int:
                raise ValueError("no such encoder")
            text = dataclasses.replace(text, center=tuple(map(float, text.center)))
            if not all(map(math.isfinite, text.center)) or not 0 < text.scale < math.inf:
                raise ValueError("center and scale are not finite")
        if not all(type(block.width) is int and block.width > 0 for block in teachers):
            raise ValueError("a width is no positive number")
        return cls(text, teachers)

    def save(self, folder: str | Path) -> None:
        """Writes :data:`BLOCKS_FILE` into a folder, atomically."""
        write_json(Path(folder) / BLOCKS_FILE, self.to_json())

    @classmethod
    def load(cls, folder: str | Path) -> VectorBlocks:
        """Reads what :meth:`save` wrote."""
        path = Path(folder) / BLOCKS_FILE
        verify_checksums(folder, (BLOCKS_FILE,))
        found = read_json(path)
        try:
            return cls.from_json(found)
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            broken = "not a readable description of item vectors"
            raise VectorError(f"{path}: {broken}; restore it or make the vectors again") from error


def blocks_of(vectors: str | Path) -> VectorBlocks | None:
    """How the vectors of a file were joined; None for a file that says nothing of blocks."""
    vectors = Path(vectors)
    manifest = vectors.parent / MANIFEST
    if not manifest.exists() or not (vectors.parent / BLOCKS_FILE).exists():
        return None
    return VectorBlocks.load(vectors.parent) if written_by(manifest) == vectors.name else None


def written_by(manifest: str | Path) -> str | None:
    """Name of the file of vectors that a run wrote; None for a run that wrote none."""
    found = read_json(manifest)
    try:
        written = found["stage"] == "items embed" and found["results"]["file"]
    except (LookupError, TypeError):
        return None
    return written if isinstance(written, str) else None


def center_and_scale(
    vectors: Float[np.ndarray, "items width"],
    known: Bool[np.ndarray, " items"] | None = None,
) -> tuple[Float[np.ndarray, " width"], float]:
    """Mean of some vectors (of all by default), and the mean of their distances from it."""
    count = len(vectors) if known is None else int(known.sum())
    kept = _parts(vectors, known)
    center = np.sum([part.sum(axis=0, dtype=np.float64) for part in kept], axis=0) / count
    kept = _parts(vectors, known)
    away = sum(float(np.linalg.norm(part - center, axis=1).sum()) for part in kept)
    return center, away / count


def _parts(
    vectors: Float[np.ndarray, "items width"], known: Bool[np.ndarray, " items"] | None
) -> Iterator[Float[np.ndarray, "some width"]]:
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        yield vectors[part] if known is None else vectors[part][known[part]]


def standardised(
    vectors: Float[np.ndarray, "some width"], center: Float[np.ndarray, " width"], scale: float
) -> Float32[np.ndarray, "some width"]:
    """Vectors less their centre, divided by one number."""
    moved: np.ndarray = ((vectors - center) / scale).astype(np.float32)
    return moved
