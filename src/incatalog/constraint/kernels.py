"""The steps of :class:`~incatalog.constraint.spans.SpanBatch` as loops, compiled by numba.

A call of numpy costs microseconds whatever the size of its arrays, and a step over arrays would
make dozens; the loops over the rows are simpler, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt8
from numba import carray, njit
from numba.core import cgutils, types
from numba.extending import intrinsic

from incatalog.trie.build import CLOSE
from incatalog.trie.cursor import Cursor
from incatalog.trie.edges import BLOCK

Slots = Int64[np.ndarray, " rows"]
Columns = Int64[np.ndarray, " columns"]
Room = Int32[np.ndarray, " room"]
# In place of an item: the span is open still, or closing it takes more than a loop.
OPEN, HARD = -1, -2


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function into its callers: to pass all fields of a tree takes longer than it."""
    return njit(inline="always")(function)  # type: ignore[no-any-return]


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function at its first call, and keeps the result on the disk where it can."""
    try:
        return njit(cache=True)(function)  # type: ignore[no-any-return]
    except RuntimeError:
        # Neither the folder of this file nor the user's cache can be written to.
        return njit(function)  # type: ignore[no-any-return]


class Tree(NamedTuple):
    """What a step needs of a trie: of its ``arrays``, its ``edge_nodes``, and some of its own."""

    node_edges: Int32[np.ndarray, " nodes+1"]
    edge_token: Int32[np.ndarray, " edges"]
    bounds: Int32[np.ndarray, " edges+nodes"]
    tail_start: Int32[np.ndarray, " edges+2"]
    tail: Int32[np.ndarray, " tail"]
    rank: UInt8[np.ndarray, " edges"]
    before: Int32[np.ndarray, " blocks"]
    nodes: Int32[np.ndarray, " led_to"]
    order: Int32[np.ndarray, " positions"]  # item row at each position
    # Whether the spelling at a position is its item's only one; empty if all are.
    alone: Bool[np.ndarray, " positions"]
    eoi: int  # token that closes a span
    longest: int  # tokens of an item at most


class State(NamedTuple):
    """Where the answers stand; steps change it."""

    lo: Int32[np.ndarray, " slots"]  # first position below each answer's place
    hi: Int32[np.ndarray, " slots"]  # end of these
    node: Int32[np.ndarray, " slots"]  # where each has to decide, -1 where no span is open
    blocked: Int32[np.ndarray, "slots width"]  # positions each may not name
    blocked_count: Int64[np.ndarray, " slots"]  # how many these are
    # Address of the number of excluded positions before each one; 0 without a rule.
    rule: Int64[np.ndarray, " slots"]
    left: Int64[np.ndarray, " slots"]  # how many items each may still name
    unique: Bool[np.ndarray, " slots"]  # whether each names an item at most once
    counts: Int32[np.ndarray, " most_edges"]  # scratch for the node with most edges


# What was written, row after row; where the tokens of each row end; the item it names, `OPEN` or
# `HARD`; and whether one is hard or a row is full now.
Steps = tuple[Int32[np.ndarray, " written"], Slots, Slots, bool]


@intrinsic  # type: ignore[untyped-decorator]
def pointer(typingctx: Any, address: Any) -> Any:  # noqa: ARG001 - the form numba asks for
    """An address as a pointer."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
        return builder.inttoptr(values[0], cgutils.voidptr_t)

    return types.voidptr(address), generate


@inlined
def _ruled_out(tree: Tree, state: State, slot: int, bound: int) -> int:
    """How many positions between two bounds the rule of an answer excludes; it has one."""
    rule = carray(pointer(state.rule[slot]), (len(tree.order) + 1,), np.int32)
    return int(rule[tree.bounds[bound + 1]] - rule[tree.bounds[bound]])


@inlined
def choice_of(tree: Tree, node: int, position: int) -> int:
    """The choice of a node that leads to a position below it."""
    first = tree.node_edges[node] + node
    low, high = 0, tree.node_edges[node + 1] - tree.node_edges[node]
    while high - low > 1:
        middle = (low + high) // 2
        if tree.bounds[first + middle] <= position:
            low = middle
        else:
            high = middle
    return low


@inlined
def token_of(tree: Tree, edge: int) -> int:
    """The token that takes an edge."""
    token = tree.edge_token[edge]
    return int(tree.eoi if token == CLOSE else token)


@inlined
def _num_blocked(state: State, slot: int) -> int:
    """How many positions below its place an answer may not name."""
    lo, hi, inside = state.lo[slot], state.hi[slot], 0
    # By index, as a loop over the row itself is not compiled to vector instructions.
    for at in range(state.blocked_count[slot]):
        inside += lo <= state.blocked[slot, at] < hi
    return inside


@compiled
def allow(
    tree: Tree, state: State, slots: Slots, listed: Bool[np.ndarray, " vocab"], column: Columns
) -> tuple[Int32[np.ndarray, " tokens"], Bool[np.ndarray, "rows tokens"]]:
    """The tokens that may come next in any row, ascending, and which of them in each row.

    ``listed`` and ``column`` are scratch. The first is all false, is so again afterwards, and is as
    long as a multiple of eight.
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
                token = token_of(tree, edge)
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
    mask = np.empty((len(slots), size), np.bool_)
    for row, slot in enumerate(slots):
        if first_row[row] == row:
            for at in range(size):
                mask[row, at] = False
            node = state.node[slot]
            for edge in range(tree.node_edges[node], tree.node_edges[node + 1]):
                token = token_of(tree, edge)
                mask[row, column[token]] = True
    # What is blocked is cleared last row first, as others copy those in front.
    for row in range(len(slots) - 1, -1, -1):
        slot, source = slots[row], first_row[row]
        if source != row:
            for at in range(size):
                mask[row, at] = mask[source, at]
        ruled = state.rule[slot] != 0
        if not (ruled or _num_blocked(state, slot)):
            continue
        lo, hi, node = state.lo[slot], state.hi[slot], state.node[slot]
        first, end = tree.node_edges[node], tree.node_edges[node + 1]
        state.counts[: end - first] = 0
        for position in state.blocked[slot, : state.blocked_count[slot]]:
            if lo <= position < hi:
                choice = choice_of(tree, node, position)
                state.counts[choice] += 1
                edge = first + choice
                if state.counts[choice] == tree.bounds[edge + node + 1] - tree.bounds[edge + node]:
                    mask[row, column[token_of(tree, edge)]] = False
        if ruled:
            for edge in range(first, end):
                bound = edge + node
                gone = state.counts[edge - first] + _ruled_out(tree, state, slot, bound)
                if gone == tree.bounds[bound + 1] - tree.bounds[bound]:
                    mask[row, column[token_of(tree, edge)]] = False
    return tokens, mask


@inlined
def _surely_decides(tree: Tree, state: State, slot: int) -> bool:
    """Whether an answer has too few blocked positions to have a single choice left at its node."""
    node = state.node[slot]
    degree = tree.node_edges[node + 1] - tree.node_edges[node]
    return bool(state.rule[slot] == 0 and state.blocked_count[slot] < degree - 1)


@inlined
def _only_edge(tree: Tree, state: State, slot: int, node: int) -> int:
    """The only edge of a node that is left to an answer, -1 if there are several."""
    first, end = tree.node_edges[node], tree.node_edges[node + 1]
    ruled = state.rule[slot] != 0
    # Every other edge has lost a position at least.
    if not ruled and _num_blocked(state, slot) < end - first - 1:
        return -1
    lo, hi = state.lo[slot], state.hi[slot]
    state.counts[: end - first] = 0
    for position in state.blocked[slot, : state.blocked_count[slot]]:
        if lo <= position < hi:
            state.counts[choice_of(tree, node, position)] += 1
    only = -1
    for edge in range(first, end):
        bound = edge + node
        gone = state.counts[edge - first]
        if ruled:
            gone += _ruled_out(tree, state, slot, bound)
        if tree.bounds[bound + 1] - tree.bounds[bound] > gone:
            if only >= 0:
                return -1
            only = edge
    return only


@inlined
def _edge_of(tree: Tree, node: int, token: int) -> int:
    """The edge of a node that a token takes."""
    first, last = tree.node_edges[node], tree.node_edges[node + 1] - 1
    if token == tree.eoi:
        return int(last)
    # The close stands last, and is no token.
    end = last if tree.edge_token[last] == CLOSE else last + 1
    return int(first + np.searchsorted(tree.edge_token[first:end], token))


@inlined
def _node_behind(tree: Tree, edge: int) -> int:
    """The node that an edge leads to, -1 if it ends an item."""
    rank = tree.rank[edge]
    if rank < BLOCK:
        return -1
    return int(tree.nodes[tree.before[edge // BLOCK] + rank - BLOCK])


@inlined
def _write_tail(tree: Tree, start: int, end: int, written: Room, size: int) -> int:
    """Writes what follows an edge without another choice; returns the new size."""
    for at in range(start, end):
        written[size] = tree.tail[at]
        size += 1
    return size


@inlined
def _to_decision(tree: Tree, state: State, slot: int, written: Room, size: int) -> int:
    """Goes on while a single edge is left, or closes the span at its end; returns the new size."""
    while state.node[slot] >= 0:
        if _surely_decides(tree, state, slot):
            return size
        edge = _only_edge(tree, state, slot, state.node[slot])
        if edge < 0:
            return size
        if tree.edge_token[edge] != CLOSE:
            written[size] = tree.edge_token[edge]
            size += 1
        bound = edge + state.node[slot]
        state.lo[slot], state.hi[slot] = tree.bounds[bound], tree.bounds[bound + 1]
        state.node[slot] = _node_behind(tree, edge)
        start, end = tree.tail_start[edge], tree.tail_start[edge + 1]
        size = _write_tail(tree, start, end, written, size)
    written[size] = tree.eoi
    return size + 1


@inlined
def _item(tree: Tree, state: State, slot: int) -> int:
    """The item whose end an answer has come to, now blocked.

    It is `HARD` if it shares its title or has several.
    """
    position = state.lo[slot]
    if state.hi[slot] - position > 1 or (len(tree.alone) and not tree.alone[position]):
        return HARD
    if state.unique[slot]:
        state.blocked[slot, state.blocked_count[slot]] = position
        state.blocked_count[slot] += 1
        state.left[slot] -= 1
    return int(tree.order[position])


@compiled
def refused(allowed: Bool[np.ndarray, "rows tokens"], columns: Columns) -> int:
    """The first row whose choice is not allowed, -1 if there is none."""
    for row, column in enumerate(columns):
        if not allowed[row, column]:
            return row
    return -1


@compiled
def go_on(tree: Tree, state: State, slots: Slots, chosen: Int32[np.ndarray, " rows"]) -> Steps:
    """Takes the next token of each row, which is allowed, and goes on to the next decision or end.

    Written are the tokens that were chosen, what they force, and the closing ones.
    """
    # One array of the tree after the other: the places of a large tree have left the caches, and
    # those of all rows are fetched together where the places of one row wait for each other.
    edges = np.empty(len(slots), np.int32)
    for row, slot in enumerate(slots):
        edges[row] = _edge_of(tree, state.node[slot], chosen[row])
    for row, slot in enumerate(slots):
        bound = edges[row] + state.node[slot]
        state.lo[slot], state.hi[slot] = tree.bounds[bound], tree.bounds[bound + 1]
    tails = np.empty((len(slots), 2), np.int32)
    for row, edge in enumerate(edges):
        tails[row] = tree.tail_start[edge], tree.tail_start[edge + 1]
    for row, edge in enumerate(edges):
        state.node[slots[row]] = _node_behind(tree, edge)
    decides = np.empty(len(slots), np.bool_)
    for row, slot in enumerate(slots):
        decides[row] = state.node[slot] >= 0 and _surely_decides(tree, state, slot)
    written = np.empty(len(slots) * (tree.longest + 1), np.int32)
    ends = np.empty(len(slots), np.int64)
    size = 0
    for row, slot in enumerate(slots):
        if chosen[row] != tree.eoi:
            written[size] = chosen[row]
            size += 1
        size = _write_tail(tree, tails[row, 0], tails[row, 1], written, size)
        if not decides[row]:
            size = _to_decision(tree, state, slot, written, size)
        ends[row] = size
    items = np.empty(len(slots), np.int64)
    unfinished, room = False, state.blocked.shape[1]
    for row, slot in enumerate(slots):
        items[row] = OPEN if state.node[slot] >= 0 else _item(tree, state, slot)
        unfinished |= items[row] == HARD or state.blocked_count[slot] == room
    return written[:size], ends, items, unfinished


@compiled
def enter(tree: Tree, state: State, slots: Slots, root: Cursor) -> Steps:
    """Opens a span in each row, and goes on to the first decision or to the end."""
    written = np.empty(len(slots) * (tree.longest + 1), np.int32)
    ends = np.empty(len(slots), np.int64)
    items = np.empty(len(slots), np.int64)
    size, unfinished, room = 0, False, state.blocked.shape[1]
    for row, slot in enumerate(slots):
        state.lo[slot], state.hi[slot], state.node[slot] = root.lo, root.hi, root.node
        size = _write_tail(tree, root.chain, root.chain_end, written, size)
        size = _to_decision(tree, state, slot, written, size)
        ends[row] = size
        items[row] = OPEN if state.node[slot] >= 0 else _item(tree, state, slot)
        unfinished |= items[row] == HARD or state.blocked_count[slot] == room
    return written[:size], ends, items, unfinished
