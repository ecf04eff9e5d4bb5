"""What users did: histories, the k-core, and the leave-one-out split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Int32, Int64, Integer

from incatalog.data.catalog import METAS, Catalog
from incatalog.data.documents import Entry, unique_entries, write_document
from incatalog.data.fields import first_repeated, identifier, shown
from incatalog.errors import ConfigError, DataError

SEQUENCES = "sequential.jsonl"
MIN_INTERACTIONS = 3
"""One item each to train on, to validate with and to test with."""

USER_FIELDS = ("user_id", "user", "reviewerID")
_LIST_FIELDS = ("items", "item_ids", "item_seq", "history", "sequence")


@dataclass(frozen=True, eq=False)
class Histories:
    """The items of every user, oldest first, side by side in one array."""

    user_ids: tuple[str, ...]
    offsets: Int64[np.ndarray, " users+1"]
    rows: Int32[np.ndarray, " interactions"]

    def __post_init__(self) -> None:
        offsets = self.offsets
        if len(offsets) != len(self.user_ids) + 1:
            raise DataError(f"histories: {len(offsets)} offsets for {len(self.user_ids)} users")
        if offsets[0] != 0 or offsets[-1] != len(self.rows) or np.any(np.diff(offsets) < 0):
            raise DataError("histories: offsets do not ascend from 0 to the number of rows")
        if len(self.rows) and self.rows.min() < 0:
            raise DataError("histories: an item row is negative")
        if len(set(self.user_ids)) < len(self.user_ids):
            twice = first_repeated(self.user_ids)
            raise DataError(f"histories: user {twice!r} occurs twice; expected unique ids")

    @classmethod
    def from_lists(
        cls,
        user_ids: Sequence[str],
        lists: Iterable[Sequence[int] | Integer[np.ndarray, " length"]],
    ) -> Histories:
        """Builds histories of lists of item rows, one for every user; see the class for errors."""
        parts = [np.asarray(part, dtype=np.int32) for part in lists]
        offsets = np.zeros(len(parts) + 1, dtype=np.int64)
        np.cumsum([len(part) for part in parts], out=offsets[1:])
        rows = np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)
        return cls(tuple(user_ids), offsets, rows)

    @classmethod
    def load(cls, folder: str | Path, catalog: Catalog) -> Histories:
        """Reads ``sequential.jsonl``: one JSON document or one object a line."""
        path = Path(folder) / SEQUENCES
        row_of = {item.item_id: row for row, item in enumerate(catalog.items)}
        lists: dict[str, list[int]] = {}
        for entry in unique_entries(path, USER_FIELDS, "user"):
            history = lists[entry.key] = []
            for item_id in item_ids(entry):
                if item_id not in row_of:
                    message = f"user {entry.key!r} has item {item_id!r}, unknown to {METAS}"
                    raise entry.place.error(message)
                history.append(row_of[item_id])
        if not lists:
            raise DataError.at(path, "holds no users; expected at least one")
        return cls.from_lists(tuple(lists), lists.values())

    def save(self, folder: str | Path, catalog: Catalog) -> None:
        """Writes ``sequential.jsonl`` atomically, one user a line."""
        if len(self.rows):
            catalog.item(int(self.rows.max()))
        ids = [item.item_id for item in catalog.items]
        lists = {
            user_id: [ids[row] for row in self.history(index).tolist()]
            for index, user_id in enumerate(self.user_ids)
        }
        write_document(Path(folder) / SEQUENCES, lists)

    def __len__(self) -> int:
        return len(self.user_ids)

    def history(self, user_index: int) -> Int32[np.ndarray, " length"]:
        """Item rows of one user, oldest first; a view."""
        if not 0 <= user_index < len(self.user_ids):
            raise IndexError(f"user {user_index} of {len(self.user_ids)}")
        return self.rows[self.offsets[user_index] : self.offsets[user_index + 1]]

    @property
    def lengths(self) -> Int64[np.ndarray, " users"]:
        """Number of interactions of every user."""
        return np.diff(self.offsets)


@dataclass(frozen=True, eq=False)
class Holdout:
    """A question with its answer."""

    history: Int32[np.ndarray, " length"]
    target: int


@dataclass(frozen=True, eq=False)
class LeaveOneOut:
    """The last item of every user to test with, the one before to validate with."""

    histories: Histories

    def __len__(self) -> int:
        return len(self.histories)

    @property
    def user_ids(self) -> tuple[str, ...]:
        """Names of the users."""
        return self.histories.user_ids

    def train(self, user_index: int) -> Int32[np.ndarray, " length"]:
        """Item rows to train on: all but the last two."""
        return self.histories.history(user_index)[:-2]

    def valid(self, user_index: int) -> Holdout:
        """The last item but one, and what came before it."""
        history = self.histories.history(user_index)
        return Holdout(history[:-2], int(history[-2]))

    def test(self, user_index: int) -> Holdout:
        """The last item, and what came before it."""
        history = self.histories.history(user_index)
        return Holdout(history[:-1], int(history[-1]))


def leave_one_out(histories: Histories) -> LeaveOneOut:
    """Splits every history by time."""
    if not len(histories):
        raise DataError("histories: no users; expected at least one")
    short = np.flatnonzero(histories.lengths < MIN_INTERACTIONS)
    if len(short):
        user = int(short[0])
        others = f" ({len(short) - 1} more users likewise)" if len(short) > 1 else ""
        raise DataError(
            f"user {histories.user_ids[user]!r} has {histories.lengths[user]} items{others}; "
            f"expected at least {MIN_INTERACTIONS}, to train, to validate and to test with: "
            "prepare the data with --min-interactions 3"
        )
    return LeaveOneOut(histories)


def k_core(frame: pl.DataFrame, k: int, *, user_k: int | None = None) -> pl.DataFrame:
    """The largest part in which every user (``user_k``) and item occurs ``k`` times at least.

    ``frame`` has one row an interaction, in columns ``user``, ``item`` and any others.
    """
    if k < 1:
        raise ConfigError(f"--k-core {k}: expected 1 or more")
    user_k = k if user_k is None else user_k
    while True:
        kept = frame.filter((pl.len().over("user") >= user_k) & (pl.len().over("item") >= k))
        if len(kept) == len(frame):
            return kept
        frame = kept


def item_ids(entry: Entry) -> list[str]:
    """The item ids of one user of ``sequential.jsonl``."""
    place, user = entry.place, f"user {entry.key!r}"
    place.unicode(user, entry.key)
    value = entry.value
    if isinstance(value, dict):
        value = next((value[field] for field in _LIST_FIELDS if field in value), None)
    if not isinstance(value, list):
        raise place.error(f"{user}: expected a list of item ids, oldest first")
    found: list[str] = []
    for item in value:
        item_id = identifier(item)
        if item_id is None:
            raise place.error(f"{user} has {shown(item)} in the history; expected item ids")
        found.append(item_id)
    return found
