"""Requests that arrive together are answered together, by one thread behind a bounded queue."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Int64

from incatalog.errors import TeacherError
from incatalog.teacher.teacher import Teacher

Rows = Int64[np.ndarray, " rows"]


Answer = list[np.ndarray]


@dataclass(frozen=True, eq=False)
class Query:
    """One request in rows of the catalog, checked; every list has one entry for each history.

    Attributes:
        kind: What is asked for: the best items, ranks of candidates, or all scores.
        histories: Rows of each history, oldest first.
        k: Items to answer; only for `inference`.
        candidates: The only rows that may be answered, None for all; for `ranking` those to rank.
        excluded: Rows never to answer, with those of the history where they are left out.
        categories: `"+C"`, `"-C"` or None.
        immediately: Do not wait for others to join.
    """

    kind: Literal["inference", "ranking", "scores"]
    histories: list[Rows]
    k: int = 0
    candidates: list[Rows | None] = field(default_factory=list)
    excluded: list[Rows] = field(default_factory=list)
    categories: list[str | None] = field(default_factory=list)
    immediately: bool = False

    @property
    def rows(self) -> int:
        """Histories asked about."""
        return len(self.histories)


AnswerTogether = Callable[[Sequence[Query]], Sequence[Answer]]

_LONGEST_RETRY = 60
# Weight of the newest batch in the running estimate of the time a row takes.
_NEWEST = 0.2


class QueueFullError(TeacherError):
    """More waits than may wait.

    Attributes:
        retry_after: Seconds after which what waits now is probably answered.
    """

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(eq=False)
class _Waiter:
    question: Query
    since: float
    answer: asyncio.Future[Answer]


class Batcher:
    """Collects questions until a batch is due, and answers it off the event loop.

    A batch is due when its first question has waited for ``max_wait``, when ``max_rows`` rows wait,
    or when one of the questions is not to wait. While one batch is computed the next one gathers,
    so under load batches grow by themselves.

    Attributes:
        accepted: Questions taken into the queue so far.
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
        """Prepares the queue; `run` answers from it.

        Args:
            answer_together: Answers a batch; runs in a thread of its own.
            max_rows: Histories of a batch; a larger question is a batch of its own.
            max_wait: Seconds the first question of a batch waits for others.
            max_queue: Histories that may wait.
            observe: Is told the rows and seconds of each batch.
        """
        self._answer_together = answer_together
        self._max_rows = max_rows
        self._max_wait = max_wait
        self._max_queue = max_queue
        self._observe = observe
        # In the order of arrival; a dictionary, because those who give up leave from the middle.
        self._waiting: dict[_Waiter, None] = {}
        self._hurried = 0
        self._news = asyncio.Event()
        self._closing = False
        self._seconds_a_row = 0.0
        self.queued_rows = 0
        self.accepted = 0

    @property
    def has_room(self) -> bool:
        """Whether a question of one row would be accepted."""
        return not self._closing and self.queued_rows < self._max_queue

    async def ask(self, question: Query) -> Answer:
        """Waits for the answer; cancelled, the question leaves the queue.

        Raises:
            QueueFullError: Too much waits already, or the service is closing.
        """
        if self._closing:
            raise QueueFullError("the service is shutting down; ask it again later", 1)
        # A question larger than the queue could otherwise never be asked.
        if self._waiting and self.queued_rows + question.rows > self._max_queue:
            raise QueueFullError(
                f"{self.queued_rows} rows are waiting, {self._max_queue} may; ask again later",
                self._retry_after(),
            )
        loop = asyncio.get_running_loop()
        waiter = _Waiter(question, loop.time(), loop.create_future())
        self._enter(waiter)
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
        """Accepts no more questions; those that wait are answered without further delay."""
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
        questions = [waiter.question for waiter in batch]
        rows = sum(question.rows for question in questions)
        started = time.perf_counter()
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(thread, self._answer_together, questions)
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
        """The oldest questions that make up a batch, which then wait no more."""
        batch: list[_Waiter] = []
        rows = 0
        for waiter in self._waiting:
            if batch and rows + waiter.question.rows > self._max_rows:
                break
            batch.append(waiter)
            rows += waiter.question.rows
        for waiter in batch:
            self._leave(waiter)
        return batch

    def _enter(self, waiter: _Waiter) -> None:
        self._waiting[waiter] = None
        self.queued_rows += waiter.question.rows
        self._hurried += waiter.question.immediately

    def _leave(self, waiter: _Waiter) -> None:
        if waiter not in self._waiting:
            return
        del self._waiting[waiter]
        self.queued_rows -= waiter.question.rows
        self._hurried -= waiter.question.immediately

    def _retry_after(self) -> int:
        seconds = self.queued_rows * self._seconds_a_row
        return min(max(1, math.ceil(seconds)), _LONGEST_RETRY)


def answer_together(teacher: Teacher, questions: Sequence[Query]) -> list[Answer]:
    """Answers several questions with one call of the teacher for each kind among them.

    Returns:
        For each question one array for each of its histories.
    """
    answers: list[Answer] = [[] for _ in questions]
    for kind in dict.fromkeys(question.kind for question in questions):
        places = [place for place, one in enumerate(questions) if one.kind == kind]
        alike = [questions[place] for place in places]
        found = iter(_ask(teacher, kind, alike))
        for place, question in zip(places, alike, strict=True):
            answers[place] = [next(found) for _ in question.histories]
            if kind == "inference":
                answers[place] = [_best(rows, question.k) for rows in answers[place]]
    return answers


def _ask(teacher: Teacher, kind: str, questions: Sequence[Query]) -> list[np.ndarray]:
    histories = [rows for question in questions for rows in question.histories]
    if kind == "scores":
        return list(teacher.scores(histories))
    candidates = [rows for question in questions for rows in question.candidates]
    excluded = [rows for question in questions for rows in question.excluded]
    categories = [one for question in questions for one in question.categories]
    if kind == "ranking":
        asked = [rows for rows in candidates if rows is not None]
        return teacher.ranking(histories, asked, excluded=excluded, categories=categories)
    return list(
        teacher.top_k(
            histories,
            # The best of a longer list are those of a shorter one.
            max(question.k for question in questions),
            candidates=candidates,
            excluded=excluded,
            categories=categories,
            exclude_seen=False,
        )
    )


def _best(rows: Rows, k: int) -> Rows:
    best = rows[:k]
    return best[best >= 0]
