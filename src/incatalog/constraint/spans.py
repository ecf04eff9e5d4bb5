"""Item spans of many answers at once: what the catalog allows next, for a whole batch.

It goes from decision to decision and looks at all answers together. The state lies on the host, as
the shape of the next forward pass depends on it; only the mask over the scored tokens travels to
the model's device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from incatalog.constraint import kernels, masses
from incatalog.constraint.excluded import ExcludedItems, check_trie, free_rows
from incatalog.constraint.kernels import Slots
from incatalog.constraint.weights import ItemWeights, all_excluded
from incatalog.errors import NoItemLeftError, TrieError
from incatalog.trie.trie import ItemTrie

_FIRST_CAPACITY = 8


@dataclass(frozen=True, eq=False)
class Allowed:
    """What may come next in some open spans."""

    slots: Slots
    tokens: Int32[np.ndarray, " tokens"]  # what may come next in any of them, ascending
    mask: Bool[np.ndarray, "rows tokens"]  # which of these may come next in each
    nodes: Int32[np.ndarray, " rows"]  # the node each stands at


class Guidance(NamedTuple):
    """What item weights make of a model's probabilities in some of several open spans.

    The logarithm of a token's probability among the allowed ones is multiplied by ``model``, then
    ``bias`` is added: the share of the weights times the logarithm of the part of the weight, of
    all that may still be named from there, that is below the token.
    """

    rows: Int64[np.ndarray, " guided"]  # which of the spans have weights
    model: Float64[np.ndarray, "guided 1"]
    bias: Float64[np.ndarray, "guided tokens"]  # minus infinity where a token is not allowed


class SpanRun(NamedTuple):
    """What follows in one span without another decision, the closing token included."""

    tokens: list[int]
    item: int  # row of the item if the span is closed, else -1


@dataclass(frozen=True, eq=False)
class SpanRuns:
    """What follows in each of some spans; their lists are made when they are gone through."""

    tokens: Int32[np.ndarray, " written"]  # those of all, span after span
    ends: Int64[np.ndarray, " rows"]  # where those of each end
    items: Int64[np.ndarray, " rows"]  # row of each item whose span is closed, else -1

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[SpanRun]:
        flat: list[int] = self.tokens.tolist()
        each = [flat[start:end] for start, end in pairwise([0, *self.ends.tolist()])]
        return map(SpanRun, each, self.items.tolist())


class SpanBatch:
    """Spans of many answers over one trie; answers join and leave.

    Every place a span can reach still leads to an item that its answer may name, so that a span
    that was opened can be closed. Methods take the slots of several answers, each at most once.
    No item contains the closing token.
    """

    def __init__(self, trie: ItemTrie, eoi_token_id: int) -> None:
        self.trie = trie
        self.eoi_token_id = eoi_token_id
        self._root = trie.root()
        self._vacant: list[int] = []
        self._excluded: list[ExcludedItems | None] = []
        self._weights: list[ItemWeights | None] = []
        int32, int64, booleans = (np.empty(0, kind) for kind in (np.int32, np.int64, np.bool_))
        self._weighing = masses.AnswerWeights(*(int64,) * 4, *(np.empty(0),) * 2)
        places = {"lo": int32, "hi": int32, "node": int32}
        numbers = {"blocked_count": int64, "rule": int64, "left": int64, "unique": booleans}
        blocked = np.empty((0, _FIRST_CAPACITY), np.int32)
        counts = np.zeros(trie.most_choices, np.int32)
        self._state = kernels.State(**places, **numbers, blocked=blocked, counts=counts)
        own = {"eoi": eoi_token_id, "longest": trie.longest_row, "order": trie.order}
        own["alone"] = booleans if trie.alone is None else trie.alone
        known = trie.arrays.__dict__ | trie.edge_nodes._asdict() | own
        self._tree = kernels.Tree(*(known[name] for name in kernels.Tree._fields))
        # Scratch: which tokens are listed, and where.
        largest = max(trie.largest_token, eoi_token_id)
        self._listed = np.zeros(largest // 8 * 8 + 8, dtype=np.bool_)
        self._column = np.zeros(largest + 1, dtype=np.int64)

    def __setstate__(self, state: dict[str, object]) -> None:
        """Points rules and weights of a copy, by pickle or `deepcopy`, to the copy's own memory."""
        self.__dict__.update(state)
        for slot in range(len(self._excluded)):
            self._point(slot)

    def __len__(self) -> int:
        """Number of answers."""
        return len(self._excluded) - len(self._vacant)

    def join(
        self,
        excluded: ExcludedItems | None = None,
        *,
        unique: bool = True,
        weights: ItemWeights | None = None,
    ) -> int:
        """Takes up an answer that has not named anything yet; returns its slot.

        If it is ``unique``, it names an item at most once, whatever its spelling, and items that
        share a title all go with the one that is named. Weights have to exclude what is excluded.
        """
        excluded = all_excluded(excluded, weights)
        check_trie(self.trie, excluded)
        [slot] = self._take(1)
        live, listed = self.trie.num_live, np.empty(0, np.int32)
        left = live
        if excluded is not None:
            listed = excluded.listed[: excluded.listed.searchsorted(live)]
            left -= int(excluded.count_before(np.array([live]))[0])
        if self.trie.spellings is not None:
            left = int(np.count_nonzero(free_rows(self.trie, excluded)))
        self._excluded[slot] = excluded
        # Items of equal weights are the model's to choose from, as items without weights are.
        self._weights[slot] = None if weights is None or weights.plain else weights
        self._point(slot)
        state = self._state
        state.node[slot], state.left[slot], state.unique[slot] = -1, left, unique
        state.blocked_count[slot] = 0
        self._block(slot, listed)
        return slot

    def leave(self, slot: int) -> None:
        """Forgets an answer."""
        self._excluded[slot] = self._weights[slot] = None
        self._vacant.append(slot)

    def fork(self, slots: Slots) -> Slots:
        """Takes up further answers, each in the state of one of these."""
        copies = np.array(self._take(len(slots)), dtype=np.int64)
        for array in (*self._state[:-1], *self._weighing):
            array[copies] = array[slots]
        for copy, slot in zip(copies.tolist(), slots.tolist(), strict=True):
            self._excluded[copy], self._weights[copy] = self._excluded[slot], self._weights[slot]
        return copies

    def node(self, slot: int) -> int:
        """The node an open span has to be decided on at."""
        return int(self._state.node[slot])

    def position(self, slot: int) -> int:
        """A sorted position below the place where an answer's last span is or has ended."""
        return int(self._state.lo[slot])

    def left(self, slot: int) -> int:
        """Number of items that an answer may still name."""
        return int(self._state.left[slot])

    def barred(self, slot: int) -> ExcludedItems:
        """The items that an answer may not name any more, or never might."""
        excluded = self._excluded[slot]
        before = None if excluded is None else excluded.before
        return ExcludedItems(self.trie, before, np.sort(self._blocked(slot)))

    def free_rows(self, slot: int) -> Bool[np.ndarray, " items"]:
        """Which item rows an answer may still name."""
        free = free_rows(self.trie, self._excluded[slot])
        free[self.trie.order[self._blocked(slot)]] = False
        return free

    def open(self, slots: Slots) -> SpanRuns:
        """Opens spans, and goes on to the first decision in each."""
        if not (self._state.left[slots] > 0).all():
            raise NoItemLeftError(
                "no item left to recommend: all are excluded or have been named; exclude fewer "
                "items or ask for fewer"
            )
        return self._ran(slots, kernels.enter(self._tree, self._state, slots, self._root))

    def write(self, slot: int, row: int) -> SpanRun:
        """Opens a span and writes the title of a given item into it."""
        position, excluded = self.trie.title_position(row), self._excluded[slot]
        free = position < self.trie.num_live and position not in self._blocked(slot)
        if not free or (excluded is not None and excluded.holds(position)):
            raise TrieError(f"item row {row}: is excluded or has been named already")
        tokens, lo, hi = self.trie.leaf(position)
        self._state.lo[slot], self._state.node[slot] = lo, -1
        if self._state.unique[slot]:
            self._spend(slot, self._free_positions(slot, lo, hi))
        return SpanRun([*tokens, self.eoi_token_id], row)

    def allowed(self, slots: Slots) -> Allowed:
        """The tokens that may come next in open spans; at least two in each."""
        state = self._state
        tokens, mask = kernels.allow(self._tree, state, slots, self._listed, self._column)
        return Allowed(slots, tokens, mask, state.node[slots])

    def guidance(self, allowed: Allowed) -> Guidance | None:
        """What the weights of answers make of their next tokens; None where no answer has any."""
        if not any(self._weights):
            return None
        own = self._weighing
        rows = np.flatnonzero(own.mass[allowed.slots])
        if not len(rows):
            return None
        slots = allowed.slots[rows]
        bias = masses.log_parts(
            self._tree, self._state, own, slots, allowed.tokens, allowed.mask[rows], self._column
        )
        return Guidance(rows, own.model[slots, None], bias)

    def choose(self, allowed: Allowed, columns: Int64[np.ndarray, " rows"]) -> SpanRuns:
        """Takes the next token of each open span, and goes on to the decision behind it.

        ``columns`` are the places of the tokens among the allowed ones. Where one of them is
        refused, the state is unchanged.
        """
        tokens, slots = allowed.tokens[columns], allowed.slots
        refused = kernels.refused(allowed.mask, columns)
        if refused >= 0:
            raise TrieError(f"token {tokens[refused]}: leads to no item that is allowed")
        return self._ran(slots, kernels.go_on(self._tree, self._state, slots, tokens))

    def _ran(self, slots: Slots, steps: kernels.Steps) -> SpanRuns:
        """What loops wrote; what they left undone is done first."""
        tokens, ends, items, unfinished = steps
        if unfinished:
            for row in np.flatnonzero(items == kernels.HARD).tolist():
                items[row] = self._close(slots[row])
            self._make_room(int(self._state.blocked_count[slots].max()))
        return SpanRuns(tokens, ends, items)

    def _close(self, slot: int) -> int:
        """Ends a span at its place: it names the first free item there, and blocks all."""
        free = self._free_positions(slot, self._state.lo[slot], self._state.hi[slot])
        if self._state.unique[slot]:
            self._spend(slot, free)
        return int(self.trie.order[free[0]])

    def _free_positions(self, slot: int, lo: int, hi: int) -> Int64[np.ndarray, " free"]:
        """The positions of a range that an answer may name."""
        free = np.ones(hi - lo, dtype=np.bool_)
        blocked, excluded = self._blocked(slot), self._excluded[slot]
        free[blocked[(blocked >= lo) & (blocked < hi)] - lo] = False
        if excluded is not None and excluded.before is not None:
            free &= np.diff(excluded.before[lo : hi + 1]) == 0
        return np.flatnonzero(free) + lo

    def _spend(self, slot: int, positions: Int64[np.ndarray, " spent"]) -> None:
        """Blocks different items that were named, with all their spellings."""
        self._state.left[slot] -= len(positions)
        self._block(slot, self.trie.with_other_spellings(positions))

    def _blocked(self, slot: int) -> Int32[np.ndarray, " blocked"]:
        """Positions that an answer may not name beyond those that its rule excludes."""
        return self._state.blocked[slot, : self._state.blocked_count[slot]]

    def _block(self, slot: int, positions: Int32[np.ndarray, " n"]) -> None:
        begin = int(self._state.blocked_count[slot])
        end = begin + len(positions)
        self._make_room(end)
        self._state.blocked[slot, begin:end] = positions
        self._state.blocked_count[slot] = end

    def _make_room(self, width: int) -> None:
        """Makes room for so many positions that an answer may not name, and one more."""
        if width >= self._state.blocked.shape[1]:
            self._resize(len(self._excluded), 2 * width)

    def _take(self, count: int) -> list[int]:
        """Slots of new answers."""
        while len(self._vacant) < count:
            old = len(self._excluded)
            new = max(_FIRST_CAPACITY, old)
            self._vacant = [*range(old + new - 1, old - 1, -1), *self._vacant]
            self._excluded += [None] * new
            self._weights += [None] * new
            self._resize(old + new, self._state.blocked.shape[1])
        return [self._vacant.pop() for _ in range(count)]

    def _resize(self, slots: int, width: int) -> None:
        """Makes room for as many slots, and positions that one of them may not name."""
        arrays = {name: array for name, array in self._state._asdict().items() if name != "counts"}
        grown = {name: _with_room(array, slots, width) for name, array in arrays.items()}
        self._state = self._state._replace(**grown)
        self._weighing = masses.AnswerWeights(
            *(_with_room(array, slots) for array in self._weighing)
        )

    def _point(self, slot: int) -> None:
        """Tells the loops where the rule and the weights of an answer are; both are kept here."""
        excluded, weights, own = self._excluded[slot], self._weights[slot], self._weighing
        self._state.rule[slot] = _address(None if excluded is None else excluded.before)
        own.mass[slot] = 0
        if weights is not None:
            own.mass[slot], own.spread[slot] = _address(weights.mass), _address(weights.spread)
            own.edges[slot], own.nodes[slot] = map(_address, weights.below)
            own.model[slot], own.share[slot] = weights.model, weights.share


def _address(array: np.ndarray | None) -> int:
    """Where the loops find an array; 0 where there is none."""
    if array is None:
        return 0
    assert array.flags.c_contiguous
    return int(array.__array_interface__["data"][0])


def _with_room(array: np.ndarray, *shape: int) -> np.ndarray:
    """An array with more rows, and more columns where it has columns."""
    new = np.zeros(shape[: array.ndim], array.dtype)
    new[tuple(map(slice, array.shape))] = array
    return new
