"""What operators changed in the catalogs, in one SQLite file that survives a `kill -9`."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from reclm.data.catalog import Item
from reclm.errors import ArtifactError

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
        ArtifactError: It is not such a file, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database = open_database(path, _SCHEMA, _FORMAT)
        # Domains change side by side, and a connection has one transaction at a time.
        self._lock = threading.Lock()

    def version(self, domain: str) -> int:
        """Number of the domain's newest version; 0 as loaded."""
        found = self._database.execute("SELECT number FROM versions WHERE domain = ?", (domain,))
        row = found.fetchone()
        return int(row[0]) if row else 0

    def changes(self, domain: str) -> Iterator[Stored]:
        """How the domain's items differ from its folder, in the order in which they came."""
        found = self._database.execute(
            "SELECT item_id, state, item FROM items WHERE domain = ? ORDER BY place", (domain,)
        )
        for item_id, state, text in found.fetchall():
            new = None if text is None else _new_item(text)
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
        try:
            with self._lock, self._database:
                self._database.executemany(
                    "INSERT INTO items (domain, item_id, state, item) VALUES (?, ?, ?, ?) "
                    "ON CONFLICT (domain, item_id) DO UPDATE SET state = excluded.state, "
                    "item = excluded.item",
                    rows,
                )
                self._database.execute(
                    "INSERT INTO versions VALUES (?, ?) "
                    "ON CONFLICT (domain) DO UPDATE SET number = excluded.number",
                    (domain, number),
                )
        except sqlite3.Error as error:
            raise ArtifactError(f"{self._path}: the change could not be saved: {error}") from error

    def close(self) -> None:
        """Closes the file."""
        self._database.close()


def open_database(path: Path, schema: str, version: int) -> sqlite3.Connection:
    """A SQLite file that keeps what was committed, whatever happens to the process or the power.

    Args:
        path: The file; made if it does not exist.
        schema: Statements that make its tables where they are missing.
        version: What the table `format` has to hold.

    Raises:
        ArtifactError: It is not such a file, or cannot be written.
    """
    try:
        database = sqlite3.connect(path, check_same_thread=False, timeout=10)
        with contextlib.ExitStack() as closing:
            closing.callback(database.close)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.executescript(schema)
            with database:
                database.execute(
                    "INSERT INTO format SELECT ? WHERE NOT EXISTS (SELECT 1 FROM format)",
                    (version,),
                )
            found = database.execute("SELECT version FROM format").fetchone()[0]
            if found != version:
                raise ArtifactError(
                    f"{path}: found format {found}; expected {version}; it was written by another "
                    "version of reclm"
                )
            closing.pop_all()
    except sqlite3.Error as error:
        raise ArtifactError(f"{path}: not a usable SQLite file: {error}") from error
    return database


def _new_item(text: str) -> NewItem:
    found = json.loads(text)
    item = found["item"]
    item["categories"] = tuple(item["categories"])
    codes, vector = found["codes"], found["vector"]
    return NewItem(
        Item(**item),
        None if codes is None else tuple(codes),
        None if vector is None else tuple(vector),
    )
