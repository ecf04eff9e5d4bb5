"""What every request passes: its id, its key, its rate, and what is logged and counted of it."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from incatalog.serving.access import Key, Keys, RateLimit, address_of
from incatalog.serving.engine_telemetry import EngineTelemetry
from incatalog.serving.problems import ApiError
from incatalog.web.telemetry import Measured

# Paths that are answered without a key.
_OPEN = frozenset(("/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"))
_OPEN_BELOW = "/page/"
_WRONG_KEYS = 60  # a minute, from one address
_POLICY = (
    "default-src 'self'; img-src 'self' data:{images}; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'"
)


class Gate(Measured):
    """Lets requests in that may ask, and counts and logs all; without `keys` anyone may ask.

    The page may load images from the origins `images`, and nothing else from anywhere else.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: Keys | None,
        rate: int,
        telemetry: EngineTelemetry,
        images: Sequence[str] = (),
    ) -> None:
        super().__init__(app, telemetry, (), ())
        self._keys = keys
        self._policy = _POLICY.format(images="".join(f" {origin}" for origin in images))
        self._limit = RateLimit(rate)
        self._wrong = RateLimit(_WRONG_KEYS, what="requests without a valid API key")
        self._span = telemetry.span

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = secrets.token_hex(8)
        state["key"] = Key("anyone", admin=self._keys is None)
        try:
            self._check(scope)
        except ApiError as refusal:
            await refusal.response()(scope, receive, send)
        else:
            with self._span(scope["method"], state["request_id"]):
                await self._app(scope, receive, send)

    def _begin(self, scope: Scope, message: Message) -> None:
        headers = MutableHeaders(scope=message)
        headers["X-Request-Id"] = scope["state"]["request_id"]
        headers["X-Content-Type-Options"] = "nosniff"
        headers["Referrer-Policy"] = "no-referrer"
        headers["Content-Security-Policy"] = self._policy
        headers.setdefault("Cache-Control", "no-store")

    def _count(self, scope: Scope, status: int, seconds: float, *, complete: bool) -> None:
        route = getattr(scope.get("route"), "path", "other")
        self._telemetry.request(route, status, seconds)
        if route.startswith("/v1/"):
            self._telemetry.accepted += 1
            self._telemetry.answered += complete
        # No path as it was sent, no key, nothing of the conversation.
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request": scope["state"]["request_id"],
            "method": scope["method"],
            "route": route,
            "status": status,
            "seconds": round(seconds, 4),
            "key": scope["state"]["key"].name,
        }
        sys.stderr.write(json.dumps(line) + "\n")

    def _check(self, scope: Scope) -> None:
        """Notes whose key a request has; refuses one without a valid key, or one too many."""
        if scope["path"] in _OPEN or scope["path"].startswith(_OPEN_BELOW):
            return
        # A browser asks whether it may before it sends a key.
        if scope["method"] == "OPTIONS":
            return
        who, rate = address_of(scope), None
        if self._keys is not None:
            try:
                key = self._keys.holder(Headers(scope=scope).get("authorization"))
            except ApiError:
                # Only wrong keys are counted, so that they do not lock out right ones beside them.
                self._wrong.take(who)
                raise
            scope["state"]["key"] = key
            who, rate = f"key {key.name}", key.rate
        self._limit.take(who, rate)
