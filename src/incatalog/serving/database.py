"""A SQLite file that one process has to itself, and that keeps what was committed."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from incatalog.errors import ArtifactError
from incatalog.web.app import first_fault

_FORMAT = 1
_FORMAT_TABLE = "CREATE TABLE IF NOT EXISTS format (version INTEGER NOT NULL);"
_PRIVATE = 0o600  # nobody but the service may read the file
_OTHERS = 0o077


class Database:
    """A SQLite file; what was committed survives a killed process and a power cut.

    A second process that opens it is refused: each would continue from a state that the other has
    changed. The operating system frees the lock when the process ends, however it ends.
    """

    tables = ""  # statements that make the tables that are missing

    def __init__(self, path: Path) -> None:
        self.path = path
        # Threads share the connection, which has one transaction at a time.
        self._lock = threading.Lock()
        with contextlib.ExitStack() as closing, self._told("not a usable SQLite file"):
            closing.callback(os.close, _locked(path))
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, _PRIVATE))
            for each in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
                if each.is_file() and each.stat().st_mode & _OTHERS:
                    each.chmod(_PRIVATE)
            self._connection = sqlite3.connect(path, check_same_thread=False, timeout=10)
            closing.callback(self._connection.close)
            self._prepare()
            self._check()
            self._closing = closing.pop_all()

    def read(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows that a query finds."""
        with self._told("could not be read"), self._lock:
            return self._connection.execute(query, values).fetchall()

    @contextlib.contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """One transaction, on disk at the end of the block."""
        with self._told("the change could not be saved"), self._lock, self._connection:
            yield self._connection

    def malformed(self, table: str, row: str, why: str) -> ArtifactError:
        """The error about a row that the service did not write."""
        then = "delete the row, or put the file back from a copy"
        return ArtifactError(f"{self.path}: table {table}, row {row}: {why}; {then}")

    def close(self) -> None:
        """Closes the file, and frees it for others."""
        self._closing.close()

    def _check(self) -> None:
        """May refuse the file for what it holds."""

    def _prepare(self) -> None:
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.executescript(_FORMAT_TABLE + self.tables)
        first = "INSERT INTO format SELECT ? WHERE NOT EXISTS (SELECT 1 FROM format)"
        with self._connection:
            self._connection.execute(first, (_FORMAT,))
        found = self._connection.execute("SELECT version FROM format").fetchone()[0]
        if found != _FORMAT:
            why = f"expected {_FORMAT}; it was written by another version of incatalog"
            raise ArtifactError(f"{self.path}: found format {found}; {why}")

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Turns the errors of SQLite and of the file system into ours."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise ArtifactError(f"{self.path}: {what}: {why}") from error


def _locked(path: Path) -> int:
    """The lock of a database, an open file beside it: SQLite has its own locks in the database."""
    import fcntl

    real = path.resolve()
    beside = real.with_name(real.name + ".lock")
    lock = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(lock, 20).decode(errors="replace").strip()
        os.close(lock)
        then = "give each `incatalog serve` a file of its own, or end the other"
        user = f"process {holder or 'of another service'}"
        raise ArtifactError(f"{path}: {user} uses it already; {then}") from None
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    return lock


def row_fault(error: Any) -> str:
    """The first thing that pydantic finds wrong with a row, in one line."""
    place, message = first_fault(error.errors(include_url=False, include_input=False))
    return f"{place}: {message}" if place else message
