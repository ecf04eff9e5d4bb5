"""Looks at every row of a table of users before anything long begins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import UInt64

from incatalog.batch.user_table import BOOST, EXCLUDE, HISTORY, USER, UserTable, factors
from incatalog.data.fields import factor_problem
from incatalog.errors import DataError

Hashes = UInt64[np.ndarray, " users"]

_ROWS_AT_ONCE = 1 << 16
# Hashes of user ids that are held at once: 128 MB of them.
_HASHES_AT_ONCE = 1 << 24
_MOST_SUSPECTS = 1000


def check_users(table: UserTable) -> None:
    """Refuses a table with a user who has no id or stands in two rows, or with a broken cell.

    Raises:
        DataError: There is one; names file and row, counted from 1.
    """
    for file, groups in zip(table.files, table.groups, strict=True):
        row = 1
        for group in range(len(groups)):
            for batch in table.batches(file, group, rows=_ROWS_AT_ONCE):
                if _is_broken(batch):
                    _name_broken(file, row, batch)
                row += len(batch)
    _refuse_repeated(table, _HASHES_AT_ONCE)


def _is_broken(batch: Any) -> bool:
    """Whether a row of a batch is not as it should be, by whole columns."""
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    lists = (columns[name].flatten() for name in (HISTORY, EXCLUDE) if name in columns)
    if columns[USER].null_count or any(flat.null_count for flat in lists):
        return True
    if BOOST not in columns:
        return False
    items, found = columns[BOOST].flatten().flatten()
    if items.null_count or found.null_count:
        return True
    numbers = found.to_numpy(zero_copy_only=False)
    # Not a number is neither more nor less than any.
    return bool(len(numbers)) and bool(
        factor_problem(numbers.min()) or factor_problem(numbers.max())
    )


def _name_broken(file: Path, row: int, batch: Any) -> None:
    for number, user in enumerate(batch.to_pylist(), start=row):
        if user[USER] is None:
            raise DataError.at(file, f"row {number}: {USER}: found none; expected one in every row")
        place = f"row {number}: user {user[USER]!r}"
        for name in (HISTORY, EXCLUDE):
            if None in (user.get(name) or ()):
                found = f"{name}: found an item without id"
                raise DataError.at(file, f"{place}: {found}; expected ids alone")
        for item, factor in factors(user.get(BOOST)).items():
            if item is None:
                found = f"{BOOST}: found a factor of no item"
                raise DataError.at(file, f"{place}: {found}; expected the id of one")
            problem = "expected a number" if factor is None else factor_problem(factor)
            if problem:
                found = f"{BOOST}: found {factor} for item {item!r}"
                raise DataError.at(file, f"{place}: {found}; {problem}")


def _refuse_repeated(table: UserTable, most: int) -> None:
    """Finds users of two rows by the hashes of their ids, as many passes as keep these few."""
    passes = -(-table.users // most)
    for part in range(passes):
        found = np.concatenate([_hashes(ids, passes, part)[0] for _, _, ids in _ids(table)])
        found.sort()
        suspects = np.unique(found[1:][found[1:] == found[:-1]])[:_MOST_SUSPECTS]
        if len(suspects):
            _name_repeated(table, suspects)


def _hashes(ids: pl.Series, passes: int = 1, part: int = 0) -> tuple[Hashes, np.ndarray]:
    """Hashes of ids that belong to a pass, and their places."""
    found: Hashes = ids.hash(seed=0).to_numpy()
    places = np.flatnonzero(found % np.uint64(passes) == part)
    return found[places], places


def _name_repeated(table: UserTable, suspects: Hashes) -> None:
    """Refuses the first row whose user stood in one before; hashes alone may agree by chance."""
    first: dict[Any, str] = {}
    for file, row, ids in _ids(table):
        for place in np.flatnonzero(np.isin(ids.hash(seed=0).to_numpy(), suspects)).tolist():
            user, own = ids[place], f"row {row + place}"
            if user in first:
                found = f"{own}: user {user!r} stands in {first[user]} too"
                raise DataError.at(file, f"{found}; expected each user once")
            first[user] = own if len(table.files) == 1 else f"{file.name}, {own}"


def _ids(table: UserTable) -> Iterator[tuple[Path, int, pl.Series]]:
    """All user ids, in pieces, each with its file and the number of its first row."""
    for file, groups in zip(table.files, table.groups, strict=True):
        row = 1
        for group in range(len(groups)):
            for batch in table.batches(file, group, [USER], _ROWS_AT_ONCE):
                ids = pl.from_arrow(batch.column(0))
                assert isinstance(ids, pl.Series)
                # Texts of a dictionary have the hashes of their numbers.
                yield file, row, ids.cast(pl.String) if ids.dtype == pl.Categorical else ids
                row += len(batch)
