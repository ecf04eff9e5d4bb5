"""How good semantic IDs are: collisions, code use, reconstruction, neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int32, Int64

from reclm.artifacts import atomic_path
from reclm.errors import require

_QUERIES = 1000
_ROWS_AT_ONCE = 1 << 14


def neighbour_prefixes(
    vectors: Float32[np.ndarray, "items width"],
    codes: Int32[np.ndarray, "items levels"],
    count: int,
    seed: int,
) -> dict[str, Any]:
    """How often an item and its nearest neighbours (by cosine) share their first codes.

    Args:
        vectors: Item vectors.
        codes: Codes of each item.
        count: Neighbours of an item, fewer in a smaller catalog.
        seed: Seed of the sample: at most 1,000 items, and as many pairs at random.

    Returns:
        `neighbours` and `random`, the share of pairs that agree on the first 1, 2, … codes.
    """
    rng = np.random.default_rng(seed)
    queries = np.sort(rng.choice(len(codes), min(_QUERIES, len(codes)), replace=False))
    near = _nearest(vectors, queries, min(count, len(codes) - 1))
    others = rng.integers(len(codes) - 1, size=near.shape) if len(codes) > 1 else near
    others = others + (others >= queries[:, None])
    return {
        "queries": len(queries),
        "count": near.shape[1],
        "neighbours": _agreement(codes, queries, near),
        "random": _agreement(codes, queries, others),
    }


def _agreement(codes: np.ndarray, queries: np.ndarray, others: np.ndarray) -> list[float]:
    if not others.size:
        return []
    same = codes[queries][:, None] == codes[others]
    shares = np.logical_and.accumulate(same, axis=2).mean(axis=(0, 1))
    return [round(float(share), 6) for share in shares]


def _nearest(
    vectors: Float32[np.ndarray, "items width"], queries: Int64[np.ndarray, " queries"], count: int
) -> Int64[np.ndarray, "queries count"]:
    """Rows of the nearest other items, in bounded memory."""
    asked = torch.nn.functional.normalize(torch.from_numpy(np.array(vectors[queries])))
    own = torch.from_numpy(queries)
    best = torch.empty(len(queries), 0)
    rows = torch.empty(len(queries), 0, dtype=torch.int64)
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        block = torch.from_numpy(np.array(vectors[start : start + _ROWS_AT_ONCE]))
        cosines = asked @ torch.nn.functional.normalize(block).T
        inside = (own >= start) & (own < start + len(block))
        cosines[inside.nonzero()[:, 0], own[inside] - start] = float("-inf")
        found = torch.arange(start, start + len(block)).expand(len(queries), -1)
        best, rows = torch.cat([best, cosines], 1), torch.cat([rows, found], 1)
        best, order = best.topk(min(count, best.shape[1]), dim=1)
        rows = rows.gather(1, order)
    nearest: np.ndarray = rows.numpy()
    return nearest


def draw_quality(path: Path, report: Mapping[str, Any]) -> None:
    """Draws a quality report as a PNG file.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figures = require("matplotlib.figure", extra="items")
    figure = figures.Figure(figsize=(12, 3.4), layout="constrained")
    collisions, use, near = figure.subplots(1, 3)
    rates = [100 * report[when]["collision_rate"] for when in ("before", "after")]
    bars = collisions.bar(["before", "after"], rates, color=["C3", "C2"], width=0.5)
    collisions.bar_label(bars, [f"{rate:.2f} %" for rate in rates])
    collisions.set(title="items that share their codes", ylim=(0, max(*rates, 1) * 1.2))
    sizes: Sequence[int] = report["sizes"]
    levels = np.arange(1, len(sizes) + 1)
    for shift, name in ((-0.2, "used"), (0.2, "perplexity")):
        shares = [100 * one / size for one, size in zip(report["after"][name], sizes, strict=True)]
        use.bar(levels + shift, shares, width=0.4, label=name)
    use.set(title="codes, % of their number", xlabel="level", ylim=(0, 100), xticks=levels)
    use.legend()
    shared = report.get("prefixes")
    # A single item has no neighbours.
    if shared and shared["neighbours"]:
        for shift, name in ((-0.2, "neighbours"), (0.2, "random")):
            near.bar(levels + shift, [100 * s for s in shared[name]], width=0.4, label=name)
        near.legend()
        near.set(xticks=levels)
    near.set(title="pairs that share their first codes, %", xlabel="codes shared")
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=120)
