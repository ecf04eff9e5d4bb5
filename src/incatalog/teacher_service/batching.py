"""Requests that arrive together are answered together, by one thread behind a bounded queue."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64

from incatalog.teacher.teacher import Teacher
from incatalog.teacher_service.likely import LikelyItems, likely_items
from incatalog.web.app import QueueFullError

Rows = Int64[np.ndarray, " rows"]
Answer = np.ndarray | LikelyItems  # the latter only for `log_probabilities`
Found = list[Any]  # an `Answer` for each history of a query
Kind = Literal["inference", "ranking", "scores", "log_probabilities"]


@dataclass(frozen=True, eq=False)
class Query:
    """One request in rows of the catalog, checked; every list has one entry for each history."""

    kind: Kind
    histories: list[Rows]  # oldest item first
    k: int = 0  # only for `inference` and `log_probabilities`
    # The only rows that may be answered, None for all; for `ranking` those to rank.
    candidates: list[Rows | None] = field(default_factory=list)
    excluded: list[Rows] = field(default_factory=list)
    categories: list[str | None] = field(default_factory=list)  # `"+C"`, `"-C"` or None
    immediately: bool = False  # do not wait for others to join

    @property
    def rows(self) -> int:
        """Histories asked about."""
        return len(self.histories)


AnswerTogether = Callable[[Sequence[Query]], Sequence[Found]]

_NEWEST = 0.2  # weight of the newest batch in the running estimate of the time a row takes


@dataclass(eq=False)
class _Waiter:
    query: Query
    since: float
    answer: asyncio.Future[Found]


class Batcher:
    """Collects queries until a batch is due, and answers it off the event loop.

    A batch is due when its first query has waited `max_wait` seconds, when `max_rows` histories
    wait, or when one query must not wait. Batches grow with the load, as the next one gathers while
    one is computed; a larger query is a batch of its own. `observe` gets rows and seconds of each.
    """

    def __init__(
        self,
        answer_together: AnswerTogether,
        *,
        max_rows: int,
        max_wait: float,
        max_queue: int,
        observe: Callable[[int, float], object] = lambda _rows, _seconds: None,
    ) -> None:
        self._answer_together, self._observe = answer_together, observe
        self._max_rows, self._max_wait, self._max_queue = max_rows, max_wait, max_queue
        # In the order of arrival; a dictionary, because a query may be given up anywhere in it.
        self._waiting: dict[_Waiter, None] = {}
        self._hurried = 0
        self._news = asyncio.Event()
        self._closing = False
        self._seconds_a_row = 0.0
        self.queued_rows = 0
        self.accepted = 0

    @property
    def has_room(self) -> bool:
        """Whether a query of one row would be accepted."""
        return not self._closing and self.queued_rows < self._max_queue

    async def ask(self, query: Query) -> Found:
        """Waits for the answer; a cancelled query leaves the queue."""
        if self._closing:
            raise QueueFullError("the service is shutting down; ask it again later", 1)
        # A query larger than the queue could otherwise never be asked.
        if self._waiting and self.queued_rows + query.rows > self._max_queue:
            why = f"{self.queued_rows} rows are waiting, {self._max_queue} may; ask again later"
            raise QueueFullError(why, self.queued_rows * self._seconds_a_row)
        loop = asyncio.get_running_loop()
        waiter = _Waiter(query, loop.time(), loop.create_future())
        self._waiting[waiter] = None
        self.queued_rows += query.rows
        self._hurried += query.immediately
        self.accepted += 1
        self._news.set()
        try:
            return await waiter.answer
        finally:
            self._leave(waiter)

    async def run(self) -> None:
        """Answers what is asked until `close` is called and nothing waits any more."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="teacher") as thread:
            while True:
                self._news.clear()
                due = self._due(loop.time())
                if due is None and self._closing:
                    return
                if due is not None and due <= 0:
                    await self._answer_batch(thread)
                    continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(due):
                        await self._news.wait()

    def close(self) -> None:
        """Accepts no more queries; those that wait are answered without further delay."""
        self._closing = True
        self._news.set()

    def _due(self, now: float) -> float | None:
        """Seconds until a batch is due; None while nothing waits."""
        if not self._waiting:
            return None
        if self._closing or self._hurried or self.queued_rows >= self._max_rows:
            return 0.0
        return next(iter(self._waiting)).since + self._max_wait - now

    async def _answer_batch(self, thread: ThreadPoolExecutor) -> None:
        batch = self._take()
        queries = [waiter.query for waiter in batch]
        rows = sum(query.rows for query in queries)
        started = time.perf_counter()
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(thread, self._answer_together, queries)
            answers = list(zip(batch, found, strict=True))
        except Exception as error:
            for waiter in batch:
                if not waiter.answer.done():
                    waiter.answer.set_exception(error)
            return
        seconds = time.perf_counter() - started
        self._observe(rows, seconds)
        known = self._seconds_a_row or seconds / rows
        self._seconds_a_row = (1 - _NEWEST) * known + _NEWEST * seconds / rows
        for waiter, answer in answers:
            if not waiter.answer.done():
                waiter.answer.set_result(answer)

    def _take(self) -> list[_Waiter]:
        """The oldest queries that make up a batch, which then wait no more."""
        batch: list[_Waiter] = []
        rows = 0
        for waiter in self._waiting:
            if batch and rows + waiter.query.rows > self._max_rows:
                break
            batch.append(waiter)
            rows += waiter.query.rows
        for waiter in batch:
            self._leave(waiter)
        return batch

    def _leave(self, waiter: _Waiter) -> None:
        if waiter in self._waiting:
            del self._waiting[waiter]
            self.queued_rows -= waiter.query.rows
            self._hurried -= waiter.query.immediately


def answer_together(teacher: Teacher, queries: Sequence[Query]) -> list[Found]:
    """Answers several queries with one call of the teacher for each kind among them."""
    answers: dict[Query, Found] = {}
    for kind in dict.fromkeys(query.kind for query in queries):
        alike = [query for query in queries if query.kind == kind]
        found = iter(_ask(teacher, kind, alike))
        for query in alike:
            answers[query] = [next(found) for _ in query.histories]
            if kind == "inference":
                best = [rows[: query.k] for rows in answers[query]]
                answers[query] = [rows[rows >= 0] for rows in best]
    return [answers[query] for query in queries]


def _ask(teacher: Teacher, kind: Kind, queries: Sequence[Query]) -> Sequence[Answer]:
    def joined(name: str) -> list[Any]:
        return [entry for query in queries for entry in getattr(query, name)]

    histories = joined("histories")
    if kind == "scores":
        return list(teacher.scores(histories))
    if kind == "log_probabilities":
        best = [query.k for query in queries for _ in query.histories]
        return list(likely_items(teacher, histories, best))
    candidates = joined("candidates")
    rules: dict[str, Any] = {name: joined(name) for name in ("excluded", "categories")}
    if kind == "ranking":
        asked = [rows for rows in candidates if rows is not None]
        return teacher.ranking(histories, asked, **rules)
    most = max(query.k for query in queries)  # the best of a longer list are those of a shorter one
    found = teacher.top_k(histories, most, candidates=candidates, exclude_seen=False, **rules)
    return list(found)
