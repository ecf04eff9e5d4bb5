"""A SQLite file that the services of one machine share."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from incatalog.errors import ArtifactError, StateError
from incatalog.serving.database import FORMAT, Database, Row, Values, check_format

_FORMAT_TABLE = "CREATE TABLE IF NOT EXISTS format (version INTEGER NOT NULL)"
_PRIVATE = 0o600  # nobody but the service may read the file
_OTHERS = 0o077
_POLL = 0.05  # seconds; SQLite tells nobody that something was written
_BUSY = 10.0  # seconds to wait for another process's transaction
_PASSING = ("locked", "busy")


class SqliteFile(Database):
    """A SQLite file; what was committed survives a killed process and a power cut.

    Its log needs memory that processes share, so it cannot lie on a disk of the network.
    """

    clock = "((julianday('now') - 2440587.5) * 86400.0)"

    def __init__(self, path: Path, tables: str, timeout: float, *, durable: bool = True) -> None:
        super().__init__(str(path))
        with contextlib.ExitStack() as closing, self._told("not a usable SQLite file"):
            closing.callback(os.close, _shared(path))
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, _PRIVATE))
            for each in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
                # The log of another process may be gone at any moment.
                with contextlib.suppress(FileNotFoundError):
                    if each.is_file() and each.stat().st_mode & _OTHERS:
                        each.chmod(_PRIVATE)
            self._connection = sqlite3.connect(
                path,
                check_same_thread=False,
                timeout=max(timeout, _BUSY) if durable else timeout,
                isolation_level=None,
            )
            closing.callback(self._connection.close)
            # With less than NORMAL a power cut could damage what others have made durable.
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._prepare(tables)
            self._closing = closing.pop_all()

    def wait(self, seconds: float) -> None:
        """Waits for a moment: asking is cheap."""
        time.sleep(min(seconds, _POLL))

    def close(self) -> None:
        """Closes the file."""
        with self._turn:
            self._closing.close()

    @contextlib.contextmanager
    def _began(self, *, writes: bool) -> Iterator[_Statements]:
        what = "the change could not be saved" if writes else "could not be read"
        with self._told(what):
            self._connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
        try:
            with self._told(what):
                yield _Statements(self._connection)
                self._connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            raise

    def _prepare(self, tables: str) -> None:
        _patiently(self._connection, "PRAGMA journal_mode = WAL")
        with self._began(writes=True) as made:
            made.run(_FORMAT_TABLE)
            found = made.rows("SELECT version FROM format")
            if not found:
                made.run("INSERT INTO format VALUES (?)", (FORMAT,))
            elif found[0][0] == 1:
                # What one service alone had: its versions had no marks, and no log.
                if made.rows("SELECT 1 FROM sqlite_master WHERE name = 'versions'"):
                    made.run("ALTER TABLE versions ADD COLUMN mark TEXT NOT NULL DEFAULT ''")
                    made.run("ALTER TABLE versions ADD COLUMN base TEXT NOT NULL DEFAULT ''")
                if made.rows("SELECT 1 FROM sqlite_master WHERE name = 'sessions'"):
                    made.run("ALTER TABLE sessions ADD COLUMN mark TEXT NOT NULL DEFAULT ''")
                made.run("UPDATE format SET version = ?", (FORMAT,))
            else:
                check_format(self.place, found[0][0])
            serial = "INTEGER PRIMARY KEY AUTOINCREMENT"
            for statement in filter(str.strip, tables.format(serial=serial).split(";")):
                made.run(statement)

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Turns the errors of SQLite and of the file system into ours."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            kind = StateError if _passes(error) else ArtifactError
            raise kind(f"{self.place}: {what}: {why}") from error


class _Statements:
    """The statements of one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def run(self, statement: str, values: Values = ()) -> int:
        return self._connection.execute(statement, values).rowcount

    def run_all(self, statement: str, rows: Iterable[Values]) -> None:
        self._connection.executemany(statement, rows)

    def rows(self, query: str, values: Values = ()) -> list[Row]:
        return self._connection.execute(query, values).fetchall()


def _passes(error: Exception) -> bool:
    """Whether another process is only busy with the file."""
    return isinstance(error, sqlite3.OperationalError) and any(
        word in str(error) for word in _PASSING
    )


def _patiently(connection: sqlite3.Connection, statement: str) -> None:
    """Runs a statement for which SQLite does not wait itself while others open the file."""
    for _ in range(int(_BUSY / _POLL)):
        try:
            connection.execute(statement)
            return
        except sqlite3.OperationalError as error:
            if not _passes(error):
                raise
        time.sleep(_POLL)
    connection.execute(statement)


def _shared(path: Path) -> int:
    """A lock that services share, a file beside the database.

    One of a version of the package that wants the file for itself does not follow the others.
    """
    import fcntl

    real = path.resolve()
    beside = real.with_name(real.name + ".lock")
    lock = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(lock, 20).decode(errors="replace").strip()
        os.close(lock)
        user = f"process {holder or 'of another service'}"
        why = "uses it for itself alone, as versions of incatalog before this one do; end it first"
        raise ArtifactError(f"{path}: {user} {why}") from None
    return lock
