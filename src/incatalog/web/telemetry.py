"""What a service tells Prometheus about its requests, and what it counted when it ends."""

from __future__ import annotations

import time
from collections.abc import Sequence

import prometheus_client as prometheus
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_CLIENT_GONE = 499  # as nginx logs it: the client went away before there was an answer


class Telemetry:
    """The counters of one service, in a registry of its own; every name begins with the prefix."""

    def __init__(self, prefix: str, seconds: Sequence[float]) -> None:
        self._prefix, self._seconds = prefix, seconds
        self._registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=self._registry)
        about = "Requests by endpoint and status."
        self._requests = self.counter("requests", about, "endpoint", "status")
        about = "Time from a request to the end of its answer."
        self._request_seconds = self.histogram("request_seconds", about, "endpoint")
        self.accepted = self.answered = 0  # questions taken, and those answered to the end

    def counter(self, name: str, about: str, *labels: str) -> prometheus.Counter:
        """One more counter."""
        return prometheus.Counter(name, about, labels, self._prefix, registry=self._registry)

    def gauge(self, name: str, about: str, *labels: str) -> prometheus.Gauge:
        """One more gauge."""
        return prometheus.Gauge(name, about, labels, self._prefix, registry=self._registry)

    def histogram(
        self, name: str, about: str, *labels: str, buckets: Sequence[float] = ()
    ) -> prometheus.Histogram:
        """One more histogram, of seconds unless it has buckets of its own."""
        prefix, registry, buckets = self._prefix, self._registry, buckets or self._seconds
        return prometheus.Histogram(name, about, labels, prefix, registry=registry, buckets=buckets)

    def request(self, endpoint: str, status: int, seconds: float) -> None:
        """Counts a request."""
        self._requests.labels(endpoint, str(status)).inc()
        self._request_seconds.labels(endpoint).observe(seconds)

    def text(self) -> bytes:
        """All counters in Prometheus' text format."""
        return prometheus.generate_latest(self._registry)


class Measured:
    """Counts the requests of an application: of some paths by name, of all others as one."""

    def __init__(
        self, app: ASGIApp, telemetry: Telemetry, asked: Sequence[str], others: Sequence[str]
    ) -> None:
        self._app, self._telemetry = app, telemetry
        self._asked = frozenset(asked)
        self._endpoints = self._asked.union(others)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on and counts it when its answer is sent."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status, complete = _CLIENT_GONE, False

        async def watched(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                self._begin(scope, message)
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                complete = True

        try:
            await self._answer(scope, receive, watched)
        except Exception:
            # The 500 is sent by the layer around this one.
            status = 500
            raise
        finally:
            self._count(scope, status, time.perf_counter() - started, complete=complete)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    def _begin(self, scope: Scope, message: Message) -> None:
        """May add headers to an answer."""

    def _count(self, scope: Scope, status: int, seconds: float, *, complete: bool) -> None:
        path = scope["path"] if scope["path"] in self._endpoints else "other"
        self._telemetry.request(path, status, seconds)
        if path in self._asked and status == 200:
            self._telemetry.answered += complete
