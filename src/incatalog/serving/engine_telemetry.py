"""What the chat service tells Prometheus and, if wanted, OpenTelemetry, of its answers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from incatalog.errors import require
from incatalog.serving.worker import Pass
from incatalog.web.telemetry import Telemetry

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class EngineTelemetry(Telemetry):
    """The counters of requests, and those of answers, passes and tokens."""

    def __init__(self, *, trace: bool = False) -> None:
        super().__init__("incatalog", _SECONDS)
        about = "Time from a request to the first of its answer."
        self.first_seconds = self.histogram("first_token_seconds", about)
        self._pass_seconds = self.histogram("pass_seconds", "Time of a forward pass.")
        about = "Answers that grew in a forward pass."
        self._pass_rows = self.histogram("pass_rows", about, buckets=_ROWS)
        self._tokens = self.counter("tokens", "Tokens written.")
        self._items = self.counter("items", "Items recommended in answers.")
        about = "Requests for which the teacher that guides the answers failed."
        self.teacher_failures = self.counter("teacher_failures", about)
        self._tracer = None
        if trace:
            self._tracer = require("opentelemetry.trace", extra="otel").get_tracer("incatalog")

    def passed(self, one: Pass) -> None:
        """Counts a forward pass."""
        self._pass_seconds.observe(one.seconds)
        self._pass_rows.observe(one.rows)
        self.wrote(one.tokens, one.items)

    def wrote(self, tokens: int, items: int) -> None:
        """Counts what answers have got, where passes are not told."""
        self._tokens.inc(tokens)
        self._items.inc(items)

    @contextlib.contextmanager
    def span(self, name: str, request_id: str) -> Iterator[None]:
        """A span of OpenTelemetry, if it was asked for."""
        if self._tracer is None:
            yield
            return
        with self._tracer.start_as_current_span(name) as span:
            span.set_attribute("incatalog.request_id", request_id)
            yield
