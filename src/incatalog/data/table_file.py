"""A file of rows, in any format of tables: CSV, Parquet or JSON lines."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from incatalog.data.attributes import RESERVED
from incatalog.data.csv_blocks import csv_blocks
from incatalog.data.documents import json_lines, require_once
from incatalog.data.fields import FilePlace
from incatalog.data.parquet_documents import parquet_batches, parquet_columns
from incatalog.data.settings import ColumnSettings
from incatalog.data.table_blocks import Cells, TableBlock, cells_of, gathered
from incatalog.data.table_sample import JSON_LINES, SEPARATORS, csv_format, csv_rows, ending_of
from incatalog.errors import DataError


class TableFile:
    """A file of rows, of which the columns that some settings name are read, or all."""

    def __init__(
        self, settings: ColumnSettings, path: Path, *names: str, keep: bool = False
    ) -> None:
        self.path = path
        self.unused: dict[str, None] = {}  # Names of the columns that nothing reads.
        # The cells of the other columns, with `keep`; whole when all rows have been read.
        self.kept: dict[str, list[Any]] = {}
        self._keeps = keep
        columns = {name: getattr(settings, name) for name in names}
        self._columns: dict[str, str] = {name: column for name, column in columns.items() if column}
        self._settings = settings
        self.left_out = Counter[str]()  # Rows that say nothing, by why.

    def name(self, setting: str) -> str:
        """The column that a setting names; empty for none."""
        return self._columns.get(setting, "")

    @property
    def used(self) -> list[str]:
        """The columns that settings name."""
        return list(dict.fromkeys(self._columns.values()))

    def rows(self) -> Iterator[tuple[FilePlace, dict[str, Any]]]:
        """Yields the place and the cells by setting; an empty setting has none."""
        for block in self.blocks():
            for place, cells in block.rows():
                yield place, dict(zip(self._columns, cells, strict=True))

    def cells(self, block: TableBlock) -> dict[str, Cells]:
        """The columns of a block by setting."""
        return dict(zip(self._columns, block.columns, strict=True))

    def blocks(self) -> Iterator[TableBlock]:
        """Yields the rows block by block, with a column for each setting that is not empty.

        Raises:
            DataError: The file cannot be read, holds no rows, or lacks a column; names file and
                line (the row, for Parquet).
        """
        ending = ending_of(self.path)
        if ending in SEPARATORS:
            found = self._csv_blocks()
        elif ending in JSON_LINES:
            names = [*self._columns.values()]
            found = gathered(self.path, self._json_rows(), range(len(names)))
        else:
            found = self._parquet_blocks()
        for block in found:
            width = len(self._columns)
            for name, cells in zip(self.kept, block.columns[width:], strict=False):
                self.kept[name] += cells_of(cells)
            yield TableBlock(block.path, block.lines, block.columns[:width])

    def _match(self, place: FilePlace, found: Collection[str]) -> None:
        """Refuses a table that lacks a column; notes the columns that nothing reads."""
        for name, column in self._columns.items():
            if column not in found:
                flag = "--" + name.replace("_", "-")
                raise place.error(f"no column {column!r} ({flag}); found {', '.join(found)}")
        others = [name for name in found if name not in self._columns.values()]
        kept = [name for name in others if self._keeps and name and name not in RESERVED]
        self.unused.update((name, None) for name in others if name not in kept)
        for name in kept:
            self.kept.setdefault(name, [])

    def _json_rows(self) -> Iterator[tuple[FilePlace, Sequence[Any]]]:
        lines = json_lines(self.path, label=f"reading {self.path.name}", unique=True)
        for number, (place, record) in enumerate(lines):
            self._match(place, record)
            self._keep_record(place, record, number)
            yield place, [record[column] for column in self._columns.values()]

    def _keep_record(self, place: FilePlace, record: Mapping[str, Any], number: int) -> None:
        """Keeps the cells of a row, of which there are so many before it; some may be missing."""
        for name, cells in self.kept.items():
            cells += [None] * (number - len(cells))
            cell = record.get(name)
            cells.append(place.unicode(name, cell) if isinstance(cell, str) else cell)

    def _csv_blocks(self) -> Iterator[TableBlock]:
        known = self._settings.named("quote", "separator", "encoding")
        form = csv_format(self.path, **known)
        place, header = next(csv_rows(self.path, form))
        self._match(place, header)
        require_once(self.path, header)
        wanted = map(header.index, itertools.chain(self._columns.values(), self.kept))
        yield from csv_blocks(self.path, form, header, list(wanted))

    def _parquet_blocks(self) -> Iterator[TableBlock]:
        columns = parquet_columns(self.path)
        self._match(FilePlace(self.path), columns)
        wanted = [*self._columns.values(), *self.kept]
        texts = {self.name("time_column"), *self.kept}
        fine = [name for name in wanted if getattr(columns[name], "time_unit", "") == "ns"]
        # In columns of ids and texts times are refused, as Python shows them.
        coarse = [pl.col(name).dt.cast_time_unit("us") for name in fine if name not in texts]
        row = 1
        for frame in parquet_batches(self.path, list(dict.fromkeys(wanted))):
            lines = np.arange(row, row + len(frame))
            row += len(frame)
            frame = frame.with_columns(coarse)
            yield TableBlock(self.path, lines, [frame[name] for name in wanted])
        if row == 1:
            raise DataError.at(self.path, "holds no rows")
