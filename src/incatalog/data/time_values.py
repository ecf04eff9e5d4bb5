"""Times as numbers: of one cell, and of a column at once where all cells are plain."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import polars.exceptions
from jaxtyping import Int64

_WHOLE = re.compile(r"\s*[+-]?[0-9]{1,40}\s*")
_DECIMAL = re.compile(
    r"\s*[+-]?(?:[0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,2})?\s*"
)
# Python keeps six decimals of a second and drops the others.
_NANOSECONDS = re.compile(r"(.*[.,][0-9]{6})([0-9]{1,3})(?![0-9])(.*)", re.DOTALL)
_TOO_FINE = re.compile(r"[.,][0-9]{10}")
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)
# Times of a column that need no look at each of them: whole numbers, days, seconds of a day.
_PLAIN_WHOLE = r"^[+-]?[0-9]{1,18}$"
_DAY = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"
_PLAIN_DAY = _DAY + "$"
_PLAIN_SECOND = _DAY + r"[T ](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z?$"
_NANOSECONDS_OF = {"ms": 1_000_000, "us": 1_000, "ns": 1}
_NANOSECONDS_OF_DAY = 86_400_000_000_000

Number = int | float | Decimal
_Read = Callable[[str], datetime.datetime | None]


class PlainTimes(NamedTuple):
    """The times of a column.

    Attributes:
        kind: Of all of them, as of :func:`time_value`.
        values: Whole numbers that are ordered as they are.
        cell: Gives the cell of a row, as messages show it.
    """

    kind: str
    values: Int64[np.ndarray, " rows"]
    cell: Callable[[int], Any]


def plain_times(cells: pl.Series, read: _Read | None = None) -> PlainTimes | None:
    """The times of a column that are of one kind and whole numbers of 64 bits; None for others.

    Args:
        cells: Texts, numbers, days or times.
        read: Reads texts that are written in a pattern of their own; None for numbers and ISO 8601.
    """
    if cells.null_count():
        return None
    dtype = cells.dtype
    if isinstance(dtype, pl.Datetime) and dtype.time_unit == "ns":
        # Python has no such times: one by one they are read as texts.
        texts = cells.dt.to_string("iso")
        return None if read else PlainTimes("date", _physical(cells), texts.__getitem__)
    values: Int64[np.ndarray, " rows"] | None = None
    kind = "date"
    if dtype.is_integer():
        kind = "number"
        whole = cells.cast(pl.Int64, strict=False)
        values = None if whole.null_count() else whole.to_numpy()
    elif dtype.is_float():
        kind, numbers = "number", cells.cast(pl.Float64).to_numpy()
        if np.all(np.abs(numbers) < 2.0**63) and np.all(numbers == np.floor(numbers)):
            values = numbers.astype(np.int64)
    elif dtype == pl.Date or isinstance(dtype, pl.Datetime):
        values = _nanoseconds_of(cells)
    elif dtype == pl.String:
        return _plain_texts(cells, read)
    return None if values is None else PlainTimes(kind, values, cells.__getitem__)


def _plain_texts(cells: pl.Series, read: _Read | None) -> PlainTimes | None:
    if read is None:
        if cells.str.contains(_PLAIN_WHOLE).all():
            # Other libraries know no plus in front of a number.
            whole = cells.str.strip_prefix("+").cast(pl.Int64)
            return PlainTimes("number", whole.to_numpy(), cells.__getitem__)
        moments = _moments(cells)
        values = None if moments is None else _nanoseconds_of(moments)
        if values is not None:
            return PlainTimes("date", values, cells.__getitem__)
    texts = cells.unique()
    found = [time_value(text if read is None else read(text)) for text in texts]
    kinds = {kind for kind, _ in found}
    numbers = [value for _, value in found if type(value) is int and -(2**63) <= value < 2**63]
    if len(kinds) > 1 or len(numbers) < len(texts):
        return None
    mapped = cells.replace_strict(texts, pl.Series(numbers, dtype=pl.Int64), return_dtype=pl.Int64)
    return PlainTimes(kinds.pop(), mapped.to_numpy(), cells.__getitem__)


def _moments(cells: pl.Series) -> pl.Series | None:
    """Texts as days or moments, if all of them are of one of the usual forms."""
    try:
        if cells.str.contains(_PLAIN_DAY).all():
            return cells.str.to_date("%Y-%m-%d")
        if cells.str.contains(_PLAIN_SECOND).all():
            plain = cells.str.strip_suffix("Z").str.replace("T", " ", literal=True)
            return plain.str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us")
    except polars.exceptions.PolarsError:  # no such day
        pass
    return None


def _nanoseconds_of(moments: pl.Series) -> Int64[np.ndarray, " rows"] | None:
    """Nanoseconds since 1970; None if a moment is further away than 64 bits reach."""
    unit = getattr(moments.dtype, "time_unit", None)
    factor = _NANOSECONDS_OF_DAY if unit is None else _NANOSECONDS_OF[unit]
    values = _physical(moments)
    if np.abs(values).max() >= (2**63 - 1) // factor:
        return None
    return values * factor


def _physical(moments: pl.Series) -> Int64[np.ndarray, " rows"]:
    return moments.to_physical().cast(pl.Int64).to_numpy()


def time_value(cell: Any) -> tuple[str, Number | None]:
    """Kind (number or date) and value of a time; no value if it is none.

    A date is its nanoseconds since 1970.
    """
    if isinstance(cell, str):
        if _WHOLE.fullmatch(cell):
            return "number", int(cell)
        if _DECIMAL.fullmatch(cell):
            return "number", _whole(Decimal(cell.strip()))
        return "date", _nanoseconds(cell.strip())
    if isinstance(cell, datetime.date):
        return "date", _since_epoch(cell)
    if isinstance(cell, bool) or not isinstance(cell, Number):
        return "number", None
    finite = isinstance(cell, int) or Decimal(cell).is_finite()
    return "number", _whole(cell) if finite else None


def _whole(number: Number) -> Number:
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
