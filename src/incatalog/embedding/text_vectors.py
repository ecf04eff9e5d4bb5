"""The vectors of texts, batched by length, in shards that an interrupted run goes on from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from rich.console import Console

from incatalog.data.catalog import Catalog
from incatalog.data.vectors import (
    LARGEST,
    load_vectors,
    save_vectors,
    unusable_rows,
    writing_vectors,
)
from incatalog.embedding.encoders import load_encoder
from incatalog.embedding.settings import EmbedSettings
from incatalog.errors import VectorError
from incatalog.items.texts import item_texts, text_wording_named
from incatalog.progress import with_progress

SHARDS = "shards"

_BATCHES_A_SHARD = 16


@dataclass(frozen=True)
class Written:
    """What is told of texts that were read."""

    hidden: int
    cut: int  # texts that were longer than what is read of them


def write_texts(
    settings: EmbedSettings,
    catalog: Catalog,
    rows: Int64[np.ndarray, " some"],
    path: Path,
    device: torch.device,
) -> Written:
    """Writes the vectors of the texts of some items, in the order of their rows.

    Texts are read in the order of their lengths, longest first, and written in shards.

    Raises:
        BackboneError: The model cannot be loaded.
        VectorError: A text has no token, or its vector is no number; names the item.
    """
    model, most, shards = settings.model, settings.max_tokens, settings.out / SHARDS
    texts = item_texts(catalog, text_wording_named(settings.wording))
    dtype = None if settings.dtype == "auto" else getattr(torch, settings.dtype)
    encoder = load_encoder(settings.encoder, model, device, max_tokens=most, dtype=dtype)
    console = Console(stderr=True, soft_wrap=True)
    lengths = encoder.lengths([texts[row] for row in rows])
    if not lengths.all():
        found = "its text has no token in this model's tokenizer"
        hint = "give it a title of words, or choose another model"
        item_id = catalog.item(int(rows[np.argmin(lengths)])).item_id
        raise VectorError(f"item {item_id!r}: {found}; {hint}")
    if cut := int((lengths > encoder.max_tokens).sum()):
        long = f"{cut} of {len(lengths)} texts are longer than {encoder.max_tokens} tokens"
        console.print(f"notice: {long} and are read up to there")
    order = np.argsort(-lengths, kind="stable")
    parts = _split(order, settings.batch_size * _BATCHES_A_SHARD)
    shown = with_progress(parts, len(rows), f"items embed {model}", console)
    for number, places in enumerate(shown):
        shard = _shard(shards, number)
        if not shard.exists():
            batches = [[texts[rows[at]] for at in b] for b in _split(places, settings.batch_size)]
            vectors = np.concatenate([encoder.encode(batch) for batch in batches])
            if len(wrong := unusable_rows(vectors)):
                found = f"NaN or infinity for its text, or numbers beyond {LARGEST:g}"
                hint = "try --dtype float32, or choose another model"
                item_id = catalog.item(int(rows[places[wrong[0]]])).item_id
                raise VectorError(f"item {item_id!r}: the model gives {found}; {hint}")
            save_vectors(shard, vectors)
    _join(path, shards, parts)
    return Written(load_vectors(path, len(rows)).shape[1], cut)


def _join(path: Path, shards: Path, parts: Sequence[Int64[np.ndarray, " rows"]]) -> None:
    """Puts the vectors of all shards where their rows are."""
    found = [load_vectors(_shard(shards, number), len(rows)) for number, rows in enumerate(parts)]
    with writing_vectors(path, sum(map(len, parts)), found[0].shape[1]) as joined:
        for rows, vectors in zip(parts, found, strict=True):
            joined[rows] = vectors


def _shard(shards: Path, number: int) -> Path:
    return shards / f"{number:06d}.npy"


def _split(rows: Int64[np.ndarray, " rows"], size: int) -> list[Int64[np.ndarray, " part"]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
