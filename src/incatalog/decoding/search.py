"""The best items of one place, by beams over the trie."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int32, Int64

from incatalog.constraint.excluded import check_trie
from incatalog.decoding.events import RankedItems
from incatalog.decoding.request import Slot
from incatalog.errors import NOT_NUMBERS, BackboneError, ConfigError, IncatalogError
from incatalog.packed.branches import Branches
from incatalog.packed.cache import RowCache
from incatalog.packed.model import Readout
from incatalog.trie.build import CLOSE, spread
from incatalog.trie.cursor import Cursor
from incatalog.trie.trie import ItemTrie

Positions = Int32[np.ndarray, " n"]
Logprobs = Float64[np.ndarray, " n"]


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

    def split(self, count: int, least: float) -> tuple[list[Choice], _Choices]:
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


Choice = tuple[float, float, int, int]
_NONE = _Choices(np.empty(0), np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64))


class PlaceSearch(ABC):
    """The state of a search in one slot: what of its prompt was fed, and whether it is over.

    It has keys and values of its own, or those of an answer that is written there.
    """

    def __init__(
        self,
        trie: ItemTrie,
        slot: Slot,
        behind: list[int],
        k: int | None,
        cache: RowCache | None = None,
    ) -> None:
        if k is not None and k < 1:
            raise ConfigError(f"k: found {k}; expected at least 1, or None")
        check_trie(trie, slot.barred)
        self.prompt = [*(int(token) for token in slot.prompt_ids), *behind]
        self.cache, self._borrowed = cache or RowCache(), cache is not None
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
        """Lets keys and values of its own go; the search is over."""
        self.over = True
        if not self._borrowed:
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

    def __init__(
        self,
        trie: ItemTrie,
        slot: Slot,
        soi: int,
        k: int | None,
        cache: RowCache | None = None,
    ) -> None:
        root = trie.root()
        forced = trie.arrays.tail[root.chain : root.chain_end].tolist()
        super().__init__(trie, slot, [soi, *forced], k, cache)
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
            elif self._weights is not None and self._weights.model == 0:
                self._take_heaviest(self._weights.log_weights)
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

    def advance(self, width: int, *, exact: bool, tokens: float = math.inf) -> bool:
        """Chooses the prefixes to expand next; if none can matter, ends and returns False.

        They are so many, or have about so many tokens, and one at least.
        """
        while len(self.expanded) < width and self.new_tokens < tokens:
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

    def _likeliest(self, count: int, *, exact: bool) -> list[Choice]:  # noqa: ARG002
        """Removes the most promising open continuations that can matter, and returns them."""
        best, self._open = self._open.split(count, self._bound)
        return best

    def _take_heaviest(self, log_weights: Float64[np.ndarray, " positions"]) -> None:
        """Finds the items of the greatest weights, which the model has no say in."""
        spellings, positions = self._trie.spellings, np.arange(self._trie.num_live)
        if spellings is not None:
            positions = self._trie.position[spellings.title]
        weights = log_weights[positions]
        least, k = -np.inf, self._k
        if k is not None and k < len(weights):
            least = np.partition(weights, -k)[-k]
        heavy = positions[(weights >= least) & (weights > -np.inf)]
        self._add(heavy.astype(np.int32), np.zeros(len(heavy)))

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

    def stored(self, position: int) -> list[int]:
        """Places, behind the prompt, of the tokens on the way to an item that were fed."""
        path: Int64[np.ndarray, " length"] = np.empty(0, np.int64)
        for prefix in self._parents:
            here = prefix.cursor.lo <= position < prefix.cursor.hi
            if here and len(prefix.path) > len(path):
                path = prefix.path
        behind: list[int] = (path - len(self.prompt)).tolist()
        return behind

    def _best(self) -> RankedItems:
        return RankedItems(self._trie.order[self._found], self._scores)

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


def log_softmax_runs(scores: Logprobs, counts: Int64[np.ndarray, " runs"]) -> Logprobs:
    """Log-probabilities within runs of scores; not numbers where a run's scores are not."""
    starts = np.cumsum(counts) - counts
    shifted: np.ndarray = scores - np.repeat(np.maximum.reduceat(scores, starts), counts)
    shifted -= np.repeat(np.log(np.add.reduceat(np.exp(shifted), starts)), counts)
    return shifted


def score_prefixes(
    readout: Readout,
    rows: Sequence[int],
    searches: Sequence[BeamSearch],
    trie: ItemTrie,
    eoi: int,
) -> None:
    """Gives searches the log-probabilities of the choices behind what they expand.

    ``rows`` are the places in the readout of all expanded prefixes, search after search. Where the
    model's scores are not numbers, that search fails.
    """
    if not searches:
        return
    nodes = [prefix.cursor.node for search in searches for prefix in search.expanded]
    choices = [trie.node_tokens(node) for node in nodes]
    counts = np.fromiter(map(len, choices), np.int64, len(choices))
    tokens = np.concatenate(choices)
    tokens = np.where(tokens == CLOSE, eoi, tokens)
    scored, column = np.unique(tokens, return_inverse=True)
    scores = readout.some(rows, scored).cpu().numpy()
    row = np.repeat(np.arange(len(nodes)), counts)
    logprobs = log_softmax_runs(scores[row, column].astype(np.float64), counts)
    first = 0
    for search in searches:
        runs = slice(first, first + len(search.expanded))
        begin, end = int(counts[:first].sum()), int(counts[: runs.stop].sum())
        if np.isnan(logprobs[begin:end]).any():
            search.fail(BackboneError(NOT_NUMBERS))
        else:
            search.take(logprobs[begin:end])
        first = runs.stop
