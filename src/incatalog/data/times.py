"""Times to order interactions by: exact, and all of one kind."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import re
from array import array
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from incatalog.data.fields import FilePlace, shown
from incatalog.errors import DataError

_WHOLE = re.compile(r"\s*[+-]?[0-9]{1,40}\s*")
_DECIMAL = re.compile(
    r"\s*[+-]?(?:[0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,2})?\s*"
)
# Python keeps six decimals of a second and drops the others.
_NANOSECONDS = re.compile(r"(.*[.,][0-9]{6})([0-9]{1,3})(?![0-9])(.*)", re.DOTALL)
_TOO_FINE = re.compile(r"[.,][0-9]{10}")
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)
# Times of one unit leave no large gap. Where the next larger number is _GAP times a number, from
# a date such as 20200103 (_LEAST) and seconds of 1985 (_LEAST_ABOVE) on, there are two units:
# dates, seconds, milliseconds, microseconds or nanoseconds beside one another.
_GAP, _LEAST, _LEAST_ABOVE = 40, 10_000_000, 500_000_000

# A number is as long, in binary digits, as so many of these are not above it.
_POWERS = 2 ** np.arange(63, dtype=np.int64)

_Number = int | float | Decimal


class _Example(NamedTuple):
    """A time, its place, and the cell as written."""

    value: _Number
    place: FilePlace
    cell: Any


class Times:
    """Collects the times of a column row by row."""

    def __init__(self, column: str, pattern: str = "") -> None:
        """``pattern`` is how they are written, for `strptime`; empty for numbers and ISO 8601."""
        self._column, self._pattern = column, pattern
        self._whole = array("q")
        # Takes over from `_whole` once a time is no whole number of 64 bits.
        self._others: list[_Number] | None = None
        self._kinds: dict[str, _Example] = {}
        # Smallest and largest number of each number of binary digits.
        self._ranges: dict[int, tuple[_Example, _Example]] = {}

    def add(self, place: FilePlace, cell: Any) -> None:
        """Adds the time of a row: a number, or an ISO 8601 date or time, but not both."""
        read = self._read(cell) if self._pattern and isinstance(cell, str) else cell
        kind, value = _time(read)
        if value is None:
            found = f"{self._column} is {_shown(cell)}"
            expected = self._pattern or "a number or an ISO 8601 time"
            raise place.error(f"{found}; expected {expected}")
        example = _Example(value, place, cell)
        first = self._kinds.setdefault(kind, example)
        if len(self._kinds) > 1:
            other = next(one for name, one in self._kinds.items() if name != kind)
            raise self._mixed(first, other)
        if kind == "number" and value >= _LEAST:
            digits = int(value).bit_length()
            least, most = self._ranges.get(digits, (example, example))
            least = example if value < least.value else least
            most = example if value > most.value else most
            self._ranges[digits] = (least, most)
        if self._others is not None:
            self._others.append(value)
        elif isinstance(value, int) and -(2**63) <= value < 2**63:
            self._whole.append(value)
        else:
            self._others = [*self._whole, value]

    def add_whole(
        self, path: Path, lines: Int64[np.ndarray, " rows"], times: Int64[np.ndarray, " rows"]
    ) -> None:
        """Adds the times of rows that are whole numbers, as :meth:`add` would one by one."""
        if not len(times):
            return

        def example(row: int) -> _Example:
            value = int(times[row])
            return _Example(value, FilePlace(path, int(lines[row])), str(value))

        first = self._kinds.setdefault("number", example(0))
        if len(self._kinds) > 1:
            raise self._mixed(first, self._kinds["date"])
        large = np.flatnonzero(times >= _LEAST)
        digits = np.searchsorted(_POWERS, times[large], side="right")
        for count in np.unique(digits).tolist():
            rows = large[digits == count]
            low, high = example(rows[times[rows].argmin()]), example(rows[times[rows].argmax()])
            least, most = self._ranges.get(count, (low, high))
            least = low if low.value < least.value else least
            most = high if high.value > most.value else most
            self._ranges[count] = (least, most)
        if self._others is None:
            self._whole.frombytes(times.tobytes())
        else:
            self._others.extend(times.tolist())

    def order(self) -> Int64[np.ndarray, " rows"]:
        """A whole number for each row; they are ordered, and equal, as the times are."""
        ranges = [self._ranges[digits] for digits in sorted(self._ranges)]
        for (_, below), (above, _) in itertools.pairwise(ranges):
            if above.value >= _LEAST_ABOVE and above.value >= below.value * _GAP:
                raise self._mixed(above, below)
        if self._others is None:
            return np.array(self._whole, dtype=np.int64)
        rank = {value: number for number, value in enumerate(sorted(set(self._others)))}
        return np.fromiter((rank[value] for value in self._others), np.int64, len(self._others))

    def _read(self, text: str) -> datetime.datetime | None:
        """A text as a moment; None if it is not written in the pattern."""
        with contextlib.suppress(ValueError):
            return datetime.datetime.strptime(text.strip(), self._pattern)
        return None

    def _mixed(self, one: _Example, other: _Example) -> DataError:
        first, second = sorted((one, other), key=lambda example: example.place.line)
        found = f"{_shown(second.cell)}, but {_shown(first.cell)} on line {first.place.line}"
        expected = "expected times of one kind, such as seconds in all rows"
        return second.place.error(f"{self._column} is {found}; {expected}")


def is_time(text: str) -> bool:
    """Whether a text is a number or an ISO 8601 time."""
    return _time(text)[1] is not None


def _time(cell: Any) -> tuple[str, _Number | None]:
    """Kind and value of a time; no value if it is none."""
    if isinstance(cell, str):
        if _WHOLE.fullmatch(cell):
            return "number", int(cell)
        if _DECIMAL.fullmatch(cell):
            return "number", _whole(Decimal(cell.strip()))
        return "date", _nanoseconds(cell.strip())
    if isinstance(cell, datetime.date):
        return "date", _since_epoch(cell)
    if isinstance(cell, bool) or not isinstance(cell, _Number):
        return "number", None
    finite = isinstance(cell, int) or Decimal(cell).is_finite()
    return "number", _whole(cell) if finite else None


def _whole(number: _Number) -> _Number:
    return int(number) if number == int(number) else number


def _nanoseconds(text: str) -> int | None:
    """Nanoseconds since 1970 of an ISO 8601 date or time."""
    finer = _NANOSECONDS.fullmatch(text)
    if not finer and _TOO_FINE.search(text):
        return None
    rest = int(finer[2].ljust(3, "0")) if finer else 0
    try:
        moment = datetime.datetime.fromisoformat(finer[1] + finer[3] if finer else text)
    except ValueError:
        return None
    return _since_epoch(moment) + rest


def _since_epoch(moment: datetime.date) -> int:
    if not isinstance(moment, datetime.datetime):
        moment = datetime.datetime.combine(moment, datetime.time())
    aware = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    return (aware - _EPOCH) // _MICROSECOND * 1000


def _shown(cell: Any) -> str:
    return str(cell) if isinstance(cell, datetime.date | Decimal) else shown(cell)
