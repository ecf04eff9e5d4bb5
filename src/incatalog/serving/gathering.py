"""Questions that wait while another is answered, and are then answered together."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

_Asked = TypeVar("_Asked")
_Said = TypeVar("_Said")


@dataclass(frozen=True, eq=False)
class _Waiting(Generic[_Asked, _Said]):
    """A question, and where its answer goes."""

    kind: Hashable
    most: int
    asked: _Asked
    said: asyncio.Future[_Said]


class Gathering(Generic[_Asked, _Said]):
    """One thread that answers questions of one kind together.

    What computes does so faster for many at a time, and several threads of it would only keep each
    other and the model waiting. A question alone is answered at once; those that come soon after
    another wait until ``pause`` seconds have passed since, and so find company in a crowd.
    """

    def __init__(
        self, answer: Callable[[Sequence[_Asked]], Sequence[_Said]], name: str, pause: float = 0.0
    ) -> None:
        """Takes what answers questions of one kind, in their order, in the thread of that name."""
        self._answer, self._pause = answer, pause
        self._began = -math.inf  # when the last questions were answered
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._waiting: list[_Waiting[_Asked, _Said]] = []
        self._busy = False

    def close(self) -> None:
        """Lets the thread go; what is being answered is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def ask(self, kind: Hashable, asked: _Asked, most: int) -> _Said:
        """The answer to a question, or what went wrong with it.

        Args:
            kind: Only questions of one kind are answered together.
            asked: The question.
            most: Questions of this kind that are answered at a time.
        """
        said: asyncio.Future[_Said] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(kind, most, asked, said))
        if not self._busy:
            self._busy = True
            self._soon()
        return await said

    def _soon(self) -> None:
        """Goes on when the pause is over."""
        loop = asyncio.get_running_loop()
        left = self._began + self._pause - loop.time()
        if left > 0:
            loop.call_later(left, self._next)
        else:
            self._next()

    def _next(self) -> None:
        """Answers what has waited longest, and what is of its kind."""
        # Who asked and went away is not answered.
        self._waiting = [one for one in self._waiting if not one.said.done()]
        self._busy = bool(self._waiting)
        if not self._busy:
            return
        oldest = self._waiting[0]
        together = [one for one in self._waiting if one.kind == oldest.kind][: oldest.most]
        taken = set(map(id, together))
        self._waiting = [one for one in self._waiting if id(one) not in taken]
        loop = asyncio.get_running_loop()
        self._began = loop.time()
        done = loop.run_in_executor(self._thread, self._answers, [one.asked for one in together])
        done.add_done_callback(lambda answers: self._tell(together, answers))

    def _answers(self, asked: Sequence[_Asked]) -> list[_Said | Exception]:
        """An answer to each; a question that cannot be answered does not spoil the others."""
        try:
            return list(self._answer(asked))
        except Exception as error:  # whatever it is, it is theirs who asked
            if len(asked) == 1:
                return [error]
        return [self._answers([one])[0] for one in asked]

    def _tell(
        self,
        together: Sequence[_Waiting[_Asked, _Said]],
        answers: asyncio.Future[list[_Said | Exception]],
    ) -> None:
        stopped = answers.cancelled()
        for place, one in enumerate(together):
            if one.said.done():
                continue
            if stopped:
                one.said.cancel()
                continue
            found = answers.result()[place]
            if isinstance(found, Exception):
                one.said.set_exception(found)
            else:
                one.said.set_result(found)
        if not stopped:
            self._soon()
