"""Histories of several users from a file, for `incatalog recommend --history-file`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from incatalog.data.documents import entries
from incatalog.data.fields import identifier
from incatalog.errors import DataError
from incatalog.recommender.item_names import ItemNames

_USER_FIELDS = ("user_id", "user")
_HISTORY = "history"
_EXPECTED = 'expected {"user": "7", "history": ["id or title", …]}, or {"7": ["id or title", …]}'


@dataclass(frozen=True)
class UserHistory:
    """What a user took, oldest first."""

    user: str
    item_ids: tuple[str, ...]
    unknown: tuple[str, ...]  # names that are no item's


def read_histories(path: Path, items: ItemNames) -> list[UserHistory]:
    """Reads JSON lines, or one document, of users and their items, by id or title.

    What no item is called, or several are, is left out and listed; a user who has no name is called
    by the line.

    Raises:
        DataError: The file is missing or broken, or an entry is no list; names file and line.
    """
    found = []
    for entry in entries(path, _USER_FIELDS):
        given = entry.value.get(_HISTORY) if isinstance(entry.value, Mapping) else entry.value
        if not isinstance(given, list):
            raise entry.error(f"user {entry.key!r} has no list of items; {_EXPECTED}")
        item_ids, unknown = [], []
        for value in given:
            name = identifier(value)
            if name is None:
                raise entry.error(f"user {entry.key!r}: {value!r} names no item; {_EXPECTED}")
            rows = items.rows(name)
            if len(rows) == 1:
                item_ids.append(items.item_id(rows[0]))
            else:
                unknown.append(name)
        user = f"line {entry.line}" if entry.key == _HISTORY else entry.key
        found.append(UserHistory(user, tuple(item_ids), tuple(unknown)))
    if not found:
        raise DataError.at(path, f"holds no user; {_EXPECTED}")
    return found
