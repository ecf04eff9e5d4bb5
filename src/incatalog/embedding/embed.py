"""`incatalog items embed`: a vector of the text of each item, batched by length and resumable."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from rich.console import Console

from incatalog.artifacts import atomic_path, open_run
from incatalog.data.catalog import CATEGORIES, METAS, Catalog
from incatalog.data.vectors import LARGEST, load_vectors, save_vectors, unusable_rows, vectors_name
from incatalog.devices import resolve_device
from incatalog.embedding.encoders import encoder_folder, load_encoder
from incatalog.embedding.settings import EmbedSettings
from incatalog.errors import ConfigError, VectorError
from incatalog.items.texts import item_texts, text_wording_named
from incatalog.progress import with_progress

_STAGE = "items embed"
_SHARDS = "shards"
_BATCHES_A_SHARD = 16


def embed_items(settings: EmbedSettings) -> Path:
    """Writes `[num_items, hidden]` float32, row = row of the catalog.

    Items are read in the order of their lengths, longest first, and written in shards. A run that
    was killed goes on after its last whole shard and ends with the same vectors.

    Returns:
        The npy file.

    Raises:
        ConfigError: A value cannot work.
        BackboneError: The model cannot be loaded.
        VectorError: A text has no token, or its vector is no number; names the item.
        ArtifactError: The run folder holds something else.
    """
    if Path(settings.dataset).name != settings.dataset:
        raise ConfigError(f"--dataset {settings.dataset}: expected a name, which begins file names")
    device = resolve_device(settings.device)
    catalog = Catalog.load(settings.data)
    texts = item_texts(catalog, text_wording_named(settings.wording))
    dataset = settings.dataset or catalog.name
    path = settings.out / vectors_name(dataset, settings.model, settings.wording)
    run = open_run(settings.out, _STAGE, settings, inputs=_inputs(settings))
    shards = settings.out / _SHARDS
    if not run.finished:
        model, most = settings.model, settings.max_tokens
        dtype = None if settings.dtype == "auto" else getattr(torch, settings.dtype)
        encoder = load_encoder(settings.source, model, device, max_tokens=most, dtype=dtype)
        console = Console(stderr=True, soft_wrap=True)
        lengths = encoder.lengths(texts)
        if not lengths.all():
            found = "its text has no token in this model's tokenizer"
            hint = "give it a title of words, or choose another model"
            item_id = catalog.item(int(np.argmin(lengths))).item_id
            raise VectorError(f"item {item_id!r}: {found}; {hint}")
        if cut := int((lengths > encoder.max_tokens).sum()):
            long = f"{cut} of {len(lengths)} texts are longer than {encoder.max_tokens} tokens"
            console.print(f"notice: {long} and are read up to there")
        started = time.monotonic()
        order = np.argsort(-lengths, kind="stable")
        parts = _split(order, settings.batch_size * _BATCHES_A_SHARD)
        shown = with_progress(parts, len(texts), f"{_STAGE} {model}", console)
        for number, rows in enumerate(shown):
            shard = _shard(shards, number)
            if not shard.exists():
                batches = [[texts[row] for row in b] for b in _split(rows, settings.batch_size)]
                vectors = np.concatenate([encoder.encode(batch) for batch in batches])
                if len(wrong := unusable_rows(vectors)):
                    found = f"NaN or infinity for its text, or numbers beyond {LARGEST:g}"
                    hint = "try --dtype float32, or choose another model"
                    item_id = catalog.item(int(rows[wrong[0]])).item_id
                    raise VectorError(f"item {item_id!r}: the model gives {found}; {hint}")
                save_vectors(shard, vectors)
        _join(path, shards, parts)
        hidden = load_vectors(path, len(texts)).shape[1]
        seconds = round(time.monotonic() - started, 1)
        run.finish(file=path.name, items=len(texts), hidden=hidden, cut=cut, seconds=seconds)
    shutil.rmtree(shards, ignore_errors=True)
    for leftover in settings.out.glob(f".{path.name}.*.partial"):
        leftover.unlink(missing_ok=True)
    Console().print(f"written to {path}", highlight=False, soft_wrap=True)
    return path


def _inputs(settings: EmbedSettings) -> dict[str, Path | None]:
    """Inputs whose contents decide whether a run may be resumed."""
    files = {METAS: settings.data / METAS}
    if "c" in settings.wording:
        files[CATEGORIES] = settings.data / CATEGORIES
    found = {name: path for name, path in files.items() if path.is_file()}
    return {**found, "model": encoder_folder(settings.source, settings.model)}


def _join(path: Path, shards: Path, parts: Sequence[Int64[np.ndarray, " rows"]]) -> None:
    """Puts the vectors of all shards where their rows are."""
    found = [load_vectors(_shard(shards, number), len(rows)) for number, rows in enumerate(parts)]
    shape = (sum(map(len, parts)), found[0].shape[1])
    with atomic_path(path) as partial:
        joined = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape)
        # A memory map gives no error on a full disk: the process would be killed.
        with partial.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, partial.stat().st_size)
        for rows, vectors in zip(parts, found, strict=True):
            joined[rows] = vectors
        joined.flush()


def _shard(shards: Path, number: int) -> Path:
    return shards / f"{number:06d}.npy"


def _split(rows: Int64[np.ndarray, " rows"], size: int) -> list[Int64[np.ndarray, " part"]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
