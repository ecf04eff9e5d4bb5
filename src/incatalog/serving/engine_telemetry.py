"""What the service tells Prometheus and, if wanted, OpenTelemetry."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from incatalog.errors import require
from incatalog.serving.worker import Pass

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Telemetry:
    """Counters of one service, in a registry of its own.

    Attributes:
        accepted: Requests to the API.
        answered: Those of them whose answer was sent to its end.
        active: Answers that grow.
        queued: Requests that wait.
        version: Version of each catalog.
    """

    def __init__(self, *, trace: bool = False) -> None:
        """Makes the counters.

        Args:
            trace: Make spans of OpenTelemetry too.

        Raises:
            MissingExtraError: They are wanted, and its API is not installed.
        """
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "incatalog_requests", "Requests by endpoint and status.", ("endpoint", "status"),
            registry=registry,
        )  # fmt: skip
        self._request_seconds = Histogram(
            "incatalog_request_seconds", "Time from a request to the end of its answer.",
            ("endpoint",), buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._first_seconds = Histogram(
            "incatalog_first_token_seconds", "Time from a request to the first of its answer.",
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._pass_seconds = Histogram(
            "incatalog_pass_seconds", "Time of a forward pass.", buckets=_SECONDS, registry=registry
        )
        self._pass_rows = Histogram(
            "incatalog_pass_rows", "Answers that grew in a forward pass.", buckets=_ROWS,
            registry=registry,
        )  # fmt: skip
        self._tokens = Counter("incatalog_tokens", "Tokens written.", registry=registry)
        self._items = Counter("incatalog_items", "Items recommended in answers.", registry=registry)
        self.active = Gauge("incatalog_active_answers", "Answers that grow.", registry=registry)
        self.queued = Gauge("incatalog_queued_requests", "Requests that wait.", registry=registry)
        self.version = Gauge(
            "incatalog_catalog_version", "Version of each catalog.", ("domain",), registry=registry
        )
        self.catalog_items = Gauge(
            "incatalog_catalog_items", "Items of each catalog.", ("domain",), registry=registry
        )
        self.accepted = self.answered = 0
        self._tracer = None
        if trace:
            self._tracer = require("opentelemetry.trace", extra="otel").get_tracer("incatalog")

    def passed(self, one: Pass) -> None:
        """Counts a forward pass."""
        self._pass_seconds.observe(one.seconds)
        self._pass_rows.observe(one.rows)
        self._tokens.inc(one.tokens)
        self._items.inc(one.items)

    def first(self, seconds: float) -> None:
        """Counts the wait for the first of an answer."""
        self._first_seconds.observe(seconds)

    def request(self, endpoint: str, status: int, seconds: float) -> None:
        """Counts a request."""
        self._requests.labels(endpoint, str(status)).inc()
        self._request_seconds.labels(endpoint).observe(seconds)

    @contextlib.contextmanager
    def span(self, name: str, request_id: str) -> Iterator[None]:
        """A span of OpenTelemetry, if it was asked for."""
        if self._tracer is None:
            yield
            return
        with self._tracer.start_as_current_span(name) as span:
            span.set_attribute("incatalog.request_id", request_id)
            yield

    def text(self) -> bytes:
        """All counters in Prometheus' text format."""
        return generate_latest(self._registry)
