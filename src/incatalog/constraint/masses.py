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


class AnswerWeights(NamedTuple):
    """The item weights of answers: addresses of arrays of `ItemWeights`, and two of its numbers."""

    mass: Int64[np.ndarray, " slots"]  # 0 without weights
    spread: Int64[np.ndarray, " slots"]
    edges: Int64[np.ndarray, " slots"]
    nodes: Int64[np.ndarray, " slots"]
    model: Float64[np.ndarray, " slots"]
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


@inlined
def _weigh(
    tree: Tree,
    mass: Float64[np.ndarray, " positions+1"],
    weights: Float64[np.ndarray, " positions"],
    edges: Float64[np.ndarray, " edges"],
    node: int,
) -> float:
    """Logarithms of the weight below each edge of a node; returns that of all."""
    first, end = tree.node_edges[node], tree.node_edges[node + 1]
    most = -np.inf
    for edge in range(first, end):
        low, high = tree.bounds[edge + node], tree.bounds[edge + node + 1]
        below = mass[high] - mass[low]
        if high - low == 1:
            edges[edge] = weights[low]
        elif below <= max(LIGHT * mass[high], LEAST):
            edges[edge] = _added_up(weights, low, high, tree.order[:0])
        else:
            edges[edge] = np.log(below)
        most = max(most, edges[edge])
    total = 0.0
    for edge in range(first, end):
        total += np.exp(edges[edge] - most)
    return float(most + np.log(total))


# What is inlined here is part of the result that numba keeps on the disk, and numba does not see
# that `kernels.py` has changed: whoever changes `choice_of` or `token_of` changes this file too.
@compiled
def log_parts(
    tree: Tree,
    state: State,
    weighing: AnswerWeights,
    slots: Slots,
    tokens: Int32[np.ndarray, " tokens"],
    allowed: Bool[np.ndarray, "rows tokens"],
    column: Columns,
) -> Float64[np.ndarray, "rows tokens"]:
    """Which part of what an answer may still name below its node is below each allowed token.

    Parts of the weight, as logarithms, times the share of the weights; minus infinity where a token
    is not allowed. All answers have weights. ``column`` is scratch.
    """
    for at, token in enumerate(tokens):
        column[token] = at
    found = np.full(allowed.shape, -np.inf)
    gone = np.zeros(len(state.counts), np.float64)
    size = len(tree.order)
    for row, slot in enumerate(slots):
        weights = carray(pointer(weighing.spread[slot]), (size,), np.float64)
        edges = carray(pointer(weighing.edges[slot]), (len(tree.edge_token),), np.float64)
        nodes = carray(pointer(weighing.nodes[slot]), (len(tree.node_edges) - 1,), np.float64)
        lo, hi, node = state.lo[slot], state.hi[slot], state.node[slot]
        if np.isnan(nodes[node]):
            mass = carray(pointer(weighing.mass[slot]), (size + 1,), np.float64)
            nodes[node] = _weigh(tree, mass, weights, edges, node)
        first, end, whole = tree.node_edges[node], tree.node_edges[node + 1], nodes[node]
        for edge in range(first, end):
            at = column[token_of(tree, edge)]
            if allowed[row, at]:
                found[row, at] = edges[edge] - whole
        # What is blocked is subtracted: parts of the weight of the node, and of its edge.
        blocked = state.blocked[slot, : state.blocked_count[slot]]
        left, some = 1.0, False
        for position in blocked:
            if lo <= position < hi and weights[position] > -np.inf:
                choice = choice_of(tree, node, position)
                gone[choice] += np.exp(weights[position] - edges[first + choice])
                left, some = left - np.exp(weights[position] - whole), True
        if some:
            for position in blocked:
                if not (lo <= position < hi):
                    continue
                choice = choice_of(tree, node, position)
                edge, part = first + choice, gone[choice]
                gone[choice] = 0.0
                at = column[token_of(tree, edge)]
                if part == 0.0 or not allowed[row, at]:
                    continue
                if 1.0 - part > LIGHT:
                    found[row, at] += np.log1p(-part)
                else:
                    low, high = tree.bounds[edge + node], tree.bounds[edge + node + 1]
                    found[row, at] = _added_up(weights, low, high, blocked) - whole
        if left > LIGHT:
            rest = np.log(left)
        else:
            most = found[row].max()
            rest = most + np.log(np.exp(found[row] - most).sum())
        share = weighing.share[slot]
        for at in range(len(tokens)):
            found[row, at] = share * (found[row, at] - rest)
    return found
