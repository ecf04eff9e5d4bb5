"""Bodies: their forms, and how a request's is read, up to a size and within a time.

FastAPI can limit the size too, but not the time, and its answer does not name the limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# How many times too large a body may be and still be read to its end, to be answered.
_DISCARDED = 16
Refusing = Callable[[int, str], dict[str, Any]]  # a body from a status and what is wrong


class Form(BaseModel):
    """The form of a body; the text below a field is its description in the API's schema."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class BodyLimit:
    """Answers 413 to a body that is too large and 408 to one that does not arrive in time.

    The size counts as it arrives, so it holds for a body without a declared length too.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_bytes: int,
        timeout: float,
        refusal: Refusing = lambda _, detail: {"detail": detail},
        larger: Callable[[Scope], int | None] = lambda _: None,
    ) -> None:
        """Takes limits; `larger` says for which requests there is another one of bytes."""
        self._app, self._refusal, self._larger = app, refusal, larger
        self._max_bytes, self._timeout = max_bytes, timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on once its body is there."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            most = self._larger(scope) or self._max_bytes
            async with asyncio.timeout(self._timeout):
                body = await _read(receive, most)
        except ClientDisconnect:
            return
        except TimeoutError:
            status = 408
            why = f"not complete within {self._timeout:g} s; send it faster or in parts"
        else:
            if body is not None:
                await self._app(scope, _replayed(body, receive), send)
                return
            status = 413
            why = f"more than {most} bytes; expected {most} at most, so ask about less at once"
        # What is left of the body would be read as the next request.
        headers = {"Connection": "close"}
        response = JSONResponse(self._refusal(status, f"body: {why}"), status, headers=headers)
        await response(scope, receive, send)


async def _read(receive: Receive, most: int) -> bytes | None:
    """The whole body; None if it is too large."""
    body, size = bytearray(), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part = message.get("body", b"")
        size += len(part)
        if size <= most:
            body += part
        else:
            # A client that is cut off before it has sent all would not see the answer.
            body.clear()
        if size > _DISCARDED * most:
            return None
        if not message.get("more_body", False):
            return bytes(body) if size <= most else None


def _replayed(body: bytes, receive: Receive) -> Receive:
    """What an application receives: the body at once, then whatever comes after it."""
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def replay() -> Message:
        return next(messages, None) or await receive()

    return replay
