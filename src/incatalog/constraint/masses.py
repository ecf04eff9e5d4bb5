"""The weight of the items below each token that may come next, as a loop compiled by numba."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64
from numba import carray

from incatalog.constraint.kernels import (
    Columns,
    Slots,
    State,
    Tree,
    choice_of,
    compiled,
    inlined,
    pointer,
    token_of,
)
from incatalog.constraint.weights import LEAST, LIGHT


class Weighing(NamedTuple):
    """The item weights of answers."""

    # Address of the weight before each position, of `ItemWeights.mass`; 0 without weights.
    mass: Int64[np.ndarray, " slots"]
    spread: Int64[np.ndarray, " slots"]  # address of the log-weight at each position
    model: Float64[np.ndarray, " slots"]  # see `ItemWeights`
    share: Float64[np.ndarray, " slots"]


@inlined
def _holds(positions: Int32[np.ndarray, " n"], position: int) -> bool:
    for one in positions:  # noqa: SIM110 - numba knows no `any` of a generator
        if one == position:
            return True
    return False


@inlined
def _added_up(
    weights: Float64[np.ndarray, " positions"],
    lo: int,
    hi: int,
    blocked: Int32[np.ndarray, " blocked"],
) -> float:
    """Logarithm of the weight of the items in a range, one by one, without those blocked."""
    most = -np.inf
    for position in range(lo, hi):
        if weights[position] > most and not _holds(blocked, position):
            most = weights[position]
    total = 0.0
    for position in range(lo, hi):
        if weights[position] > -np.inf and not _holds(blocked, position):
            total += np.exp(weights[position] - most)
    return float(most + np.log(total))


# What is inlined here is part of the result that numba keeps on the disk, and numba does not see
# that `kernels.py` has changed: whoever changes `choice_of` or `token_of` changes this file too.
@compiled
def log_parts(
    tree: Tree,
    state: State,
    weighing: Weighing,
    slots: Slots,
    tokens: Int32[np.ndarray, " tokens"],
    allowed: Bool[np.ndarray, "rows tokens"],
    column: Columns,
) -> Float64[np.ndarray, "rows tokens"]:
    """Which part of what an answer may still name below its node is below each allowed token.

    Parts of the weight, as logarithms; minus infinity where a token is not allowed. All answers
    have weights. ``column`` is scratch.
    """
    for at, token in enumerate(tokens):
        column[token] = at
    found = np.full(allowed.shape, -np.inf)
    gone = np.empty(len(state.counts), np.float64)
    size = len(tree.order)
    for row, slot in enumerate(slots):
        mass = carray(pointer(weighing.mass[slot]), (size + 1,), np.float64)
        weights = carray(pointer(weighing.spread[slot]), (size,), np.float64)
        lo, hi, node = state.lo[slot], state.hi[slot], state.node[slot]
        first, end = tree.node_edges[node], tree.node_edges[node + 1]
        blocked = state.blocked[slot, : state.blocked_count[slot]]
        gone[: end - first] = 0.0
        state.counts[: end - first] = 0
        for position in blocked:
            if lo <= position < hi:
                choice = choice_of(tree, node, position)
                gone[choice] += np.exp(weights[position])
                state.counts[choice] += 1
        total = 0.0
        for edge in range(first, end):
            at = column[token_of(tree, edge)]
            if not allowed[row, at]:
                continue
            low, high = tree.bounds[edge + node], tree.bounds[edge + node + 1]
            below = mass[high] - mass[low] - gone[edge - first]
            light = below <= max(LIGHT * mass[high], LEAST)
            if high - low == 1:
                found[row, at] = weights[low]
            elif light:
                some = blocked if state.counts[edge - first] else blocked[:0]
                found[row, at] = _added_up(weights, low, high, some)
            else:
                found[row, at] = np.log(below)
            total += np.exp(found[row, at]) if light else below
        if total > LEAST:
            whole = np.log(total)
        else:
            most = found[row].max()
            whole = most + np.log(np.exp(found[row] - most).sum())
        for at in range(len(tokens)):
            found[row, at] -= whole
    return found
