"""A Postgres database that services on several machines share."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from incatalog.errors import ArtifactError, ConfigError, OutcomeError, StateError
from incatalog.serving.database import FORMAT, Database, Row, Values, check_format

# A schema of our own: a shop's tables may be called the same.
_SCHEMA = "incatalog"
_CHANNEL = "incatalog"
_LOCK = 0x1CA7A109  # services that start at once make the tables one after the other
# Times the patience of the service that a query may take, and a change: a feed is long.
_LOOK, _CHANGE = 2, 12
_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


class PostgresDatabase(Database):
    """Tables in the schema `incatalog` of a Postgres database.

    A broken connection is opened anew for the next transaction. Where it breaks while the end of a
    change is on its way, nobody knows whether the change holds: that is an `OutcomeError`.
    """

    read_whole = False  # there may be very many conversations of very many users

    clock = "extract(epoch from clock_timestamp())::double precision"

    def __init__(self, address: str, tables: str, timeout: float, *, durable: bool = True) -> None:
        try:
            known = conninfo_to_dict(address)
        except psycopg.Error as error:
            # Its message may repeat the address, with a password in it.
            what = "expected postgresql://USER@HOST/DATABASE"
            raise ConfigError(f"--state: the address of Postgres is malformed; {what}") from error
        host, name = known.get("host") or "localhost", known.get("dbname") or ""
        port = f":{known['port']}" if known.get("port") else ""
        super().__init__(f"postgresql://{host}{port}/{name}")
        self._address, self._timeout, self._durable = address, timeout, durable
        self._connection: psycopg.Connection[Any] | None = None
        self._listener: psycopg.Connection[Any] | None = None
        self._listening = threading.Lock()
        try:
            self._prepare(tables)
        except BaseException:
            self.close()
            raise

    def wait(self, seconds: float) -> None:
        """Waits until a service tells of a change; where nobody can be heard, so long."""
        began = time.monotonic()
        with self._listening:
            try:
                if self._listener is None:
                    self._listener = self._connected()
                    self._listener.execute(f"LISTEN {_CHANNEL}")
                    # What was told before anyone listened is looked for at once.
                    return
                for _ in self._listener.notifies(timeout=seconds, stop_after=1):
                    return
            except (psycopg.Error, StateError):
                if self._listener is not None:
                    self._listener.close()
                self._listener = None
                time.sleep(max(0.0, seconds - (time.monotonic() - began)))

    def close(self) -> None:
        """Closes the connections."""
        with self._turn:
            self._drop()
        with self._listening:
            if self._listener is not None:
                self._listener.close()
            self._listener = None

    @contextlib.contextmanager
    def _began(self, *, writes: bool) -> Iterator[_Commands]:
        longest = _LOOK if not writes else _CHANGE if self._durable else 1
        with self._bounded(longest):
            yield from self._transaction(writes=writes)

    @contextlib.contextmanager
    def _bounded(self, times: int) -> Iterator[None]:
        """Breaks the connection where the block takes longer: a server that hangs says nothing."""

        def cut() -> None:
            if (connection := self._connection) is not None:
                with (
                    contextlib.suppress(psycopg.Error, OSError),
                    socket.socket(fileno=os.dup(connection.fileno())) as line,
                ):
                    line.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(times * self._timeout, cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _transaction(self, *, writes: bool) -> Iterator[_Commands]:
        # The server may have been started anew since: then the first word on the old line fails.
        for begins in ("again", "once"):
            try:
                connection = self._connected_once()
                connection.execute("BEGIN" if writes else _READ)
                break
            except psycopg.Error as error:
                self._drop()
                if begins == "once":
                    raise self._unreachable(error) from error
        ending = False
        try:
            yield _Commands(connection)
            if writes and self._durable:
                connection.execute("SELECT pg_notify(%s, '')", (_CHANNEL,))
            ending = writes
            connection.execute("COMMIT")
        except psycopg.Error as error:
            self._drop()
            if ending:
                why = "the connection broke while a change was being kept"
                raise OutcomeError(f"{self.place}: {why}: {_told(error)}") from error
            raise self._unreachable(error) from error
        except BaseException:
            # Undone by the server when the line is dropped, if it cannot be told.
            try:
                connection.execute("ROLLBACK")
            except psycopg.Error:
                self._drop()
            raise

    def _prepare(self, tables: str) -> None:
        try:
            with self._connected() as connection, connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
                connection.execute("CREATE TABLE IF NOT EXISTS format (version BIGINT NOT NULL)")
                first = "INSERT INTO format SELECT %s WHERE NOT EXISTS (SELECT 1 FROM format)"
                connection.execute(first, (FORMAT,))
                found = connection.execute("SELECT version FROM format").fetchone()
                check_format(self.place, None if found is None else found[0])
                serial = "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
                for statement in filter(str.strip, tables.format(serial=serial).split(";")):
                    connection.execute(statement.encode())
        except psycopg.OperationalError as error:
            raise self._unreachable(error) from error
        except psycopg.Error as error:
            why = f"its tables cannot be made: {_told(error)}"
            then = "the user needs the right to create a schema, or one `incatalog` of its own"
            raise ArtifactError(f"{self.place}: {why}; {then}") from error

    def _connected_once(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = self._connected()
        return self._connection

    def _connected(self) -> psycopg.Connection[Any]:
        """A new connection; an answer that does not come breaks it."""
        milliseconds = math.ceil(self._timeout * 1000)
        try:
            connection = psycopg.connect(
                self._address,
                autocommit=True,
                application_name="incatalog",
                # libpq takes whole seconds, two at least.
                connect_timeout=max(2, math.ceil(self._timeout)),
                keepalives_idle=5,
                keepalives_interval=2,
                keepalives_count=2,
                tcp_user_timeout=milliseconds,
            )
        except psycopg.Error as error:
            raise self._unreachable(error) from error
        try:
            known = "SELECT 1 FROM pg_namespace WHERE nspname = %s"
            if connection.execute(known, (_SCHEMA,)).fetchone() is None:
                with contextlib.suppress(psycopg.errors.UniqueViolation):
                    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_SCHEMA}")
            connection.execute(f"SET search_path TO {_SCHEMA}")
            # Long enough for a feed; a service that hangs amid a change frees the others.
            waits = ("lock_timeout", milliseconds), ("statement_timeout", _CHANGE * milliseconds)
            idle = "idle_in_transaction_session_timeout", _CHANGE * milliseconds
            for name, value in (*waits, idle):
                connection.execute(f"SET {name} TO {value}")
            found = connection.execute("SHOW synchronous_commit").fetchone()
            if not self._durable:
                connection.execute("SET synchronous_commit TO off")
            elif found is not None and found[0] == "off":
                # What is confirmed has to be on a disk.
                connection.execute("SET synchronous_commit TO on")
        except psycopg.Error:
            connection.close()
            raise
        return connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _unreachable(self, error: psycopg.Error) -> StateError:
        then = "is Postgres up, and does the address say user and password?"
        return StateError(f"{self.place}: cannot be reached: {_told(error)}; {then}")


class _Commands:
    """The statements of one transaction."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def run(self, statement: str, values: Values = ()) -> int:
        return int(self._connection.execute(_asked(statement), values).rowcount)

    def run_all(self, statement: str, rows: Iterable[Values]) -> None:
        with self._connection.cursor() as cursor:
            cursor.executemany(_asked(statement), rows)

    def rows(self, query: str, values: Values = ()) -> list[Row]:
        return list(self._connection.execute(_asked(query), values).fetchall())


def _asked(statement: str) -> bytes:
    """A statement with placeholders as psycopg has them."""
    return statement.replace("?", "%s").encode()


def _told(error: psycopg.Error) -> str:
    """What Postgres says, in one line."""
    return " ".join(str(error).split())
