"""`incatalog items embed`: a vector of each item, from its text, from teachers, or from both."""

from __future__ import annotations

import dataclasses
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from incatalog.artifacts import open_run
from incatalog.data.catalog import CATEGORIES, METAS, Catalog
from incatalog.data.interactions import SEQUENCES, Histories, leave_one_out
from incatalog.data.parquet_documents import document
from incatalog.data.vector_blocks import TextBlock, VectorBlocks, center_and_scale
from incatalog.data.vectors import load_vectors, vectors_name, writing_vectors
from incatalog.devices import resolve_device
from incatalog.embedding.encoders import encoder_folder
from incatalog.embedding.liked import Liked
from incatalog.embedding.settings import EmbedSettings
from incatalog.embedding.text_vectors import SHARDS, write_texts
from incatalog.errors import VectorError
from incatalog.teacher.sasrec import WEIGHTS_FILE

_STAGE = "items embed"
_TEXTS = "texts.npy"
_ROWS_AT_ONCE = 1 << 14
# What `--like` decides.
_LIKENESS = ("source", "encoder", "model", "wording", "max_tokens", "teacher", "svd_dim", "seed")


def embed_items(settings: EmbedSettings) -> Path:
    """Writes `[num_items, width]` float32, row = row of the catalog.

    A run that was killed goes on after its last whole shard of texts and ends with the same
    vectors. Vectors of teachers are described by `blocks.json` and the catalog beside them, so
    that `--like` makes others of their kind.

    Returns:
        The npy file.

    Raises:
        ConfigError: A value cannot work, or flags do not go together.
        BackboneError: The model cannot be loaded.
        TeacherError: A teacher cannot be read, is of another catalog, or gives no vectors.
        VectorError: A text has no token, a vector is no number, or the encoder is another one.
        ArtifactError: The run folder holds something else.
    """
    _check(settings)
    device = resolve_device(settings.device)
    liked = Liked.load(settings.like) if settings.like else None
    made = settings if liked is None else liked.settings(settings)
    catalog = Catalog.load(settings.data)
    path = settings.out / _name(made, catalog)
    run = open_run(settings.out, _STAGE, settings, inputs=_inputs(settings, made, liked))
    if not run.finished:
        started = time.monotonic()
        if liked is not None:
            results = _alike(made, catalog, liked, path, device)
        elif made.source == "text":
            rows = np.arange(len(catalog))
            results = dataclasses.asdict(write_texts(made, catalog, rows, path, device))
        else:
            results = _joined(made, catalog, path, device)
        seconds = round(time.monotonic() - started, 1)
        run.finish(file=path.name, items=len(catalog), seconds=seconds, **results)
    shutil.rmtree(settings.out / SHARDS, ignore_errors=True)
    for leftover in settings.out.glob(f".{path.name}.*.partial"):
        leftover.unlink(missing_ok=True)
    Console().print(f"written to {path}", highlight=False, soft_wrap=True)
    return path


def _joined(
    made: EmbedSettings, catalog: Catalog, path: Path, device: torch.device
) -> dict[str, Any]:
    """Writes the blocks of text and teachers side by side; what is told of them."""
    # scikit-learn takes a second to load.
    from incatalog.embedding.teacher_vectors import taught_vectors

    # Before the texts are read, which takes longer.
    split = leave_one_out(Histories.load(made.data, catalog))
    taught = taught_vectors(made.teacher, catalog, split, svd_dim=made.svd_dim, seed=made.seed)
    text, cut, own = None, 0, None
    if made.source == "both":
        texts = made.out / SHARDS / _TEXTS
        cut = write_texts(made, catalog, np.arange(len(catalog)), texts, device).cut
        own = load_vectors(texts, len(catalog))
        center, scale = center_and_scale(own)
        if not scale > 0:
            raise VectorError(f"--model {made.model}: gives all texts the same vector")
        read = made.named("encoder", "model", "wording", "max_tokens")
        text = TextBlock(center=tuple(center.tolist()), scale=scale, **read)
    blocks = VectorBlocks(text, tuple(one.block for one in taught))
    with writing_vectors(path, len(catalog), blocks.width) as joined:
        for start in range(0, len(catalog), _ROWS_AT_ONCE):
            part, at = slice(start, start + _ROWS_AT_ONCE), 0
            if text is not None and own is not None:
                joined[part, : text.width], at = text.part(own[part]), text.width
            for one in taught:
                joined[part, at : at + one.block.width] = one.vectors[part]
                at += one.block.width
    load_vectors(path, len(catalog))
    catalog.save(made.out)
    blocks.save(made.out)
    teachers = [dataclasses.asdict(block) for block in blocks.teachers]
    return {"hidden": blocks.width, "cut": cut, "teachers": teachers}


def _alike(
    made: EmbedSettings, catalog: Catalog, liked: Liked, path: Path, device: torch.device
) -> dict[str, Any]:
    """Writes vectors of a known kind; what is told of them."""
    blocks, places, cut = liked.blocks, liked.rows(catalog), 0
    new = np.flatnonzero(places < 0)
    part = np.zeros((len(new), 0), dtype=np.float32)
    if len(new) and blocks.text is not None:
        texts = made.out / SHARDS / _TEXTS
        written = write_texts(made, catalog, new, texts, device)
        if written.hidden != blocks.text.width:
            expected = f"expected the {blocks.text.width} of {liked.folder}; use the model of then"
            raise VectorError(f"--model {made.model}: {written.hidden} numbers a text; {expected}")
        part, cut = blocks.text.part(load_vectors(texts, len(new))), written.cut
    with writing_vectors(path, len(catalog), blocks.width) as joined:
        # Zeros stay where a teacher would have to know the item.
        joined[new, : part.shape[1]] = part
        for start in range(0, len(catalog), _ROWS_AT_ONCE):
            rows = places[start : start + _ROWS_AT_ONCE]
            known = np.flatnonzero(rows >= 0)
            joined[start + known] = liked.vectors[rows[known]]
    load_vectors(path, len(catalog))
    catalog.save(made.out)
    blocks.save(made.out)
    return {"hidden": blocks.width, "cut": cut, "new": len(new)}


def _name(made: EmbedSettings, catalog: Catalog) -> str:
    dataset = made.dataset or catalog.name
    if made.source == "teacher":
        return f"{dataset}.emb-teacher.npy"
    wording = made.wording if made.source == "text" else f"{made.wording}-teacher"
    return vectors_name(dataset, made.model, wording)


def _inputs(
    settings: EmbedSettings, made: EmbedSettings, liked: Liked | None
) -> dict[str, Path | None]:
    """Inputs whose contents decide whether a run may be resumed."""
    names = [METAS]
    names += [CATEGORIES] if made.source != "teacher" and "c" in made.wording else []
    names += [SEQUENCES] if settings.teacher else []
    files = (document(settings.data, name) for name in names)
    found = {path.name: path for path in files if path.is_file()}
    read = {f"teacher {run}": Path(run) / WEIGHTS_FILE for run in settings.teacher}
    if liked is not None:
        read |= {"like": liked.file, f"like {METAS}": liked.folder / METAS}
    model = None if made.source == "teacher" else encoder_folder(made.encoder, made.model)
    return {**found, **read, "model": model}


def _check(settings: EmbedSettings) -> None:
    """Checks what can be checked without loading anything."""
    plain = {field.name: field.default for field in dataclasses.fields(settings)}
    given = [name for name in _LIKENESS if getattr(settings, name) != plain[name]]
    text = settings.source == "text"
    twice = len(set(settings.teacher)) < len(settings.teacher)
    lacking = [run for run in settings.teacher if not (Path(run) / WEIGHTS_FILE).is_file()]
    settings.refuse_first([
        (Path(settings.dataset).name != settings.dataset,
         "dataset", "expected a name, which begins file names"),
        (bool(settings.like and given),
         given[0] if given else "", "--like decides that itself; leave it out"),
        (not text and not settings.teacher,
         "source", "names no teacher; add --teacher RUN"),
        (text and bool(settings.teacher),
         f"--teacher {' '.join(settings.teacher)}", "a text knows no teacher; add --source both"),
        (twice, f"--teacher {' '.join(settings.teacher)}", "names one twice"),
        (bool(lacking), f"--teacher {' '.join(lacking[:1])}",
         "no teacher there; fit one with `incatalog teacher fit`"),
    ])  # fmt: skip
