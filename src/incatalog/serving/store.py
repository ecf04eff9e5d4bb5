"""What operators changed in the catalogs, in one SQLite file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from incatalog.data.catalog import Item
from incatalog.data.naming import TITLE
from incatalog.serving.database import Database, row_fault

_TABLES = """
CREATE TABLE IF NOT EXISTS versions (domain TEXT PRIMARY KEY, number INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS items (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    domain TEXT NOT NULL,
    item_id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('changed', 'disabled', 'removed')),
    item TEXT,
    UNIQUE (domain, item_id)
);
CREATE TABLE IF NOT EXISTS absent (
    domain TEXT NOT NULL,
    item_id TEXT NOT NULL,
    PRIMARY KEY (domain, item_id)
);
"""
_SAVE_ITEM = """
INSERT INTO items (domain, item_id, state, item) VALUES (?, ?, ?, ?)
ON CONFLICT (domain, item_id) DO UPDATE SET state = excluded.state, item = excluded.item
"""
_SAVE_VERSION = """
INSERT INTO versions VALUES (?, ?) ON CONFLICT (domain) DO UPDATE SET number = excluded.number
"""


@dataclass(frozen=True)
class NewItem:
    """An item that joins a catalog, with what the model's method needs of it."""

    item: Item
    codes: tuple[int, ...] | None = None  # where the model writes codes
    vector: tuple[float, ...] | None = None  # where the model retrieves
    title_field: str = TITLE  # the field that gave the item its name


@dataclass(frozen=True)
class Stored:
    """How an item differs from the folder that the domain was loaded from."""

    item_id: str
    new: NewItem | None  # None if it was neither added nor replaced
    state: Literal["changed", "disabled", "removed"] = "changed"

    @property
    def text(self) -> str | None:
        """The item of its row."""
        return None if self.new is None else json.dumps(asdict(self.new), default=dict)


class CatalogStore(Database):
    """Changes of all domains; each call of :meth:`save` is one transaction on disk."""

    tables = _TABLES

    def version(self, domain: str) -> int:
        """Number of the domain's newest version; 0 as loaded."""
        found = self.read("SELECT number FROM versions WHERE domain = ?", (domain,))
        number = found[0][0] if found else 0
        if type(number) is not int or number < 0:
            why = f"number: found {number!r}; expected a whole number"
            raise self.malformed("versions", f"domain {domain!r}", why)
        return number

    def changes(self, domain: str) -> Iterator[Stored]:
        """How the domain's items differ from its folder, in the order in which they came."""
        query = "SELECT place, item_id, state, item FROM items WHERE domain = ? ORDER BY place"
        for place, item_id, state, text in self.read(query, (domain,)):
            try:
                if not isinstance(item_id, str) or not item_id:
                    raise ValueError(f"item_id: found {item_id!r}; expected text")
                new = None if text is None else _new_item(text, item_id)
            except ValueError as error:
                row = f"place {place} of domain {domain!r}"
                raise self.malformed("items", row, str(error)) from None
            yield Stored(item_id, new, state)

    def absent(self, domain: str) -> frozenset[str]:
        """Items that are disabled because the newest feed of the domain lacks them."""
        found = self.read("SELECT item_id FROM absent WHERE domain = ?", (domain,))
        if wrong := [one for (one,) in found if not isinstance(one, str)]:
            why = f"item_id: found {wrong[0]!r}; expected text"
            raise self.malformed("absent", f"domain {domain!r}", why)
        return frozenset(one for (one,) in found)

    def save(
        self, domain: str, number: int, changes: Iterable[Stored], absent: Iterable[str] = ()
    ) -> None:
        """Writes a version down: from the return on, it survives a killed process."""
        rows = [(domain, change.item_id, change.state, change.text) for change in changes]
        with self.change() as database:
            database.executemany(_SAVE_ITEM, rows)
            database.execute("DELETE FROM absent WHERE domain = ?", (domain,))
            database.executemany(
                "INSERT INTO absent VALUES (?, ?)", [(domain, one) for one in absent]
            )
            database.execute(_SAVE_VERSION, (domain, number))


def _new_item(text: Any, item_id: str) -> NewItem:
    """An item as it was written down; ValueError names a malformed field."""
    if not isinstance(text, str):
        raise ValueError("item: found no text; expected JSON")
    try:
        found = TypeAdapter(NewItem).validate_json(text, strict=True)
    except ValidationError as error:
        raise ValueError(f"item: {row_fault(error)}") from None
    if found.item.item_id != item_id:
        raise ValueError(f"item: found that of {found.item.item_id!r}; expected {item_id!r}")
    if not all(map(math.isfinite, found.vector or ())):
        raise ValueError("item: vector: expected finite numbers")
    return found
