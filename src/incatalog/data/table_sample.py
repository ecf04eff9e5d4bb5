"""The first rows of a table, whatever it is written in: separator and encoding are found out."""

from __future__ import annotations

import codecs
import contextlib
import csv
import datetime
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

import polars as pl
import polars.exceptions

from incatalog.data.documents import json_lines, text_blocks, text_lines
from incatalog.data.fields import FilePlace, is_missing
from incatalog.data.long_cells import rows_of
from incatalog.data.parquet_documents import parquet_fault
from incatalog.errors import ConfigError, DataError

UTF_8: Final = "utf-8"
# What files of text may end in, and what separates their cells where they do not tell.
SEPARATORS: Final = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": "\t"}
JSON_LINES: Final = frozenset({".jsonl", ".ndjson", ".json"})
PARQUET: Final = frozenset({".parquet", ".pq"})
_SHEETS = {".xlsx", ".xls", ".ods", ".numbers"}
_TRIED = (",", ";", "\t", "|")
_MOST_ROWS = 100_000
_ROWS_TO_TELL = 100
_LIST_JOINT = "\x1f"


def ending_of(path: Path) -> str:
    """The ending that tells how a table is written, without that of gzip.

    Raises:
        DataError: There is no such file, or it is empty.
        ConfigError: Tables with that ending cannot be read.
    """
    endings = [ending for ending in path.suffixes if ending != ".gz"]
    ending = endings[-1].lower() if endings else ""
    if not path.is_file():
        problem = "is a folder; expected a table" if path.exists() else "no such file"
        raise DataError.at(path, problem)
    if path.stat().st_size == 0:
        raise DataError.at(path, "the file is empty; expected a table")
    if ending not in SEPARATORS.keys() | JSON_LINES | PARQUET:
        known = ", ".join([".csv", ".tsv", ".txt", ".parquet", ".jsonl"])
        hint = "; save the sheet as CSV" if ending in _SHEETS else ""
        raise ConfigError(f"{path}: unknown ending {ending!r}; expected one of {known}{hint}")
    return ending


class CsvFormat(NamedTuple):
    """How a file of CSV is written."""

    separator: str
    encoding: str
    letters: bool  # whether double quotes are letters


@dataclass(frozen=True, eq=False)
class SampleColumn:
    """Some cells of a column as text; an empty cell is an empty text."""

    name: str
    cells: tuple[str, ...]
    lists: bool = False  # whether a cell is a list of texts
    moments: bool = False  # whether the file itself says that they are times

    @cached_property
    def counts(self) -> Counter[str]:
        """How often each text occurs, without the empty one."""
        found = Counter(self.cells)
        found.pop("", None)
        return found

    @cached_property
    def filled(self) -> int:
        """Cells that are not empty."""
        return self.counts.total()

    @property
    def unlike(self) -> float:
        """Different texts for each cell that is not empty: 1 where none repeats, 0 without any."""
        return len(self.counts) / self.filled if self.filled else 0.0

    def examples(self, count: int = 2) -> list[str]:
        """The first different texts."""
        return [
            text.replace(_LIST_JOINT, ", ") for text in itertools.islice(iter(self.counts), count)
        ]


@dataclass(frozen=True, eq=False)
class TableSample:
    """The first rows of a table, column by column."""

    path: Path
    columns: dict[str, SampleColumn]


def sample_table(
    path: Path, *, quote: str = "double", separator: str | None = None, encoding: str | None = None
) -> TableSample:
    """Reads the first rows of a table.

    Args:
        path: CSV (with any separator and in any encoding), Parquet or JSON lines.
        quote: Whether double quotes hold a cell of CSV together (double), or are letters (none).
        separator: What separates the cells of CSV; found out if None.
        encoding: How text is written; found out if None.

    Raises:
        DataError: The file is missing, empty or broken.
        ConfigError: Its ending is unknown.
    """
    ending = ending_of(path)
    if ending in PARQUET:
        return TableSample(path, _parquet(path))
    if ending in JSON_LINES:
        return TableSample(path, _json(path))
    form = csv_format(path, quote=quote, separator=separator, encoding=encoding)
    rows: list[list[str]] = []
    try:
        for _, cells in itertools.islice(csv_rows(path, form), _MOST_ROWS):
            rows.append(cells)
    except DataError:
        # Whoever reads all of it tells of it, unless there is nothing to tell columns by.
        if len(rows) < 2:
            raise
    header = rows[0]
    columns = zip(*rows[1:], strict=True)
    named = zip(header, columns, strict=True)
    return TableSample(path, {name: _column(name, column) for name, column in named})


def csv_format(
    path: Path, *, quote: str, separator: str | None = None, encoding: str | None = None
) -> CsvFormat:
    """How a file of CSV is written; what is not given is found out.

    Raises:
        DataError: The file is no text in that encoding.
    """
    encoding = encoding or _text_encoding(path)
    if separator is None:
        lines = list(itertools.islice(text_lines(path, encoding=encoding), _ROWS_TO_TELL))
        separator = _separator(lines, SEPARATORS[ending_of(path)], quote)
    return CsvFormat(separator, encoding, letters=quote == "none")


def csv_rows(path: Path, form: CsvFormat) -> Iterator[tuple[FilePlace, list[str]]]:
    """Reads CSV row by row, the header first; all rows have as many cells as it has.

    Raises:
        DataError: The file is no CSV, or holds no rows; names file and line.
    """
    separator, encoding, letters = form
    lines = text_lines(path, label=f"reading {path.name}", encoding=encoding)
    quotes: Any = {"quoting": csv.QUOTE_NONE} if letters else {}
    reader = csv.reader(lines, delimiter=separator, strict=True, **quotes)
    place = FilePlace(path, 1)
    rows = rows_of(reader)
    found = False
    try:
        header = next(rows, None)
        if header is None:
            raise DataError.at(path, "the file is empty; expected a header")
        yield place, header
        place = FilePlace(path, reader.line_num + 1)
        for cells in rows:
            if cells:
                found = True
                if len(cells) != len(header):
                    counts = f"{len(cells)} cells; expected {len(header)}"
                    raise place.error(f"{counts} as in the header")
                yield place, cells
            place = FilePlace(path, reader.line_num + 1)
    except csv.Error as error:
        hint = "" if letters else "; where quotes are letters, pass --quote none"
        raise place.error(f"not valid CSV: {error}{hint}") from error
    if not found:
        raise DataError.at(path, "holds a header but no rows")


def _text_encoding(path: Path) -> str:
    """The encoding of a text: UTF-8 or UTF-16, else what Windows writes in western Europe."""
    decoder = codecs.getincrementaldecoder(UTF_8)()
    western = True
    encoding = UTF_8
    for start, block in text_blocks(path):
        if start == 1 and block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        if encoding == UTF_8:
            try:
                decoder.decode(block)
            except UnicodeDecodeError:
                encoding = "cp1252"
        if western and encoding != UTF_8:
            western = _is_windows(block)
    return encoding if western else "latin-1"


def _is_windows(block: bytes) -> bool:
    try:
        block.decode("cp1252")
    except UnicodeDecodeError:
        return False
    return True


def _separator(lines: Sequence[str], usual: str, quote: str) -> str:
    """What separates the cells of some lines: it gives every row the same number, more than one."""
    quotes: Any = {"quoting": csv.QUOTE_NONE} if quote == "none" else {}

    def agreement(separator: str) -> tuple[float, int, bool]:
        rows: list[list[str]] = []
        with contextlib.suppress(csv.Error):
            rows.extend(filter(None, csv.reader(lines, delimiter=separator, strict=True, **quotes)))
        width = len(rows[0]) if rows else 0
        alike = sum(len(row) == width for row in rows) / len(rows) if width > 1 else 0.0
        return round(alike, 1), width, separator == usual

    best = max((usual, *(one for one in _TRIED if one != usual)), key=agreement)
    return best if agreement(best)[0] else usual


def _json(path: Path) -> dict[str, SampleColumn]:
    records = [record for _, record in itertools.islice(json_lines(path, unique=True), _MOST_ROWS)]
    names = dict.fromkeys(itertools.chain.from_iterable(records))
    return {name: _column(name, [record.get(name) for record in records]) for name in names}


def _parquet(path: Path) -> dict[str, SampleColumn]:
    try:
        frame = pl.scan_parquet(path).head(_MOST_ROWS).collect()
    except (polars.exceptions.PolarsError, OSError) as error:
        raise parquet_fault(path, error) from error
    found = {}
    for series in frame:
        if series.dtype.is_temporal():
            texts = series.cast(pl.String).fill_null("").to_list()
            found[series.name] = SampleColumn(series.name, tuple(texts), moments=True)
        else:
            found[series.name] = _column(series.name, series.to_list())
    return found


def _column(name: str, cells: Sequence[Any]) -> SampleColumn:
    lists = any(isinstance(cell, list) for cell in cells)
    moments = any(isinstance(cell, datetime.date) for cell in cells)
    return SampleColumn(name, tuple(map(_text, cells)), lists, moments)


def _text(cell: Any) -> str:
    if isinstance(cell, str):
        return cell if cell.strip() else ""
    if isinstance(cell, list):
        return _LIST_JOINT.join(filter(None, map(_text, cell)))
    return "" if is_missing(cell) else str(cell)
