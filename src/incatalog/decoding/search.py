"""The best items of one place, by beams over the trie."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from incatalog.constraint.excluded import check_trie
from incatalog.decoding.events import RankedItems
from incatalog.decoding.request import Slot
from incatalog.errors import ConfigError, IncatalogError
from incatalog.packed.branches import Branches
from incatalog.packed.cache import RowCache
from incatalog.trie.build import CLOSE, spread
from incatalog.trie.cursor import Cursor
from incatalog.trie.trie import ItemTrie

Positions = Int32[np.ndarray, " n"]
Logprobs = Float64[np.ndarray, " n"]

# What open prefixes may still add to the logarithm of an item's probability, for it to be settled.
_NEGLIGIBLE = 1e-6


class _Prefix(NamedTuple):
    """The start of a title, up to a node of the trie."""

    logprob: float  # its log-probability
    cursor: Cursor  # the node, all tokens that lead to it without a choice behind it
    tokens: tuple[int, ...]  # its last tokens, those that its parent does not have
    path: Int64[np.ndarray, " length"]  # where its other tokens lie in the cache, beyond the prompt


class _Choices(NamedTuple):
    """Choices that may be taken, in the order in which they were found."""

    bound: Float64[np.ndarray, " open"]  # no item behind the choice has a greater score
    logprob: Float64[np.ndarray, " open"]  # log-probability of the prefix that ends with the choice
    parent: Int64[np.ndarray, " open"]  # which of the prefixes expanded so far it is a choice of
    number: Int64[np.ndarray, " open"]  # which of its choices

    def at(self, which: np.ndarray) -> _Choices:
        """Some of them."""
        return _Choices(*(part[which] for part in self))

    def joined(self, other: _Choices) -> _Choices:
        """These, then others."""
        return _Choices(*map(np.concatenate, zip(self, other, strict=True)))

    def split(self, count: int, least: float) -> tuple[list[_Choice], _Choices]:
        """The most promising ones, best first and of equal ones the earliest, and the others.

        Those that cannot reach the least score are dropped.
        """
        kept = self.at(self.bound >= least) if least > -np.inf else self
        total = len(kept.bound)
        near = np.arange(total)
        if total > count:
            worst = np.partition(kept.bound, total - count)[total - count]
            near = np.flatnonzero(kept.bound >= worst)
        order = near[np.argsort(-kept.bound[near], kind="stable")][:count]
        rest = np.ones(total, dtype=np.bool_)
        rest[order] = False
        best = (part.tolist() for part in kept.at(order))
        return list(zip(*best, strict=True)), kept.at(rest)


_Choice = tuple[float, float, int, int]
_NONE = _Choices(np.empty(0), np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64))


class PlaceSearch(ABC):
    """The state of a search in one slot: what of its prompt was fed, and whether it is over."""

    def __init__(self, trie: ItemTrie, slot: Slot, behind: list[int], k: int | None) -> None:
        if k is not None and k < 1:
            raise ConfigError(f"k: found {k}; expected at least 1, or None")
        check_trie(trie, slot.barred)
        self.prompt = [*(int(token) for token in slot.prompt_ids), *behind]
        self.cache = RowCache()
        self.over = False
        self.error: IncatalogError | None = None  # why the model failed at it
        self._fed = 0

    @property
    def unfed(self) -> int:
        """Tokens of the prompt that the model has not seen yet."""
        return len(self.prompt) - self._fed

    def next_tokens(self, most: float) -> list[int]:
        """The next tokens of the prompt, up to so many; they count as seen from now on."""
        start, self._fed = self._fed, int(min(self._fed + most, len(self.prompt)))
        return self.prompt[start : self._fed]

    def end(self) -> None:
        """Lets the keys and values go; the search is over."""
        self.over = True
        self.cache.release()

    def fail(self, error: IncatalogError) -> None:
        """Ends the search, as the model cannot go on with it; what it found is this error."""
        self.error = error
        self.end()

    def ranked(self) -> RankedItems:
        """What was found, once the search is over; raises what it failed with."""
        if self.error is not None:
            raise self.error
        return self._best()

    @abstractmethod
    def _best(self) -> RankedItems: ...


class BeamSearch(PlaceSearch):
    """The search among title prefixes; its prompt goes up to where the first titles part.

    The score of an item is its log-probability, or what the slot's weights make of it.
    """

    def __init__(self, trie: ItemTrie, slot: Slot, soi: int, k: int | None) -> None:
        root = trie.root()
        forced = trie.arrays.tail[root.chain : root.chain_end].tolist()
        super().__init__(trie, slot, [soi, *forced], k)
        self._trie = trie
        self._excluded = slot.barred
        # Equal weights change no order, and what is not computed is not rounded.
        self._weights = None if slot.weights is None or slot.weights.plain else slot.weights
        self._k = k
        self._positions = np.arange(len(self.prompt))
        self._found = np.empty(0, np.int32)
        self._logprobs = np.empty(0)
        self._scores = self._logprobs
        self._open = _NONE
        self._parents: list[_Prefix] = []
        self.expanded: list[_Prefix] = []  # prefixes whose choices are scored next
        if self._free(np.array([root.lo]), np.array([root.hi]))[0] > 0:
            if root.node < 0:
                self._add(np.arange(root.lo, root.hi), np.zeros(root.hi - root.lo))
            else:
                self.expanded = [_Prefix(0.0, root, (), np.empty(0, np.int64))]
        self.over = not self.expanded

    @property
    def new_tokens(self) -> int:
        """Tokens of the prefixes to be expanded."""
        return sum(len(prefix.tokens) for prefix in self.expanded)

    def take(self, logprobs: Float64[np.ndarray, " choices"]) -> None:
        """Takes the log-probabilities of the choices of all expanded prefixes, one by one."""
        arrays = self._trie.arrays
        nodes = np.array([prefix.cursor.node for prefix in self.expanded])
        first = arrays.node_edges[nodes]
        parent, choice = spread(arrays.node_edges[nodes + 1] - first)
        edge = first[parent] + choice
        lo, hi = arrays.bounds[edge + nodes[parent]], arrays.bounds[edge + nodes[parent] + 1]
        total = np.array([prefix.logprob for prefix in self.expanded])[parent] + logprobs
        bound = total
        if self._weights is not None:
            bound = self._weights.scores(total, self._weights.greatest(lo, hi))
        useful = (bound >= self._least) & (self._free(lo, hi) > 0)
        # Behind the close of a span, and where a single item is left, nothing is to be decided.
        ends = useful & ((arrays.edge_token[edge] == CLOSE) | (hi - lo == 1))
        of, within = spread((hi - lo)[ends])
        self._add((lo[ends][of] + within).astype(np.int32), total[ends][of])
        goes_on = useful & ~ends
        parents = parent[goes_on] + len(self._parents)
        found = _Choices(bound[goes_on], total[goes_on], parents, choice[goes_on])
        self._open = self._open.joined(found)
        self._parents += self.expanded
        self.expanded = []

    def advance(self, width: int, *, exact: bool) -> bool:
        """Chooses the prefixes to expand next; if none can matter, ends and returns False."""
        while len(self.expanded) < width:
            best = self._likeliest(width - len(self.expanded), exact=exact)
            if not best:
                break
            for bound, logprob, parent, choice in best:
                if bound < self._least:
                    continue
                before = self._parents[parent]
                cursor = self._trie.choose(before.cursor, choice)
                if cursor.node < 0:
                    # Several items with equal tokens.
                    items = np.arange(cursor.lo, cursor.hi, dtype=np.int32)
                    self._add(items, np.full(len(items), logprob))
                    continue
                own = int(self._trie.node_tokens(before.cursor.node)[choice])
                run = self._trie.arrays.tail[cursor.chain : cursor.chain_end].tolist()
                self.expanded.append(_Prefix(logprob, cursor, (own, *run), before.path))
        if not exact:
            self._open = _NONE
        if not self.expanded:
            self.end()
        return bool(self.expanded)

    def _likeliest(self, count: int, *, exact: bool) -> list[_Choice]:  # noqa: ARG002
        """Removes the most promising open continuations that can matter, and returns them."""
        best, self._open = self._open.split(count, self._bound)
        return best

    def branches(self) -> Branches:
        """The tokens of the expanded prefixes, each seeing the prompt and its own past."""
        seen, prompt = len(self._positions), len(self.prompt)
        tokens = [token for prefix in self.expanded for token in prefix.tokens]
        visible = np.zeros((len(tokens), seen + len(tokens)), dtype=bool)
        visible[:, :prompt] = True
        positions, ends, start = [self._positions], [], 0
        for number, prefix in enumerate(self.expanded):
            length = len(prefix.tokens)
            end = start + length
            visible[start:end, prefix.path] = True
            visible[start:end, seen + start : seen + end] = np.tri(length, dtype=bool)
            positions.append(np.arange(length) + prompt + len(prefix.path))
            ends.append(end - 1)
            path = np.append(prefix.path, np.arange(seen + start, seen + end))
            self.expanded[number] = prefix._replace(path=path)
            start = end
        self._positions = np.concatenate(positions)
        return Branches(tokens, self._positions, visible, ends)

    def _best(self) -> RankedItems:
        return RankedItems(self._trie.order[self._found], self._logprobs)

    @property
    def _bound(self) -> float:
        """The score an item needs to be among the best."""
        return -np.inf if len(self._found) != self._k else float(self._scores[-1])

    @property
    def _least(self) -> float:
        """What a prefix needs to be kept."""
        return self._bound

    def _free(self, lo: Positions, hi: Positions) -> Positions:
        """How many items of each range are allowed."""
        free: np.ndarray = hi - lo
        if self._excluded is not None:
            free = free - (self._excluded.count_before(hi) - self._excluded.count_before(lo))
        return free

    def _add(self, positions: Positions, logprobs: Logprobs) -> None:
        """Keeps the allowed ones of some items if they are among the best."""
        allowed = self._free(positions, positions + 1) > 0
        found = np.concatenate([self._found, positions[allowed]])
        logprobs = np.concatenate([self._logprobs, logprobs[allowed]])
        scores = self._scored(found, logprobs)
        best = np.lexsort((self._trie.order[found], -scores))[: self._k]
        self._found, self._logprobs, self._scores = found[best], logprobs[best], scores[best]

    def _scored(self, positions: Positions, logprobs: Logprobs) -> Logprobs:
        """Scores of items at some positions."""
        if self._weights is None:
            return logprobs
        return self._weights.scores(logprobs, self._weights.log_weights[positions])


class SpelledSearch(BeamSearch):
    """The search in one slot over items of several spellings."""

    # An item may be found by another spelling, and then the unlikely prefixes count too.
    _least = -math.inf

    def __init__(self, trie: ItemTrie, slot: Slot, soi: int, k: int | None) -> None:
        assert trie.spellings is not None
        # Items of which a spelling was found, ascending, and the sum over those that were.
        self._items = np.empty(0, np.int32)
        self._totals = np.empty(0)
        self._titles = trie.position[trie.spellings.title]
        super().__init__(trie, slot, soi, k)
        model = 1.0 if self._weights is None else self._weights.model
        self._margin = model * math.log(trie.spellings.most)

    def _best(self) -> RankedItems:
        best = np.lexsort((self._items, -self._of_items(self._totals)))[: self._k]
        return RankedItems(self._items[best].astype(np.int32), self._totals[best])

    def _of_items(self, totals: Logprobs) -> Logprobs:
        """Scores of the items, if these are their log-probabilities."""
        return self._scored(self._titles[self._items], totals)

    @property
    def _bound(self) -> float:
        if self._k is None or len(self._items) < self._k:
            return -np.inf
        return float(np.partition(self._of_items(self._totals), -self._k)[-self._k])

    def _add(self, positions: Positions, logprobs: Logprobs) -> None:
        allowed = self._free(positions, positions + 1) > 0
        positions, logprobs = positions[allowed], logprobs[allowed]
        self._found = np.concatenate([self._found, positions])
        rows = np.concatenate([self._items, self._trie.order[positions]])
        self._items, place = np.unique(rows, return_inverse=True)
        totals = np.full(len(self._items), -np.inf)
        np.logaddexp.at(totals, place, np.concatenate([self._totals, logprobs]))
        self._totals = totals

    def _likeliest(self, count: int, *, exact: bool) -> list[_Choice]:
        wanted = self._open.bound >= self._bound - self._margin
        if exact and not wanted.any() and not self.expanded:
            wanted = self._unsettled()
        best, rest = self._open.at(wanted).split(count, -np.inf)
        self._open = self._open.at(~wanted).joined(rest)
        return best

    def _unsettled(self) -> Bool[np.ndarray, " open"]:
        """Which continuations lead to spellings that decide whether an item is among the best."""
        wanted = np.zeros(len(self._open.logprob), dtype=np.bool_)
        positions = np.setdiff1d(self._trie.positions(self._items), self._found)
        positions = positions[positions < self._trie.num_live]
        if not len(positions):
            return wanted
        # First sorted position below each open continuation.
        arrays = self._trie.arrays
        nodes = np.array([prefix.cursor.node for prefix in self._parents])[self._open.parent]
        lo = arrays.bounds[arrays.node_edges[nodes] + self._open.number + nodes]
        by_lo = np.argsort(lo)
        leading = by_lo[lo[by_lo].searchsorted(positions, side="right") - 1]
        item = self._items.searchsorted(self._trie.order[positions])
        # Spellings below one continuation share its probability.
        pairs = np.unique(item * len(wanted) + leading)
        item, leading = pairs // len(wanted), pairs % len(wanted)
        highest = self._totals.copy()
        np.logaddexp.at(highest, item, self._open.logprob[leading])
        undecided = self._of_items(highest) >= self._bound
        undecided &= highest - self._totals > _NEGLIGIBLE
        wanted[leading[undecided[item]]] = True
        return wanted


def log_softmax_runs(scores: Logprobs, counts: Int64[np.ndarray, " runs"]) -> Logprobs:
    """Log-probabilities within runs of scores; not numbers where a run's scores are not."""
    starts = np.cumsum(counts) - counts
    shifted: np.ndarray = scores - np.repeat(np.maximum.reduceat(scores, starts), counts)
    shifted -= np.repeat(np.log(np.add.reduceat(np.exp(shifted), starts)), counts)
    return shifted
