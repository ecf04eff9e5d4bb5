"""An answer as a script: what it says, and what the engine is asked for on the way.

A script knows neither threads nor event loops. Whoever plays it hands the requests to the engine
and the events back, in the order of the requests, so that a service and a program play the same.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from incatalog.decoding.events import Event, Finished, FinishReason
from incatalog.decoding.request import Request
from incatalog.recommender.answer import Recommendation

Said = str | Recommendation
"""A part of an answer: text, or an item in place of its title."""


@dataclass(frozen=True)
class Ask:
    """The engine is to answer these requests, side by side; their events come one by one."""

    requests: Sequence[Request]


Lines = Generator[Said | Ask | None, Event, None]
"""What an answer is made of; None waits for the next event."""


@dataclass
class Ending:
    """What is known when an answer is complete."""

    reason: FinishReason = "eos"
    invented: int = 0  # names that are no items, in sentences that were left out or not


@dataclass(eq=False)
class Script:
    """An answer that is played: begun, then fed with what the engine does."""

    lines: Lines
    ending: Ending
    over: bool = False
    _asked: Sequence[Request] = field(init=False, default=())

    def begin(self) -> list[Said]:
        """What is said before anything is asked."""
        return self._advance(None)

    def take_requests(self) -> Sequence[Request]:
        """What the engine is asked for next; nothing when the answer is over."""
        asked, self._asked = self._asked, ()
        return asked

    def feed(self, event: Event) -> list[Said]:
        """What is said after an event of the requests that were taken."""
        return [] if self.over else self._advance(event)

    def _advance(self, event: Event | None) -> list[Said]:
        said: list[Said] = []
        try:
            found = next(self.lines) if event is None else self.lines.send(event)
            while found is not None:
                if isinstance(found, Ask):
                    self._asked = found.requests
                else:
                    said.append(found)
                found = next(self.lines)
        except StopIteration:
            self.over = True
        return said


def in_order(events: Iterable[Event], count: int) -> Iterator[Event]:
    """Events of requests that are answered side by side, one request after the other."""
    waiting: defaultdict[int, deque[Event]] = defaultdict(deque)
    at = 0
    for event in events:
        waiting[event.index].append(event)
        while at < count and waiting[at]:
            first = waiting[at].popleft()
            yield first
            at += isinstance(first, Finished)
