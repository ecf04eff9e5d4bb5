"""What every request passes: its id, its key, its rate, and what is logged and counted of it."""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from incatalog.serving.access import Key, Keys, RateLimit, address_of
from incatalog.serving.engine_telemetry import Telemetry
from incatalog.serving.problems import ApiError

# As nginx logs it: the client went away before there was an answer.
_CLIENT_GONE = 499
# A minute, from one address.
_WRONG_KEYS = 60
_POLICY = (
    "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'"
)


class Gate:
    """Lets requests in that may ask, and keeps account of all.

    Args:
        app: The application behind it.
        keys: Who may ask; None for anyone.
        limit: How often.
        telemetry: Where to count.
        open_paths: What is answered without a key; a path ending in ``/`` stands for all below.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Keys | None,
        limit: RateLimit,
        telemetry: Telemetry,
        open_paths: Collection[str],
    ) -> None:
        self._app = app
        self._keys, self._limit = keys, limit
        self._wrong = RateLimit(_WRONG_KEYS, what="requests without a valid API key")
        self._telemetry = telemetry
        self._open = frozenset(open_paths)
        self._open_below = tuple(path for path in open_paths if path.endswith("/") and path != "/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = secrets.token_hex(8)
        status = _CLIENT_GONE
        complete = False
        scope.setdefault("state", {})["request_id"] = request_id

        async def watched(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                headers["Content-Security-Policy"] = _POLICY
                headers.setdefault("Cache-Control", "no-store")
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                complete = True

        try:
            refused = self._refusal(scope)
            if refused is not None:
                await refused.response()(scope, receive, watched)
            else:
                with self._telemetry.span(scope["method"], request_id):
                    await self._app(scope, receive, watched)
        except Exception:
            # The 500 is sent by the layer around this one.
            status = 500
            raise
        finally:
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "other")
            self._telemetry.request(route, status, seconds)
            if route.startswith("/v1/"):
                self._telemetry.accepted += 1
                self._telemetry.answered += complete
            sys.stderr.write(_line(scope, request_id, route, status, seconds) + "\n")

    def _refusal(self, scope: Scope) -> ApiError | None:
        path = scope["path"]
        state: dict[str, Any] = scope["state"]
        state["key"] = Key("anyone", admin=self._keys is None)
        if path in self._open or path.startswith(self._open_below):
            return None
        # A browser asks whether it may before it sends a key.
        if scope["method"] == "OPTIONS":
            return None
        try:
            who, rate = address_of(scope), None
            if self._keys is not None:
                key = self._holder(self._keys, scope, who)
                state["key"] = key
                who, rate = f"key {key.name}", key.rate
            self._limit.take(who, rate)
        except ApiError as error:
            return error
        return None

    def _holder(self, keys: Keys, scope: Scope, address: str) -> Key:
        """Who asks.

        Raises:
            ApiError: There is no such key; or too many wrong ones came from there of late. A right
                one passes then too: a wrong one must not lock its neighbours out.
        """
        try:
            return keys.holder(Headers(scope=scope).get("authorization"))
        except ApiError:
            self._wrong.take(address)
            raise


def _line(scope: Scope, request_id: str, route: str, status: int, seconds: float) -> str:
    """What the log says: no path as it was sent, no key, nothing of the conversation."""
    key = scope["state"].get("key")
    return json.dumps(
        {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request": request_id,
            "method": scope["method"],
            "route": route,
            "status": status,
            "seconds": round(seconds, 4),
            "key": key.name if key is not None else None,
        }
    )
