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

# What the file holds is nobody's business but the service's.
_PRIVATE = 0o600
_OTHERS = 0o077


class Database:
    """A SQLite file; what was committed survives the death of the process and of the power.

    A second process that opens it is refused: each would go on from a state that the other has
    left. The operating system lets go of the lock when the process ends, however it does.

    Args:
        path: The file; made if it does not exist, for its owner only.
        schema: Statements that make its tables where they are missing.
        version: What the table `format` has to hold.

    Raises:
        ArtifactError: It is not such a file, cannot be written, or another process has it.
    """

    def __init__(self, path: Path, schema: str, version: int) -> None:
        self.path = path
        # Threads share the connection, which has one transaction at a time.
        self._lock = threading.Lock()
        with contextlib.ExitStack() as closing, self._told("not a usable SQLite file"):
            closing.callback(os.close, _locked(path))
            for name in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
                _make_private(name, create=name == path)
            self._connection = sqlite3.connect(path, check_same_thread=False, timeout=10)
            closing.callback(self._connection.close)
            self._prepare(schema, version)
            self._closing = closing.pop_all()

    def read(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows that a query finds.

        Raises:
            ArtifactError: The file is damaged or gone.
        """
        with self._told("could not be read"), self._lock:
            return self._connection.execute(query, values).fetchall()

    @contextlib.contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """One transaction, on disk at the end of the block.

        Raises:
            ArtifactError: The disk is full, or the file is damaged or gone.
        """
        with self._told("the change could not be saved"), self._lock, self._connection:
            yield self._connection

    def malformed(self, table: str, row: str, why: str) -> ArtifactError:
        """The error about a row that is none of ours."""
        return ArtifactError(
            f"{self.path}: table {table}, row {row}: {why}; delete the row, or put the file back "
            "from a copy"
        )

    def close(self) -> None:
        """Closes the file, and lets others have it."""
        self._closing.close()

    def _prepare(self, schema: str, version: int) -> None:
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.executescript(schema)
        with self._connection:
            self._connection.execute(
                "INSERT INTO format SELECT ? WHERE NOT EXISTS (SELECT 1 FROM format)", (version,)
            )
        found = self._connection.execute("SELECT version FROM format").fetchone()[0]
        if found != version:
            raise ArtifactError(
                f"{self.path}: found format {found}; expected {version}; it was written by another "
                "version of incatalog"
            )

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Turns the errors of SQLite and of the file system into ours."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise ArtifactError(f"{self.path}: {what}: {why}") from error


def _locked(path: Path) -> int:
    """The lock of a database, as an open file beside it: SQLite has locks of its own in the file.

    Raises:
        ArtifactError: Another process has it.
    """
    import fcntl

    real = path.resolve()
    beside = real.with_name(real.name + ".lock")
    lock = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(lock, 20).decode(errors="replace").strip()
        os.close(lock)
        raise ArtifactError(
            f"{path}: process {holder or 'of another service'} uses it already; give each "
            "`incatalog serve` a file of its own, or end the other"
        ) from None
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    return lock


def _make_private(path: Path, *, create: bool) -> None:
    """Lets no one but its owner read a file."""
    if create:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, _PRIVATE))
    if path.is_file() and path.stat().st_mode & _OTHERS:
        path.chmod(_PRIVATE)


def first_fault(error: Any) -> str:
    """The first thing that pydantic finds wrong with a row, in one line."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part)[:60] for part in first["loc"])
    message: str = first["msg"][:1].lower() + first["msg"][1:]
    return f"{place}: {message}" if place else message
