"""The teacher service as an ASGI application: endpoints, their limits and their errors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
from fastapi import Body, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response

from incatalog.data.catalog import Catalog
from incatalog.errors import CatalogError, TeacherError
from incatalog.teacher.teacher import InProcessTeacher
from incatalog.teacher_service.batching import (
    Answer,
    Batcher,
    Query,
    QueueFullError,
    answer_together,
)
from incatalog.teacher_service.client import TEACHER_HEADER
from incatalog.teacher_service.settings import TeacherServeSettings
from incatalog.teacher_service.teacher_schemas import (
    InferenceAnswer,
    InferenceRequest,
    Problem,
    RankingAnswer,
    RankingRequest,
    ScoresRequest,
    TeacherInfo,
    TeacherRequest,
    inference_examples,
    ranking_examples,
    scores_examples,
)
from incatalog.teacher_service.wire import Wire
from incatalog.web.bodies import BodyLimit
from incatalog.web.telemetry import Measured, Telemetry

_ASKED = ("/inference", "/ranking", "/scores")
_ENDPOINTS = (*_ASKED, "/teacher", "/healthz", "/readyz", "/metrics", "/openapi.json")
# Scores of an answer: 16 MB.
_MAX_SCORES = 1 << 22
# Ids in a request or an answer beyond which it is read or written off the event loop.
_MANY_IDS = 2000
_PROBLEMS = {
    400: "The body is not JSON.",
    408: "The body did not arrive in time.",
    409: "The client's catalog is another one.",
    413: "The body is too large.",
    422: "The request cannot be answered; the message names the field.",
    429: "Too many wait; ask again after `Retry-After` seconds.",
    504: "The answer took too long.",
}
_Request = TypeVar("_Request", bound=TeacherRequest)


class TeacherService:
    """One teacher, its queue and its counters, as an ASGI application.

    Attributes:
        batcher: Queue before the network.
        telemetry: Counters.
    """

    def __init__(
        self,
        teacher: InProcessTeacher,
        catalog: Catalog,
        settings: TeacherServeSettings,
        fingerprint: str,
    ) -> None:
        """Prepares a service; `app` makes it one that can run.

        Args:
            teacher: Answers; asked in one thread only.
            catalog: Its catalog.
            settings: Limits; `model` and `data` are not looked at.
            fingerprint: Tells this teacher from others.
        """
        self._catalog = catalog
        self._config = settings
        self._wire = Wire(
            catalog, max_k=settings.max_k, max_rows=settings.max_rows, max_scores=_MAX_SCORES
        )
        self._headers = {TEACHER_HEADER: fingerprint}
        self._info = TeacherInfo(
            name=catalog.name,
            items=len(catalog),
            catalog=catalog.fingerprint,
            teacher=fingerprint,
            window=teacher.window,
            max_k=settings.max_k,
            max_rows=settings.max_rows,
            max_scores=_MAX_SCORES,
            max_body=settings.max_body,
        )
        self.telemetry = Telemetry()
        self.batcher = Batcher(
            partial(answer_together, teacher),
            max_rows=settings.max_batch,
            max_wait=settings.max_wait,
            max_queue=settings.max_queue,
            observe=self.telemetry.batch,
        )

    def app(self) -> FastAPI:
        """The application; it answers between startup and shutdown of its lifespan."""
        # Swagger's pages load scripts from elsewhere, so only the schema is served.
        app = FastAPI(
            title="incatalog teacher",
            description="Asks a sequential recommender about many histories at once.",
            version="1",
            docs_url=None,
            redoc_url=None,
            lifespan=self._lifespan,
        )
        app.add_middleware(BodyLimit, max_bytes=self._config.max_body, timeout=self._config.timeout)
        app.add_middleware(Measured, telemetry=self.telemetry, endpoints=_ENDPOINTS, asked=_ASKED)
        app.add_exception_handler(RequestValidationError, _invalid)
        self._add_questions(app)
        self._add_states(app)
        return app

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        running = asyncio.create_task(self.batcher.run())
        try:
            yield
        finally:
            self.batcher.close()
            await running

    def _add_questions(self, app: FastAPI) -> None:
        wire = self._wire
        inference_body = Body(openapi_examples=inference_examples(self._catalog))
        ranking_body = Body(openapi_examples=ranking_examples(self._catalog))
        scores_body = Body(openapi_examples=scores_examples(self._catalog))
        problems: dict[int | str, dict[str, Any]] = {
            status: {"model": Problem, "description": text} for status, text in _PROBLEMS.items()
        }

        @app.post("/inference", responses={**problems, 200: {"model": InferenceAnswer}})
        async def inference(request: InferenceRequest = inference_body) -> Response:
            """The best items after each history."""
            return await self._respond(
                request, wire.inference, lambda answer: self._json(wire.best_items(answer))
            )

        @app.post("/ranking", responses={**problems, 200: {"model": RankingAnswer}})
        async def ranking(request: RankingRequest = ranking_body) -> Response:
            """The place of each candidate in the order of the whole catalog."""
            return await self._respond(
                request, wire.ranking, lambda answer: self._json(wire.ranks(answer))
            )

        binary = {"content": {"application/octet-stream": {"schema": {"type": "string"}}}}

        @app.post("/scores", responses={**problems, 200: binary}, response_class=Response)
        async def scores(request: ScoresRequest = scores_body) -> Response:
            """Scores of all items after each history: rows of little-endian float32."""
            return await self._respond(request, wire.scores, self._binary)

    def _add_states(self, app: FastAPI) -> None:
        @app.get("/teacher")
        async def teacher() -> TeacherInfo:
            """Who answers here, and within which limits."""
            return self._info

        @app.get("/healthz")
        async def healthz() -> dict[str, str]:
            """The process is alive."""
            return {"status": "ok"}

        @app.get("/readyz", responses={503: {"model": Problem, "description": "Not now."}})
        async def readyz() -> Response:
            """A question would be accepted."""
            if self.batcher.has_room:
                return JSONResponse({"status": "ready"})
            return JSONResponse({"detail": "the queue is full, or the service is closing"}, 503)

        @app.get("/metrics", response_class=Response)
        async def metrics() -> Response:
            """Counters in Prometheus' text format."""
            self.telemetry.queued_rows.set(self.batcher.queued_rows)
            return Response(self.telemetry.text(), media_type="text/plain; version=0.0.4")

    async def _respond(
        self,
        request: _Request,
        read: Callable[[_Request], Query],
        write: Callable[[Answer], Response],
    ) -> Response:
        try:
            self._wire.check_catalog(request)
            if _ids(request) > _MANY_IDS:
                question = await asyncio.to_thread(read, request)
            else:
                question = read(request)
            async with asyncio.timeout(self._config.timeout):
                answer = await self.batcher.ask(question)
        except CatalogError as error:
            return self._problem(409, str(error))
        except QueueFullError as error:
            return self._problem(429, str(error), {"Retry-After": str(error.retry_after)})
        except TeacherError as error:
            return self._problem(422, str(error))
        except TimeoutError:
            return self._problem(
                504, f"no answer within {self._config.timeout:g} s; ask about fewer rows at once"
            )
        if sum(map(len, answer)) > _MANY_IDS:
            return await asyncio.to_thread(write, answer)
        return write(answer)

    def _json(self, answer: dict[str, Any]) -> Response:
        return JSONResponse(answer, headers=self._headers)

    def _binary(self, answer: Answer) -> Response:
        content = np.stack(answer).astype("<f4").tobytes()
        return Response(content, media_type="application/octet-stream", headers=self._headers)

    def _problem(self, status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
        return JSONResponse(
            {"detail": detail}, status, headers={**self._headers, **(headers or {})}
        )


async def _invalid(_request: Any, error: Exception) -> Response:
    """One line about the first thing wrong with the form of a request; repeats no input."""
    assert isinstance(error, RequestValidationError)
    first: dict[str, Any] = dict(error.errors()[0])
    place = [part for part in first["loc"][1:] if part not in ("str", "int")]
    if first["type"] == "json_invalid":
        detail = f"body: not JSON ({first['ctx']['error']} at character {first['loc'][-1]})"
        return JSONResponse({"detail": detail}, 422)
    if len(place) < len(first["loc"]) - 1:
        message = "expected an id, text or a whole number"
    else:
        message = first["msg"][:1].lower() + first["msg"][1:]
    name = " ".join(str(part)[:60] for part in place) or "body"
    if name == "body":
        message = "expected a JSON object with Content-Type: application/json"
    return JSONResponse({"detail": f"{name}: {message}"}, 422)


def _ids(request: TeacherRequest) -> int:
    lists: Sequence[Any] = [
        *request.item_lists,
        *(getattr(request, "candidate_item_lists", None) or ()),
        *(getattr(request, "excluded_item_lists", None) or ()),
    ]
    return sum(len(items) for items in lists if items is not None)
