"""What services keep: a SQLite file of one machine, or a Postgres that several machines share."""

from __future__ import annotations

import contextlib
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from incatalog.errors import ArtifactError, ConfigError
from incatalog.web.app import first_fault

FORMAT = 2
Row = tuple[Any, ...]
Values = Sequence[Any]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_POSTGRES = ("postgresql", "postgres")


class Transaction(Protocol):
    """Statements that hold together; their values stand in place of question marks."""

    def run(self, statement: str, values: Values = ()) -> int:
        """Runs one statement; the number of rows it changed."""

    def run_all(self, statement: str, rows: Iterable[Values]) -> None:
        """Runs one statement for each row of values."""

    def rows(self, query: str, values: Values = ()) -> list[Row]:
        """The rows that a query finds."""


class Database(ABC):
    """Tables that several processes use at once; what was committed survives a kill of any.

    Threads share the one connection, which has one transaction at a time. Where the database cannot
    be reached that is a `StateError`, and the next call tries again.
    """

    read_whole = True  # whether every row is looked at when it is opened
    clock = ""  # an expression: seconds since 1970 by the one clock that all services read

    def __init__(self, place: str) -> None:
        self.place = place  # as errors name it, without a password
        self._turn = threading.RLock()
        self._open: Transaction | None = None

    def rows(self, query: str, values: Values = ()) -> list[Row]:
        """The rows that a query finds."""
        with self.look() as seen:
            return seen.rows(query, values)

    @contextlib.contextmanager
    def look(self) -> Iterator[Transaction]:
        """Queries that all see one moment."""
        with self._turn:
            if self._open is not None:
                yield self._open
                return
            with self._began(writes=False) as self._open:
                try:
                    yield self._open
                finally:
                    self._open = None

    @contextlib.contextmanager
    def change(self) -> Iterator[Transaction]:
        """One transaction, on disk at the end of the block; within another, a part of it."""
        with self._turn:
            if self._open is not None:
                yield self._open
                return
            with self._began(writes=True) as self._open:
                try:
                    yield self._open
                finally:
                    self._open = None

    @abstractmethod
    def _began(self, *, writes: bool) -> contextlib.AbstractContextManager[Transaction]:
        """A transaction that is committed at the end of the block, and undone by an error."""

    @abstractmethod
    def wait(self, seconds: float) -> None:
        """Waits so long, or until another process may have changed something."""

    @abstractmethod
    def close(self) -> None:
        """Frees what is open."""

    def malformed(self, table: str, row: str, why: str) -> ArtifactError:
        """The error about a row that no service wrote."""
        then = "delete the row, or put the state back from a copy"
        return ArtifactError(f"{self.place}: table {table}, row {row}: {why}; {then}")


def is_url(address: str | Path) -> bool:
    """Whether an address is a URL and no file."""
    return _SCHEME.match(str(address)) is not None


def check_address(flag: str, address: str) -> None:
    """A ConfigError for an address of a database that is of no known kind."""
    found = _SCHEME.match(address)
    if not address or (found is not None and found[1].lower() not in _POSTGRES):
        what = "the path of a SQLite file, or postgresql://USER@HOST/DATABASE"
        raise ConfigError(f"{flag} {address}: expected {what}")


def opened(address: str | Path, tables: str, timeout: float, *, durable: bool = True) -> Database:
    """The database at an address, with its tables, which are made if they are missing.

    Args:
        address: Path of a SQLite file, or the URL of a Postgres database.
        tables: Statements that make them; `{serial}` stands for a number that grows by itself.
        timeout: Seconds to wait for a connection, and for an answer.
        durable: Whether what is committed is on a disk; without, a power cut may take it.
    """
    if is_url(address):
        from incatalog.errors import require

        require("psycopg", extra="postgres")
        from incatalog.serving.postgres import PostgresDatabase

        return PostgresDatabase(str(address), tables, timeout, durable=durable)
    from incatalog.serving.sqlite_file import SqliteFile

    return SqliteFile(Path(address), tables, timeout, durable=durable)


def check_format(place: str, found: Any) -> None:
    """Refuses tables that another version of the package wrote."""
    if found != FORMAT:
        why = f"expected {FORMAT}; it was written by another version of incatalog"
        raise ArtifactError(f"{place}: found format {found}; {why}")


def row_fault(error: Any) -> str:
    """The first thing that pydantic finds wrong with a row, in one line."""
    place, message = first_fault(error.errors(include_url=False, include_input=False))
    return f"{place}: {message}" if place else message
