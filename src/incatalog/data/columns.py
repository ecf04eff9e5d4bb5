"""A field of all items side by side, so that a question about it is one look at an array."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from incatalog.data.attributes import Value

_CLOCK = r"[T ]\d{2}(:\d{2}(:\d{2}(\.\d+)?)?)?(Z|[+-]\d{2}:?\d{2})?"
_DATE = re.compile(rf"\d{{4}}(-\d{{2}}(-\d{{2}}({_CLOCK})?)?)?")
# Texts that no item has any more are dropped when they are more than those that are used.
_SPARE_TEXTS = 1024


@dataclass(frozen=True, eq=False)
class Column:
    """The values of one field, by row.

    An item may have a number or texts there, or nothing. Truth values are the numbers 1 and 0.

    Attributes:
        numbers: The numbers, NaN where an item has none.
        texts: All different texts, as they compare: without capitals, unless the field is exact.
        rows: Row of each text of an item, ascending; a list gives a row several.
        codes: Which of the texts it is.
        exact: Whether capitals count.
    """

    numbers: Float64[np.ndarray, " items"]
    texts: tuple[str, ...]
    rows: Int64[np.ndarray, " values"]
    codes: Int32[np.ndarray, " values"]
    exact: bool = False

    @classmethod
    def of(cls, values: Iterable[Value | None], total: int, *, exact: bool = False) -> Column:
        """Builds the column of the values of ``total`` rows."""
        empty = np.full(total, np.nan), (), np.empty(0, np.int64), np.empty(0, np.int32)
        return cls(*empty, exact=exact).with_values(range(total), values, total)

    def with_values(
        self, rows: Sequence[int], values: Iterable[Value | None], total: int
    ) -> Column:
        """The column where some rows, ascending, hold other values, and the last row may be new."""
        numbers = np.full(total, np.nan)
        numbers[: len(self.numbers)] = self.numbers
        code_of = dict(self._code_of)
        where: list[int] = []
        codes: list[int] = []
        for row, value in zip(rows, values, strict=True):
            number = isinstance(value, int | float)
            numbers[row] = float(value) if isinstance(value, int | float) else np.nan
            if value is None or number:
                continue
            texts = (value,) if isinstance(value, str) else value
            for text in texts if isinstance(texts, tuple) else ():
                where.append(row)
                codes.append(code_of.setdefault(self.key(text), len(code_of)))
        kept = np.full(len(self.rows), True)
        if len(self.rows):
            kept = ~np.isin(self.rows, np.asarray(list(rows), dtype=np.int64))
        all_rows = np.concatenate([self.rows[kept], np.array(where, dtype=np.int64)])
        all_codes = np.concatenate([self.codes[kept], np.array(codes, dtype=np.int32)])
        order = np.argsort(all_rows, kind="stable")
        all_rows, all_codes, texts_ = all_rows[order], all_codes[order], tuple(code_of)
        if len(texts_) > 2 * len(all_codes) + _SPARE_TEXTS:
            used, all_codes = np.unique(all_codes, return_inverse=True)
            texts_ = tuple(texts_[code] for code in used.tolist())
        return Column(numbers, texts_, all_rows, all_codes.astype(np.int32), self.exact)

    def key(self, text: str) -> str:
        """A text as it compares."""
        return text if self.exact else text.casefold()

    @cached_property
    def present(self) -> Bool[np.ndarray, " items"]:
        """Which items have the field."""
        found: np.ndarray = np.isfinite(self.numbers)
        found[self.rows] = True
        return found

    @cached_property
    def has_numbers(self) -> bool:
        """Whether an item has a number there."""
        return bool(np.isfinite(self.numbers).any())

    @cached_property
    def dates(self) -> dict[int, str]:
        """The texts that are dates, with a T before the time, by their codes."""
        return {
            code: text.upper().replace(" ", "T")
            for code, text in enumerate(self.texts)
            if is_date(text)
        }

    def with_text(self, text: str) -> Bool[np.ndarray, " items"]:
        """Which items have exactly this text, or have it in their list."""
        found = np.zeros(len(self.numbers), dtype=np.bool_)
        code = self._code_of.get(self.key(text))
        if code is not None:
            found[self.rows[self.codes == code]] = True
        return found

    def with_texts(self, holds: Callable[[str], bool]) -> Bool[np.ndarray, " items"]:
        """Which items have a text for which something holds."""
        return self._with_codes(code for code, text in enumerate(self.texts) if holds(text))

    def with_dates(self, holds: Callable[[str], bool]) -> Bool[np.ndarray, " items"]:
        """Which items have a date for which something holds."""
        return self._with_codes(code for code, date in self.dates.items() if holds(date))

    def _with_codes(self, codes: Iterable[int]) -> Bool[np.ndarray, " items"]:
        hit = np.zeros(len(self.texts) + 1, dtype=np.bool_)
        hit[list(codes)] = True
        found = np.zeros(len(self.numbers), dtype=np.bool_)
        found[self.rows[hit[self.codes]]] = True
        return found

    @cached_property
    def _code_of(self) -> dict[str, int]:
        return {text: code for code, text in enumerate(self.texts)}


def is_date(text: str) -> bool:
    """Whether a text is an ISO date, or the beginning of one: a year, a month."""
    return _DATE.fullmatch(text.upper()) is not None
