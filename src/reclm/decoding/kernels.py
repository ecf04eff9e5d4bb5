"""The two steps of :class:`~reclm.decoding.spans.SpanBatch` as loops, compiled by numba.

A call of numpy costs microseconds whatever the size of its arrays, and a step over arrays makes
dozens. Loops over the rows are simpler, and once compiled several times faster.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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


@compiled
def _choice_of(
    position: int,
    node: int,
    node_edges: Int32[np.ndarray, " nodes+1"],
    bounds: Int32[np.ndarray, " edges+nodes"],
) -> int:
    """The choice of a node that leads to a position, -1 if none does."""
    edges = node_edges[node + 1] - node_edges[node]
    first = node_edges[node] + node
    if position < bounds[first] or position >= bounds[first + edges]:
        return -1
    low, high = 0, edges
    while high - low > 1:
        middle = (low + high) // 2
        if bounds[first + middle] <= position:
            low = middle
        else:
            high = middle
    return low


@compiled
def _count_blocked(
    node: int,
    blocked: Int32[np.ndarray, " blocked"],
    node_edges: Int32[np.ndarray, " nodes+1"],
    bounds: Int32[np.ndarray, " edges+nodes"],
    counts: Int32[np.ndarray, " most_edges"],
) -> int:
    """Counts the blocked positions behind each choice of a node; returns their sum."""
    total = 0
    for position in blocked:
        choice = _choice_of(position, node, node_edges, bounds)
        if choice >= 0:
            counts[choice] += 1
            total += 1
    return total


@compiled
def allow(
    slots: Int64[np.ndarray, " rows"],
    nodes: Int32[np.ndarray, " slots"],
    blocked: Int32[np.ndarray, "slots width"],
    blocked_count: Int64[np.ndarray, " slots"],
    node_edges: Int32[np.ndarray, " nodes+1"],
    edge_token: Int32[np.ndarray, " edges"],
    bounds: Int32[np.ndarray, " edges+nodes"],
    eoi: int,
    listed: Bool[np.ndarray, " vocab"],
    column: Int64[np.ndarray, " vocab"],
    counts: Int32[np.ndarray, " most_edges"],
) -> tuple[Int32[np.ndarray, " tokens"], Bool[np.ndarray, "rows tokens"]]:
    """The tokens that may come next in any row, ascending, and which of them in each row.

    Args:
        slots: The answers.
        nodes: Node each answer stands at.
        blocked: Positions each answer may not name.
        blocked_count: How many these are.
        node_edges: Of the trie.
        edge_token: Of the trie.
        bounds: Of the trie.
        eoi: The token that closes a span.
        listed: Scratch, all false; is so again afterwards. As long as a multiple of eight.
        column: Scratch.
        counts: Scratch for the node with most edges, all zero; is so again afterwards.
    """
    # Row in which the node of each row came first: many answers stand at the same one.
    first_row = np.empty(len(slots), np.int64)
    least, most, size = len(listed), -1, 0
    for row, slot in enumerate(slots):
        node = nodes[slot]
        earlier = 0
        while nodes[slots[earlier]] != node:
            earlier += 1
        first_row[row] = earlier
        if earlier == row:
            for edge in range(node_edges[node], node_edges[node + 1]):
                token = eoi if edge_token[edge] == CLOSE else edge_token[edge]
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
            for edge in range(node_edges[nodes[slot]], node_edges[nodes[slot] + 1]):
                token = eoi if edge_token[edge] == CLOSE else edge_token[edge]
                mask[row, column[token]] = True
    # What is blocked is cleared last first, as rows without it are copied from.
    for row in range(len(slots) - 1, -1, -1):
        slot = slots[row]
        node, own = nodes[slot], blocked[slots[row], : blocked_count[slots[row]]]
        if first_row[row] != row:
            mask[row] = mask[first_row[row]]
        for position in own:
            choice = _choice_of(position, node, node_edges, bounds)
            if choice >= 0:
                counts[choice] += 1
                at = node_edges[node] + node + choice
                if counts[choice] == bounds[at + 1] - bounds[at]:
                    found = edge_token[node_edges[node] + choice]
                    mask[row, column[eoi if found == CLOSE else found]] = False
        for position in own:
            choice = _choice_of(position, node, node_edges, bounds)
            if choice >= 0:
                counts[choice] = 0
    return tokens, mask


@compiled
def go_on(
    slots: Int64[np.ndarray, " rows"],
    chosen: Int32[np.ndarray, " rows"],
    lo: Int32[np.ndarray, " slots"],
    hi: Int32[np.ndarray, " slots"],
    nodes: Int32[np.ndarray, " slots"],
    blocked: Int32[np.ndarray, "slots width"],
    blocked_count: Int64[np.ndarray, " slots"],
    node_lo: Int32[np.ndarray, " nodes"],
    node_edges: Int32[np.ndarray, " nodes+1"],
    edge_token: Int32[np.ndarray, " edges"],
    bounds: Int32[np.ndarray, " edges+nodes"],
    tail_start: Int32[np.ndarray, " edges+domains+1"],
    tail: Int32[np.ndarray, " tail"],
    eoi: int,
    longest: int,
    counts: Int32[np.ndarray, " most_edges"],
) -> tuple[Int32[np.ndarray, " written"], Int64[np.ndarray, " rows"]]:
    """Takes the next token of each row, and goes on to the decision behind it or to the end.

    Changes ``lo``, ``hi`` and ``nodes`` of the rows; the node is -1 where the item has ended.

    Args:
        slots: The answers.
        chosen: Their tokens, which are allowed.
        lo: First position below each answer's place.
        hi: End of the positions below it.
        nodes: Node each answer stands at.
        blocked: Positions each answer may not name.
        blocked_count: How many these are.
        node_lo: Of the trie.
        node_edges: Of the trie.
        edge_token: Of the trie.
        bounds: Of the trie.
        tail_start: Of the trie.
        tail: Of the trie.
        eoi: The token that closes a span.
        longest: Tokens of an item at most.
        counts: Scratch for the node with most edges, all zero; is so again afterwards.

    Returns:
        What was written, row after row, the tokens that were chosen included and the closing ones
        not but where they were chosen; and where each row's ends.
    """
    written = np.empty(len(slots) * (longest + 1), np.int32)
    ends = np.empty(len(slots), np.int64)
    size = 0
    for row, slot in enumerate(slots):
        node = nodes[slot]
        edge, last = node_edges[node], node_edges[node + 1] - 1
        if chosen[row] == eoi:
            edge = last
        else:
            # The close stands last, and is no token.
            high = last if edge_token[last] == CLOSE else last + 1
            while high - edge > 1:
                middle = (edge + high) // 2
                if edge_token[middle] <= chosen[row]:
                    edge = middle
                else:
                    high = middle
        written[size] = chosen[row]
        size += 1
        while True:
            lo[slot], hi[slot] = bounds[edge + node], bounds[edge + node + 1]
            for at in range(tail_start[edge], tail_start[edge + 1]):
                written[size] = tail[at]
                size += 1
            following = -1
            if edge_token[edge] != CLOSE and hi[slot] - lo[slot] > 1:
                if edge == node_edges[node]:
                    following = node + 1
                else:
                    following = np.searchsorted(node_lo, lo[slot])
                if following == len(node_lo) or node_lo[following] != lo[slot]:
                    following = -1
            nodes[slot] = following
            if following < 0:
                break
            node = following
            own = blocked[slot, : blocked_count[slot]]
            if not _count_blocked(node, own, node_edges, bounds, counts):
                break
            free = 0
            for choice in range(node_edges[node + 1] - node_edges[node]):
                at = node_edges[node] + node + choice
                if bounds[at + 1] - bounds[at] > counts[choice]:
                    free += 1
                    edge = node_edges[node] + choice
                counts[choice] = 0
            if free > 1:
                break
            if edge_token[edge] != CLOSE:
                written[size] = edge_token[edge]
                size += 1
        ends[row] = size
    return written[:size], ends
