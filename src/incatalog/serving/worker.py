"""The thread of the model: answers that grow side by side, joining and leaving between steps."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from incatalog.config import ItemDecode
from incatalog.constraint.weights import ItemWeights
from incatalog.decoding.engine import Engine, Session
from incatalog.decoding.events import Event, Finished, ItemDone, RankedItems, TextToken
from incatalog.decoding.request import Request, Slot
from incatalog.errors import IncatalogError
from incatalog.serving.rankings import Ranker, Ranking, Rankings
from incatalog.web.app import QueueFullError

_log = logging.getLogger(__name__)

_T = TypeVar("_T")
NEWEST = 0.1  # weight of the newest answer in the running estimate of the time one takes


@dataclass(frozen=True)
class Pass:
    """What one forward pass did, for the counters; rows are answers that grew in it."""

    seconds: float
    rows: int
    tokens: int
    items: int


@dataclass(eq=False)
class Stream:
    """The events of one answer, for one reader on the event loop."""

    request: Request
    loop: asyncio.AbstractEventLoop
    began: float = 0.0
    _events: asyncio.Queue[list[Event] | BaseException] = field(default_factory=asyncio.Queue)

    async def batches(self, seconds: float) -> AsyncIterator[list[Event]]:
        """The events of each step, until the answer ends; TimeoutError after `seconds`."""
        end = self.loop.time() + seconds
        while True:
            async with asyncio.timeout_at(end):
                events = await self._events.get()
            if isinstance(events, BaseException):
                raise events
            yield events
            if isinstance(events[-1], Finished):
                return

    def put(self, events: list[Event] | BaseException) -> None:
        """Hands events to the reader; called on the event loop."""
        self._events.put_nowait(events)

    def fail(self, error: BaseException) -> None:
        """Tells the reader what went wrong; from any thread."""
        self.loop.call_soon_threadsafe(self.put, error)


class Worker:
    """Answers requests in a thread of its own, `max_rows` side by side while `max_queue` wait.

    Nothing else may use the engine meanwhile. `observe` is called in the thread, all public methods
    on the event loop.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_rows: int,
        max_queue: int,
        observe: Callable[[Pass], object] = lambda _: None,
    ) -> None:
        self._engine = engine
        self._max_rows, self._max_queue = max_rows, max_queue
        self._observe = observe
        self._condition = threading.Condition()
        self._waiting: deque[Stream] = deque()
        self._left: set[Stream] = set()
        self._asked: deque[Ranking] = deque()
        self._rankings = Rankings(max_rows)
        self._rows: dict[int, Stream] = {}
        self._seconds = 0.1
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="incatalog-model", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def close(self) -> None:
        """Accepts no more requests, and waits until the accepted ones are answered."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._thread.join()

    @property
    def queued(self) -> int:
        """Requests that wait."""
        return len(self._waiting) + len(self._asked)

    @property
    def active(self) -> int:
        """Answers that grow."""
        return len(self._rows)

    @property
    def has_room(self) -> bool:
        """Whether a request would be accepted."""
        return not self._closing and self._thread.is_alive() and self.queued < self._max_queue

    def submit(self, request: Request) -> Stream:
        """Lets a request join as soon as there is a place."""
        stream = Stream(request, asyncio.get_running_loop())
        self._enter(self._waiting, stream)
        return stream

    def cancel(self, stream: Stream) -> None:
        """Frees the place of an answer that no one reads any more, unless it has ended."""
        with self._condition:
            self._left.add(stream)
            self._condition.notify()

    def item_decode(self, _weights: ItemWeights | None) -> ItemDecode:
        """Whole items, whatever weighs them."""
        return "search"

    async def rank(self, ranker: Ranker, slot: Slot, k: int) -> RankedItems:
        """The best items of a place in a text, searched beside the answers."""
        found: asyncio.Future[RankedItems] = asyncio.get_running_loop().create_future()
        self._enter(self._asked, Ranking(ranker, slot, k, found))
        return await found

    def _enter(self, queue: deque[_T], one: _T) -> None:
        with self._condition:
            if not self.has_room:
                ahead = self.queued + len(self._rows)
                state = "is closing" if self._closing else f"has {self.queued} requests waiting"
                seconds = self._seconds * ahead / self._max_rows
                raise QueueFullError(f"the service {state}; ask again later", seconds)
            queue.append(one)
            self._condition.notify()

    def _run(self) -> None:
        session = self._engine.session()
        while self._wait():
            seconds = 0.0
            try:
                self._leave_and_join(session)
                if self._rows:
                    seconds = self._step(session)
            except Exception as error:
                # The model fails at the whole pass, not at one of its answers.
                _log.exception("the model failed")
                for stream in self._rows.values():
                    stream.fail(error)
                self._rows.clear()
                session.close()
            self._rankings.step(seconds)

    def _wait(self) -> bool:
        """Waits for something to do; returns false if nothing can come any more."""
        with self._condition:
            while not (self._waiting or self._asked or self._rows or len(self._rankings)):
                self._left.clear()
                if self._closing:
                    return False
                self._condition.wait()
        return True

    def _leave_and_join(self, session: Session) -> None:
        with self._condition:
            left, self._left = self._left, set()
            for index in [index for index, stream in self._rows.items() if stream in left]:
                session.cancel(index)
                del self._rows[index]
            # Some left while they waited; the queue itself stays, as `_enter` may hold it already.
            for stream in left.intersection(self._waiting):
                self._waiting.remove(stream)
            joining = _taken(self._waiting, self._max_rows - len(self._rows))
            asked = _taken(self._asked, self._rankings.room)
        self._rankings.join(asked)
        for stream in joining:
            try:
                index = session.add(stream.request)
            except Exception as error:
                stream.fail(error)
            else:
                self._rows[index] = stream
                stream.began = time.perf_counter()

    def _step(self, session: Session) -> float:
        """One forward pass of the answers; returns the seconds it took."""
        started = time.perf_counter()
        rows = len(self._rows)
        events = session.step()
        now = time.perf_counter()
        told: dict[int, list[Event]] = {}
        for event in events:
            told.setdefault(event.index, []).append(event)
        posted: dict[asyncio.AbstractEventLoop, list[tuple[Stream, list[Event]]]] = {}
        for index, own in told.items():
            stream = self._rows[index]
            ended = isinstance(own[-1], Finished)
            try:
                if ended:
                    session.completion(index)
            except IncatalogError as error:
                # The model fails at this one alone.
                _log.error("the model failed: %s", error)
                stream.fail(error)
            else:
                posted.setdefault(stream.loop, []).append((stream, own))
            if ended:
                del self._rows[index]
                self._seconds += NEWEST * (now - stream.began - self._seconds)
        for loop, several in posted.items():
            loop.call_soon_threadsafe(_deliver, several)
        tokens = sum(count_tokens(event) for event in events)
        items = sum(isinstance(event, ItemDone) for event in events)
        self._observe(Pass(now - started, rows, tokens, items))
        return now - started


def _taken(queue: deque[_T], most: int) -> list[_T]:
    return [queue.popleft() for _ in range(min(most, len(queue)))]


def _deliver(several: list[tuple[Stream, list[Event]]]) -> None:
    for stream, events in several:
        stream.put(events)


def count_tokens(event: Event) -> int:
    """Tokens an event adds to its answer; those of a span count when it closes."""
    if isinstance(event, ItemDone):
        return len(event.token_ids) + 2
    return int(isinstance(event, TextToken))
