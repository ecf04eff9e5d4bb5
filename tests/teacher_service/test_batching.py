from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np
import pytest

from incatalog.teacher_service.batching import Batcher, Found, Query
from incatalog.web.app import QueueFullError


def question(number: int, rows: int = 1, *, immediately: bool = False) -> Query:
    histories = [np.array([number, row]) for row in range(rows)]
    return Query("inference", histories, k=1, immediately=immediately)


class Network:
    """Answers a question with its own histories, when the gate is open; remembers batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, questions: Sequence[Query]) -> list[Found]:
        assert threading.current_thread().name.startswith("teacher")
        self.gate.wait(10)
        self.batches.append([int(one.histories[0][0]) for one in questions])
        if 13 in self.batches[-1]:
            raise RuntimeError("thirteen")
        return [list(one.histories) for one in questions]


def running(
    network: Network, body: Callable[[Batcher], Coroutine[Any, Any, None]], **limits: Any
) -> Batcher:
    """Runs `body` beside a batcher, which is closed behind it."""
    found: list[Batcher] = []

    async def main() -> None:
        options = {"max_rows": 8, "max_wait": 0.02, "max_queue": 16} | limits
        batcher = Batcher(network, **options)
        found.append(batcher)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(batcher.run())
            try:
                await asyncio.wait_for(body(batcher), 10)
            finally:
                network.gate.set()
                batcher.close()

    asyncio.run(main())
    return found[0]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_those_who_ask_together_are_answered_together() -> None:
    network = Network()

    async def body(batcher: Batcher) -> None:
        answers = await asyncio.gather(*(batcher.ask(question(n, 2)) for n in range(4)))
        for number, answer in enumerate(answers):
            np.testing.assert_array_equal(answer, [[number, 0], [number, 1]])

    batcher = running(network, body, max_wait=60)
    # Eight rows are a whole batch, so nobody waited for a fifth question.
    assert network.batches == [[0, 1, 2, 3]]
    assert batcher.accepted == 4
    assert batcher.queued_rows == 0


def test_a_batch_has_no_more_rows_than_allowed_but_for_a_large_question() -> None:
    network = Network()

    async def body(batcher: Batcher) -> None:
        network.gate.clear()
        first = asyncio.create_task(batcher.ask(question(0, immediately=True)))
        await until(lambda: batcher.accepted == 1 and batcher.queued_rows == 0)
        others = [asyncio.create_task(batcher.ask(question(n, r))) for n, r in sizes]
        await until(lambda: batcher.accepted == 1 + len(sizes))
        network.gate.set()
        await asyncio.gather(first, *others)

    sizes = [(1, 5), (2, 3), (3, 1), (4, 12), (5, 1), (6, 1)]
    running(network, body, max_queue=100)
    assert network.batches == [[0], [1, 2], [3], [4], [5, 6]]


def test_a_lone_question_waits_for_others_only_so_long() -> None:
    network = Network()

    async def body(batcher: Batcher) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        await batcher.ask(question(1))
        assert loop.time() - started >= 0.1

    running(network, body, max_wait=0.1)


def test_one_in_a_hurry_takes_those_who_wait_along() -> None:
    network = Network()

    async def body(batcher: Batcher) -> None:
        patient = asyncio.create_task(batcher.ask(question(1)))
        await until(lambda: batcher.queued_rows == 1)
        await batcher.ask(question(2, immediately=True))
        await patient

    running(network, body, max_wait=60)
    assert network.batches == [[1, 2]]


def test_beyond_the_queue_one_is_told_when_to_come_back() -> None:
    network = Network()

    async def body(batcher: Batcher) -> None:
        network.gate.clear()
        tasks = [asyncio.create_task(batcher.ask(question(0, immediately=True)))]
        await until(lambda: batcher.accepted == 1 and batcher.queued_rows == 0)
        tasks += [asyncio.create_task(batcher.ask(question(n, 4))) for n in range(1, 5)]
        await until(lambda: batcher.queued_rows == 16)
        assert not batcher.has_room
        with pytest.raises(QueueFullError, match="16 rows are waiting, 16 may") as refused:
            await batcher.ask(question(5))
        assert 1 <= refused.value.retry_after <= 60
        network.gate.set()
        await asyncio.gather(*tasks)
        assert batcher.has_room

    assert running(network, body).accepted == 5


def test_a_question_larger_than_the_queue_is_answered_where_nothing_waits() -> None:
    async def body(batcher: Batcher) -> None:
        assert len(await batcher.ask(question(1, 40, immediately=True))) == 40

    running(Network(), body)


def test_who_gives_up_leaves_the_queue() -> None:
    network = Network()

    async def body(batcher: Batcher) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await batcher.ask(question(1, 3))
        assert batcher.queued_rows == 0
        await batcher.ask(question(2, immediately=True))

    running(network, body, max_wait=60)
    assert network.batches == [[2]]


def test_closing_answers_what_was_accepted_and_accepts_nothing_more() -> None:
    network = Network()

    async def body(batcher: Batcher) -> None:
        tasks = [asyncio.create_task(batcher.ask(question(n))) for n in range(5)]
        await until(lambda: batcher.queued_rows == 5)
        batcher.close()
        with pytest.raises(QueueFullError, match="shutting down"):
            await batcher.ask(question(6))
        for number, task in enumerate(tasks):
            assert (await task)[0][0] == number

    running(network, body, max_wait=60)


def test_an_error_reaches_its_batch_and_no_other() -> None:
    network = Network()

    async def body(batcher: Batcher) -> None:
        with pytest.raises(RuntimeError, match="thirteen"):
            await batcher.ask(question(13, immediately=True))
        assert len(await batcher.ask(question(1, immediately=True))) == 1

    running(network, body)
