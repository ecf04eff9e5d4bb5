"""Item spans of many answers at once: the constraint of a whole batch as a handful of arrays.

It says what :class:`~reclm.decoding.constraint.SpanConstraint` says of one answer, but goes from
decision to decision instead of from token to token, and looks at all answers together: no step
costs Python for each row, and none depends on the size of the catalog but through the logarithm
of a binary search. The state lies on the host, as the shape of the next forward pass depends on
it; only the mask over the scored tokens travels to the model's device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, Int64

from reclm.decoding.constraint import ExcludedItems, free_rows
from reclm.errors import NoItemLeftError, TrieError
from reclm.items.trie import CLOSE, Cursor, ItemTrie

Slots = Int64[np.ndarray, " rows"]
_FIRST_CAPACITY = 8


@dataclass(frozen=True, eq=False)
class Allowed:
    """What may come next in some open spans.

    Attributes:
        tokens: The tokens that may come next in any of them, ascending.
        mask: Which of them may come next in each.
    """

    tokens: Int32[np.ndarray, " tokens"]
    mask: Bool[np.ndarray, "rows tokens"]


class Run(NamedTuple):
    """What follows in one span without another decision.

    Attributes:
        tokens: The tokens up to the next decision, or up to and with the closing token.
        item: Row of the item if the span is closed, else -1.
    """

    tokens: list[int]
    item: int


class SpanBatch:
    """Spans of many answers over one trie; answers join and leave.

    Every place a span can reach still leads to an item that its answer may name, so that a span
    that was opened can be closed. Methods take the slots of several answers, each at most once.

    Args:
        trie: The items.
        eoi_token_id: The token that closes a span; no item contains it.
    """

    def __init__(self, trie: ItemTrie, eoi_token_id: int) -> None:
        self.trie = trie
        self._eoi = eoi_token_id
        self._vacant: list[int] = []
        self._unique = np.empty(0, np.bool_)
        self._lo = np.empty(0, np.int32)
        self._hi = np.empty(0, np.int32)
        # Node at which an open span has to be decided on; -1 while it is closed.
        self._node = np.empty(0, np.int32)
        self._left = np.empty(0, np.int64)
        # Sorted positions that may not be named, excluded or spent; num_items fills the rest.
        self._blocked = np.empty((0, _FIRST_CAPACITY), np.int32)
        self._blocked_count = np.empty(0, np.int64)
        self._excluded: list[ExcludedItems | None] = []
        self._roots: list[Cursor] = []
        self._domains: list[str | None] = []

    def __len__(self) -> int:
        """Number of answers."""
        return len(self._lo) - len(self._vacant)

    def join(
        self,
        excluded: ExcludedItems | None = None,
        *,
        unique: bool = True,
        domain: str | None = None,
    ) -> int:
        """Takes up an answer that has not named anything yet.

        Args:
            excluded: Items it may not name.
            unique: It names an item at most once; items that share a title are spent together.
            domain: Which of the trie's catalogs it names items of; None for the only one.

        Returns:
            Its slot.

        Raises:
            TrieError: The excluded items are those of another trie, or there is no such domain.
        """
        if excluded is not None and excluded.trie is not self.trie:
            raise TrieError("excluded: holds items of another trie; build it for this one")
        root = self.trie.root(domain)
        if not self._vacant:
            self._grow()
        slot = self._vacant.pop()
        listed = np.empty(0, np.int32) if excluded is None else excluded.listed
        listed = listed[(listed >= root.lo) & (listed < root.hi)]
        self._unique[slot] = unique
        self._node[slot] = -1
        self._left[slot] = root.hi - root.lo
        if excluded is not None:
            self._left[slot] -= excluded.count(root.lo, root.hi)
        self._blocked_count[slot] = 0
        self._block(slot, listed)
        self._excluded[slot] = excluded
        self._roots[slot] = root
        self._domains[slot] = domain
        return slot

    def leave(self, slot: int) -> None:
        """Forgets an answer."""
        self._blocked[slot] = self.trie.num_items
        self._excluded[slot] = None
        self._node[slot] = -1
        self._vacant.append(slot)

    def left(self, slot: int) -> int:
        """Number of items that an answer may still name."""
        return int(self._left[slot])

    def free_rows(self, slot: int) -> Bool[np.ndarray, " items"]:
        """Which item rows an answer may still name."""
        free = free_rows(self.trie, self._excluded[slot], self._domains[slot])
        free[self.trie.order[self._blocked[slot, : self._blocked_count[slot]]]] = False
        return free

    def open(self, slots: Slots) -> list[Run]:
        """Opens spans, and goes on to the first decision in each.

        Raises:
            NoItemLeftError: One of the answers may not name any further item.
        """
        if not (self._left[slots] > 0).all():
            raise NoItemLeftError(
                "no item left to recommend: all are excluded or have been named; exclude fewer "
                "items or ask for fewer"
            )
        roots = [self._roots[slot] for slot in slots.tolist()]
        fields = np.array(roots, dtype=np.int32)
        lo, hi, node, chain, chain_end = fields[:, [0, 1, 3, 4, 5]].T
        return self._follow(slots, [[] for _ in roots], _Places(lo, hi, node, chain, chain_end))

    def write(self, slot: int, row: int) -> Run:
        """Opens a span and writes a given item into it.

        Raises:
            TrieError: The answer may not name the item.
        """
        [position] = self.trie.positions([row]).tolist()
        root, excluded = self._roots[slot], self._excluded[slot]
        free = root.lo <= position < root.hi and position not in self._blocked[slot]
        if not free or (excluded is not None and excluded.count(position, position + 1)):
            raise TrieError(f"item row {row}: is excluded or has been named already")
        tokens = self.trie.rest(root, position)
        if self._unique[slot]:
            lo, hi = self._equal(slot, position)
            self._spend(slot, self._free_positions(slot, lo, hi))
        return Run([*tokens, self._eoi], row)

    def allowed(self, slots: Slots) -> Allowed:
        """The tokens that may come next in open spans; at least two in each."""
        nodes, place = np.unique(self._node[slots], return_inverse=True)
        edges, own, starts = self._edges(nodes)
        tokens = self.trie.arrays.edge_token[edges]
        tokens = np.where(tokens == CLOSE, self._eoi, tokens)
        union, column = np.unique(tokens, return_inverse=True)
        known = np.zeros((len(nodes), len(union)), dtype=np.bool_)
        known[own, column] = True
        mask = known[place]
        row, child = self._barred(slots, self._node[slots], self._lo[slots], self._hi[slots])
        mask[row, column[starts[place[row]] + child]] = False
        return Allowed(union, mask)

    def choose(self, slots: Slots, tokens: Int32[np.ndarray, " rows"]) -> list[Run]:
        """Takes the next token of each open span, and goes on to the decision behind it.

        Args:
            slots: The answers.
            tokens: For each one of :meth:`allowed`.

        Raises:
            TrieError: A token is not one of the node's.
        """
        nodes, place = np.unique(self._node[slots], return_inverse=True)
        edges, own, _ = self._edges(nodes)
        # Each node's tokens ascend, its closing choice behind them: so do the keys of all nodes.
        closing = np.int64(np.iinfo(np.int32).max)
        known = self.trie.arrays.edge_token[edges].astype(np.int64)
        known[known == CLOSE] = closing
        wanted = np.where(tokens == self._eoi, closing, tokens.astype(np.int64))
        found = np.searchsorted(own * (closing + 1) + known, place * (closing + 1) + wanted)
        found = np.minimum(found, len(edges) - 1)
        wrong = (own[found] != place) | (known[found] != wanted)
        if wrong.any():
            raise TrieError(f"token {tokens[wrong][0]}: no item continues with it")
        return self._take(slots, edges[found], [[int(token)] for token in tokens])

    def _take(
        self, slots: Slots, edges: Int64[np.ndarray, " rows"], runs: list[list[int]]
    ) -> list[Run]:
        """Goes along an edge in each span; its own token stands in the run already."""
        arrays = self.trie.arrays
        nodes = self._node[slots]
        lo, hi = arrays.bounds[edges + nodes], arrays.bounds[edges + nodes + 1]
        first_child = edges == arrays.node_edges[nodes]
        following = np.where(first_child, nodes + 1, np.searchsorted(arrays.node_lo, lo))
        closes = arrays.edge_token[edges] == CLOSE
        following[closes] = -1
        following = self._node_at(following.astype(np.int32), lo, hi)
        chain, end = arrays.tail_start[edges], arrays.tail_start[edges + 1]
        return self._follow(slots, runs, _Places(lo, hi, following, chain, end), closes)

    def _node_at(
        self,
        following: Int32[np.ndarray, " rows"],
        lo: Int32[np.ndarray, " rows"],
        hi: Int32[np.ndarray, " rows"],
    ) -> Int32[np.ndarray, " rows"]:
        """The next node in preorder where it lies below the place, else -1."""
        node_lo = self.trie.arrays.node_lo
        if not len(node_lo):
            return np.full_like(following, -1)
        inside = (following >= 0) & (following < len(node_lo)) & (hi - lo > 1)
        at = np.clip(following, 0, len(node_lo) - 1)
        nodes: np.ndarray = np.where(inside & (node_lo[at] == lo), at, np.int32(-1))
        return nodes

    def _follow(
        self,
        slots: Slots,
        runs: list[list[int]],
        places: _Places,
        closed: Bool[np.ndarray, " rows"] | None = None,
    ) -> list[Run]:
        """Goes on in each span to its next decision, or to its end."""
        self._lo[slots], self._hi[slots], self._node[slots] = places.lo, places.hi, places.node
        _extend(runs, self.trie.arrays.tail, places.chain, places.chain_end)
        done = places.node < 0 if closed is None else (places.node < 0) | closed
        items = [-1] * len(runs)
        for row in np.flatnonzero(done).tolist():
            if closed is None or not closed[row]:
                runs[row].append(self._eoi)
            items[row] = self._close(int(slots[row]))
        here = np.flatnonzero(~done)
        if len(here):
            forced, edges = self._only_choices(slots[here])
            again = here[forced]
            if len(again):
                own = self.trie.arrays.edge_token[edges].tolist()
                tokens = [[self._eoi if token == CLOSE else token] for token in own]
                followed = self._take(slots[again], edges, tokens)
                for row, run in zip(again.tolist(), followed, strict=True):
                    runs[row] += run.tokens
                    items[row] = run.item
        return list(map(Run, runs, items))

    def _only_choices(
        self, slots: Slots
    ) -> tuple[Int64[np.ndarray, " forced"], Int64[np.ndarray, " forced"]]:
        """Which spans stand where a single choice is left, and the edge of that choice."""
        nodes = self._node[slots]
        node_edges = self.trie.arrays.node_edges
        row, child = self._barred(slots, nodes, self._lo[slots], self._hi[slots])
        degree = node_edges[nodes + 1] - node_edges[nodes]
        forced = np.flatnonzero(degree - np.bincount(row, minlength=len(slots)) == 1)
        edges = [
            int(node_edges[nodes[one]]) + _first_missing(child[row == one])
            for one in forced.tolist()
        ]
        return forced, np.array(edges, dtype=np.int64)

    def _close(self, slot: int) -> int:
        """Ends a span at its place; names the first free item there and spends all that are."""
        free = self._free_positions(slot, int(self._lo[slot]), int(self._hi[slot]))
        self._node[slot] = -1
        if self._unique[slot]:
            self._spend(slot, free)
        return int(self.trie.order[free[0]])

    def _equal(self, slot: int, position: int) -> tuple[int, int]:
        """Range of the positions of the items with the same tokens as one."""
        cursor = self._roots[slot]
        while cursor.node >= 0:
            tokens, bounds = self.trie.choices(cursor.node)
            choice = int(bounds.searchsorted(position, side="right")) - 1
            if tokens[choice] == CLOSE:
                return int(bounds[choice]), int(bounds[choice + 1])
            cursor = self.trie.choose(cursor, choice)
        return cursor.lo, cursor.hi

    def _free_positions(self, slot: int, lo: int, hi: int) -> Int64[np.ndarray, " free"]:
        """The positions of a range that an answer may name."""
        if hi - lo == 1:
            return np.array([lo])
        free = np.ones(hi - lo, dtype=np.bool_)
        blocked = self._blocked[slot]
        free[blocked[(blocked >= lo) & (blocked < hi)] - lo] = False
        rule = self._rule(slot)
        if rule is not None:
            free &= np.diff(rule[lo : hi + 1]) == 0
        return np.flatnonzero(free) + lo

    def _spend(self, slot: int, positions: Int64[np.ndarray, " spent"]) -> None:
        self._block(slot, positions)
        self._left[slot] -= len(positions)

    def _rule(self, slot: int) -> Int32[np.ndarray, " items+1"] | None:
        excluded = self._excluded[slot]
        return None if excluded is None else excluded.before

    def _barred(
        self,
        slots: Slots,
        nodes: Int32[np.ndarray, " rows"],
        lo: Int32[np.ndarray, " rows"],
        hi: Int32[np.ndarray, " rows"],
    ) -> tuple[Int64[np.ndarray, " barred"], Int64[np.ndarray, " barred"]]:
        """The choices that lead to blocked items only: of which row, and which of its node."""
        width = int(self._blocked_count[slots].max(initial=0))
        blocked = self._blocked[slots, :width]
        row, at = ((blocked >= lo[:, None]) & (blocked < hi[:, None])).nonzero()
        ruled = np.array([self._rule(slot) is not None for slot in slots.tolist()])
        if not len(row) and not ruled.any():
            return row, row
        bounds, node_edges = self.trie.arrays.bounds, self.trie.arrays.node_edges
        child = self._child_of(nodes[row], blocked[row, at])
        stride = np.int64(node_edges[-1] + 1)
        key, count = np.unique(row * stride + child, return_counts=True)
        row, child = key // stride, key % stride
        if ruled.any():
            return self._barred_by_rules(slots, nodes, ruled, row, child, count)
        first = node_edges[nodes[row]] + nodes[row] + child
        barred = count == bounds[first + 1] - bounds[first]
        return row[barred], child[barred]

    def _barred_by_rules(
        self,
        slots: Slots,
        nodes: Int32[np.ndarray, " rows"],
        ruled: Bool[np.ndarray, " rows"],
        row: Int64[np.ndarray, " listed"],
        child: Int64[np.ndarray, " listed"],
        count: Int64[np.ndarray, " listed"],
    ) -> tuple[Int64[np.ndarray, " barred"], Int64[np.ndarray, " barred"]]:
        """As :meth:`_barred`, where rules for the whole catalog hold too; looks at all choices."""
        edges, own, starts = self._edges(nodes)
        first = edges + nodes[own]
        bounds = self.trie.arrays.bounds
        lo, hi = bounds[first], bounds[first + 1]
        free = (hi - lo).astype(np.int64)
        rules = {
            id(rule): rule for slot in slots.tolist() if (rule := self._rule(slot)) is not None
        }
        which = np.array([id(self._rule(slot)) for slot in slots.tolist()])
        for number, rule in rules.items():
            under = (which == number)[own] & ruled[own]
            free[under] -= rule[hi[under]] - rule[lo[under]]
        free[starts[row] + child] -= count
        barred = free == 0
        return own[barred], (np.arange(len(edges)) - starts[own])[barred]

    def _child_of(
        self, nodes: Int32[np.ndarray, " n"], positions: Int32[np.ndarray, " n"]
    ) -> Int64[np.ndarray, " n"]:
        """Which choice of its node leads to each position."""
        known, place = np.unique(nodes, return_inverse=True)
        edges, own, starts = self._edges(known)
        stride = np.int64(self.trie.num_items + 1)
        lower = own * stride + self.trie.arrays.bounds[edges + known[own]]
        found = np.searchsorted(lower, place * stride + positions, side="right") - 1
        child: np.ndarray = found - starts[place]
        return child

    def _edges(
        self, nodes: Int32[np.ndarray, " nodes"]
    ) -> tuple[
        Int64[np.ndarray, " edges"], Int64[np.ndarray, " edges"], Int64[np.ndarray, " nodes"]
    ]:
        """All edges of some nodes: their numbers, whose each is, and where each node's start."""
        first = self.trie.arrays.node_edges[nodes].astype(np.int64)
        degree = self.trie.arrays.node_edges[nodes + 1] - first
        starts = np.cumsum(degree) - degree
        own = np.repeat(np.arange(len(nodes)), degree)
        return np.arange(len(own)) + (first - starts)[own], own, starts

    def _block(self, slot: int, positions: Int32[np.ndarray, " n"]) -> None:
        begin = int(self._blocked_count[slot])
        end = begin + len(positions)
        if end > self._blocked.shape[1]:
            wider = np.full((len(self._blocked), 2 * end), self.trie.num_items, dtype=np.int32)
            wider[:, : self._blocked.shape[1]] = self._blocked
            self._blocked = wider
        self._blocked[slot, begin:end] = positions
        self._blocked_count[slot] = end

    def _grow(self) -> None:
        """Doubles the number of slots."""
        old = len(self._lo)
        new = max(_FIRST_CAPACITY, old)
        self._vacant = list(range(old, old + new))[::-1]
        for name in ("_unique", "_lo", "_hi", "_node", "_left", "_blocked_count"):
            array = getattr(self, name)
            setattr(self, name, np.concatenate([array, np.zeros(new, array.dtype)]))
        empty = np.full((new, self._blocked.shape[1]), self.trie.num_items, np.int32)
        self._blocked = np.concatenate([self._blocked, empty])
        self._excluded += [None] * new
        self._roots += [self.trie.root(self.trie.domains[0])] * new
        self._domains += [None] * new


class _Places(NamedTuple):
    """Places in the trie, as those of a :class:`~reclm.items.trie.Cursor` but one each row."""

    lo: Int32[np.ndarray, " rows"]
    hi: Int32[np.ndarray, " rows"]
    node: Int32[np.ndarray, " rows"]
    chain: Int32[np.ndarray, " rows"]
    chain_end: Int32[np.ndarray, " rows"]


def _extend(
    runs: Sequence[list[int]],
    tail: Int32[np.ndarray, " tail"],
    start: Int32[np.ndarray, " rows"],
    end: Int32[np.ndarray, " rows"],
) -> None:
    """Adds a stretch of ``tail`` to each run."""
    for run, first, last in zip(runs, start.tolist(), end.tolist(), strict=True):
        if last > first:
            run += tail[first:last].tolist()


def _first_missing(children: Int64[np.ndarray, " n"]) -> int:
    """The lowest number that is not among ascending ones."""
    gaps = np.flatnonzero(children != np.arange(len(children)))
    return int(gaps[0]) if len(gaps) else len(children)
