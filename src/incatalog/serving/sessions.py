"""Conversations that the service keeps, where it is told to: each belongs to one key."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from incatalog.serving.database import Database, first_fault
from incatalog.serving.schemas import ChatMessage

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
_MESSAGES = TypeAdapter(list[ChatMessage])


class SessionStore:
    """Conversations in a SQLite file.

    Args:
        path: The file; made if it does not exist.

    Raises:
        ArtifactError: It is not such a file, cannot be written, a row is malformed, or another
            process has it.
    """

    def __init__(self, path: Path) -> None:
        self._database = Database(path, _SCHEMA, _FORMAT)
        with contextlib.ExitStack() as closing:
            closing.callback(self.close)
            self._check()
            closing.pop_all()

    def messages(self, owner: str, name: str) -> list[ChatMessage]:
        """The messages of a conversation; none if it has not begun.

        Raises:
            ArtifactError: The row is malformed, or the file is damaged or gone.
        """
        found = self._database.read(
            "SELECT messages FROM sessions WHERE owner = ? AND name = ?", (owner, name)
        )
        return self._read(owner, name, found[0][0]) if found else []

    def save(self, owner: str, name: str, messages: Sequence[dict[str, Any]]) -> None:
        """Keeps a conversation as it stands.

        Raises:
            ArtifactError: The disk is full, or the file is gone.
        """
        text = json.dumps(list(messages), ensure_ascii=False)
        with self._database.change() as database:
            database.execute(
                "INSERT INTO sessions VALUES (?, ?, ?, ?) ON CONFLICT (owner, name) DO UPDATE "
                "SET messages = excluded.messages, changed = excluded.changed",
                (owner, name, text, time.time()),
            )

    def forget(self, owner: str, name: str) -> bool:
        """Deletes a conversation; returns whether there was one.

        Raises:
            ArtifactError: The disk is full, or the file is gone.
        """
        with self._database.change() as database:
            done = database.execute(
                "DELETE FROM sessions WHERE owner = ? AND name = ?", (owner, name)
            )
        return done.rowcount > 0

    def close(self) -> None:
        """Closes the file."""
        self._database.close()

    def _check(self) -> None:
        """Reads all rows, so that a malformed one is known before anyone asks for it."""
        for owner, name in self._database.read("SELECT owner, name FROM sessions"):
            if isinstance(owner, str) and isinstance(name, str):
                self.messages(owner, name)
            else:
                raise self._database.malformed(
                    "sessions", f"{owner!r}, {name!r}", "owner and name: expected text"
                )

    def _read(self, owner: str, name: str, text: Any) -> list[ChatMessage]:
        try:
            return _MESSAGES.validate_json(text if isinstance(text, str) else b"")
        except ValidationError as error:
            row = f"owner {owner!r}, name {name!r}"
            why = f"messages: {first_fault(error)}"
            raise self._database.malformed("sessions", row, why) from None
