"""Rankings beside the answers: a share of the time of the model's thread, several in one pass."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from incatalog.decoding.events import RankedItems
from incatalog.decoding.ranking import ItemBeam, ItemRanking, RankingSearch
from incatalog.decoding.request import Slot
from incatalog.decoding.search import BeamSearch

_log = logging.getLogger(__name__)

Ranker = ItemBeam | ItemRanking

_SHARE = 0.2  # of the time of the model's thread, while there are answers to grow
# Seconds a pass should take, so that a request that comes meanwhile does not wait long; as long as
# a pass of the answers where that takes longer.
_PASS = 0.02
_FEWEST_TOKENS, _MOST_TOKENS = 64, 4096
_NEWEST = 0.2  # weight of the newest pass in the running estimate of the time a token takes


@dataclass(eq=False)
class Ranking:
    """A place in a text for which `k` items are to be found."""

    ranker: Ranker
    slot: Slot
    k: int
    found: asyncio.Future[RankedItems]

    def end(self, outcome: RankedItems | Exception) -> None:
        """Hands over what was found, or what went wrong; from any thread."""
        self.found.get_loop().call_soon_threadsafe(self._end, outcome)

    def _end(self, outcome: RankedItems | Exception) -> None:
        if self.found.done():
            return
        if isinstance(outcome, Exception):
            self.found.set_exception(outcome)
        else:
            self.found.set_result(outcome)


class Rankings:
    """Up to `most` rankings that are searched side by side, the oldest first.

    All methods are called in the model's thread.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._active: list[tuple[Ranking, BeamSearch | RankingSearch]] = []
        self._seconds_a_token = _PASS / _FEWEST_TOKENS
        # Seconds that may be taken from the answers; below zero, they have been taken already.
        self._credit = 0.0

    def __len__(self) -> int:
        """Rankings that are searched."""
        return len(self._active)

    @property
    def room(self) -> int:
        """How many more may join."""
        return self._most - len(self._active)

    def join(self, asked: Sequence[Ranking]) -> None:
        """Takes some more, and drops those that no one waits for any more."""
        for ranking, search in self._active:
            if ranking.found.cancelled():
                search.end()
        self._active = [one for one in self._active if not one[0].found.cancelled()]
        for ranking in asked:
            if ranking.found.cancelled():
                continue
            try:
                self._active.append((ranking, ranking.ranker.search(ranking.slot, ranking.k)))
            except Exception as error:
                ranking.end(error)

    def step(self, answering: float) -> None:
        """One pass, if it is the rankings' turn; the answers' last one took `answering` seconds."""
        earned = answering * _SHARE / (1 - _SHARE)
        self._credit = min(self._credit + earned, 0.0) if answering else 0.0
        if not self._active or self._credit < 0:
            return
        ranker = self._active[0][0].ranker
        # Items of one version of a catalog are searched together.
        own = [one for one in self._active if one[0].ranker is ranker]
        tokens = int(max(_PASS, answering) / self._seconds_a_token)
        tokens = min(max(tokens, _FEWEST_TOKENS), _MOST_TOKENS)
        started = time.perf_counter()
        try:
            searches: list[Any] = [search for _, search in own if not search.over]
            fed = ranker.step(searches, tokens) if searches else 0
        except Exception as error:
            # The model fails at the whole pass, not at one of its rankings.
            _log.exception("the model failed")
            for ranking, search in own:
                search.end()
                ranking.end(error)
            self._active = [one for one in self._active if one[0].ranker is not ranker]
            return
        took = time.perf_counter() - started
        if fed:
            self._seconds_a_token += _NEWEST * (took / fed - self._seconds_a_token)
        # Counted without answers too: one may have come meanwhile.
        self._credit -= took
        for ranking, search in own:
            if search.error is not None:
                _log.error("the model failed: %s", search.error)
                ranking.end(search.error)
            elif search.over:
                ranking.end(search.ranked())
        self._active = [one for one in self._active if not one[1].over]
