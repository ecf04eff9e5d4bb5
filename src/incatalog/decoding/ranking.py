"""Search over one item slot: the items the model would most likely write there, in one call.

Token by token, greedy decoding under exclusions ranks by the wrong numbers: where most items that
start with a token are excluded, the token still collects the probability of all of them, and one
of the few left inherits it. Here an item's score is the log-probability of its whole title under
the model held to the catalog; excluded items are left out and keep their share, so that the order
of the others is the model's own. An item of several spellings has the probability of all of them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np

from incatalog.constraint.control import check_control_tokens
from incatalog.constraint.excluded import free_rows
from incatalog.decoding.events import RankedItems
from incatalog.decoding.request import Slot
from incatalog.decoding.retriever import ItemRetriever, check_items, each_found
from incatalog.decoding.search import BeamSearch, PlaceSearch, score_prefixes
from incatalog.decoding.spelled_search import beam_search
from incatalog.errors import ConfigError, IncatalogError
from incatalog.packed.model import PackedModel, Readout
from incatalog.trie.trie import ItemTrie

_Search = TypeVar("_Search", bound=PlaceSearch)


class Ranker(ABC, Generic[_Search]):
    """Finds the best items of slots, several side by side, in as many steps as it takes."""

    def __init__(self, model: Any, trie: ItemTrie) -> None:
        self._model = model if isinstance(model, PackedModel) else PackedModel(model)
        self._trie = trie
        self.forward_passes = 0

    def top_items(self, slots: Sequence[Slot], k: int | None = 10) -> list[RankedItems]:
        """The ``k`` best items of each slot; None ranks all that are allowed.

        There are fewer where fewer are allowed (or, of a beam that is not exact, where the kept
        prefixes lead to fewer).
        """
        searches = [self.search(slot, k) for slot in slots]
        try:
            while waiting := [search for search in searches if not search.over]:
                self.step(waiting)
            return [search.ranked() for search in searches]
        finally:
            for search in searches:
                search.end()

    @abstractmethod
    def search(self, slot: Slot, k: int | None = 10) -> _Search:
        """The search of one slot, to be advanced by :meth:`step`, or ended by its ``end``."""

    @abstractmethod
    def step(self, searches: Sequence[_Search], tokens: int | None = None) -> int:
        """Advances searches of this ranker that are not over; returns the tokens that were fed.

        The model is fed about so many ``tokens``, the first search first; None for all prompts, or
        as many prefixes as a beam is wide. What is found does not depend on the steps it takes, but
        for the rounding of floating-point sums. Where the model's scores are not numbers, that
        search fails, and no other.
        """


class ItemBeam(Ranker[BeamSearch]):
    """Finds the best items of slots, as a model writes them.

    Branch and bound: the likeliest open prefixes are continued first, and a prefix that is less
    likely than the k-th best item found is dropped with all that is below it. What is left is
    exact. With ``exact`` false it is the beam search of the field instead: after each step only
    the ``width`` likeliest prefixes are kept.

    Where items have several spellings, at most ``m`` each, a prefix is dropped only below the
    ``m``-th part of the k-th best item's probability so far. Of items that may still reach that
    one, the other spellings are looked up, down to what changes no logarithm by more than 1e-6.
    With ``exact`` false an item has the probability of those spellings that were kept.
    """

    def __init__(
        self,
        model: Any,
        trie: ItemTrie,
        *,
        soi_token_id: int,
        eoi_token_id: int,
        width: int = 32,
        exact: bool = True,
    ) -> None:
        if width < 1:
            raise ConfigError(f"width: found {width}; expected at least 1")
        check_control_tokens(trie, soi_token_id, eoi_token_id, ())
        super().__init__(model, trie)
        self._soi, self._eoi = soi_token_id, eoi_token_id
        self._width = width
        self._exact = exact

    def search(self, slot: Slot, k: int | None = 10) -> BeamSearch:
        """See :meth:`Ranker.search`."""
        return beam_search(self._trie, slot, self._soi, k)

    def step(self, searches: Sequence[BeamSearch], tokens: int | None = None) -> int:
        """See :meth:`Ranker.step`."""
        left = math.inf if tokens is None else tokens
        prompts: list[tuple[BeamSearch, list[int]]] = []
        grown: list[BeamSearch] = []
        for search in searches:
            if left <= 0:
                break
            if search.unfed:
                part = search.next_tokens(left)
                prompts.append((search, part))
                left -= len(part)
                continue
            # What a beam keeps depends on its width, what a search finds does not.
            width = int(min(self._width, left)) if self._exact else self._width
            if search.advance(width, exact=self._exact):
                grown.append(search)
                left -= search.new_tokens
        fed = sum(len(part) for _, part in prompts) + sum(search.new_tokens for search in grown)
        if prompts:
            readout = self._model.forward([(search.cache, part) for search, part in prompts])
            ready = [row for row, (search, _) in enumerate(prompts) if not search.unfed]
            self._score(readout, ready, [prompts[row][0] for row in ready])
        if grown:
            readout = self._model.forward_branches([(s.cache, s.branches()) for s in grown])
            rows = range(sum(len(search.expanded) for search in grown))
            self._score(readout, rows, grown)
        return fed

    def _score(self, readout: Readout, rows: Sequence[int], searches: Sequence[BeamSearch]) -> None:
        self.forward_passes += 1
        score_prefixes(readout, rows, searches, self._trie, self._eoi)


class RankingSearch(PlaceSearch):
    """The search by the retrieval head, in one pass behind the prompt."""

    def __init__(self, trie: ItemTrie, slot: Slot, k: int | None) -> None:
        super().__init__(trie, slot, [], k)
        self.k, self.free, self.weights = k, free_rows(trie, slot.barred), slot.weights
        self.over = not self.free.any()
        self._found = RankedItems(np.empty(0, np.int32), np.empty(0))

    def take(self, found: RankedItems) -> None:
        """Takes the items."""
        self._found = found
        self.end()

    def _best(self) -> RankedItems:
        return self._found


class ItemRanking(Ranker[RankingSearch]):
    """Ranks the items of slots by the retrieval head's softmax; one forward pass for all slots."""

    def __init__(self, model: Any, trie: ItemTrie, retriever: ItemRetriever) -> None:
        check_items(trie, retriever)
        super().__init__(model, trie)
        self._retriever = retriever

    def search(self, slot: Slot, k: int | None = 10) -> RankingSearch:
        """See :meth:`Ranker.search`."""
        return RankingSearch(self._trie, slot, k)

    def step(self, searches: Sequence[RankingSearch], tokens: int | None = None) -> int:
        """One forward pass; see :meth:`Ranker.step`."""
        left = math.inf if tokens is None else tokens
        fed: list[tuple[RankingSearch, list[int]]] = []
        for search in searches:
            if left <= 0:
                break
            part = search.next_tokens(left)
            fed.append((search, part))
            left -= len(part)
        readout = self._model.forward([(search.cache, part) for search, part in fed])
        self.forward_passes += 1
        ready: dict[int | None, list[int]] = {}
        for row, (search, _) in enumerate(fed):
            if not search.unfed:
                ready.setdefault(search.k, []).append(row)
        for k, rows in ready.items():
            find = partial(self._find, readout, [search for search, _ in fed], k)
            for row, found in zip(rows, each_found(find, rows), strict=True):
                if isinstance(found, IncatalogError):
                    fed[row][0].fail(found)
                else:
                    fed[row][0].take(found)
        return sum(len(part) for _, part in fed)

    def _find(
        self, readout: Readout, fed: Sequence[RankingSearch], k: int | None, rows: Sequence[int]
    ) -> list[RankedItems]:
        """Finds the items of some rows. Excluded ones keep their share of the probability."""
        among = [self._trie.live_rows] * len(rows)
        free, weights = [fed[row].free for row in rows], [fed[row].weights for row in rows]
        return self._retriever.best(readout.states(rows), free, k, among, weights)
