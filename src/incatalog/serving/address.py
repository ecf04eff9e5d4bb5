"""Where a service keeps things: the path of a SQLite file, or the URL of a Postgres database."""

from __future__ import annotations

import re
from pathlib import Path

from incatalog.errors import ConfigError, require
from incatalog.serving.database import Database

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_POSTGRES = ("postgresql", "postgres")


def is_url(address: str | Path) -> bool:
    """Whether an address is a URL and no file."""
    return _SCHEME.match(str(address)) is not None


def check_address(flag: str, address: str) -> None:
    """Makes sure that an address is of a known kind, and that what reads it is installed.

    Raises:
        ConfigError: It is of no known kind.
        MissingExtraError: psycopg is not installed.
    """
    found = _SCHEME.match(address)
    if not address or (found is not None and found[1].lower() not in _POSTGRES):
        what = "the path of a SQLite file, or postgresql://USER@HOST/DATABASE"
        # The rest of it may hold a password.
        shown = address if found is None else f"{found[0]}…"
        raise ConfigError(f"{flag} {shown}: expected {what}")
    if found is not None:
        require("psycopg", extra="postgres")


def opened(address: str | Path, tables: str, timeout: float, *, durable: bool = True) -> Database:
    """The database at an address, with its tables, which are made if they are missing.

    Args:
        address: Path of a SQLite file, or the URL of a Postgres database.
        tables: Statements that make them; `{serial}` stands for a number that grows by itself.
        timeout: Seconds to wait for a connection, and for an answer.
        durable: Whether what is committed is on a disk; without, a power cut may take it.
    """
    if is_url(address):
        require("psycopg", extra="postgres")
        from incatalog.serving.postgres import PostgresDatabase

        return PostgresDatabase(str(address), tables, timeout, durable=durable)
    from incatalog.serving.sqlite_file import SqliteFile

    return SqliteFile(Path(address), tables, timeout, durable=durable)
