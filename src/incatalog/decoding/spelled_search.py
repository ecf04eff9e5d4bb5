"""The best items of one place where items have several spellings."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool

from incatalog.decoding.events import RankedItems
from incatalog.decoding.request import Slot
from incatalog.decoding.search import BeamSearch, Choice, Logprobs, Positions
from incatalog.packed.cache import RowCache
from incatalog.trie.trie import ItemTrie

# What open prefixes may still add to the logarithm of an item's probability, for it to be settled.
_NEGLIGIBLE = 1e-6


class SpelledSearch(BeamSearch):
    """The search in one slot over items of several spellings."""

    # An item may be found by another spelling, and then the unlikely prefixes count too.
    _least = -math.inf

    def __init__(
        self,
        trie: ItemTrie,
        slot: Slot,
        soi: int,
        k: int | None,
        cache: RowCache | None = None,
    ) -> None:
        assert trie.spellings is not None
        # Items of which a spelling was found, ascending, and the sum over those that were.
        self._items = np.empty(0, np.int32)
        self._totals = np.empty(0)
        self._titles = trie.position[trie.spellings.title]
        super().__init__(trie, slot, soi, k, cache)
        model = 1.0 if self._weights is None else self._weights.model
        self._margin = model * math.log(trie.spellings.most)

    def _best(self) -> RankedItems:
        scores = self._of_items(self._totals)
        best = np.lexsort((self._items, -scores))[: self._k]
        return RankedItems(self._items[best].astype(np.int32), scores[best])

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

    def _likeliest(self, count: int, *, exact: bool) -> list[Choice]:
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


def beam_search(
    trie: ItemTrie, slot: Slot, soi: int, k: int | None, cache: RowCache | None = None
) -> BeamSearch:
    """The search of one slot, for items of one spelling or several."""
    kind = BeamSearch if trie.spellings is None else SpelledSearch
    return kind(trie, slot, soi, k, cache)
