"""Ratings, one a line: blocks of lines at once where all is plain, line by line where it is not."""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import polars.exceptions

from incatalog.data.documents import text_blocks
from incatalog.data.fields import FilePlace, id_problem
from incatalog.data.interactions import Interactions, coded
from incatalog.errors import DataError

UnknownItem = Callable[[FilePlace, str], None]


@dataclass(frozen=True)
class RatingTable:
    """A file of ratings, plain or gzip, and where its columns stand.

    Attributes:
        path: The file.
        separator: What stands between two fields; fields may be in quotes where it is a comma.
        columns: Places of user, item, rating and time in a line.
        width: How many fields a line has.
        names: How errors call user, item, rating and time.
        header: Whether the first line is none of the ratings.
        wider: Whether a line may have more fields, or fewer behind the columns.
        block: How many bytes are read at once.
    """

    path: Path
    separator: str
    columns: tuple[int, int, int, int]
    width: int
    names: tuple[str, str, str, str] = ("user id", "item id", "rating", "timestamp")
    header: bool = False
    wider: bool = False
    block: int = 1 << 25

    def read(
        self, item_codes: Mapping[str, int], found: Interactions, unknown: UnknownItem
    ) -> array[float]:
        """Adds every rating to ``found``; returns their values.

        Args:
            item_codes: Code of each item by its id.
            found: What takes the rows.
            unknown: Called for a rating of another item, which is passed over if it returns.

        Raises:
            DataError: The file is missing, empty, cut off or damaged, or a line cannot be read;
                names file and line.
        """
        ratings = array("d")
        for first, block in self._blocks():
            frame = self._plain(block, found)
            if frame is None:
                for place, cells in self._rows(first, block):
                    self._add(place, cells, item_codes, found, unknown, ratings)
            else:
                self._add_plain(first, frame, item_codes, found, unknown, ratings)
        return ratings

    def rows(self) -> Iterator[tuple[FilePlace, list[str]]]:
        """Yields place and fields of every line that is not blank."""
        for first, block in self._blocks():
            yield from self._rows(first, block)

    def _blocks(self) -> Iterator[tuple[int, bytes]]:
        """Yields blocks of lines, none of them empty, without the header."""
        empty = True
        label = f"reading {self.path.name}"
        for first, block in text_blocks(self.path, label=label, size=self.block):
            if self.header and first == 1:
                block, first = block.partition(b"\n")[2], 2
            if block.strip():
                empty = False
                yield first, block
        if empty:
            raise DataError.at(self.path, "the file is empty; expected ratings")

    def _rows(self, first: int, block: bytes) -> Iterator[tuple[FilePlace, list[str]]]:
        least = max(self.columns) + 1
        for line, content in enumerate(block.split(b"\n"), first):
            if not content.strip():
                continue
            place = FilePlace(self.path, line)
            try:
                text = content.decode("utf-8").rstrip("\r")
            except UnicodeDecodeError as error:
                raise place.error(f"not UTF-8 text ({error.reason})") from error
            cells = split_fields(place, text, self.separator)
            if self.wider and len(cells) < least:
                raise place.error(f"{len(cells)} fields; expected at least {least}")
            if not self.wider and len(cells) != self.width:
                what = "as in the header" if self.header else "(user, item, rating, time)"
                raise place.error(f"{len(cells)} fields; expected {self.width} {what}")
            yield place, cells

    def _plain(self, block: bytes, found: Interactions) -> pl.DataFrame | None:
        """A block with times and ratings as numbers; None for one with anything out of order."""
        if b'"' in block:
            return None
        # A separator of two letters is two, with nothing between them.
        step = len(self.separator)
        width = self.width * step - step + 1
        try:
            cells = pl.read_csv(
                block,
                has_header=False,
                separator=self.separator[0],
                quote_char=None,
                infer_schema=False,
            )
        except polars.exceptions.PolarsError:
            return None
        lines = block.count(b"\n") + (not block.endswith(b"\n"))
        if cells.shape != (lines, width):
            return None
        between = [cells.columns[place] for place in range(width) if place % step]
        if any(cells[name].null_count() < lines for name in between):
            return None
        user, item, rating, time = (cells.columns[place * step] for place in self.columns)
        frame = cells.select(
            user=user,
            item=item,
            rating=pl.col(rating).cast(pl.Float64, strict=False),
            time=pl.col(time).cast(pl.Int64, strict=False),
        )
        if any(frame.null_count().row(0)) or not frame["rating"].is_finite().all():
            return None
        new = (name for name in frame["user"].unique() if name not in found.user_codes)
        return None if any(map(id_problem, new)) else frame

    def _add_plain(
        self,
        first: int,
        frame: pl.DataFrame,
        item_codes: Mapping[str, int],
        found: Interactions,
        unknown: UnknownItem,
        ratings: array[float],
    ) -> None:
        users = coded(frame["user"], found.user)
        items = coded(frame["item"], lambda name: item_codes.get(name, -1))
        known = items >= 0
        for row in np.flatnonzero(~known).tolist():
            unknown(FilePlace(self.path, first + row), frame["item"][row])
        lines = first + np.flatnonzero(known)
        times = frame["time"].to_numpy()[known]
        found.add_whole(self.path, lines, users[known], items[known], times)
        ratings.frombytes(frame["rating"].to_numpy()[known].tobytes())

    def _add(
        self,
        place: FilePlace,
        cells: list[str],
        item_codes: Mapping[str, int],
        found: Interactions,
        unknown: UnknownItem,
        ratings: array[float],
    ) -> None:
        user, item, rating, time = (cells[column] for column in self.columns)
        if item not in item_codes:
            found.user(place.id(self.names[0], user))
            unknown(place, item)
            return
        user = place.id(self.names[0], user)
        value = number(rating)
        if not math.isfinite(value):
            raise place.error(f"{self.names[2]} is {rating!r}; expected a number")
        ratings.append(value)
        found.add(place, user, item_codes[item], time)


def split_fields(place: FilePlace, line: str, separator: str) -> list[str]:
    """The fields of a line; commas may stand in fields that are in quotes."""
    if separator != ",":
        return line.split(separator)
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error as error:
        raise place.error(f"not valid CSV: {error}") from error


def number(text: str) -> float:
    """The number that a text is; not a number if it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan
