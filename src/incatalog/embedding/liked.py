"""Vectors that others are to be like: those of a trained model, or of a run that joined them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from incatalog.artifacts import MANIFEST
from incatalog.checksums import verify_checksums
from incatalog.data.catalog import METAS, Catalog
from incatalog.data.vector_blocks import VectorBlocks, blocks_of, written_by
from incatalog.data.vectors import load_vectors
from incatalog.embedding.settings import EmbedSettings
from incatalog.errors import ConfigError, VectorError
from incatalog.model.head import HEAD_FILE, RetrievalHead, vectors_origin

_MADE_BY = ("encoder", "model", "wording", "max_tokens")


@dataclass(frozen=True, eq=False)
class Liked:
    """The vectors of a catalog, and how they were joined."""

    file: Path  # what holds them
    blocks: VectorBlocks
    catalog: Catalog
    vectors: Float32[np.ndarray, "items width"]

    @property
    def folder(self) -> Path:
        """The folder of the model or of the run."""
        return self.file.parent

    @classmethod
    def load(cls, folder: str | Path) -> Liked:
        """Reads the folder of a model, or of a run of ``incatalog items embed``.

        Raises:
            ConfigError: The folder is neither, or its vectors come from texts alone.
            DataError: Its catalog cannot be read.
            BackboneError: The vectors of a model cannot be read; VectorError: those of a run.
            ArtifactError: A file was changed after it was written.
        """
        folder = Path(folder)
        manifest = folder / MANIFEST
        if (path := folder / HEAD_FILE).exists():
            verify_checksums(folder, (HEAD_FILE, METAS))
            head = RetrievalHead.load(folder)
            blocks, vectors, hint = head.blocks, head.given_vectors(), head.how_to_embed()
        elif manifest.exists() and (name := written_by(manifest)):
            path = folder / name
            blocks, vectors = blocks_of(path), load_vectors(path)
            hint = f"make others with `{vectors_origin(path)} --data DATA --out OUT`"
        else:
            expected = "a finished run of `incatalog items embed`, or a model of `--method ret`"
            raise ConfigError(f"--like {folder}: expected {expected}")
        if blocks is None:
            raise ConfigError(f"--like {folder}: its vectors hold nothing of teachers; {hint}")
        verify_checksums(folder, (METAS,))
        catalog = Catalog.load(folder)
        if vectors.shape != (shape := (len(catalog), blocks.width)):
            found = f"{folder}: holds vectors of shape {vectors.shape}; expected {shape}"
            raise VectorError(f"{found}, by its catalog and its blocks; restore it")
        return cls(path, blocks, catalog, vectors)

    def settings(self, given: EmbedSettings) -> EmbedSettings:
        """Settings that make vectors of this kind."""
        text = self.blocks.text
        if text is None:
            return replace(given, source="teacher")
        made: dict[str, Any] = {name: getattr(text, name) for name in _MADE_BY}
        return replace(given, source="both", **made)

    def rows(self, catalog: Catalog) -> Int64[np.ndarray, " items"]:
        """The row here of each item of another catalog; -1 for one that is unknown.

        An item is known by its id and its title: two shops may give one id to different things.
        """
        known = {(item.item_id, item.title): row for row, item in enumerate(self.catalog.items)}
        found = [known.get((item.item_id, item.title), -1) for item in catalog.items]
        return np.array(found, dtype=np.int64)
