"""Answers that are sent as they grow, and clients that go away meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from incatalog.serving.problems import ApiError

_T = TypeVar("_T")


class EventStream(StreamingResponse):
    """Server-sent events; `end` is called at their end, or when the client has gone."""

    def __init__(self, events: AsyncIterator[str], end: Callable[[], None]) -> None:
        headers = {"X-Accel-Buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends what there is, as long as someone reads it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._end()


async def unless_gone(request: Request, work: Awaitable[_T]) -> _T:
    """Waits for something, and gives it up when the client has gone."""

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(disconnected())
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ApiError(499, "the client has gone")
        return working.result()
    finally:
        working.cancel()
        gone.cancel()


async def exhausted(pieces: AsyncIterator[Any]) -> None:
    """Waits for the end of an answer."""
    async for _ in pieces:
        pass
