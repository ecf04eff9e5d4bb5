"""Bodies of requests: read in full before anything else, up to a size and within a time.

FastAPI can limit the size too, but not the time, and its answer does not name the limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# How many times too large a body may be and still be read to its end, to be answered.
_DISCARDED = 16


class BodyLimit:
    """Answers 413 to a body that is too large and 408 to one that does not arrive.

    The size counts as it arrives, so it holds for a body without a declared length too.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_bytes: int,
        timeout: float,
        problem: Callable[[int, str], dict[str, Any]] = lambda _, detail: {"detail": detail},
    ) -> None:
        """Wraps an application.

        Args:
            app: Gets whole bodies only.
            max_bytes: Size of a body at most.
            timeout: Seconds a body may take to arrive.
            problem: Body of a refusal, from its status and why.
        """
        self._problem = problem
        self._app = app
        self._max_bytes = max_bytes
        self._timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on once its body is there."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._timeout):
                body = await self._read(receive)
        except ClientDisconnect:
            return
        except TimeoutError:
            message = f"body: not complete within {self._timeout:g} s; send it faster or in parts"
            await self._refuse(408, message, scope, receive, send)
            return
        if body is None:
            message = (
                f"body: more than {self._max_bytes} bytes; expected {self._max_bytes} at most, "
                "so ask about less at once"
            )
            await self._refuse(413, message, scope, receive, send)
            return
        replayed = False

        async def replay() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)

    async def _read(self, receive: Receive) -> bytes | None:
        """The whole body; None if it is too large."""
        body = bytearray()
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            part = message.get("body", b"")
            size += len(part)
            if size <= self._max_bytes:
                body += part
            else:
                # A client reads the answer when it has sent all; cut off, it would see a broken
                # connection and not why.
                body.clear()
            if size > _DISCARDED * self._max_bytes:
                return None
            if not message.get("more_body", False):
                return bytes(body) if size <= self._max_bytes else None

    async def _refuse(
        self, status: int, detail: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        # What is left of the body would be read as the next request.
        headers = {"Connection": "close"}
        response = JSONResponse(self._problem(status, detail), status, headers=headers)
        await response(scope, receive, send)
