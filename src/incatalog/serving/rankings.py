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

# Of the time of the model's thread, while there are answers to grow.
_SHARE = 0.2
# Seconds a pass should take, so that who comes in the midst of it does not wait long for its end;
# as long as a pass of the answers where that takes longer.
_PASS = 0.02
_FEWEST_TOKENS, _MOST_TOKENS = 64, 4096
# Weight of the newest pass in the running estimate of the time a token takes.
_NEWEST = 0.2


@dataclass(eq=False)
class Ranking:
    """A place in a text that is to be searched.

    Attributes:
        ranker: Searches it.
        slot: The place.
        k: Items to find.
        found: Gets them.
    """

    ranker: Ranker
    slot: Slot
    k: int
    found: asyncio.Future[RankedItems]

    def resolve(self, items: RankedItems) -> None:
        """Tells what was found; from any thread."""
        self.found.get_loop().call_soon_threadsafe(_resolve, self.found, items)

    def fail(self, error: Exception) -> None:
        """Tells what went wrong; from any thread."""
        self.found.get_loop().call_soon_threadsafe(_fail, self.found, error)


class Rankings:
    """The rankings that are searched, the oldest first; all methods are of the model's thread.

    Args:
        most: Rankings that are searched side by side.
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
        """Takes some more, and lets go what no one waits for any longer."""
        for ranking, search in self._active:
            if ranking.found.cancelled():
                search.end()
        self._active = [one for one in self._active if not one[0].found.cancelled()]
        for ranking in asked:
            if ranking.found.cancelled():
                continue
            try:
                search = ranking.ranker.search(ranking.slot, ranking.k)
            except Exception as error:
                ranking.fail(error)
            else:
                self._active.append((ranking, search))

    def step(self, answering: float) -> None:
        """One pass, if it is the rankings' turn.

        Args:
            answering: Seconds that the answers' last pass took; 0 if there are none.
        """
        if not answering:
            self._credit = 0.0
        else:
            earned = answering * _SHARE / (1 - _SHARE)
            self._credit = min(self._credit + earned, 0.0)
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
            # What the model cannot do for one it cannot do for the others of the pass either.
            _log.exception("the model failed")
            for ranking, search in own:
                search.end()
                ranking.fail(error)
            self._active = [one for one in self._active if one[0].ranker is not ranker]
            return
        took = time.perf_counter() - started
        if fed:
            self._seconds_a_token += _NEWEST * (took / fed - self._seconds_a_token)
        # Owed without answers too: the next one may have come in the midst of it.
        self._credit -= took
        for ranking, search in own:
            if search.error is not None:
                _log.error("the model failed: %s", search.error)
                ranking.fail(search.error)
            elif search.over:
                ranking.resolve(search.ranked())
        self._active = [one for one in self._active if not one[1].over]


def _resolve(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
