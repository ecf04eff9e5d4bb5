"""CSV as blocks of columns: split at once where all is plain, record by record where it is not."""

from __future__ import annotations

import contextlib
import csv
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import polars.exceptions

from incatalog import reading
from incatalog.data.documents import text_blocks
from incatalog.data.fields import FilePlace
from incatalog.data.long_cells import rows_of
from incatalog.data.table_blocks import TableBlock, gathered
from incatalog.data.table_sample import UTF_8, CsvFormat, csv_rows
from incatalog.errors import DataError

_BLOCK = 1 << 24  # bytes
# A cell in quotes that hold nothing but it; other quotes take a reader that knows of all cases.
_QUOTED = '^"[^"]*"$'


def csv_blocks(
    path: Path, form: CsvFormat, header: Sequence[str], columns: Sequence[int]
) -> Iterator[TableBlock]:
    """Reads the rows below the header of CSV, as :func:`csv_rows` does, but block by block.

    Args:
        path: The file.
        form: How it is written.
        header: Its first row.
        columns: Places of the columns that are wanted.

    Raises:
        DataError: The file is no CSV, or holds no rows; names file and line.
    """
    if form.encoding != UTF_8:
        yield from gathered(path, itertools.islice(csv_rows(path, form), 1, None), columns)
        return
    reader = _CsvReader(path, form, header, columns)
    found = False
    for block in reader.blocks():
        found = True
        yield block
    if not found:
        raise DataError.at(path, "holds a header but no rows")


class _CsvReader:
    """The rows of a file in UTF-8."""

    def __init__(
        self, path: Path, form: CsvFormat, header: Sequence[str], columns: Sequence[int]
    ) -> None:
        self._path, self._form, self._columns = path, form, columns
        self._width = len(header)
        self._blocks = text_blocks(path, label=f"reading {path.name}", size=_BLOCK)
        self._lines = _BlockLines(path, self._blocks)

    def blocks(self) -> Iterator[TableBlock]:
        next(self._reader())  # The header, which has been read.
        while self._lines.left or self._lines.more():
            first, block = self._lines.rest()
            plain = self._plain(first, block)
            if plain is not None:
                self._lines.skip()
                if len(plain.lines):
                    yield plain
                continue
            yield from gathered(self._path, self._records(), self._columns)

    def _reader(self) -> Iterator[list[str]]:
        quotes: Any = {"quoting": csv.QUOTE_NONE} if self._form.letters else {}
        reader = csv.reader(self._lines, delimiter=self._form.separator, strict=True, **quotes)
        return rows_of(reader)

    def _records(self) -> Iterator[tuple[FilePlace, list[str]]]:
        """Records up to the end of a block that is that of a record, too."""
        reader = self._reader()
        place = FilePlace(self._path, self._lines.number + 1)
        try:
            while self._lines.left:
                place = FilePlace(self._path, self._lines.number + 1)
                cells = next(reader)
                if cells and len(cells) != self._width:
                    counts = f"{len(cells)} cells; expected {self._width}"
                    raise place.error(f"{counts} as in the header")
                if cells:
                    yield place, cells
        except csv.Error as error:
            hint = "" if self._form.letters else "; where quotes are letters, pass --quote none"
            raise place.error(f"not valid CSV: {error}{hint}") from error

    def _plain(self, first: int, block: bytes) -> TableBlock | None:
        """A block without anything out of order; None for any other."""
        separator = self._form.separator.encode()
        if len(separator) != 1 or self._width == 1 or block.count(b"\r") > block.count(b"\r\n"):
            return None
        letters = np.frombuffer(block, dtype=np.uint8)
        ends = np.flatnonzero(letters == ord(b"\n")) + 1
        starts = np.concatenate([[0], ends[:-1] if block.endswith(b"\n") else ends])
        separators = np.add.reduceat(letters == ord(separator), starts, dtype=np.int64)
        if np.any(separators != self._width - 1):
            return None
        names = [str(column) for column in range(self._width)]
        try:
            frame = pl.read_csv(
                block,
                has_header=False,
                separator=self._form.separator,
                quote_char=None,
                schema=dict.fromkeys(names, pl.String()),
            ).fill_null("")
        except polars.exceptions.PolarsError:
            return None
        if len(frame) != len(starts):
            return None
        cells = [frame[name] for name in names]
        if not self._form.letters and b'"' in block:
            for place, column in enumerate(cells):
                quoted = column.str.contains('"', literal=True)
                if not quoted.any():
                    continue
                if not column.filter(quoted).str.contains(_QUOTED).all():
                    return None
                cells[place] = column.str.replace_all('"', "", literal=True)
        lines = np.arange(first, first + len(starts))
        return TableBlock(self._path, lines, [cells[column] for column in self._columns])


class _BlockLines:
    """The lines of a file, of which a block is there; who asks for more gets the next one's."""

    def __init__(self, path: Path, blocks: Iterator[tuple[int, bytes]]) -> None:
        self._path, self._blocks = path, blocks
        self._block, self._at = b"", 0
        self.number = 0  # lines that have been read

    @property
    def left(self) -> bool:
        """Whether the block has lines that were not read."""
        return self._at < len(self._block)

    def more(self) -> bool:
        """Takes the next block; false at the end of the file."""
        with contextlib.suppress(StopIteration):
            first, self._block = next(self._blocks)
            self._at, self.number = 0, first - 1
            return True
        return False

    def rest(self) -> tuple[int, bytes]:
        """What was not read of the block, and the number of its first line."""
        return self.number + 1, self._block[self._at :]

    def skip(self) -> None:
        """Takes the rest of the block for read."""
        rest = self._block[self._at :]
        self.number += rest.count(b"\n") + (not rest.endswith(b"\n"))
        self._at = len(self._block)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if not self.left and not self.more():
            raise StopIteration
        end = self._block.find(b"\n", self._at) + 1 or len(self._block)
        line, self._at = self._block[self._at : end], end
        self.number += 1
        try:
            return line.decode(UTF_8)
        except UnicodeDecodeError as error:
            raise reading.json_fault(self._path, error, self.number) from error
