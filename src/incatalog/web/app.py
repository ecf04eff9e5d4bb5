"""What both services answer alike: how they are, and why they do not take a request."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response

from incatalog.errors import IncatalogError
from incatalog.web.bodies import Form, Refusing
from incatalog.web.telemetry import Telemetry

_LONGEST_RETRY = 60
_LONGEST_NAME = 60


class QueueFullError(IncatalogError):
    """Too many requests wait already, or the service is closing."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        # Seconds after which there is probably room.
        self.retry_after = min(max(1, math.ceil(seconds)), _LONGEST_RETRY)


def first_fault(
    faults: Sequence[Any], skip: int = 0, forms: Collection[str] = (), joint: str = "."
) -> tuple[str, str]:
    """Place and message of the first of pydantic's faults, without the value that was sent.

    The place leaves out its first `skip` parts, and the names of the `forms` a value may have.
    """
    first = faults[0]
    place = [str(part)[:_LONGEST_NAME] for part in first["loc"][skip:] if part not in forms]
    return joint.join(place), first["msg"][:1].lower() + first["msg"][1:]


def new_app(**about: Any) -> FastAPI:
    """An application without Swagger's pages, which load scripts from elsewhere."""
    return FastAPI(version="1", docs_url=None, redoc_url=None, **about)


def add_states(
    app: FastAPI,
    telemetry: Telemetry,
    has_room: Callable[[], bool],
    form: type[Form],
    refusal: Refusing = lambda _, detail: {"detail": detail},
    about_health: str = "The process is alive.",
    **health: str | bool,
) -> None:
    """Adds `/healthz`, `/readyz` and `/metrics`; `refusal` writes bodies of the form `form`."""

    @app.get("/healthz", description=about_health)
    async def healthz() -> dict[str, str | bool]:
        return {"status": "ok"} | health

    @app.get("/readyz", responses={503: {"model": form, "description": "Not now."}})
    async def readyz() -> Response:
        """A request would be accepted."""
        if has_room():
            return JSONResponse({"status": "ready"})
        why = "the queue is full, the service is closing, or its catalogs fell behind for good"
        return JSONResponse(refusal(503, why), 503)

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Counters in Prometheus' text format."""
        return Response(telemetry.text(), media_type="text/plain; version=0.0.4")
