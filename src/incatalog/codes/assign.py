"""`incatalog items assign`: a semantic ID of its own for every item."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from incatalog.artifacts import open_run, write_json
from incatalog.codes.codebooks import Distances, Rows, Vectors, fit_codebooks
from incatalog.codes.collisions import Resolved, count_sharers, resolve_collisions
from incatalog.codes.plots import draw_quality
from incatalog.codes.quality import code_use, neighbour_prefixes
from incatalog.codes.quantizer import QUANTIZER_FILE, Quantizer, load_quantizer
from incatalog.codes.semantic_ids import INDEX, ITEM2ID, SemanticIds
from incatalog.codes.settings import AssignSettings
from incatalog.data.catalog import METAS, Catalog
from incatalog.data.parquet_documents import document
from incatalog.data.vectors import load_vectors
from incatalog.devices import resolve_device
from incatalog.errors import ConfigError

REPORT_FILE = "quality.json"
PICTURE_FILE = "quality.png"
_TIMES = ("before", "after")


@dataclass(frozen=True, eq=False)
class _Source:
    """Codes before anything is done about collisions, and what they stand for, where known."""

    ids: SemanticIds
    quantizer: Quantizer | None = None
    vectors: Vectors | None = None

    def last_distances(self, rows: Rows) -> Distances:
        """Squared distances of items to all codes of the last level."""
        if self.quantizer is None or self.vectors is None:
            # Nothing is known about the codes: the lowest free one is as good as any.
            return torch.arange(self.ids.sizes[-1], dtype=torch.float32).repeat(len(rows), 1)
        return self.quantizer.last_distances(self.vectors[rows], self.ids.codes[rows])


def assign_items(settings: AssignSettings) -> Path:
    """Writes `{dataset}.index.json`, `{dataset}.item2id` and a report on their quality.

    Codes come from a trained quantizer, or from an index file made elsewhere. Items that share all
    their codes get different last ones, or one code more with `extra_level`.

    Returns:
        The run folder.

    Raises:
        ConfigError: Flags that do not go together.
        VectorError: Vectors that do not fit the catalog or the quantizer.
        SemanticIdError: Files that do not fit the catalog; collisions without `repair`, or ones
            that cannot be repaired.
        ArtifactError: No quantizer, or a run folder that holds something else.
    """
    _check(settings)
    catalog = Catalog.load(settings.data)
    dataset = settings.dataset or catalog.name
    source = _source(settings, catalog)
    if settings.index and not (settings.repair or settings.extra_level):
        vectors = f" --vectors {settings.vectors}" if settings.vectors else ""
        flags = f"--index {settings.index} --data {settings.data}{vectors} --out {settings.out}"
        repair = f"repair them: incatalog items assign {flags} --repair"
        source.ids.require_unique(str(settings.index), repair)
    resolved, final = _resolve(settings, source)
    metas = document(settings.data, METAS)
    inputs = {metas.name: metas, "vectors": settings.vectors, "index": settings.index}
    inputs["model"] = Path(settings.model) / QUANTIZER_FILE if settings.model else None
    known = {name: path for name, path in inputs.items() if path is not None}
    run = open_run(settings.out, "items assign", settings, inputs=known)
    if run.finished:
        return run.folder
    report = _report(settings, source, resolved, final)
    write_json(settings.out / REPORT_FILE, report)
    draw_quality(settings.out / PICTURE_FILE, report)
    final.save(settings.out, dataset, catalog)
    rates = {f"collision_rate_{when}": report[when]["collision_rate"] for when in _TIMES}
    run.finish(items=len(final), **rates)
    _print_report(report, settings.out / f"{dataset}{INDEX}")
    return run.folder


def _source(settings: AssignSettings, catalog: Catalog) -> _Source:
    if settings.index is None:
        quantizer = load_quantizer(settings.model, settings.best, resolve_device(settings.device))
        assert settings.vectors is not None
        vectors = load_vectors(settings.vectors, len(catalog))
        ids = SemanticIds(quantizer.codes(vectors), quantizer.sizes)
    else:
        item2id = settings.item2id or _item_file(settings.index)
        ids = SemanticIds.read(settings.index, item2id, catalog)
        if settings.vectors is None:
            return _Source(ids)
        vectors = load_vectors(settings.vectors, len(catalog))
        quantizer = Quantizer.of_codebooks(fit_codebooks(vectors, ids.codes, ids.sizes))
    return _Source(ids, quantizer, vectors)


def _item_file(index: Path) -> Path | None:
    """The item file beside an index; None says that entries are rows of the catalog."""
    beside = index.with_name(index.name.removesuffix(INDEX) + ITEM2ID)
    if beside.is_file():
        return beside
    Console(stderr=True, soft_wrap=True, highlight=False).print(
        f"notice: no {beside.name} beside {index.name}: entry N is taken for the item at row N of "
        f"{METAS}"
    )
    return None


def _resolve(settings: AssignSettings, source: _Source) -> tuple[Resolved, SemanticIds]:
    """Codes that tell all items apart."""
    codes, sizes = source.ids.codes, source.ids.sizes
    if settings.extra_level:
        extra = count_sharers(codes)
        codes = np.concatenate([codes, extra[:, None]], axis=1)
        resolved = Resolved(codes, np.empty(0, dtype=np.int64), 0, 0)
        sizes = (*sizes, int(extra.max()) + 1)
    else:
        epsilon = settings.sinkhorn_eps
        resolved = resolve_collisions(codes, sizes[-1], source.last_distances, epsilon=epsilon)
    return resolved, SemanticIds(resolved.codes, sizes)


def _report(
    settings: AssignSettings, source: _Source, resolved: Resolved, final: SemanticIds
) -> dict[str, Any]:
    before = code_use(source.ids.codes, source.ids.sizes)
    after = code_use(final.codes, final.sizes)
    report: dict[str, Any] = {"items": len(final), "sizes": list(final.sizes)}
    report |= {"moved": len(resolved.moved), "moved_by_sinkhorn": resolved.by_sinkhorn}
    report |= {"moved_to_nearest": resolved.by_nearest, "extra_level": settings.extra_level}
    quantizer, vectors, count = source.quantizer, source.vectors, settings.neighbours
    if quantizer is not None and vectors is not None:
        kept = final.codes[:, : source.ids.levels]
        before["unexplained"] = quantizer.unexplained(vectors, source.ids.codes)
        after["unexplained"] = quantizer.unexplained(vectors, kept)
        report["prefixes"] = neighbour_prefixes(vectors, final.codes, count, settings.seed)
    return report | {"before": before, "after": after}


def _print_report(report: dict[str, Any], written: Path) -> None:
    columns, table = [report[when] for when in _TIMES], Table("", *_TIMES)
    for name, form in (("collision_rate", "{:.2%}"), ("unexplained", "{:.3f}")):
        if name in columns[0]:
            table.add_row(name.replace("_", " "), *(form.format(one[name]) for one in columns))
    for name in ("used", "perplexity"):
        numbers = [" ".join(f"{number:.0f}" for number in one[name]) for one in columns]
        table.add_row(f"{name}, by level", *numbers)
    console = Console(soft_wrap=True, highlight=False)
    console.print(table, soft_wrap=False)
    console.print(f"{report['items']} items, {report['moved']} moved; written to {written}")


def _check(settings: AssignSettings) -> None:
    if bool(settings.model) == bool(settings.index):
        raise ConfigError(
            "--model: expected either --model, a run of `incatalog items quantize`, or --index, a "
            "file of codes made elsewhere"
        )
    if settings.model and settings.vectors is None:
        raise ConfigError("--vectors: required with --model; the npy file of the catalog's items")
    if settings.model and settings.item2id is not None:
        raise ConfigError("--item2id: goes with --index only")
    if settings.model and settings.repair:
        always = "codes of a --model are always repaired"
        raise ConfigError(f"--repair: goes with --index only; {always}")
    if settings.repair and settings.extra_level:
        raise ConfigError("--extra-level: tells items apart itself; leave out --repair")
