"""Conversations that the service keeps, where it is told to: each belongs to one key."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reclm.errors import ArtifactError
from reclm.serving.store import open_database

_SCHEMA = """
CREATE TABLE IF NOT EXISTS format (version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS sessions (
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    messages TEXT NOT NULL,
    changed REAL NOT NULL,
    PRIMARY KEY (owner, name)
);
"""
_FORMAT = 1


class SessionStore:
    """Conversations in a SQLite file.

    Args:
        path: The file; made if it does not exist.

    Raises:
        ArtifactError: It is not such a file, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database = open_database(path, _SCHEMA, _FORMAT)
        self._lock = threading.Lock()

    def messages(self, owner: str, name: str) -> list[dict[str, Any]]:
        """The messages of a conversation; none if it has not begun."""
        with self._lock:
            found = self._database.execute(
                "SELECT messages FROM sessions WHERE owner = ? AND name = ?", (owner, name)
            ).fetchone()
        messages: list[dict[str, Any]] = json.loads(found[0]) if found else []
        return messages

    def save(self, owner: str, name: str, messages: Sequence[dict[str, Any]]) -> None:
        """Keeps a conversation as it stands.

        Raises:
            ArtifactError: The disk is full, or the file is gone.
        """
        text = json.dumps(list(messages), ensure_ascii=False)
        try:
            with self._lock, self._database:
                self._database.execute(
                    "INSERT INTO sessions VALUES (?, ?, ?, ?) ON CONFLICT (owner, name) DO UPDATE "
                    "SET messages = excluded.messages, changed = excluded.changed",
                    (owner, name, text, time.time()),
                )
        except sqlite3.Error as error:
            raise ArtifactError(f"{self._path}: could not be saved: {error}") from error

    def forget(self, owner: str, name: str) -> bool:
        """Deletes a conversation; returns whether there was one."""
        with self._lock, self._database:
            done = self._database.execute(
                "DELETE FROM sessions WHERE owner = ? AND name = ?", (owner, name)
            )
        return done.rowcount > 0

    def close(self) -> None:
        """Closes the file."""
        self._database.close()
