"""The teacher service as an ASGI application: endpoints, their limits and their errors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import numpy as np
from fastapi import Body, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response

from incatalog.data.catalog import Catalog
from incatalog.errors import CatalogError, TeacherError
from incatalog.teacher.counted import CountedTeacher
from incatalog.teacher.selection import ScoringTeacher
from incatalog.teacher_service import teacher_schemas as forms
from incatalog.teacher_service.batching import Batcher, Found, Kind, answer_together
from incatalog.teacher_service.client import TEACHER_HEADER
from incatalog.teacher_service.likely import MAX_SCORES
from incatalog.teacher_service.settings import TeacherServeSettings
from incatalog.teacher_service.wire import Wire
from incatalog.web.app import QueueFullError, add_states, first_fault, new_app
from incatalog.web.bodies import BodyLimit
from incatalog.web.telemetry import Measured, Telemetry

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_ASKED = ("/inference", "/ranking", "/scores", "/log-probabilities")
_OTHERS = ("/teacher", "/healthz", "/readyz", "/metrics", "/openapi.json")
# Ids in a request or an answer beyond which it is read or written off the event loop.
_MANY_IDS = 2000
_ID_FORMS = ("str", "int")  # forms of an id, which pydantic names in the place of a fault
_ABOUT = {
    400: "The body is not JSON.",
    408: "The body did not arrive in time.",
    409: "The client's catalog is another one.",
    413: "The body is too large.",
    422: "The request cannot be answered; the message names the field.",
    429: "Too many wait; ask again after `Retry-After` seconds.",
    504: "The answer took too long.",
}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": forms.Refusal, "description": about} for status, about in _ABOUT.items()
}


class TeacherService:
    """One teacher, its queue and its counters, as an ASGI application.

    The fingerprint tells this teacher from others; `model` and `data` of the settings are not read.
    """

    def __init__(
        self,
        teacher: ScoringTeacher,
        catalog: Catalog,
        settings: TeacherServeSettings,
        fingerprint: str,
    ) -> None:
        self._catalog, self._settings = catalog, settings
        self._headers = {TEACHER_HEADER: fingerprint}
        # What a history without items is answered by are counts.
        counts = isinstance(teacher, CountedTeacher)
        self._info = forms.TeacherInfo(
            name=catalog.name,
            items=len(catalog),
            catalog=catalog.items_fingerprint,
            teacher=fingerprint,
            kind=teacher.kind,
            temperature=teacher.temperature,
            window=teacher.window,
            empty_histories=counts,
            counts=counts,
            max_k=settings.max_k,
            max_rows=settings.max_rows,
            max_scores=MAX_SCORES,
            max_body=settings.max_body,
        )
        self._wire = Wire(catalog, self._info)
        self.telemetry = Telemetry("incatalog_teacher", _SECONDS)
        rows = self.telemetry.histogram("batch_rows", "Histories answered together.", buckets=_ROWS)
        about = "Time the teacher takes for a batch."
        seconds = self.telemetry.histogram("batch_seconds", about)

        def observe(batch: int, took: float) -> None:
            rows.observe(batch)
            seconds.observe(took)

        self.batcher = Batcher(
            partial(answer_together, teacher),
            max_rows=settings.max_batch,
            max_wait=settings.max_wait,
            max_queue=settings.max_queue,
            observe=observe,
        )
        queued = self.telemetry.gauge("queued_rows", "Histories that wait.")
        queued.set_function(lambda: self.batcher.queued_rows)

    def app(self) -> FastAPI:
        """The application; it answers between startup and shutdown of its lifespan."""
        about = "Asks a recommender about many histories at once."
        app = new_app(title="incatalog teacher", description=about, lifespan=self._lifespan)
        limits = self._settings
        app.add_middleware(BodyLimit, max_bytes=limits.max_body, timeout=limits.timeout)
        app.add_middleware(Measured, telemetry=self.telemetry, asked=_ASKED, others=_OTHERS)
        app.add_exception_handler(RequestValidationError, _invalid)
        shown = forms.examples(self._catalog)
        bodies = {name: Body(openapi_examples=several) for name, several in shown.items()}
        binary = {"content": {"application/octet-stream": {"schema": {"type": "string"}}}}

        @app.post("/inference", responses={**_PROBLEMS, 200: {"model": forms.InferenceAnswer}})
        async def inference(request: forms.InferenceRequest = bodies["inference"]) -> Response:
            """The best items after each history."""
            return await self._respond(request)

        @app.post("/ranking", responses={**_PROBLEMS, 200: {"model": forms.RankingAnswer}})
        async def ranking(request: forms.RankingRequest = bodies["ranking"]) -> Response:
            """The place of each candidate in the order of the whole catalog."""
            return await self._respond(request)

        @app.post("/scores", responses={**_PROBLEMS, 200: binary}, response_class=Response)
        async def scores(request: forms.ScoresRequest = bodies["scores"]) -> Response:
            """Scores of all items after each history: rows of little-endian float32."""
            return await self._respond(request)

        @app.post("/log-probabilities", responses={**_PROBLEMS, 200: {"model": forms.LikelyAnswer}})
        async def likely(request: forms.LikelyRequest = bodies["log_probabilities"]) -> Response:
            """The likeliest items after each history, and what is left for all others."""
            return await self._respond(request)

        @app.get("/teacher")
        async def teacher() -> forms.TeacherInfo:
            """Who answers here, and within which limits."""
            return self._info

        add_states(app, self.telemetry, lambda: self.batcher.has_room, forms.Refusal)
        return app

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        running = asyncio.create_task(self.batcher.run())
        try:
            yield
        finally:
            self.batcher.close()
            await running

    async def _respond(self, request: forms.Question) -> Response:
        seconds = self._settings.timeout
        try:
            if _ids(request) > _MANY_IDS:
                query = await asyncio.to_thread(self._wire.query, request)
            else:
                query = self._wire.query(request)
            async with asyncio.timeout(seconds):
                found = await self.batcher.ask(query)
        except CatalogError as error:
            return self._refusal(409, str(error))
        except QueueFullError as error:
            return self._refusal(429, str(error), {"Retry-After": str(error.retry_after)})
        except TeacherError as error:
            return self._refusal(422, str(error))
        except TimeoutError:
            why = f"no answer within {seconds:g} s; ask about fewer rows at once"
            return self._refusal(504, why)
        if sum(map(len, found)) > _MANY_IDS:
            return await asyncio.to_thread(self._written, query.kind, found)
        return self._written(query.kind, found)

    def _written(self, kind: Kind, found: Found) -> Response:
        if kind != "scores":
            return JSONResponse(self._wire.answer(kind, found), headers=self._headers)
        content = np.stack(found).astype("<f4").tobytes()
        return Response(content, media_type="application/octet-stream", headers=self._headers)

    def _refusal(self, status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
        return JSONResponse({"detail": detail}, status, headers=self._headers | (headers or {}))


async def _invalid(_request: Any, error: Exception) -> Response:
    """One line about the first thing wrong with the form of a request; repeats no input."""
    assert isinstance(error, RequestValidationError)
    first: Any = error.errors()[0]
    place, message = first_fault(error.errors(), 1, _ID_FORMS, " ")
    if first["type"] == "json_invalid":
        place = "body"
        message = f"not JSON ({first['ctx']['error']} at character {first['loc'][-1]})"
    elif not place:
        place, message = "body", "expected a JSON object with Content-Type: application/json"
    elif any(part in _ID_FORMS for part in first["loc"][1:]):
        message = "expected an id, text or a whole number"
    return JSONResponse({"detail": f"{place}: {message}"}, 422)


def _ids(request: forms.Question) -> int:
    names = ("item_lists", "candidate_item_lists", "excluded_item_lists")
    lists = [items for name in names for items in getattr(request, name, None) or ()]
    return sum(len(items) for items in lists if items is not None)
