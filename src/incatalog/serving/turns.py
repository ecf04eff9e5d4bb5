"""Turns of conversations that the service keeps: one after the other, the oldest left out."""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI, Request

from incatalog.serving.problems import PROBLEMS, ApiError
from incatalog.serving.schemas import ChatMessage
from incatalog.serving.sessions import SessionStore

_NO_SESSION = "no such session"


class Turns:
    """Conversations that are kept, each with one turn at a time.

    A turn is what is asked and the answer to it. Two of them at once would each write down what
    the other does not know, so the late one is refused.

    Args:
        store: Keeps them; None if the service keeps none.
    """

    def __init__(self, store: SessionStore | None) -> None:
        self._sessions = store
        self._open: set[tuple[str, str]] = set()

    async def begin(self, owner: str, name: str) -> list[ChatMessage]:
        """What has been said so far; :meth:`end` has to follow.

        Raises:
            ApiError: The service keeps none, or a turn of it has not ended (409).
        """
        store = self._store()
        self._check_free(owner, name)
        self._open.add((owner, name))
        try:
            return await asyncio.to_thread(store.messages, owner, name)
        except BaseException:
            self.end(owner, name)
            raise

    async def save(self, owner: str, name: str, messages: Sequence[dict[str, Any]]) -> None:
        """Writes a conversation down.

        Raises:
            ArtifactError: The disk is full, or the file is gone.
        """
        await asyncio.to_thread(self._store().save, owner, name, messages)

    def end(self, owner: str, name: str) -> None:
        """Lets the next turn begin."""
        self._open.discard((owner, name))

    def add_to(self, app: FastAPI) -> None:
        """Adds the endpoints to an application."""

        @app.get("/v1/sessions/{name}", responses=PROBLEMS)
        async def session(name: str, request: Request) -> dict[str, Any]:
            """A conversation that the server keeps."""
            owner = request.state.key.name
            messages = await asyncio.to_thread(self._store().messages, owner, name)
            if not messages:
                raise ApiError(404, _NO_SESSION, param="session", code="not_found")
            return {"session": name, "messages": [written(message) for message in messages]}

        @app.delete("/v1/sessions/{name}", responses=PROBLEMS)
        async def forget(name: str, request: Request) -> dict[str, Any]:
            """Forgets a conversation."""
            owner = request.state.key.name
            store = self._store()
            self._check_free(owner, name)
            if not await asyncio.to_thread(store.forget, owner, name):
                raise ApiError(404, _NO_SESSION, param="session", code="not_found")
            return {"session": name, "deleted": True}

    def _check_free(self, owner: str, name: str) -> None:
        if (owner, name) in self._open:
            raise ApiError(
                409, "session: its last turn is still being answered; wait for the answer",
                param="session", code="session_busy", headers={"Retry-After": "1"},
            )  # fmt: skip

    def _store(self) -> SessionStore:
        if self._sessions is None:
            raise ApiError(
                400, "session: this server keeps no conversations; send all messages",
                param="session", code="no_sessions",
            )  # fmt: skip
        return self._sessions


def written(message: ChatMessage) -> dict[str, Any]:
    """A message as it is kept."""
    items = [item.model_dump() for item in message.items or ()]
    return {"role": message.role, "content": message.text} | ({"items": items} if items else {})


def shortened(
    kept: Sequence[ChatMessage], fits: Callable[[Sequence[ChatMessage]], bool]
) -> tuple[list[ChatMessage], int]:
    """What is left of a conversation when the fewest oldest turns are left out.

    System messages stay. If nothing else can stay, nothing else does, whether that fits or not.

    Args:
        kept: The conversation.
        fits: Whether what is left may stay.

    Returns:
        What is left, and how many messages are left out.
    """
    begins = [
        place
        for place, message in enumerate(kept)
        if message.role == "user" and (place == 0 or kept[place - 1].role != "user")
    ]
    begins = [0, *begins[1:], len(kept)] if kept else [0]

    def left(turns: int) -> list[ChatMessage]:
        start = begins[turns]
        system = [m for m in kept[:start] if m.role in ("system", "developer")]
        return [*system, *kept[start:]]

    turns = 0
    if kept and not fits(kept):
        some = range(1, len(begins) - 1)
        turns = 1 + bisect.bisect_left(some, True, key=lambda turns: fits(left(turns)))
    return left(turns), len(kept) - len(left(turns))
