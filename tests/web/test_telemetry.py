from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Receive, Scope, Send

from incatalog.web.app import QueueFullError
from incatalog.web.telemetry import Measured, Telemetry


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers, fails, or ends without an answer, as its path says."""
    if scope["path"] == "/fails":
        raise RuntimeError("broken")
    if scope["path"] == "/gone":
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"o", "more_body": True})
    if scope["path"] != "/half":
        await send({"type": "http.response.body", "body": b"k"})


async def nothing(*_: Any) -> Any:
    return {"type": "http.disconnect"}


def test_requests_are_counted_by_path_and_by_how_they_end() -> None:
    telemetry = Telemetry("service", (0.1, 1.0))
    measured = Measured(app, telemetry, ("/ask", "/half"), ("/fails", "/gone"))

    async def ask() -> None:
        for path in ("/ask", "/ask", "/half", "/gone", "/elsewhere"):
            await measured({"type": "http", "path": path}, nothing, nothing)
        with pytest.raises(RuntimeError, match="broken"):
            await measured({"type": "http", "path": "/fails"}, nothing, nothing)

    asyncio.run(ask())
    counts = {
        (sample.labels["endpoint"], sample.labels["status"]): sample.value
        for family in text_string_to_metric_families(telemetry.text().decode())
        for sample in family.samples
        if sample.name == "service_requests_total"
    }
    assert counts == {
        ("/ask", "200"): 2, ("/half", "200"): 1, ("/gone", "499"): 1, ("other", "200"): 1,
        ("/fails", "500"): 1,
    }  # fmt: skip
    # Half an answer is none, and what is no question does not count as one.
    assert telemetry.answered == 2


@pytest.mark.parametrize(("seconds", "wait"), [(0.0, 1), (2.1, 3), (1e9, 60)])
def test_who_is_refused_is_told_to_come_back_within_a_minute(seconds: float, wait: int) -> None:
    assert QueueFullError("full", seconds).retry_after == wait
