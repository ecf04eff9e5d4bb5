"""Rows of a table as blocks of columns."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Int64

from incatalog.data.fields import FilePlace
from incatalog.errors import DataError

Cells = pl.Series | list[Any]
_RECORDS = 1 << 16


@dataclass(frozen=True, eq=False)
class TableBlock:
    """Some rows of a table, one behind the other.

    Attributes:
        path: The file.
        lines: The line of each row.
        columns: The cells of the columns that were asked for; a list where they are of several
            kinds.
    """

    path: Path
    lines: Int64[np.ndarray, " rows"]
    columns: Sequence[Cells]

    def rows(self) -> Iterator[tuple[FilePlace, tuple[Any, ...]]]:
        """Place and cells of every row."""
        cells = zip(*map(cells_of, self.columns), strict=True)
        for line, row in zip(self.lines.tolist(), cells, strict=True):
            yield FilePlace(self.path, line), row


def cells_of(column: Cells) -> list[Any]:
    """The cells of a column, one by one."""
    if isinstance(column, list):
        return column
    # Python's own times end at the microsecond.
    fine = isinstance(column.dtype, pl.Datetime) and column.dtype.time_unit == "ns"
    return (column.dt.to_string("iso") if fine else column).to_list()


def gathered(
    path: Path, records: Iterator[tuple[FilePlace, Sequence[Any]]], columns: Sequence[int]
) -> Iterator[TableBlock]:
    """Records as blocks of some of their columns; those before a broken one come before its error.

    Raises:
        DataError: What the records raise.
    """
    error = None
    while error is None:
        part: list[tuple[FilePlace, Sequence[Any]]] = []
        try:
            part.extend(itertools.islice(records, _RECORDS))
        except DataError as raised:
            error = raised
        if not part:
            break
        lines = np.array([place.line for place, _ in part], dtype=np.int64)
        cells = ([row[column] for _, row in part] for column in columns)
        yield TableBlock(path, lines, list(map(_column, cells)))
    if error is not None:
        raise error


def _column(cells: list[Any]) -> Cells:
    """Cells that are all texts, or all whole numbers, as a series."""
    kinds = set(map(type, cells))
    if kinds == {str} or kinds == {int}:
        with contextlib.suppress(UnicodeEncodeError, OverflowError):
            return pl.Series(cells, dtype=pl.String if kinds == {str} else pl.Int64)
    return cells
