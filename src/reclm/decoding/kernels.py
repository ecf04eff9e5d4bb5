"""The steps of :class:`~reclm.decoding.spans.SpanBatch` as loops, compiled by numba.

A call of numpy costs microseconds whatever the size of its arrays, and a step over arrays makes
dozens. Loops over the rows are simpler, and once compiled several times faster.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, Int64
from numba import njit

from reclm.items.trie import CLOSE


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function at its first call, and keeps the result on the disk where it can."""
    try:
        return njit(cache=True)(function)  # type: ignore[no-any-return]
    except RuntimeError:
        # Neither the folder of this file nor the user's cache can be written to.
        return njit(function)  # type: ignore[no-any-return]


class Tree(NamedTuple):
    """The arrays of a trie that a step needs; see :class:`~reclm.items.construction.TrieArrays`."""

    node_lo: Int32[np.ndarray, " nodes"]
    node_edges: Int32[np.ndarray, " nodes+1"]
    edge_token: Int32[np.ndarray, " edges"]
    bounds: Int32[np.ndarray, " edges+nodes"]
    tail_start: Int32[np.ndarray, " edges+domains+1"]
    tail: Int32[np.ndarray, " tail"]


class State(NamedTuple):
    """Where the answers stand; steps change it.

    Attributes:
        lo: First position below each answer's place.
        hi: End of the positions below it.
        node: Node each stands at, -1 where the item has ended.
        blocked: Positions each may not name.
        blocked_count: How many these are.
        counts: Scratch for the node with most edges, all zero between two steps.
    """

    lo: Int32[np.ndarray, " slots"]
    hi: Int32[np.ndarray, " slots"]
    node: Int32[np.ndarray, " slots"]
    blocked: Int32[np.ndarray, "slots width"]
    blocked_count: Int64[np.ndarray, " slots"]
    counts: Int32[np.ndarray, " most_edges"]


@compiled
def _choice_of(tree: Tree, node: int, position: int) -> int:
    """The choice of a node that leads to a position, -1 if none does."""
    edges = tree.node_edges[node + 1] - tree.node_edges[node]
    first = tree.node_edges[node] + node
    if position < tree.bounds[first] or position >= tree.bounds[first + edges]:
        return -1
    low, high = 0, edges
    while high - low > 1:
        middle = (low + high) // 2
        if tree.bounds[first + middle] <= position:
            low = middle
        else:
            high = middle
    return low


@compiled
def allow(
    tree: Tree,
    state: State,
    slots: Int64[np.ndarray, " rows"],
    eoi: int,
    listed: Bool[np.ndarray, " vocab"],
    column: Int64[np.ndarray, " vocab"],
) -> tuple[Int32[np.ndarray, " tokens"], Bool[np.ndarray, "rows tokens"]]:
    """The tokens that may come next in any row, ascending, and which of them in each row.

    Args:
        tree: The items.
        state: Where the answers stand.
        slots: The answers.
        eoi: The token that closes a span.
        listed: Scratch, all false; is so again afterwards. As long as a multiple of eight.
        column: Scratch.
    """
    # Row in which the node of each row came first: many answers stand at the same one.
    first_row = np.empty(len(slots), np.int64)
    least, most, size = len(listed), -1, 0
    for row, slot in enumerate(slots):
        node = state.node[slot]
        earlier = 0
        while state.node[slots[earlier]] != node:
            earlier += 1
        first_row[row] = earlier
        if earlier == row:
            for edge in range(tree.node_edges[node], tree.node_edges[node + 1]):
                token = eoi if tree.edge_token[edge] == CLOSE else tree.edge_token[edge]
                if not listed[token]:
                    listed[token] = True
                    least, most, size = min(least, token), max(most, token), size + 1
    tokens = np.empty(size, np.int32)
    size = 0
    # Eight at a time, as few of them are listed.
    eights = listed.view(np.uint64)
    for eight in range(least // 8, most // 8 + 1):
        if eights[eight]:
            for token in range(8 * eight, 8 * eight + 8):
                if listed[token]:
                    tokens[size], column[token], listed[token] = token, size, False
                    size += 1
    mask = np.zeros((len(slots), size), np.bool_)
    for row, slot in enumerate(slots):
        if first_row[row] == row:
            node = state.node[slot]
            for edge in range(tree.node_edges[node], tree.node_edges[node + 1]):
                token = eoi if tree.edge_token[edge] == CLOSE else tree.edge_token[edge]
                mask[row, column[token]] = True
    # What is blocked is cleared last row first, as others copy those in front.
    for row in range(len(slots) - 1, -1, -1):
        slot = slots[row]
        node, own = state.node[slot], state.blocked[slot, : state.blocked_count[slot]]
        if first_row[row] != row:
            mask[row] = mask[first_row[row]]
        for position in own:
            choice = _choice_of(tree, node, position)
            if choice >= 0:
                state.counts[choice] += 1
                edge = tree.node_edges[node] + choice
                if state.counts[choice] == tree.bounds[edge + node + 1] - tree.bounds[edge + node]:
                    token = tree.edge_token[edge]
                    mask[row, column[eoi if token == CLOSE else token]] = False
        for position in own:
            choice = _choice_of(tree, node, position)
            if choice >= 0:
                state.counts[choice] = 0
    return tokens, mask


@compiled
def _only_edge(tree: Tree, state: State, slot: int, node: int) -> int:
    """The only edge of a node that is left to an answer, -1 if there are several."""
    own = state.blocked[slot, : state.blocked_count[slot]]
    some = False
    for position in own:
        choice = _choice_of(tree, node, position)
        if choice >= 0:
            state.counts[choice] += 1
            some = True
    if not some:
        return -1
    free, only = 0, -1
    for edge in range(tree.node_edges[node], tree.node_edges[node + 1]):
        choice = edge - tree.node_edges[node]
        if tree.bounds[edge + node + 1] - tree.bounds[edge + node] > state.counts[choice]:
            free, only = free + 1, edge
        state.counts[choice] = 0
    return only if free == 1 else -1


@compiled
def _along(
    tree: Tree,
    state: State,
    slot: int,
    edge: int,
    written: Int32[np.ndarray, " room"],
    size: int,
) -> int:
    """Goes along an edge of an answer's node, whose own token is written; returns the new size."""
    node = state.node[slot]
    lo, hi = tree.bounds[edge + node], tree.bounds[edge + node + 1]
    state.lo[slot], state.hi[slot] = lo, hi
    for at in range(tree.tail_start[edge], tree.tail_start[edge + 1]):
        written[size] = tree.tail[at]
        size += 1
    following = -1
    if tree.edge_token[edge] != CLOSE and hi - lo > 1:
        first = edge == tree.node_edges[node]
        following = node + 1 if first else np.searchsorted(tree.node_lo, lo)
        if following == len(tree.node_lo) or tree.node_lo[following] != lo:
            following = -1
    state.node[slot] = following
    return size


@compiled
def _to_decision(
    tree: Tree,
    state: State,
    slot: int,
    eoi: int,
    written: Int32[np.ndarray, " room"],
    size: int,
) -> int:
    """Goes on while a single edge is left, or closes the span at its end; returns the new size."""
    while state.node[slot] >= 0:
        edge = _only_edge(tree, state, slot, state.node[slot])
        if edge < 0:
            return size
        if tree.edge_token[edge] != CLOSE:
            written[size] = tree.edge_token[edge]
            size += 1
        size = _along(tree, state, slot, edge, written, size)
    written[size] = eoi
    return size + 1


@compiled
def go_on(
    tree: Tree,
    state: State,
    slots: Int64[np.ndarray, " rows"],
    chosen: Int32[np.ndarray, " rows"],
    eoi: int,
    longest: int,
) -> tuple[Int32[np.ndarray, " written"], Int64[np.ndarray, " rows"]]:
    """Takes the next token of each row, and goes on to the decision behind it or to the end.

    Args:
        tree: The items.
        state: Where the answers stand.
        slots: The answers.
        chosen: Their tokens, which are allowed.
        eoi: The token that closes a span.
        longest: Tokens of an item at most.

    Returns:
        What was written, row after row: the tokens that were chosen, what they force, and the
        closing ones; and where each row's ends.
    """
    written = np.empty(len(slots) * (longest + 1), np.int32)
    ends = np.empty(len(slots), np.int64)
    size = 0
    for row, slot in enumerate(slots):
        first, edge = tree.node_edges[state.node[slot]], tree.node_edges[state.node[slot] + 1] - 1
        if chosen[row] != eoi:
            # The close stands last, and is no token.
            end = edge if tree.edge_token[edge] == CLOSE else edge + 1
            edge = first + np.searchsorted(tree.edge_token[first:end], chosen[row])
            written[size] = chosen[row]
            size += 1
        size = _along(tree, state, slot, edge, written, size)
        size = _to_decision(tree, state, slot, eoi, written, size)
        ends[row] = size
    return written[:size], ends


@compiled
def enter(
    tree: Tree,
    state: State,
    slots: Int64[np.ndarray, " rows"],
    roots: Int32[np.ndarray, "slots 6"],
    eoi: int,
    longest: int,
) -> tuple[Int32[np.ndarray, " written"], Int64[np.ndarray, " rows"]]:
    """Opens a span in each row, and goes on to the first decision or to the end.

    Args:
        tree: The items.
        state: Where the answers stand.
        slots: The answers.
        roots: The fields of each answer's root, a :class:`~reclm.items.trie.Cursor`.
        eoi: The token that closes a span.
        longest: Tokens of an item at most.

    Returns:
        What was written, row after row, closing tokens included; and where each row's ends.
    """
    written = np.empty(len(slots) * (longest + 1), np.int32)
    ends = np.empty(len(slots), np.int64)
    size = 0
    for row, slot in enumerate(slots):
        lo, hi, _, node, chain, chain_end = roots[slot]
        state.lo[slot], state.hi[slot], state.node[slot] = lo, hi, node
        for at in range(chain, chain_end):
            written[size] = tree.tail[at]
            size += 1
        size = _to_decision(tree, state, slot, eoi, written, size)
        ends[row] = size
    return written[:size], ends
