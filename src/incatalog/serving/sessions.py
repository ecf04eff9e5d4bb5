"""Conversations that the service keeps if told to; each belongs to one key."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from incatalog.errors import OutcomeError
from incatalog.serving.address import opened
from incatalog.serving.database import row_fault
from incatalog.serving.message_schemas import ChatMessage
from incatalog.serving.store import TIMEOUT

_TABLES = """
CREATE TABLE IF NOT EXISTS sessions (
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    messages TEXT NOT NULL,
    changed DOUBLE PRECISION NOT NULL,
    mark TEXT NOT NULL,
    PRIMARY KEY (owner, name)
);
"""
_FIRST = """
INSERT INTO sessions (owner, name, messages, changed, mark) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (owner, name) DO NOTHING
"""
_LATER = """
UPDATE sessions SET messages = ?, changed = ?, mark = ? WHERE owner = ? AND name = ? AND mark = ?
"""
_MESSAGES = TypeAdapter(list[ChatMessage])


@dataclass(frozen=True)
class Conversation:
    """What has been said; the mark of its newest turn is random, and None before the first."""

    messages: list[ChatMessage]
    mark: str | None


class SessionStore:
    """Conversations in a database that any number of services share."""

    def __init__(self, address: str | Path, timeout: float = TIMEOUT) -> None:
        self._database = opened(address, _TABLES, timeout)
        if self._database.read_whole:
            # So that a malformed one is found before a client asks for it.
            try:
                self._check()
            except BaseException:
                self.close()
                raise

    def conversation(self, owner: str, name: str) -> Conversation:
        """A conversation as it stands; an empty one if it has not begun."""
        query = "SELECT messages, mark FROM sessions WHERE owner = ? AND name = ?"
        found = self._database.rows(query, (owner, name))
        if not found:
            return Conversation([], None)
        text, mark = found[0]
        try:
            messages = _MESSAGES.validate_json(text if isinstance(text, str) else b"")
        except ValidationError as error:
            why = f"messages: {row_fault(error)}"
            row = f"owner {owner!r}, name {name!r}"
            raise self._database.malformed("sessions", row, why) from None
        return Conversation(messages, str(mark))

    def save(
        self, owner: str, name: str, messages: Sequence[dict[str, Any]], after: str | None
    ) -> bool:
        """Keeps a conversation, if its newest turn is still the one of the mark `after`.

        Returns False, and keeps nothing, if another turn was kept meanwhile, or it was deleted.
        """
        text = json.dumps(list(messages), ensure_ascii=False)
        mark, now = secrets.token_hex(8), time.time()
        first = owner, name, text, now, mark
        later = text, now, mark, owner, name, after
        how = (_FIRST, first) if after is None else (_LATER, later)
        try:
            with self._database.change() as made:
                return made.run(*how) > 0
        except OutcomeError:
            # Whether it was kept can be seen.
            if self.conversation(owner, name).mark == mark:
                return True
            raise

    def forget(self, owner: str, name: str) -> bool:
        """Deletes a conversation; returns whether there was one."""
        deleted = "DELETE FROM sessions WHERE owner = ? AND name = ?"
        with self._database.change() as made:
            return made.run(deleted, (owner, name)) > 0

    def close(self) -> None:
        """Closes the database."""
        self._database.close()

    def _check(self) -> None:
        for owner, name in self._database.rows("SELECT owner, name FROM sessions"):
            if not (isinstance(owner, str) and isinstance(name, str)):
                why = "owner and name: expected text"
                raise self._database.malformed("sessions", f"{owner!r}, {name!r}", why)
            self.conversation(owner, name)
