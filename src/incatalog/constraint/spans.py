"""Item spans of many answers at once: the constraint of a whole batch as a handful of arrays.

It says what :class:`~incatalog.constraint.span.SpanConstraint` says of one answer, but goes from
decision to decision instead of from token to token, and looks at all answers together: no step
costs Python for each row, and none depends on the size of the catalog but through the choices of
the nodes at which the answers stand. The state lies on the host, as the shape of the next forward
pass depends on it; only the mask over the scored tokens travels to the model's device.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from itertools import chain, pairwise
from types import ModuleType
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, Int64

from incatalog.constraint.excluded import ExcludedItems, free_rows
from incatalog.errors import NoItemLeftError, TrieError, require
from incatalog.trie.build import CLOSE
from incatalog.trie.cursor import Cursor
from incatalog.trie.trie import ItemTrie

Slots = Int64[np.ndarray, " rows"]
_FIRST_CAPACITY = 8
# Above every token, so that a node's closing choice follows all others.
_CLOSING = np.int64(np.iinfo(np.int32).max)


@cache
def load_kernels() -> ModuleType | None:
    """The compiled loops, or None where numba is not installed."""
    if find_spec("numba") is None:
        return None
    return import_module("incatalog.constraint.kernels")


@dataclass(frozen=True, eq=False)
class Allowed:
    """What may come next in some open spans.

    Attributes:
        slots: The answers.
        tokens: The tokens that may come next in any of them, ascending.
        mask: Which of them may come next in each.
        nodes: The node each stands at.
    """

    slots: Slots
    tokens: Int32[np.ndarray, " tokens"]
    mask: Bool[np.ndarray, "rows tokens"]
    nodes: Int32[np.ndarray, " rows"]


class Run(NamedTuple):
    """What follows in one span without another decision.

    Attributes:
        tokens: The tokens up to the next decision, or up to and with the closing token.
        item: Row of the item if the span is closed, else -1.
    """

    tokens: list[int]
    item: int


@dataclass(frozen=True, eq=False)
class Runs:
    """What follows in each of some spans; their lists are made when they are gone through.

    Attributes:
        tokens: Those of all, span after span.
        ends: Where those of each span end.
        items: Row of each item whose span is closed, else -1.
    """

    tokens: Int32[np.ndarray, " written"]
    ends: Int64[np.ndarray, " rows"]
    items: Int64[np.ndarray, " rows"]

    @classmethod
    def build(cls, tokens: Sequence[Sequence[int]], items: Sequence[int]) -> Runs:
        """Puts the tokens of some spans one behind the other."""
        flat = np.fromiter(chain.from_iterable(tokens), np.int32)
        ends = np.cumsum(np.fromiter(map(len, tokens), np.int64, len(tokens)))
        return cls(flat, ends, np.array(items, np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[Run]:
        flat: list[int] = self.tokens.tolist()
        each = [flat[start:end] for start, end in pairwise([0, *self.ends.tolist()])]
        return map(Run, each, self.items.tolist())


class SpanBatch:
    """Spans of many answers over one trie; answers join and leave.

    Every place a span can reach still leads to an item that its answer may name, so that a span
    that was opened can be closed. Methods take the slots of several answers, each at most once.

    Args:
        trie: The items.
        eoi_token_id: The token that closes a span; no item contains it.
        compiled: Take steps by compiled loops instead of arrays, but where rules for the whole
            catalog hold; None does so where numba is installed. They say the same.

    Raises:
        MissingExtraError: Compiled loops are asked for, and numba is not installed.
    """

    def __init__(self, trie: ItemTrie, eoi_token_id: int, *, compiled: bool | None = None) -> None:
        self.trie = trie
        if compiled:
            require("numba", extra="fast")
        self._kernels = None if compiled is False else load_kernels()
        self._eoi = eoi_token_id
        self._vacant: list[int] = []
        self._unique = np.empty(0, np.bool_)
        self._lo = np.empty(0, np.int32)
        self._hi = np.empty(0, np.int32)
        # Node at which an open span has to be decided on; -1 while it is closed.
        self._node = np.empty(0, np.int32)
        self._left = np.empty(0, np.int64)
        # How many more spellings than items that is.
        self._surplus = np.empty(0, np.int64)
        # Sorted positions that may not be named, excluded or spent; num_positions fills the rest.
        self._blocked = np.empty((0, _FIRST_CAPACITY), np.int32)
        self._blocked_count = np.empty(0, np.int64)
        self._excluded: list[ExcludedItems | None] = []
        # Fields of the cursor at the root of each answer's catalog.
        self._roots = np.empty((0, len(Cursor._fields)), np.int32)
        self._domains: list[str | None] = []
        self._ruled = np.empty(0, np.bool_)
        self._num_ruled = 0
        largest = max(int(trie.arrays.edge_token.max(initial=0)), eoi_token_id)
        # Scratch: which tokens are listed, and where.
        self._listed = np.zeros(largest // 8 * 8 + 8, dtype=np.bool_)
        self._column = np.zeros(largest + 1, dtype=np.int64)
        if self._kernels is not None:
            arrays = trie.arrays
            # Scratch for the node with most edges, and room for what is written.
            degrees, tails = np.diff(arrays.node_edges), np.diff(arrays.tail_start)
            self._counts = np.zeros(int(degrees.max(initial=0)), dtype=np.int32)
            self._longest = int(arrays.node_depth.max(initial=0) + tails.max(initial=0)) + 1
            alone = np.empty(0, np.bool_) if trie.alone is None else trie.alone
            beside = {"order": trie.order, "alone": alone} | trie.edge_nodes._asdict()
            self._tree = self._kernels.Tree(
                *(
                    beside.get(name, getattr(arrays, name, None))
                    for name in self._kernels.Tree._fields
                )
            )

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
            unique: It names an item at most once, whatever its spelling; items that share a title
                are spent together.
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
        if self.trie.spellings is not None:
            items = np.count_nonzero(free_rows(self.trie, excluded, domain))
            self._surplus[slot] = self._left[slot] - items
        self._blocked_count[slot] = 0
        self._block(slot, listed)
        self._excluded[slot] = excluded
        self._ruled[slot] = excluded is not None and excluded.before is not None
        self._num_ruled += int(self._ruled[slot])
        self._roots[slot] = root
        self._domains[slot] = domain
        return slot

    def leave(self, slot: int) -> None:
        """Forgets an answer."""
        self._blocked[slot] = self.trie.num_positions
        self._excluded[slot] = None
        self._num_ruled -= int(self._ruled[slot])
        self._node[slot] = -1
        self._vacant.append(slot)

    def node(self, slot: int) -> int:
        """The node an open span has to be decided on at."""
        return int(self._node[slot])

    def left(self, slot: int) -> int:
        """Number of items that an answer may still name."""
        return int(self._left[slot] - self._surplus[slot])

    def free_rows(self, slot: int) -> Bool[np.ndarray, " items"]:
        """Which item rows an answer may still name."""
        free = free_rows(self.trie, self._excluded[slot], self._domains[slot])
        free[self.trie.order[self._blocked[slot, : self._blocked_count[slot]]]] = False
        return free

    def open(self, slots: Slots) -> Runs:
        """Opens spans, and goes on to the first decision in each.

        Raises:
            NoItemLeftError: One of the answers may not name any further item.
        """
        if not (self._left[slots] > 0).all():
            raise NoItemLeftError(
                "no item left to recommend: all are excluded or have been named; exclude fewer "
                "items or ask for fewer"
            )
        if self._compiles(slots):
            assert self._kernels is not None
            return self._ran(
                slots,
                *self._kernels.enter(
                    self._tree, self._state, slots, self._roots, self._eoi, self._longest
                ),
            )
        lo, hi, node, chain, chain_end = self._roots[slots][:, [0, 1, 3, 4, 5]].T
        places = _Places(lo, hi, node, chain, chain_end)
        return self._follow(slots, [[] for _ in slots], places, hi - lo - self._left[slots])

    def write(self, slot: int, row: int) -> Run:
        """Opens a span and writes the title of a given item into it.

        Raises:
            TrieError: The answer may not name the item.
        """
        position = self.trie.title_position(row)
        root, excluded = self._root(slot), self._excluded[slot]
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
        if self._compiles(slots):
            assert self._kernels is not None
            tokens, mask = self._kernels.allow(
                self._tree, self._state, slots, self._eoi, self._listed, self._column
            )
            return Allowed(slots, tokens, mask, self._node[slots])
        nodes = self._nodes(self._node[slots])
        tokens = self.trie.arrays.edge_token[nodes.edges]
        tokens = np.where(tokens == CLOSE, self._eoi, tokens)
        # Sorting them would take longer than all the rest.
        self._listed[tokens] = True
        union = np.flatnonzero(self._listed).astype(np.int32)
        self._listed[union] = False
        self._column[union] = np.arange(len(union))
        column = self._column[tokens]
        known = np.zeros((len(nodes.start), len(union)), dtype=np.bool_)
        known[nodes.owner, column] = True
        mask = known[nodes.place]
        row, child = self._barred(slots, nodes)
        mask[row, column[nodes.start[nodes.place[row]] + child]] = False
        return Allowed(slots, union, mask, self._node[slots])

    def choose(self, allowed: Allowed, columns: Int64[np.ndarray, " rows"]) -> Runs:
        """Takes the next token of each open span, and goes on to the decision behind it.

        Args:
            allowed: What may come next.
            columns: For each answer the place of its token among the allowed ones.

        Raises:
            TrieError: A token is not allowed; the state is unchanged.
        """
        tokens = allowed.tokens[columns]
        slots = allowed.slots
        if self._compiles(slots):
            assert self._kernels is not None
            refused = self._kernels.refused(allowed.mask, columns)
            if refused >= 0:
                raise TrieError(_refusal(tokens[refused]))
            return self._ran(
                slots,
                *self._kernels.go_on(
                    self._tree, self._state, slots, tokens, self._eoi, self._longest
                ),
            )
        free = allowed.mask[np.arange(len(columns)), columns]
        if not free.all():
            raise TrieError(_refusal(tokens[~free][0]))
        nodes = self._nodes(allowed.nodes)
        # Each node's tokens ascend, its closing choice behind them: so do the keys of all nodes.
        known = self.trie.arrays.edge_token[nodes.edges].astype(np.int64)
        known[known == CLOSE] = _CLOSING
        wanted = np.where(tokens == self._eoi, _CLOSING, tokens.astype(np.int64))
        stride = _CLOSING + 1
        found = np.searchsorted(nodes.owner * stride + known, nodes.place * stride + wanted)
        runs = [[token] for token in tokens.tolist()]
        return self._take(slots, nodes.edges[found], runs)

    def _take(self, slots: Slots, edges: Int64[np.ndarray, " rows"], runs: list[list[int]]) -> Runs:
        """Goes along an edge in each span; its own token stands in the run already."""
        arrays = self.trie.arrays
        nodes = self._node[slots]
        lo, hi = arrays.bounds[edges + nodes], arrays.bounds[edges + nodes + 1]
        following = self.trie.edge_nodes.of(edges)
        chain, end = arrays.tail_start[edges], arrays.tail_start[edges + 1]
        blocked = self._blocked_inside(slots, lo, hi).sum(1)
        for row in np.flatnonzero(self._ruled[slots]).tolist():
            rule = self._rule(slots[row])
            assert rule is not None
            blocked[row] += rule[hi[row]] - rule[lo[row]]
        return self._follow(slots, runs, _Places(lo, hi, following, chain, end), blocked)

    def _follow(
        self,
        slots: Slots,
        runs: list[list[int]],
        places: _Places,
        blocked: Int64[np.ndarray, " rows"],
    ) -> Runs:
        """Goes on in each span to its next decision, or to its end.

        Args:
            slots: The answers.
            runs: What was written on the way to the places; what follows is added.
            places: Where the spans are.
            blocked: Number of items below each place that may not be named.
        """
        node = places.node
        self._lo[slots], self._hi[slots], self._node[slots] = places.lo, places.hi, node
        _extend(runs, self.trie.arrays.tail, places.chain, places.chain_end)
        # The largest choice is the last one to be left: few rows have as many items blocked.
        enough = blocked >= self.trie.beside_largest_choice[node]
        for row in np.flatnonzero(enough & (node >= 0)).tolist():
            self._walk(int(slots[row]), runs[row])
        return self._end(slots, runs)

    def _compiles(self, slots: Slots) -> bool:
        """Whether compiled loops take the next step of some answers."""
        return self._kernels is not None and not (self._num_ruled and self._ruled[slots].any())

    def _renew_state(self) -> None:
        """Tells compiled loops of the arrays, which they change in place, once these are others."""
        if self._kernels is not None:
            self._state = self._kernels.State(
                self._lo,
                self._hi,
                self._node,
                self._blocked,
                self._blocked_count,
                self._left,
                self._unique,
                self._counts,
            )

    def _ran(
        self,
        slots: Slots,
        tokens: Int32[np.ndarray, " written"],
        ends: Int64[np.ndarray, " rows"],
        items: Int64[np.ndarray, " rows"],
        some_hard: bool,
    ) -> Runs:
        """What compiled loops wrote; spans that are hard to close are left to us."""
        if some_hard:
            assert self._kernels is not None
            hard = np.flatnonzero(items == self._kernels.HARD)
            items[hard] = self._close(slots[hard])
        return Runs(tokens, ends, items)

    def _end(self, slots: Slots, runs: list[list[int]]) -> Runs:
        """Closes the spans that have come to their end."""
        items = [-1] * len(runs)
        ended = np.flatnonzero(self._node[slots] < 0)
        if len(ended):
            for row, item in zip(ended.tolist(), self._close(slots[ended]), strict=True):
                items[row] = item
                if runs[row][-1:] != [self._eoi]:
                    runs[row].append(self._eoi)
        return Runs.build(runs, items)

    def _walk(self, slot: int, run: list[int]) -> None:
        """Goes along the choices of one span while a single one is left."""
        trie = self.trie
        lo, hi, node = int(self._lo[slot]), int(self._hi[slot]), int(self._node[slot])
        cursor = Cursor(lo, hi, 0, node, 0, 0)
        while cursor.node >= 0:
            free = self._free_choices(slot, cursor.node, most=2)
            if len(free) > 1:
                break
            tokens, bounds = trie.choices(cursor.node)
            if tokens[free[0]] == CLOSE:
                ends = bounds[free[0] :].tolist()
                cursor = Cursor(ends[0], ends[1], 0, -1, 0, 0)
                break
            run.append(int(tokens[free[0]]))
            cursor = trie.choose(cursor, free[0])
            run += trie.arrays.tail[cursor.chain : cursor.chain_end].tolist()
        self._lo[slot], self._hi[slot], self._node[slot] = cursor.lo, cursor.hi, cursor.node

    def _free_choices(self, slot: int, node: int, most: int | None = None) -> list[int]:
        """The choices of a node that lead to an item which an answer may name.

        Args:
            slot: The answer.
            node: The node.
            most: How many to find at most.
        """
        bounds = self.trie.choices(node)[1].tolist()
        blocked = np.sort(self._blocked[slot, : self._blocked_count[slot]]).tolist()
        rule = self._rule(slot)
        found: list[int] = []
        at = bisect_left(blocked, bounds[0])
        for choice, (lo, hi) in enumerate(pairwise(bounds)):
            end = bisect_left(blocked, hi, at)
            free = hi - lo - (end - at)
            if free and rule is not None:
                free -= int(rule[hi] - rule[lo])
            if free:
                found.append(choice)
                if len(found) == most:
                    break
            at = end
        return found

    def _close(self, slots: Slots) -> list[int]:
        """Ends spans at their places; each names the first free item there and spends all."""
        self._node[slots] = -1
        lo, hi = self._lo[slots], self._hi[slots]
        single = hi - lo == 1
        if self.trie.alone is not None:
            single &= self.trie.alone[lo]
        spent = slots[single & self._unique[slots]]
        if len(spent):
            self._make_room(int(self._blocked_count[spent].max()) + 1)
            self._blocked[spent, self._blocked_count[spent]] = self._lo[spent]
            self._blocked_count[spent] += 1
            self._left[spent] -= 1
        items: list[int] = self.trie.order[lo].tolist()
        for row in np.flatnonzero(~single).tolist():
            free = self._free_positions(slots[row], int(lo[row]), int(hi[row]))
            items[row] = int(self.trie.order[free[0]])
            if self._unique[slots[row]]:
                self._spend(slots[row], free)
        return items

    def _root(self, slot: int) -> Cursor:
        return Cursor(*self._roots[slot].tolist())

    def _equal(self, slot: int, position: int) -> tuple[int, int]:
        """Range of the positions of the items with the same tokens as one."""
        cursor = self._root(slot)
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
        if self.trie.spellings is not None:
            items = len(np.unique(self.trie.order[positions]))
            positions = np.asarray(self.trie.with_other_spellings(positions))
            self._surplus[slot] -= len(positions) - items
        self._block(slot, positions)
        self._left[slot] -= len(positions)

    def _rule(self, slot: int) -> Int32[np.ndarray, " items+1"] | None:
        excluded = self._excluded[slot]
        return None if excluded is None else excluded.before

    def _blocked_inside(
        self, slots: Slots, lo: Int32[np.ndarray, " rows"], hi: Int32[np.ndarray, " rows"]
    ) -> Bool[np.ndarray, "rows width"]:
        """Which blocked positions of each answer lie in a range."""
        blocked = self._blocked[slots, : int(self._blocked_count[slots].max(initial=0))]
        inside: np.ndarray = (blocked >= lo[:, None]) & (blocked < hi[:, None])
        return inside

    def _barred(
        self, slots: Slots, nodes: _Nodes
    ) -> tuple[Int64[np.ndarray, " barred"], Int64[np.ndarray, " barred"]]:
        """The choices that lead to blocked items only: of which row, and which of its node."""
        row, at = self._blocked_inside(slots, self._lo[slots], self._hi[slots]).nonzero()
        if not len(row) and not self._ruled[slots].any():
            return row, row
        bounds = self.trie.arrays.bounds[nodes.edges + nodes.number[nodes.owner]]
        stride = np.int64(self.trie.num_positions + 1)
        place = nodes.place[row]
        lower = nodes.owner * stride + bounds
        position = place * stride + self._blocked[slots[row], at]
        edge = np.searchsorted(lower, position, side="right") - 1
        if self._ruled[slots].any():
            return self._barred_by_rules(slots, nodes, row, edge)
        first = nodes.edges[edge] + nodes.number[place]
        width = self.trie.arrays.bounds[first + 1] - self.trie.arrays.bounds[first]
        # Few choices have so few items that an answer can have used them all up.
        small = width <= np.bincount(row)[row]
        row, edge, width = row[small], edge[small], width[small]
        if (width > 1).any():
            _, at, count = np.unique(row * len(lower) + edge, return_index=True, return_counts=True)
            at = at[count == width[at]]
            row, edge = row[at], edge[at]
        return row, edge - nodes.start[nodes.place[row]]

    def _barred_by_rules(
        self,
        slots: Slots,
        nodes: _Nodes,
        row: Int64[np.ndarray, " blocked"],
        edge: Int64[np.ndarray, " blocked"],
    ) -> tuple[Int64[np.ndarray, " barred"], Int64[np.ndarray, " barred"]]:
        """As :meth:`_barred`, where rules for the whole catalog hold too; looks at all choices.

        Args:
            slots: The answers.
            nodes: The nodes they stand at.
            row: Which answer each blocked position below its node belongs to.
            edge: Which of the edges of all nodes leads to it.
        """
        first = nodes.edges + nodes.number[nodes.owner]
        lo, hi = self.trie.arrays.bounds[first], self.trie.arrays.bounds[first + 1]
        rules: dict[int, Int32[np.ndarray, " items+1"] | None] = {}
        which = np.empty(len(slots), dtype=np.int64)
        for number, slot in enumerate(slots.tolist()):
            rule = self._rule(slot)
            rules[id(rule)] = rule
            which[number] = id(rule)
        # How many items of each edge the rule of each answer leaves; the same for many answers.
        left = np.empty((len(slots), len(first)), dtype=np.int32)
        for number, rule in rules.items():
            left[which == number] = hi - lo if rule is None else hi - lo - (rule[hi] - rule[lo])
        np.subtract.at(left, (row, edge), 1)
        barred = (left == 0) & (nodes.owner == nodes.place[:, None])
        of_row, found = barred.nonzero()
        return of_row, found - nodes.start[nodes.place[of_row]]

    def _nodes(self, nodes: Int32[np.ndarray, " rows"]) -> _Nodes:
        """The nodes that some rows stand at, each once, and their edges."""
        number, place = np.unique(nodes, return_inverse=True)
        first = self.trie.arrays.node_edges[number].astype(np.int64)
        degree = self.trie.arrays.node_edges[number + 1] - first
        start = np.cumsum(degree) - degree
        owner = np.repeat(np.arange(len(number)), degree)
        edges = np.arange(len(owner)) + (first - start)[owner]
        return _Nodes(number, place, start, degree, owner, edges)

    def _block(self, slot: int, positions: Int32[np.ndarray, " n"]) -> None:
        begin = int(self._blocked_count[slot])
        end = begin + len(positions)
        self._make_room(end)
        self._blocked[slot, begin:end] = positions
        self._blocked_count[slot] = end

    def _make_room(self, width: int) -> None:
        """Makes room for as many blocked positions an answer."""
        if width > self._blocked.shape[1]:
            wider = np.full(
                (len(self._blocked), 2 * width), self.trie.num_positions, dtype=np.int32
            )
            wider[:, : self._blocked.shape[1]] = self._blocked
            self._blocked = wider
            self._renew_state()

    def _grow(self) -> None:
        """Doubles the number of slots."""
        old = len(self._lo)
        new = max(_FIRST_CAPACITY, old)
        self._vacant = list(range(old, old + new))[::-1]
        for name in (
            "_unique",
            "_lo",
            "_hi",
            "_node",
            "_left",
            "_surplus",
            "_blocked_count",
            "_ruled",
        ):
            array = getattr(self, name)
            setattr(self, name, np.concatenate([array, np.zeros(new, array.dtype)]))
        self._roots = np.concatenate([self._roots, np.zeros((new, self._roots.shape[1]), np.int32)])
        empty = np.full((new, self._blocked.shape[1]), self.trie.num_positions, np.int32)
        self._blocked = np.concatenate([self._blocked, empty])
        self._excluded += [None] * new
        self._domains += [None] * new
        self._renew_state()


class _Nodes(NamedTuple):
    """The nodes that some rows stand at.

    Attributes:
        number: Number of each node, each once, ascending.
        place: Which of them each row stands at.
        start: Where the edges of each begin among those of all.
        degree: How many edges each has.
        owner: Whose edge each edge is.
        edges: Number of each edge in the trie.
    """

    number: Int32[np.ndarray, " nodes"]
    place: Int64[np.ndarray, " rows"]
    start: Int64[np.ndarray, " nodes"]
    degree: Int64[np.ndarray, " nodes"]
    owner: Int64[np.ndarray, " edges"]
    edges: Int64[np.ndarray, " edges"]


class _Places(NamedTuple):
    """Places in the trie, as those of a :class:`~incatalog.trie.cursor.Cursor` but one each row."""

    lo: Int32[np.ndarray, " rows"]
    hi: Int32[np.ndarray, " rows"]
    node: Int32[np.ndarray, " rows"]
    chain: Int32[np.ndarray, " rows"]
    chain_end: Int32[np.ndarray, " rows"]


def _refusal(token: int) -> str:
    return f"token {token}: leads to no item that is allowed"


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
