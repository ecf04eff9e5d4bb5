from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest

from incatalog import Recommender
from incatalog.constraint.excluded import ExcludedItems
from incatalog.decoding.events import RankedItems
from incatalog.decoding.request import Slot
from incatalog.errors import TrieError
from incatalog.serving.rankings import Ranking, Rankings
from incatalog.trie.trie import ItemTrie

K = 30


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def ranking(recommender: Recommender, history: list[int], k: int = K) -> Ranking:
    slot = recommender.slot(history, k)
    future: asyncio.Future[RankedItems] = asyncio.get_running_loop().create_future()
    return Ranking(recommender.beam, slot, k, future)


async def searched(rankings: Rankings) -> None:
    while len(rankings):
        rankings.step(0.0)
    # What was found is handed over by the event loop.
    await asyncio.sleep(0)


@pytest.mark.parametrize("method", ["recommender", "coded", "retrieving"])
def test_rankings_side_by_side_are_those_of_the_library(
    method: str, request: pytest.FixtureRequest
) -> None:
    recommender: Recommender = request.getfixturevalue(method)
    changed = recommender.with_changes(removed=["i1", "i2"])
    histories = [[1, 2], [], [7], [3, 4, 5], [9]]
    kinds = [recommender, changed, recommender, changed, recommender]
    counts = [K, 5, 1, K, 12]

    async def check() -> None:
        asked = [
            ranking(kind, history, k)
            for kind, history, k in zip(kinds, histories, counts, strict=True)
        ]
        rankings = Rankings(4)
        assert rankings.room == 4
        rankings.join(asked[:4])
        assert rankings.room == 0
        rankings.step(0.0)
        while not rankings.room:
            rankings.step(0.0)
        rankings.join(asked[4:])
        await searched(rankings)
        for kind, one, k in zip(kinds, asked, counts, strict=True):
            [expected] = kind.beam.top_items([one.slot], k)
            found = one.found.result()
            assert len(set(found.rows.tolist())) == k
            np.testing.assert_allclose(found.logprobs, expected.logprobs, atol=1e-4)

    run(check())


def test_rankings_share_their_passes(recommender: Recommender) -> None:
    beam, slot = recommender.beam, recommender.slot([1, 2], K)
    before = beam.forward_passes
    beam.top_items([slot], K)
    alone = beam.forward_passes - before
    searches = [beam.search(slot, K) for _ in range(6)]
    while waiting := [search for search in searches if not search.over]:
        beam.step(waiting)
    assert beam.forward_passes - before == 2 * alone


def test_rankings_leave_the_answers_their_share(recommender: Recommender) -> None:
    async def check() -> None:
        beam, rankings = recommender.beam, Rankings(8)
        rankings.join([ranking(recommender, [number]) for number in range(8)])
        before = beam.forward_passes
        rankings.step(1e-9)
        assert beam.forward_passes > before
        # That pass took longer than what the answers' passes have earned since.
        before = beam.forward_passes
        for _ in range(1000):
            rankings.step(1e-9)
        assert beam.forward_passes == before
        # A long pass of the answers earns one, and only one.
        rankings.step(1000.0)
        assert beam.forward_passes > before
        before = beam.forward_passes
        for _ in range(1000):
            rankings.step(1e-9)
        assert beam.forward_passes == before
        # Without answers the time is theirs.
        rankings.step(0.0)
        assert beam.forward_passes > before
        # Whoever came in the midst of that pass is answered before the next.
        before = beam.forward_passes
        rankings.step(1e-9)
        assert beam.forward_passes == before
        await searched(rankings)

    run(check())


def test_ranking_that_no_one_waits_for_is_dropped_and_a_wrong_one_fails_alone(
    recommender: Recommender,
) -> None:
    async def check() -> None:
        rankings = Rankings(4)
        gone, early, good = (ranking(recommender, [number]) for number in range(3))
        future: asyncio.Future[RankedItems] = asyncio.get_running_loop().create_future()
        excluded = ExcludedItems.build(ItemTrie.build([[4], [5]]), [0])
        wrong = Ranking(recommender.beam, Slot(good.slot.prompt_ids, excluded), K, future)
        early.found.cancel()
        rankings.join([gone, early, wrong, good])
        assert len(rankings) == 2
        rankings.step(0.0)
        gone.found.cancel()
        rankings.join([])
        assert len(rankings) == 1
        await searched(rankings)
        assert len(good.found.result().rows) == K
        with pytest.raises(TrieError, match="another trie"):
            wrong.found.result()

    run(check())
