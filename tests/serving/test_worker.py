from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from incatalog import Recommender
from incatalog.decoding.events import Event
from incatalog.decoding.request import Request
from incatalog.errors import BackboneError, TrieError
from incatalog.serving.worker import Pass, Stream, Worker
from incatalog.web.app import QueueFullError


def request(recommender: Recommender, text: str, tokens: int = 30) -> Request:
    return recommender.chat_request([{"role": "user", "content": text}], max_new_tokens=tokens)


def said(event: Event) -> tuple[Any, ...]:
    """What an event says, whatever its number and the rounding of its probability."""
    told = asdict(event)
    return type(event), *(told[name] for name in sorted(told) if name not in ("index", "logprob"))


async def events(stream: Stream, seconds: float = 30) -> list[Event]:
    return [event async for several in stream.batches(seconds) for event in several]


@asynccontextmanager
async def working(recommender: Recommender, **limits: Any) -> AsyncIterator[Worker]:
    worker = Worker(recommender.engine, **{"max_rows": 4, "max_queue": 8, **limits})
    worker.start()
    try:
        yield worker
    finally:
        await asyncio.to_thread(worker.close)


def test_answers_are_those_of_the_engine_alone(recommender: Recommender) -> None:
    asked = [request(recommender, f"Hello {number}") for number in range(9)]
    expected = [list(recommender.engine.generate([one])) for one in asked]

    async def ask() -> list[list[Event]]:
        passes: list[Pass] = []
        async with working(recommender, observe=passes.append, max_queue=9) as worker:
            streams = [worker.submit(one) for one in asked]
            found = await asyncio.gather(*map(events, streams))
        assert max(one.rows for one in passes) == 4
        assert sum(one.tokens for one in passes) > 0
        return list(found)

    for own, found in zip(expected, asyncio.run(ask()), strict=True):
        assert list(map(said, own)) == list(map(said, found))


def test_request_that_does_not_fit_fails_alone(recommender: Recommender) -> None:
    other = recommender.with_disabled(["i1"]).with_changes(removed=["i2"])
    wrong = Request(
        request(recommender, "Hi").prompt_ids, 20, excluded=other.excluded(["i1"]),
        grounding=recommender.grounding,
    )  # fmt: skip

    async def ask() -> None:
        async with working(recommender) as worker:
            good, bad = worker.submit(request(recommender, "Hi")), worker.submit(wrong)
            with pytest.raises(TrieError):
                await events(bad)
            assert await events(good)

    asyncio.run(ask())


def test_queue_is_bounded_and_the_closing_service_takes_no_one(recommender: Recommender) -> None:
    async def ask() -> None:
        async with working(recommender, max_rows=1, max_queue=2) as worker:
            first = worker.submit(request(recommender, "Hi", 200))
            iterator = first.batches(30)
            await anext(iterator)
            others = [worker.submit(request(recommender, "Hi")) for _ in range(2)]
            assert not worker.has_room
            with pytest.raises(QueueFullError, match="2 requests waiting") as full:
                worker.submit(request(recommender, "Hi"))
            assert full.value.retry_after >= 1
            worker.cancel(first)
            # Those who wait get the place of the one that left.
            for stream in others:
                assert await events(stream)
            assert worker.active == 0
        with pytest.raises(QueueFullError, match="is closing"):
            worker.submit(request(recommender, "Hi"))

    asyncio.run(ask())


def test_answer_that_takes_too_long_is_given_up(recommender: Recommender) -> None:
    async def ask() -> None:
        async with working(recommender) as worker:
            stream = worker.submit(request(recommender, "Hi", 400))
            with pytest.raises(TimeoutError):
                await events(stream, 0.01)
            worker.cancel(stream)

    asyncio.run(ask())


def test_model_that_fails_fails_those_who_wait_and_goes_on(
    recommender: Recommender, caplog: pytest.LogCaptureFixture
) -> None:
    model = recommender.engine.model
    real = model.forward

    def broken(*_: Any) -> Any:
        raise RuntimeError("out of memory")

    async def ask() -> None:
        async with working(recommender) as worker:
            model.forward = broken  # type: ignore[method-assign]
            try:
                with pytest.raises(RuntimeError, match="out of memory"):
                    await events(worker.submit(request(recommender, "Hi")))
            finally:
                model.forward = real  # type: ignore[method-assign]
            assert await events(worker.submit(request(recommender, "Hi")))
            slot = recommender.slot([], 3)
            model.forward = broken  # type: ignore[method-assign]
            try:
                with pytest.raises(RuntimeError, match="out of memory"):
                    await worker.rank(recommender.beam, slot, 3)
            finally:
                model.forward = real  # type: ignore[method-assign]
            assert len((await worker.rank(recommender.beam, slot, 3)).rows) == 3

    asyncio.run(ask())
    assert "the model failed" in caplog.text


def test_answer_at_which_the_model_fails_fails_alone(model: Path) -> None:
    """One question holds a word whose embedding is not a number."""
    recommender = Recommender.from_pretrained(model, device="cpu")
    words = set(request(recommender, "Zebra").prompt_ids)
    sound = [request(recommender, f"Night {number}") for number in range(6)]
    [word, *_] = words.difference(*(one.prompt_ids for one in sound))
    network: Any = recommender.backbone.model
    with torch.no_grad():
        network.get_input_embeddings().weight[word] = torch.nan
    expected = [list(recommender.engine.generate([one])) for one in sound]

    async def ask() -> list[list[Event]]:
        async with working(recommender, max_rows=8) as worker:
            streams = [worker.submit(one) for one in sound[:3]]
            broken = worker.submit(request(recommender, "Zebra"))
            streams += [worker.submit(one) for one in sound[3:]]
            with pytest.raises(BackboneError, match="not numbers"):
                await events(broken)
            found = await asyncio.gather(*map(events, streams))
            assert worker.active == 0
        return list(found)

    for own, found in zip(expected, asyncio.run(ask()), strict=True):
        assert list(map(said, own)) == list(map(said, found))
