"""Answers that an engine elsewhere writes, each followed by a task on the event loop."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import aclosing

from incatalog.config import ItemDecode
from incatalog.constraint.weights import ItemWeights
from incatalog.decoding.events import Finished, ItemDone, RankedItems
from incatalog.decoding.request import Request, Slot
from incatalog.errors import BackboneError, ConfigError
from incatalog.serving.rankings import Ranker
from incatalog.serving.worker import NEWEST, Stream, count_tokens
from incatalog.vllm.async_engine import AsyncEngine
from incatalog.web.app import QueueFullError

_log = logging.getLogger(__name__)


class AsyncWorker:
    """Hands requests to an engine elsewhere, `max_rows` side by side while `max_queue` wait.

    `wrote` is told the tokens and items of answers.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        max_rows: int,
        max_queue: int,
        wrote: Callable[[int, int], object] = lambda *_: None,
    ) -> None:
        self._engine, self._wrote = engine, wrote
        self._max_rows, self._max_queue = max_rows, max_queue
        self._places = asyncio.Semaphore(max_rows)
        self._growing: dict[Stream, asyncio.Task[None]] = {}
        self._active = 0
        self._seconds = 0.1
        self._closing = False
        self._idle = threading.Event()
        self._idle.set()

    def start(self) -> None:
        """Nothing is to be started: the engine runs already."""

    def close(self) -> None:
        """Accepts no more requests, waits until the accepted ones are answered, ends the engine."""
        self._closing = True
        self._idle.wait()
        self._engine.close()

    @property
    def queued(self) -> int:
        """Requests that wait."""
        return len(self._growing) - self._active

    @property
    def active(self) -> int:
        """Answers that grow."""
        return self._active

    @property
    def has_room(self) -> bool:
        """Whether a request would be accepted."""
        return not self._closing and self._engine.alive and self.queued < self._max_queue

    def item_decode(self, weights: ItemWeights | None) -> ItemDecode:
        """Token by token, but where weights alone decide which item is the best."""
        return "search" if weights is not None and weights.model == 0 else "token"

    def submit(self, request: Request) -> Stream:
        """Lets a request join as soon as there is a place."""
        if not self.has_room:
            state = f"has {self.queued} requests waiting"
            if self._closing or not self._engine.alive:
                state = "is closing" if self._closing else "has lost its engine"
            seconds = self._seconds * len(self._growing) / self._max_rows
            raise QueueFullError(f"the service {state}; ask again later", seconds)
        self._engine.check(request)
        stream = Stream(request, asyncio.get_running_loop())
        self._idle.clear()
        task = asyncio.create_task(self._grow(stream))
        self._growing[stream] = task
        task.add_done_callback(lambda _: self._ended(stream))
        return stream

    def cancel(self, stream: Stream) -> None:
        """Frees the place of an answer that no one reads any more, unless it has ended."""
        task = self._growing.get(stream)
        if task is not None:
            task.cancel()

    async def rank(self, ranker: Ranker, slot: Slot, k: int) -> RankedItems:
        """The best items of a place in a text, where weights alone decide."""
        search = await asyncio.to_thread(ranker.search, slot, k)
        if search.over:
            return search.ranked()
        search.end()
        raise ConfigError(
            "decode: found beam, and this engine ranks only where a guide decides alone "
            "(guide_weight 1); ask with decode greedy, or serve with --engine incatalog"
        )

    def _ended(self, stream: Stream) -> None:
        del self._growing[stream]
        if not self._growing:
            self._idle.set()

    async def _grow(self, stream: Stream) -> None:
        """Follows one answer to its end."""
        try:
            async with self._places:
                self._active += 1
                began = time.perf_counter()
                try:
                    await self._follow(stream)
                finally:
                    self._active -= 1
                    took = time.perf_counter() - began
                    self._seconds += NEWEST * (took - self._seconds)
        except Exception as error:
            if isinstance(error, BackboneError):
                _log.error("the model failed: %s", error)
            stream.put(error)

    async def _follow(self, stream: Stream) -> None:
        async with aclosing(self._engine.answer(stream.request)) as batches:
            async for events in batches:
                items = sum(isinstance(event, ItemDone) for event in events)
                self._wrote(sum(map(count_tokens, events)), items)
                stream.put(events)
                if isinstance(events[-1], Finished):
                    return
