"""`incatalog items assign`: a semantic ID of its own for every item."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int32, Int64
from rich.console import Console
from rich.table import Table
from torch import Tensor

from incatalog.artifacts import open_run, write_json
from incatalog.codes.collisions import LastDistances, Resolved, count_sharers, resolve_collisions
from incatalog.codes.plots import draw_quality
from incatalog.codes.quality import code_use, neighbour_prefixes
from incatalog.codes.quantizer import QUANTIZER_FILE, Quantizer, load_quantizer
from incatalog.codes.semantic_ids import INDEX, ITEM2ID, SemanticIds
from incatalog.codes.settings import AssignSettings
from incatalog.data.catalog import METAS, Catalog
from incatalog.data.vectors import load_vectors
from incatalog.devices import resolve_device
from incatalog.errors import ConfigError

REPORT_FILE = "quality.json"
PICTURE_FILE = "quality.png"
_STAGE = "items assign"


@dataclass(frozen=True, eq=False)
class _Source:
    """Codes before anything is done about collisions.

    Attributes:
        ids: The codes.
        quantizer: What gave the codes, or fits codes made elsewhere; None without vectors.
        vectors: Item vectors, where known.
    """

    ids: SemanticIds
    quantizer: Quantizer | None
    vectors: Float32[np.ndarray, "items width"] | None


def assign_items(settings: AssignSettings) -> Path:
    """Writes `{dataset}.index.json`, `{dataset}.item2id` and a report on their quality.

    Codes come from a trained quantizer, or from an index file made elsewhere. Items that share all
    their codes get different last ones, or one code more with `extra_level`.

    Returns:
        The run folder.

    Raises:
        ConfigError: Flags that do not go together.
        VectorError: Vectors that do not fit the catalog or the quantizer.
        SemanticIdError: Files that do not fit the catalog; collisions that nobody asked to repair,
            or that cannot be.
        ArtifactError: No quantizer, or a run folder that holds something else.
    """
    _check(settings)
    catalog = Catalog.load(settings.data)
    dataset = settings.dataset or catalog.name
    source = _from_index(settings, catalog) if settings.index else _from_model(settings, catalog)
    ids = source.ids
    if settings.index and not (settings.repair or settings.extra_level):
        ids.require_unique(str(settings.index), f"repair them: {_repair_command(settings)}")
    resolved, final = _resolve(settings, source)
    run = open_run(settings.out, _STAGE, settings, inputs=_inputs(settings))
    if run.finished:
        return run.folder
    report = _report(settings, source, resolved, final)
    write_json(settings.out / REPORT_FILE, report)
    draw_quality(settings.out / PICTURE_FILE, report)
    final.save(settings.out, dataset, catalog)
    run.finish(
        items=len(final),
        collision_rate_before=report["before"]["collision_rate"],
        collision_rate_after=report["after"]["collision_rate"],
    )
    _print_report(report, settings.out / f"{dataset}{INDEX}")
    return run.folder


def _from_model(settings: AssignSettings, catalog: Catalog) -> _Source:
    quantizer = load_quantizer(settings.model, settings.best, resolve_device(settings.device))
    assert settings.vectors is not None
    vectors = load_vectors(settings.vectors, len(catalog))
    ids = SemanticIds(quantizer.codes(vectors), quantizer.sizes)
    return _Source(ids, quantizer, vectors)


def _from_index(settings: AssignSettings, catalog: Catalog) -> _Source:
    assert settings.index is not None
    ids = SemanticIds.read(settings.index, _item_file(settings), catalog)
    if settings.vectors is None:
        return _Source(ids, None, None)
    vectors = load_vectors(settings.vectors, len(catalog))
    codebooks = fit_codebooks(vectors, ids.codes, ids.sizes)
    return _Source(ids, Quantizer.of_codebooks(codebooks), vectors)


def fit_codebooks(
    vectors: Float32[np.ndarray, "items width"],
    codes: Int32[np.ndarray, "items levels"],
    sizes: tuple[int, ...],
) -> list[Tensor]:
    """Codebooks that fit codes made elsewhere: the mean residual of the items with a code.

    A code that no item has stands at 0, the mean of all residuals.
    """
    residuals = np.array(vectors, dtype=np.float32)
    codebooks = []
    for level, size in enumerate(sizes):
        centres = np.zeros((size, residuals.shape[1]), dtype=np.float32)
        np.add.at(centres, codes[:, level], residuals)
        centres /= np.maximum(np.bincount(codes[:, level], minlength=size), 1)[:, None]
        residuals -= centres[codes[:, level]]
        codebooks.append(torch.from_numpy(centres))
    return codebooks


def _item_file(settings: AssignSettings) -> Path | None:
    """The item file of an index; None says that entries are rows of the catalog."""
    assert settings.index is not None
    if settings.item2id is not None:
        return settings.item2id
    beside = settings.index.parent / (settings.index.name.removesuffix(INDEX) + ITEM2ID)
    if beside.is_file():
        return beside
    Console(stderr=True, soft_wrap=True, highlight=False).print(
        f"notice: no {beside.name} beside {settings.index.name}: entry N is taken for the item at "
        f"row N of {METAS}"
    )
    return None


def _resolve(settings: AssignSettings, source: _Source) -> tuple[Resolved | None, SemanticIds]:
    """Codes that tell all items apart."""
    ids = source.ids
    if settings.extra_level:
        extra = count_sharers(ids.codes)
        codes = np.concatenate([ids.codes, extra[:, None]], axis=1)
        return None, SemanticIds(codes, (*ids.sizes, int(extra.max()) + 1))
    resolved = resolve_collisions(
        ids.codes, ids.sizes[-1], _last_distances(source), epsilon=settings.sinkhorn_eps
    )
    return resolved, SemanticIds(resolved.codes, ids.sizes)


def _last_distances(source: _Source) -> LastDistances:
    quantizer, vectors = source.quantizer, source.vectors
    codes, size = source.ids.codes, source.ids.sizes[-1]
    if quantizer is None or vectors is None:
        # Nothing is known about the codes: the lowest that is free does as well as any.
        return lambda rows: torch.arange(size, dtype=torch.float32).repeat(len(rows), 1)

    def distances(rows: Int64[np.ndarray, " rows"]) -> Tensor:
        return quantizer.last_distances(vectors[rows], codes[rows])

    return distances


def _report(
    settings: AssignSettings, source: _Source, resolved: Resolved | None, final: SemanticIds
) -> dict[str, Any]:
    before = code_use(source.ids.codes, source.ids.sizes)
    after = code_use(final.codes, final.sizes)
    report: dict[str, Any] = {
        "items": len(final),
        "sizes": list(final.sizes),
        "moved": 0 if resolved is None else len(resolved.moved),
        "moved_by_sinkhorn": 0 if resolved is None else resolved.by_sinkhorn,
        "moved_to_nearest": 0 if resolved is None else resolved.by_nearest,
        "extra_level": settings.extra_level,
    }
    quantizer, vectors = source.quantizer, source.vectors
    if quantizer is not None and vectors is not None:
        levels = source.ids.levels
        before["unexplained"] = quantizer.unexplained(vectors, source.ids.codes)
        after["unexplained"] = quantizer.unexplained(vectors, final.codes[:, :levels])
        report["prefixes"] = neighbour_prefixes(
            vectors, final.codes, settings.neighbours, settings.seed
        )
    return report | {"before": before, "after": after}


def _inputs(settings: AssignSettings) -> dict[str, str | Path]:
    """What the codes depend on."""
    inputs: dict[str, str | Path] = {METAS: settings.data / METAS}
    if settings.vectors is not None:
        inputs["vectors"] = settings.vectors
    if settings.index is not None:
        inputs["index"] = settings.index
    else:
        inputs["model"] = Path(settings.model) / QUANTIZER_FILE
    return inputs


def _repair_command(settings: AssignSettings) -> str:
    vectors = f" --vectors {settings.vectors}" if settings.vectors else ""
    return (
        f"incatalog items assign --index {settings.index} --data {settings.data}{vectors} "
        f"--out {settings.out} --repair"
    )


def _print_report(report: dict[str, Any], written: Path) -> None:
    table = Table("", "before", "after")
    for name, form in (("collision_rate", "{:.2%}"), ("unexplained", "{:.3f}")):
        if name in report["before"]:
            values = [form.format(report[when][name]) for when in ("before", "after")]
            table.add_row(name.replace("_", " "), *values)
    for name in ("used", "perplexity"):
        values = [
            " ".join(f"{one:.0f}" for one in report[when][name]) for when in ("before", "after")
        ]
        table.add_row(f"{name}, by level", *values)
    console = Console()
    console.print(table)
    console.print(
        f"{report['items']} items, {report['moved']} moved; written to {written}",
        highlight=False,
        soft_wrap=True,
    )


def _check(settings: AssignSettings) -> None:
    if bool(settings.model) == bool(settings.index):
        raise ConfigError(
            "--model: expected either --model, a run of `incatalog items quantize`, or --index, a "
            "file of codes made elsewhere"
        )
    if settings.model and settings.vectors is None:
        raise ConfigError("--vectors: required with --model; the npy file of the catalog's items")
    if settings.item2id is not None and settings.index is None:
        raise ConfigError("--item2id: goes with --index only")
    if settings.repair and settings.index is None:
        raise ConfigError(
            "--repair: goes with --index only; codes of a --model are always repaired"
        )
    if settings.repair and settings.extra_level:
        raise ConfigError("--extra-level: tells items apart itself; leave out --repair")
