"""The service as an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from incatalog.errors import IncatalogError
from incatalog.recommender.recommender import Recommender
from incatalog.serving.access import Keys, RateLimit
from incatalog.serving.catalog_endpoints import CatalogEndpoints
from incatalog.serving.catalogs import Domain
from incatalog.serving.chat_endpoints import Conversations
from incatalog.serving.engine_telemetry import Telemetry
from incatalog.serving.gate import Gate
from incatalog.serving.problems import (
    PROBLEMS,
    ApiError,
    respond_to_error,
    respond_to_form,
    respond_to_http,
)
from incatalog.serving.schemas import Model, Models, Problem
from incatalog.serving.sessions import SessionStore
from incatalog.serving.settings import ServeSettings
from incatalog.serving.worker import Worker
from incatalog.web.bodies import BodyLimit

_PAGE = Path(__file__).parent / "page"
_OPEN = ("/", "/page/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs")
_THIS_MACHINE = ("localhost", "127.0.0.1", "[::1]")


class ChatService:
    """A model, its catalogs, its thread and its counters, as an ASGI application.

    Args:
        recommender: The model.
        domains: Catalogs by their names.
        settings: Limits and names; paths are not looked at.
        keys: Who may ask; None for anyone.
        sessions: Keeps conversations; None for none.

    Attributes:
        worker: The thread of the model.
        telemetry: Counters.
    """

    def __init__(
        self,
        recommender: Recommender,
        domains: Mapping[str, Domain],
        settings: ServeSettings,
        keys: Keys | None = None,
        sessions: SessionStore | None = None,
    ) -> None:
        self._domains = dict(domains)
        self._config = settings
        self._keys = keys
        self._trained = recommender.spec.trained
        self.telemetry = Telemetry(trace=settings.trace)
        self.worker = Worker(
            recommender.engine,
            max_rows=settings.batch,
            max_queue=settings.queue,
            observe=self.telemetry.passed,
        )
        self._conversations = Conversations(
            recommender, self._domains, settings, self.worker, self.telemetry, sessions
        )

    def app(self) -> FastAPI:
        """The application; it answers between startup and shutdown of its lifespan."""
        settings = self._config
        # Swagger's pages load scripts from elsewhere; `/docs` is a page of our own.
        app = FastAPI(
            title="incatalog",
            description="A chat model that recommends only what is in the catalog.",
            version="1",
            docs_url=None,
            redoc_url=None,
            lifespan=self._lifespan,
        )
        app.add_middleware(
            BodyLimit,
            max_bytes=settings.max_body,
            timeout=settings.timeout,
            problem=lambda status, message: ApiError(status, message, param="body").body(),
        )
        app.add_middleware(
            Gate,
            keys=self._keys,
            limit=RateLimit(settings.rate),
            telemetry=self.telemetry,
            open_paths=_OPEN,
        )
        if settings.allow_origin:
            app.add_middleware(
                CORSMiddleware,
                allow_origins=list(settings.allow_origin),
                allow_methods=["GET", "POST", "PATCH", "DELETE"],
                allow_headers=["Authorization", "Content-Type"],
            )
        # A name that points here from elsewhere would let a foreign page ask in this one's name.
        hosts = list({*_THIS_MACHINE, *settings.allow_host, settings.host})
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
        app.add_exception_handler(RequestValidationError, respond_to_form)
        app.add_exception_handler(HTTPException, respond_to_http)
        for kind in (ApiError, IncatalogError, TimeoutError, Exception):
            app.add_exception_handler(kind, respond_to_error)
        self._conversations.add_to(app)
        self._conversations.add_sessions_to(app)
        CatalogEndpoints(self._domains).add_to(app)
        self._add_states(app)
        return app

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        self.worker.start()
        try:
            yield
        finally:
            await asyncio.to_thread(self.worker.close)

    def _add_states(self, app: FastAPI) -> None:
        @app.get("/v1/models", responses=PROBLEMS)
        async def models() -> Models:
            """The names that requests may give: the model alone, and with each domain."""
            name = self._config.name
            trained = self._trained
            named = [
                Model(id=f"{name}/{domain}", domain=domain, trained=trained)
                for domain in self._domains
            ]
            return Models(data=[Model(id=name, trained=trained), *named])

        @app.get("/healthz")
        async def healthz() -> dict[str, str | bool]:
            """The process is alive; whether its model was trained on a catalog."""
            return {"status": "ok", "trained": self._trained}

        @app.get("/readyz", responses={503: {"model": Problem, "description": "Not now."}})
        async def readyz() -> Response:
            """A request would be accepted."""
            if self.worker.has_room:
                return JSONResponse({"status": "ready"})
            return ApiError(503, "the queue is full, or the service is closing").response()

        @app.get("/metrics", response_class=Response)
        async def metrics() -> Response:
            """Counters in Prometheus' text format."""
            self.telemetry.active.set(self.worker.active)
            self.telemetry.queued.set(self.worker.queued)
            for domain in self._domains.values():
                self.telemetry.version.labels(domain.name).set(domain.version.number)
                items = domain.version.catalog.num_live
                self.telemetry.catalog_items.labels(domain.name).set(items)
            return Response(self.telemetry.text(), media_type="text/plain; version=0.0.4")

        @app.get("/", include_in_schema=False)
        async def page() -> FileResponse:
            return FileResponse(_PAGE / "index.html")

        @app.get("/docs", include_in_schema=False)
        async def docs() -> FileResponse:
            return FileResponse(_PAGE / "docs.html")

        app.mount("/page", StaticFiles(directory=_PAGE))
