"""Turns of conversations that the service keeps, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from fastapi import FastAPI, Request

from incatalog.serving.message_schemas import ChatMessage
from incatalog.serving.problems import PROBLEMS, ApiError
from incatalog.serving.sessions import SessionStore


class Turns:
    """Conversations that are kept, each with one turn at a time.

    A turn is a question and its answer. Of two at once, each would be written down without the
    other: the later one is refused, at its beginning here, at its end where another service answers
    the other. Without a store no conversation is kept.
    """

    def __init__(self, store: SessionStore | None) -> None:
        self._sessions = store
        self._open: dict[tuple[str, str], str | None] = {}  # by the marks of the turns before

    async def begin(self, owner: str, name: str, taken: ExitStack) -> list[ChatMessage]:
        """What has been said so far; the turn ends when `taken` is closed."""
        store = self._store()
        self._check_free(owner, name)
        if "\0" in name:
            raise ApiError(400, "session: expected text without NUL", param="session", code="form")
        self._open[owner, name] = None
        taken.callback(self._open.pop, (owner, name), None)
        found = await asyncio.to_thread(store.conversation, owner, name)
        self._open[owner, name] = found.mark
        return found.messages

    async def save(self, owner: str, name: str, messages: Sequence[dict[str, Any]]) -> None:
        """Writes a conversation down, unless another service has gone on with it meanwhile."""
        after = self._open[owner, name]
        if not await asyncio.to_thread(self._store().save, owner, name, messages, after):
            why = "session: another turn of it was answered meanwhile, or it was deleted; ask again"
            headers = {"Retry-After": "1"}
            raise ApiError(409, why, param="session", code="session_changed", headers=headers)

    def add_to(self, app: FastAPI) -> None:
        """Adds the endpoints to an application."""

        @app.get("/v1/sessions/{name}", responses=PROBLEMS)
        async def session(name: str, request: Request) -> dict[str, Any]:
            """A conversation that the server keeps."""
            owner = request.state.key.name
            store = self._store()
            if "\0" in name:
                raise _unknown()
            found = await asyncio.to_thread(store.conversation, owner, name)
            if not found.messages:
                raise _unknown()
            return {"session": name, "messages": [written(one) for one in found.messages]}

        @app.delete("/v1/sessions/{name}", responses=PROBLEMS)
        async def forget(name: str, request: Request) -> dict[str, Any]:
            """Forgets a conversation."""
            owner = request.state.key.name
            store = self._store()
            self._check_free(owner, name)
            if "\0" in name or not await asyncio.to_thread(store.forget, owner, name):
                raise _unknown()
            return {"session": name, "deleted": True}

    def _check_free(self, owner: str, name: str) -> None:
        if (owner, name) in self._open:
            why = "session: its last turn is still being answered; wait for the answer"
            headers = {"Retry-After": "1"}
            raise ApiError(409, why, param="session", code="session_busy", headers=headers)

    def _store(self) -> SessionStore:
        if self._sessions is None:
            why = "session: this server keeps no conversations; send all messages"
            raise ApiError(400, why, param="session", code="no_sessions")
        return self._sessions


def _unknown() -> ApiError:
    return ApiError(404, "no such session", param="session", code="not_found")


def written(message: ChatMessage) -> dict[str, Any]:
    """A message as it is kept."""
    items = [item.model_dump() for item in message.named]
    return {"role": message.role, "content": message.text} | ({"items": items} if items else {})
