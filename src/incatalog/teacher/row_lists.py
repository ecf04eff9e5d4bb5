"""Lists of catalog rows, one for each history, as a teacher is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from incatalog.errors import TeacherError

Rows = Int64[np.ndarray, " rows"]
RowLists = Sequence[Sequence[int] | np.ndarray]
MaybeRowLists = Sequence[Sequence[int] | np.ndarray | None]


class Ragged(NamedTuple):
    """Row lists of different lengths, laid side by side."""

    flat: Rows
    offsets: Int64[np.ndarray, " lists+1"]

    def at(self, index: int) -> Rows:
        """The list at `index`; a view."""
        return self.flat[self.offsets[index] : self.offsets[index + 1]]


def check_length(name: str, found: int, expected: int) -> None:
    """Refuses a list that has not one entry for each history."""
    if found != expected:
        raise TeacherError(f"{name}: found {found} entries; expected {expected}, one a history")


def ragged(
    name: str, lists: MaybeRowLists, batch: int, num_items: int, *, needed_by: str = ""
) -> Ragged:
    """Lays row lists of the catalog side by side; None counts as empty.

    No list may be empty where `needed_by` names a teacher that needs an item.
    """
    check_length(name, len(lists), batch)
    arrays = [np.asarray(() if rows is None else rows) for rows in lists]
    for index, rows in enumerate(arrays):
        if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
            raise TeacherError(
                f"{name} {index}: found {rows.dtype} values in {rows.ndim} dimensions; "
                "expected a flat list of item rows (integers)"
            )
    offsets = np.zeros(batch + 1, dtype=np.int64)
    np.cumsum([len(rows) for rows in arrays], out=offsets[1:])
    flat = np.concatenate([np.empty(0, np.int64), *arrays]).astype(np.int64, copy=False)
    outside = np.flatnonzero((flat < 0) | (flat >= num_items))
    if outside.size:
        index = int(np.searchsorted(offsets, outside[0], side="right")) - 1
        within = outside[outside < offsets[index + 1]]
        rows_named = ", ".join(map(str, dict.fromkeys(flat[within].tolist())))
        expected = f"expected rows 0 to {num_items - 1}"
        raise TeacherError(f"{name} {index}: row {rows_named} not in the catalog; {expected}")
    empty = np.flatnonzero(np.diff(offsets) == 0)
    if needed_by and empty.size:
        raise TeacherError(f"{name} {empty[0]}: empty; {needed_by} needs at least one item")
    return Ragged(flat, offsets)
