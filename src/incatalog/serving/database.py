"""What services keep: a SQLite file of one machine, or a Postgres that several machines share."""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from incatalog.errors import ArtifactError
from incatalog.web.app import first_fault

FORMAT = 2
Row = tuple[Any, ...]
Values = Sequence[Any]


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


def check_format(place: str, found: Any) -> None:
    """Refuses tables that another version of the package wrote."""
    if found != FORMAT:
        why = f"expected {FORMAT}; it was written by another version of incatalog"
        raise ArtifactError(f"{place}: found format {found}; {why}")


def row_fault(error: Any) -> str:
    """The first thing that pydantic finds wrong with a row, in one line."""
    place, message = first_fault(error.errors(include_url=False, include_input=False))
    return f"{place}: {message}" if place else message
