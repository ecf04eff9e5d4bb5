"""Conversations that the service keeps if told to; each belongs to one key."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from incatalog.serving.database import Database, row_fault
from incatalog.serving.schemas import ChatMessage

_TABLES = """
CREATE TABLE IF NOT EXISTS sessions (
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    messages TEXT NOT NULL,
    changed REAL NOT NULL,
    PRIMARY KEY (owner, name)
);
"""
_SAVE = """
INSERT INTO sessions VALUES (?, ?, ?, ?) ON CONFLICT (owner, name)
DO UPDATE SET messages = excluded.messages, changed = excluded.changed
"""
_MESSAGES = TypeAdapter(list[ChatMessage])


class SessionStore(Database):
    """Conversations in a SQLite file."""

    tables = _TABLES

    def messages(self, owner: str, name: str) -> list[ChatMessage]:
        """The messages of a conversation; none if it has not begun."""
        query = "SELECT messages FROM sessions WHERE owner = ? AND name = ?"
        found = self.read(query, (owner, name))
        if not found:
            return []
        text = found[0][0]
        try:
            return _MESSAGES.validate_json(text if isinstance(text, str) else b"")
        except ValidationError as error:
            why = f"messages: {row_fault(error)}"
            raise self.malformed("sessions", f"owner {owner!r}, name {name!r}", why) from None

    def save(self, owner: str, name: str, messages: Sequence[dict[str, Any]]) -> None:
        """Keeps a conversation as it stands."""
        text = json.dumps(list(messages), ensure_ascii=False)
        with self.change() as database:
            database.execute(_SAVE, (owner, name, text, time.time()))

    def forget(self, owner: str, name: str) -> bool:
        """Deletes a conversation; returns whether there was one."""
        with self.change() as database:
            deleted = "DELETE FROM sessions WHERE owner = ? AND name = ?"
            return database.execute(deleted, (owner, name)).rowcount > 0

    def _check(self) -> None:
        """Reads all rows, so that a malformed one is found before a client asks for it."""
        for owner, name in self.read("SELECT owner, name FROM sessions"):
            if not (isinstance(owner, str) and isinstance(name, str)):
                why = "owner and name: expected text"
                raise self.malformed("sessions", f"{owner!r}, {name!r}", why)
            self.messages(owner, name)
