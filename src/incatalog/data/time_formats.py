"""How times are written where they are neither numbers nor ISO 8601."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from incatalog.data.times import is_time

_CLOCKS = ("", " %H:%M:%S", " %H:%M", ", %H:%M:%S", ", %H:%M", " %I:%M:%S %p", " %I:%M %p",
           " %H:%M:%S %z", "T%H:%M:%S", " %H:%M:%S.%f")  # fmt: skip
_DATES = ("%Y-%m-%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d",
          "%Y.%m.%d", "%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%d %b %Y", "%d %B %Y", "%b %d, %Y",
          "%B %d, %Y", "%b %d %Y", "%a, %d %b %Y", "%d-%b-%Y")  # fmt: skip
_FORMATS = tuple(f"{date}{clock}" for date, clock in itertools.product(_DATES, _CLOCKS))
# Day and month, or month and day: what is no date in the one may be none in the other either.
_ENOUGH_TO_TELL = 200


class TimeFormat(NamedTuple):
    """How the times of a column are written."""

    pattern: str  # As `datetime.strptime` takes it; empty for numbers and ISO 8601.
    other: str = ""  # Another one that reads all of them too, as other days.


def time_format(texts: Sequence[str]) -> TimeFormat | None:
    """The format in which all of some texts are times; None if there is none.

    Of two that read them all as different days, the one in which they ascend further is taken.
    """
    if not texts:
        return None
    if all(map(is_time, texts)):
        return TimeFormat("")
    first, rest = texts[:_ENOUGH_TO_TELL], texts[_ENOUGH_TO_TELL:]
    fitting = [one for one in _FORMATS if _reads(one, first)]
    fitting = [one for one in fitting if _reads(one, rest)]
    if not fitting:
        return None
    if len(fitting) == 1:
        return TimeFormat(fitting[0])
    fitting.sort(key=lambda one: -_ascending(one, texts))
    one, other = fitting[:2]
    same = all(_moment(t, one) == _moment(t, other) for t in texts)
    sure = same or _ascending(one, texts) > _ascending(other, texts)
    return TimeFormat(one, "" if sure else other)


def _reads(pattern: str, texts: Iterable[str]) -> bool:
    try:
        for text in texts:
            _moment(text, pattern)
    except ValueError:
        return False
    return True


def _ascending(pattern: str, texts: Sequence[str]) -> float:
    """Share of the texts that are no earlier than the one before, or no later, if that is more."""
    moments = [_moment(text, pattern) for text in texts]
    pairs = list(itertools.pairwise(moments))
    up = sum(one <= other for one, other in pairs)
    down = sum(one >= other for one, other in pairs)
    return max(up, down) / max(1, len(pairs))


def _moment(text: str, pattern: str) -> datetime:
    return datetime.strptime(text.strip(), pattern)
