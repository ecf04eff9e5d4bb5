"""What operators changed in the catalogs, in one SQLite file that survives a `kill -9`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from incatalog.data.catalog import Item
from incatalog.errors import ArtifactError, IncatalogError
from incatalog.serving.database import Database, first_fault

_SCHEMA = """
CREATE TABLE IF NOT EXISTS format (version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS versions (domain TEXT PRIMARY KEY, number INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS items (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    domain TEXT NOT NULL,
    item_id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('changed', 'disabled', 'removed')),
    item TEXT,
    UNIQUE (domain, item_id)
);
"""
_FORMAT = 1


@dataclass(frozen=True)
class NewItem:
    """An item that joins a catalog, with what the model's method needs of it.

    Attributes:
        item: The item.
        codes: Its semantic ID, where the model writes codes.
        vector: Its vector, where the model retrieves.
    """

    item: Item
    codes: tuple[int, ...] | None = None
    vector: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Stored:
    """How an item differs from the folder the domain was loaded from.

    Attributes:
        item_id: Its id.
        new: The item, if it was added or replaced; None if it is the folder's.
        removed: Whether it was removed.
        disabled: Whether it is never recommended.
    """

    item_id: str
    new: NewItem | None
    removed: bool = False
    disabled: bool = False


class CatalogStore:
    """Changes of all domains; each call of :meth:`save` is one transaction on disk.

    Args:
        path: The SQLite file; made if it does not exist.

    Raises:
        ArtifactError: It is not such a file, cannot be written, or another process has it.
    """

    def __init__(self, path: Path) -> None:
        self._database = Database(path, _SCHEMA, _FORMAT)

    def version(self, domain: str) -> int:
        """Number of the domain's newest version; 0 as loaded.

        Raises:
            ArtifactError: The row is malformed.
        """
        found = self._database.read("SELECT number FROM versions WHERE domain = ?", (domain,))
        if not found:
            return 0
        number = found[0][0]
        if type(number) is not int or number < 0:
            why = f"number: found {number!r}; expected a whole number"
            raise self._database.malformed("versions", f"domain {domain!r}", why)
        return number

    def changes(self, domain: str) -> Iterator[Stored]:
        """How the domain's items differ from its folder, in the order in which they came.

        Raises:
            ArtifactError: A row is malformed.
        """
        found = self._database.read(
            "SELECT place, item_id, state, item FROM items WHERE domain = ? ORDER BY place",
            (domain,),
        )
        for place, item_id, state, text in found:
            try:
                if not isinstance(item_id, str) or not item_id:
                    raise ValueError(f"item_id: found {item_id!r}; expected text")
                new = None if text is None else _new_item(text, item_id)
            except ValueError as error:
                row = f"place {place} of domain {domain!r}"
                raise self._database.malformed("items", row, str(error)) from None
            yield Stored(item_id, new, state == "removed", state == "disabled")

    def save(self, domain: str, number: int, changes: Iterable[Stored]) -> None:
        """Makes a version durable: when this returns, it survives the death of the process.

        Raises:
            ArtifactError: The disk is full, or the file is gone.
        """
        rows = [
            (
                domain,
                change.item_id,
                "removed" if change.removed else "disabled" if change.disabled else "changed",
                None if change.new is None else json.dumps(asdict(change.new)),
            )
            for change in changes
        ]
        with self._database.change() as database:
            database.executemany(
                "INSERT INTO items (domain, item_id, state, item) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (domain, item_id) DO UPDATE SET state = excluded.state, "
                "item = excluded.item",
                rows,
            )
            database.execute(
                "INSERT INTO versions VALUES (?, ?) "
                "ON CONFLICT (domain) DO UPDATE SET number = excluded.number",
                (domain, number),
            )

    def misfit(self, domain: str, error: IncatalogError) -> ArtifactError:
        """The error where changes do not fit the folder any longer."""
        return ArtifactError(
            f"{self._database.path}: the changes of domain {domain!r} do not fit its catalog: "
            f"{error}; serve the catalog they were made on, or start with another file"
        )

    def close(self) -> None:
        """Closes the file."""
        self._database.close()


def _new_item(text: Any, item_id: str) -> NewItem:
    """An item as it was written down.

    Raises:
        ValueError: It is malformed; names the field.
    """
    from pydantic import TypeAdapter, ValidationError

    if not isinstance(text, str):
        raise ValueError("item: found no text; expected JSON")
    try:
        found = TypeAdapter(NewItem).validate_json(text, strict=True)
    except ValidationError as error:
        raise ValueError(f"item: {first_fault(error)}") from None
    if found.item.item_id != item_id:
        raise ValueError(f"item: found that of {found.item.item_id!r}; expected {item_id!r}")
    if not all(map(math.isfinite, found.vector or ())):
        raise ValueError("item: vector: expected finite numbers")
    return found
