"""Semantic IDs that several items share, and how they get one each."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int32, Int64

from incatalog.codes.codebooks import Distances, Rows
from incatalog.codes.semantic_ids import Codes, code_token
from incatalog.codes.sinkhorn import sinkhorn
from incatalog.errors import SemanticIdError

# The largest entry of a row is settled long before the sums are exact.
_ITERATIONS = 1000


@dataclass(frozen=True, eq=False)
class Resolved:
    """Codes that no two items share: all but the last of an item are as they were."""

    codes: Codes
    moved: Rows  # rows with another last code, ascending
    by_sinkhorn: int  # how many of them the balanced assignment placed
    by_nearest: int  # how many went to the nearest code that was left


def resolve_collisions(
    codes: Codes, size: int, distances: Callable[[Rows], Distances], *, epsilon: float
) -> Resolved:
    """Gives items that share all their codes different last codes.

    Of the items with one ID the first keeps it. The others, of all IDs under one prefix together,
    compete for the last codes that no item has: first by a balanced assignment (Sinkhorn, as in
    LC-Rec, arXiv 2311.09049, but with a slack row for codes that no item needs, so that items go no
    farther than they must), then, where two items want one code, to the nearest that is left.
    `size` is the number of last codes.
    """
    resolved = codes.copy()
    moved: list[int] = []
    by_sinkhorn = 0
    order, starts = _runs(codes[:, :-1])
    # Prefixes under which items share a last code.
    touched = np.logical_or.reduceat(count_sharers(codes)[order] > 0, starts[:-1])
    for number in np.flatnonzero(touched):
        group = order[starts[number] : starts[number + 1]]
        last = codes[group, -1]
        if len(group) > size:
            prefix = "".join(map(code_token, itertools.count(), codes[group[0], :-1].tolist()))
            shared = f"share the codes {prefix}" if prefix else "have a single code"
            raise SemanticIdError(
                f"{len(group)} items {shared}, but the last level has {size} codes; no repair can "
                "tell them all apart; add a level with --extra-level, or quantize with larger "
                "--codebooks"
            )
        taken, first = np.unique(last, return_index=True)
        movers = np.delete(group, first)
        free = np.delete(np.arange(size), taken)
        chosen, count = _match(distances(movers)[:, torch.from_numpy(free)], epsilon)
        resolved[movers, -1] = free[chosen]
        moved += movers.tolist()
        by_sinkhorn += count
    rows = np.array(sorted(moved), dtype=np.int64)
    return Resolved(resolved, rows, by_sinkhorn, len(rows) - by_sinkhorn)


def count_sharers(codes: Codes) -> Int32[np.ndarray, " items"]:
    """For each item, how many earlier ones have all its codes: a further code tells them apart."""
    order, starts = _runs(codes)
    counts = np.empty(len(codes), dtype=np.int32)
    counts[order] = np.arange(len(codes)) - np.repeat(starts[:-1], np.diff(starts))
    return counts


def _runs(codes: Codes) -> tuple[Int64[np.ndarray, " items"], Int64[np.ndarray, " runs+1"]]:
    """Rows ordered by their codes, those of equal codes ascending, and where each run begins."""
    if not codes.shape[1]:
        return np.arange(len(codes)), np.array([0, len(codes)])
    order = np.lexsort(codes.T[::-1])
    ordered = codes[order]
    changes = np.flatnonzero((ordered[1:] != ordered[:-1]).any(1)) + 1
    return order, np.concatenate([[0], changes, [len(codes)]])


def _match(wanted: Distances, epsilon: float) -> tuple[Int64[np.ndarray, " movers"], int]:
    """A column of its own for each row, and how many rows got the one of the plan."""
    movers, free = wanted.shape
    if movers == 1:
        return wanted.argmin(1).numpy(), 0
    if free == movers:
        plan = sinkhorn(wanted, epsilon, iterations=_ITERATIONS)
    else:
        slack = torch.full((1, free), float(wanted.min()), dtype=wanted.dtype)
        masses = torch.tensor([1.0] * movers + [free - movers])
        with_slack = torch.cat([wanted, slack])
        plan = sinkhorn(with_slack, epsilon, masses=masses, iterations=_ITERATIONS)[:-1]
    # Of several rows that want one column the first has it.
    columns, placed = np.unique(plan.argmax(1).numpy(), return_index=True)
    chosen = np.full(movers, -1, dtype=np.int64)
    chosen[placed] = columns
    left = np.delete(np.arange(free), columns)
    for mover in np.flatnonzero(chosen < 0).tolist():
        nearest = wanted.numpy()[mover, left].argmin()
        chosen[mover], left = left[nearest], np.delete(left, nearest)
    return chosen, len(placed)
