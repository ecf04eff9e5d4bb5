from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from incatalog.serving.gathering import Gathering


class Squares:
    """Squares numbers; it holds on to 0 until it may go on, and knows no square of 13."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.threads: set[str] = set()
        self.may_go_on = threading.Event()

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.asked.append(list(numbers))
        self.threads.add(threading.current_thread().name)
        if 0 in numbers:
            assert self.may_go_on.wait(10)
        if 13 in numbers:
            raise ValueError("13 is refused")
        return [number**2 for number in numbers]


@contextmanager
def squaring() -> Iterator[tuple[Squares, Gathering[int, int]]]:
    squares = Squares()
    gathering = Gathering(squares, "squares")
    yield squares, gathering
    gathering.close()


async def while_busy(
    squares: Squares, gathering: Gathering[int, int], *asked: Coroutine[Any, Any, int]
) -> list[Any]:
    """What is answered to questions that come while another is being answered."""
    busy = asyncio.create_task(gathering.ask("plain", 0, 8))
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(one) for one in asked]
    await asyncio.sleep(0.05)
    squares.may_go_on.set()
    assert await busy == 0
    return await asyncio.gather(*waiting, return_exceptions=True)


def test_a_question_alone_is_answered_alone() -> None:
    with squaring() as (squares, gathering):

        async def ask() -> list[int]:
            return [await gathering.ask("plain", number, 8) for number in (3, 4)]

        assert asyncio.run(ask()) == [9, 16]
        assert squares.asked == [[3], [4]]
        assert squares.threads == {"squares_0"}


def test_what_waits_is_answered_together_by_kind_and_so_many_at_a_time() -> None:
    with squaring() as (squares, gathering):
        kinds = ["plain", "other", "plain", "plain", "other", "plain"]
        asked = [gathering.ask(kind, number, 3) for number, kind in enumerate(kinds, 1)]
        answers = asyncio.run(while_busy(squares, gathering, *asked))
        assert answers == [1, 4, 9, 16, 25, 36]
        assert squares.asked == [[0], [1, 3, 4], [2, 5], [6]]


def test_those_that_come_soon_after_another_wait_for_company() -> None:
    squares = Squares()
    gathering = Gathering(squares, "squares", pause=0.2)

    async def ask() -> tuple[list[int], float]:
        loop = asyncio.get_running_loop()
        assert await gathering.ask("plain", 2, 8) == 4
        began = loop.time()

        async def later(number: int) -> int:
            await asyncio.sleep(0.02 * number)
            return await gathering.ask("plain", number, 8)

        return list(await asyncio.gather(*map(later, (1, 3, 5)))), loop.time() - began

    found, seconds = asyncio.run(ask())
    assert found == [1, 9, 25]
    assert squares.asked == [[2], [1, 3, 5]]
    assert seconds > 0.15
    gathering.close()


def test_a_question_that_fails_spoils_no_other() -> None:
    with squaring() as (squares, gathering):
        asked = [gathering.ask("plain", number, 8) for number in (2, 13, 5)]
        four, refused, other = asyncio.run(while_busy(squares, gathering, *asked))
        assert (four, other) == (4, 25)
        with pytest.raises(ValueError, match="13 is refused"):
            raise refused


def test_who_went_away_is_not_answered() -> None:
    with squaring() as (squares, gathering):

        async def leave() -> list[int]:
            busy = asyncio.create_task(gathering.ask("plain", 0, 8))
            await asyncio.sleep(0)
            gone, stays = (asyncio.create_task(gathering.ask("plain", n, 8)) for n in (6, 7))
            await asyncio.sleep(0)
            gone.cancel()
            await asyncio.sleep(0)
            squares.may_go_on.set()
            found = [await busy, await stays, await gathering.ask("plain", 8, 8)]
            assert gone.cancelled()
            return found

        assert asyncio.run(leave()) == [0, 49, 64]
        assert squares.asked == [[0], [7], [8]]


def test_who_leaves_while_answered_holds_nobody_up() -> None:
    with squaring() as (squares, gathering):

        async def leave() -> int:
            busy = asyncio.create_task(gathering.ask("plain", 0, 8))
            await asyncio.sleep(0.02)
            busy.cancel()
            squares.may_go_on.set()
            return await gathering.ask("plain", 3, 8)

        assert asyncio.run(leave()) == 9
