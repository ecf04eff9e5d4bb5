"""The rows of a table of interactions: a block at once where it is plain, else row by row."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Int64

from incatalog.data.catalog import Item
from incatalog.data.fields import FilePlace, id_problem, is_missing
from incatalog.data.id_forms import FORMS
from incatalog.data.interactions import Interactions
from incatalog.data.settings import TableSettings
from incatalog.data.table_blocks import Cells, TableBlock
from incatalog.data.table_file import TableFile
from incatalog.data.times import Times
from incatalog.errors import DataError

_MOST_NAMED = 3  # Unknown items that are named.
_UNKNOWN, _EMPTY = -1, -2  # In place of the row of an item.


def read_interactions(
    table: TableFile, settings: TableSettings, items: Sequence[Item]
) -> Interactions:
    """Gathers the rows of a table; those without a user or a known item are counted.

    Raises:
        DataError: A row cannot be read, or all of them are of unknown items.
    """
    reader = _RowReader(table, settings, items)
    for block in table.blocks():
        # What is wrong, and on which line, is said by whoever reads row by row.
        if not reader.add_block(block):
            for place, cells in block.rows():
                reader.add(place, *cells)
    reader.finish()
    return reader.found


class _RowReader:
    """Gathers interactions."""

    def __init__(self, table: TableFile, settings: TableSettings, items: Sequence[Item]) -> None:
        self._table, self._settings = table, settings
        self._plain = FORMS[settings.id_form or "exact"]
        self._known = {self._plain(item.item_id): row for row, item in enumerate(items)}
        self._row_of = {item.item_id: row for row, item in enumerate(items)}
        time = table.name("time_column")
        self.found = Interactions(Times(time, settings.time_format or "") if time else None)
        self._unknown = Counter[str]()

    def add(self, place: FilePlace, user: Any, item: Any, time: Any = None) -> None:
        """Adds one row."""
        table, row_of, unknown = self._table, self._row_of, self._unknown
        # Guests have no account, and shipping is no product.
        if empty := [what for what, cell in (("user", user), ("item", item)) if _is_empty(cell)]:
            table.left_out[f"rows without {' and '.join(empty)}"] += 1
            return
        # Most rows name a user and an item that have been looked at.
        if not isinstance(user, str) or user not in self.found.user_codes:
            user = place.id(table.name("user_column"), user)
        if not isinstance(item, str) or item not in row_of:
            item = place.id(table.name("item_column"), item)
            if item not in unknown and (row := self._known.get(self._plain(item))) is not None:
                row_of[item] = row
        if item not in row_of:
            if self._settings.unknown_items == "error":
                what = f"item {item!r} is not in {self._settings.items}"
                raise place.error(f"{what}; add it there or remove the row")
            unknown[item] += 1
            return
        self.found.add(place, user, row_of[item], time)

    def add_block(self, block: TableBlock) -> bool:
        """Adds all rows of a block; false, and nothing is added, if it takes a look at each."""
        user_cells, item_cells, *times = block.columns
        users, items = _names(user_cells), _names(item_cells)
        if users is None or items is None or not all(isinstance(one, pl.Series) for one in times):
            return False
        names = users.unique(maintain_order=True).to_list()
        nameless = [name for name in names if not name.strip()]
        known_users = self.found.user_codes
        if any(id_problem(name) for name in names if name not in known_users and name.strip()):
            return False
        different = items.unique(maintain_order=True)
        found = [self._row(name) for name in different]
        if None in found:
            return False
        codes = pl.Series(found, dtype=pl.Int32)
        rows = items.replace_strict(different, codes, return_dtype=pl.Int32).to_numpy()
        without_user = users.is_in(nameless).to_numpy() if nameless else np.zeros(len(rows), bool)
        lost = ~without_user & (rows == _UNKNOWN)
        if self._settings.unknown_items == "error" and lost.any():
            return False
        kept = ~without_user & (rows >= 0)
        chosen = pl.Series(kept)
        cells = [one.filter(chosen) for one in times if isinstance(one, pl.Series)]
        if not self.found.add_cells(
            block.path, block.lines[kept], users.filter(chosen), rows[kept], *cells
        ):
            return False
        self._count(without_user, rows == _EMPTY)
        for name, count in zip(*_counted(items.filter(pl.Series(lost))), strict=True):
            self._unknown[name] += count
        return True

    def _row(self, name: str) -> int | None:
        """The row of an item, or what stands for none; None for what is no id."""
        if not name.strip():
            return _EMPTY
        row = self._row_of.get(name)
        if row is None:
            if id_problem(name):
                return None
            row = self._known.get(self._plain(name), _UNKNOWN)
            if row != _UNKNOWN:
                self._row_of[name] = row
        return row

    def _count(self, users: Bool[np.ndarray, " rows"], items: Bool[np.ndarray, " rows"]) -> None:
        """Counts the rows without a user or an item, in the order in which they occur."""
        kinds: dict[str, Int64[np.ndarray, " found"]] = {
            "user": np.flatnonzero(users & ~items),
            "item": np.flatnonzero(items & ~users),
            "user and item": np.flatnonzero(users & items),
        }
        present = [(int(rows[0]), what) for what, rows in kinds.items() if len(rows)]
        for _, what in sorted(present):
            self._table.left_out[f"rows without {what}"] += len(kinds[what])

    def finish(self) -> None:
        """Counts the rows of unknown items.

        Raises:
            DataError: There are no others.
        """
        table, unknown = self._table, self._unknown
        if unknown and not len(self.found):
            some = ", ".join(map(repr, itertools.islice(unknown, _MOST_NAMED)))
            what = f"none of its items is in {self._settings.items}; found {some}"
            raise DataError.at(table.path, f"{what}; name the columns that hold the same ids")
        if unknown:
            more = ["…"][: len(unknown) > _MOST_NAMED]
            some = ", ".join([*list(unknown)[:_MOST_NAMED], *more])
            table.left_out[f"rows of {len(unknown)} items that are not in the catalog ({some})"] = (
                unknown.total()
            )


def _names(cells: Cells) -> pl.Series | None:
    """Ids as texts, an empty one for a missing one; None where they are of another kind."""
    if isinstance(cells, list):
        return None
    if cells.dtype.is_integer():
        return cells.cast(pl.String).fill_null("")
    return cells.fill_null("") if cells.dtype == pl.String else None


def _counted(names: pl.Series) -> tuple[list[str], list[int]]:
    """Different names in the order in which they occur, and how often."""
    return names.unique(maintain_order=True).to_list(), names.unique_counts().to_list()


def _is_empty(cell: Any) -> bool:
    return is_missing(cell) or (isinstance(cell, str) and not cell.strip())
