"""What users did: rows as they are read, histories, and the leave-one-out split."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Int32, Int64

from incatalog.data.catalog import METAS, Catalog
from incatalog.data.documents import Entry, unique_entries, write_document
from incatalog.data.fields import FilePlace, first_repeated, identifier, shown
from incatalog.data.times import Times
from incatalog.errors import ConfigError, DataError

SEQUENCES = "sequential.jsonl"
MIN_INTERACTIONS = 3  # One item each to train on, to validate with and to test with.

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
        cls, user_ids: Sequence[str], lists: Iterable[Sequence[int] | np.ndarray]
    ) -> Histories:
        """Builds histories of lists of item rows, one for every user."""
        parts = [np.asarray(part, dtype=np.int32) for part in lists]
        offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)
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
                    named = f"user {entry.key!r} has item {item_id!r}"
                    raise entry.error(f"{named}, unknown to {METAS}")
                history.append(row_of[item_id])
        if not lists:
            raise DataError.at(path, "holds no users; expected at least one")
        return cls.from_lists(tuple(lists), lists.values())

    def save(self, folder: str | Path, catalog: Catalog) -> None:
        """Writes ``sequential.jsonl`` atomically, one user a line."""
        if len(self.rows):
            catalog.item(int(self.rows.max()))
        ids = [item.item_id for item in catalog.items]
        histories = (self.history(user).tolist() for user in range(len(self)))
        lists = ([ids[row] for row in rows] for rows in histories)
        write_document(Path(folder) / SEQUENCES, dict(zip(self.user_ids, lists, strict=True)))

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


def leave_one_out(histories: Histories, least: int = MIN_INTERACTIONS) -> LeaveOneOut:
    """Splits every history by time; refuses one of fewer than ``least`` items."""
    if not len(histories):
        raise DataError("histories: no users; expected at least one")
    short = np.flatnonzero(histories.lengths < least)
    if len(short):
        user = histories.user_ids[short[0]]
        others = f" ({len(short) - 1} more users likewise)" if len(short) > 1 else ""
        found = f"user {user!r} has {histories.lengths[short[0]]} items{others}"
        uses = "to train, to validate and to test with" if least > 2 else "to test with"
        expected = f"expected at least {least}, {uses}"
        raise DataError(f"{found}; {expected}: prepare the data with --min-interactions {least}")
    return LeaveOneOut(histories)


def item_ids(entry: Entry) -> list[str]:
    """The item ids of one user of ``sequential.jsonl``."""
    user = f"user {entry.key!r}"
    entry.unicode(user, entry.key)
    value = entry.value
    if isinstance(value, dict):
        value = next((value[field] for field in _LIST_FIELDS if field in value), None)
    if not isinstance(value, list):
        raise entry.error(f"{user}: expected a list of item ids, oldest first")
    found = list(map(identifier, value))
    if None in found:
        wrong = shown(value[found.index(None)])
        raise entry.error(f"{user} has {wrong} in the history; expected item ids")
    return [item_id for item_id in found if item_id is not None]


class Interactions:
    """What users did, gathered row by row of a file.

    ``times`` orders the rows of a user; None keeps the order of the file.
    """

    def __init__(self, times: Times | None) -> None:
        self.user_codes: dict[str, int] = {}
        self._users, self._items = array("i"), array("i")
        self._times = times

    def user(self, user_id: str) -> int:
        """The code of a user, who counts as one from now on."""
        return self.user_codes.setdefault(user_id, len(self.user_codes))

    def add(self, place: FilePlace, user_id: str, item: int, time: Any) -> None:
        """Adds a row; the item is a code."""
        if self._times is not None:
            self._times.add(place, time)
        self._users.append(self.user(user_id))
        self._items.append(item)

    def add_whole(
        self,
        path: Path,
        lines: Int64[np.ndarray, " rows"],
        users: Int32[np.ndarray, " rows"],
        items: Int32[np.ndarray, " rows"],
        times: Int64[np.ndarray, " rows"],
    ) -> None:
        """Adds rows whose times are whole numbers; users and items are codes."""
        if self._times is not None:
            self._times.add_whole(path, lines, times)
        self._users.frombytes(users.astype(np.intc).tobytes())
        self._items.frombytes(items.astype(np.intc).tobytes())

    def __len__(self) -> int:
        """Rows so far."""
        return len(self._users)

    def frame(self, **columns: array[float]) -> pl.DataFrame:
        """Columns ``user``, ``item`` (codes), ``time`` and ``columns``, by user and time.

        Rows with equal times stand as in the file.
        """
        times = np.zeros(len(self._users)) if self._times is None else self._times.order()
        arrays = {"user": self._users, "item": self._items, "time": times, **columns}
        frame = pl.DataFrame({name: np.asarray(values) for name, values in arrays.items()})
        return frame.sort("user", "time", maintain_order=True)

    def left_out(self, frame: pl.DataFrame, least: int, core: int) -> dict[str, int]:
        """How many users :func:`keep_active` has left out of a frame, by why."""
        few = f"users with fewer than {least} interactions"
        reason = f"users outside the {core}-core" if core else few
        return {reason: len(self.user_codes) - frame["user"].n_unique()}

    def histories(self, frame: pl.DataFrame) -> Histories:
        """The items of the users of a frame, in its order."""
        user_ids = list(self.user_codes)
        grouped = frame.group_by("user", maintain_order=True).agg("item")
        names = [user_ids[user] for user in grouped["user"].to_list()]
        return Histories.from_lists(names, [items.to_numpy() for items in grouped["item"]])


def keep_active(
    path: Path, frame: pl.DataFrame, least: int, hint: str, core: int = 0
) -> pl.DataFrame:
    """Leaves out users with fewer than ``least`` interactions; with ``core``, all but the core.

    Refuses a result without users; ``hint`` names the flags to change.
    """
    kept = k_core(frame, max(core, 1), user_k=max(core, least))
    if not len(kept):
        raise DataError.at(path, f"no user is left after filtering; {hint}")
    return kept


def renumber(frame: pl.DataFrame) -> tuple[pl.DataFrame, list[int]]:
    """Numbers the items of a frame from 0; returns it and the old code of each, ascending."""
    codes = frame["item"].unique().sort().to_list()
    return frame.with_columns(item=pl.col("item").rank("dense") - 1), codes


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
