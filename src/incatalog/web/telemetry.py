"""What the teacher service tells Prometheus, and what it counted when it ends."""

from __future__ import annotations

import time
from collections.abc import Collection

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
# As nginx logs it: the client went away before there was an answer.
_CLIENT_GONE = 499
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Telemetry:
    """Counters of one service, in a registry of its own.

    Attributes:
        answered: Questions whose answer was sent to its end.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "incatalog_teacher_requests",
            "Requests by endpoint and status.",
            ("endpoint", "status"),
            registry=self._registry,
        )
        self._request_seconds = Histogram(
            "incatalog_teacher_request_seconds",
            "Time from a request's header to the end of its answer.",
            ("endpoint",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._batch_rows = Histogram(
            "incatalog_teacher_batch_rows",
            "Histories answered together.",
            buckets=_ROWS,
            registry=self._registry,
        )
        self._batch_seconds = Histogram(
            "incatalog_teacher_batch_seconds",
            "Time the network takes for a batch.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.queued_rows = Gauge(
            "incatalog_teacher_queued_rows", "Histories that wait.", registry=self._registry
        )
        self.answered = 0

    def batch(self, rows: int, seconds: float) -> None:
        """Counts a batch."""
        self._batch_rows.observe(rows)
        self._batch_seconds.observe(seconds)

    def request(self, endpoint: str, status: int, seconds: float) -> None:
        """Counts a request."""
        self._requests.labels(endpoint, str(status)).inc()
        self._request_seconds.labels(endpoint).observe(seconds)

    def text(self) -> bytes:
        """All counters in Prometheus' text format."""
        return generate_latest(self._registry)


class Measured:
    """Counts the requests of an application."""

    def __init__(
        self, app: ASGIApp, telemetry: Telemetry, endpoints: Collection[str], asked: Collection[str]
    ) -> None:
        """Wraps an application.

        Args:
            app: The application.
            telemetry: Where to count.
            endpoints: Paths that are counted by name; all others are counted as one.
            asked: Those of them that answer questions.
        """
        self._app = app
        self._telemetry = telemetry
        self._endpoints = frozenset(endpoints)
        self._asked = frozenset(asked)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on and counts it when its answer is sent."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = _CLIENT_GONE
        complete = False

        async def watched(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                complete = True

        path = scope["path"] if scope["path"] in self._endpoints else "other"
        try:
            await self._app(scope, receive, watched)
        except Exception:
            # The 500 is sent by the layer around this one.
            status = 500
            raise
        finally:
            self._telemetry.request(path, status, time.perf_counter() - started)
            if complete and status == 200 and path in self._asked:
                self._telemetry.answered += 1
