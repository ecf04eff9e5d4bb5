"""The chat service as an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from incatalog.recommender.recommender import Recommender
from incatalog.serving.access import Keys
from incatalog.serving.any_worker import AnyWorker
from incatalog.serving.async_worker import AsyncWorker
from incatalog.serving.catalog_endpoints import CatalogEndpoints, is_feed
from incatalog.serving.catalogs import Domain
from incatalog.serving.chat_endpoints import ChatEndpoints
from incatalog.serving.chats import Chats
from incatalog.serving.engine_telemetry import EngineTelemetry
from incatalog.serving.error_schemas import ErrorAnswer
from incatalog.serving.follower import Follower
from incatalog.serving.gate import Gate
from incatalog.serving.guiding import Guiding
from incatalog.serving.model_endpoints import ModelEndpoints
from incatalog.serving.page_endpoints import PageEndpoints
from incatalog.serving.problems import ApiError, add_problems
from incatalog.serving.rates import SharedRates
from incatalog.serving.recommendation_endpoints import RecommendationEndpoints
from incatalog.serving.response_endpoints import ResponseEndpoints
from incatalog.serving.sessions import SessionStore
from incatalog.serving.settings import ServeSettings
from incatalog.serving.turns import Turns
from incatalog.serving.worker import Worker
from incatalog.vllm.async_engine import AsyncEngine
from incatalog.web.app import add_states, new_app
from incatalog.web.bodies import BodyLimit

_THIS_MACHINE = ("localhost", "127.0.0.1", "[::1]")


class ChatService:
    """A model, its catalogs, its thread and its counters, as an ASGI application.

    Without `keys` anyone may ask; without `sessions` no conversation is kept; without a `follower`
    the catalogs hear of other services only when they are changed here, and without `rates` each
    service counts the requests of a client for itself.
    Requests are answered by the recommender's own engine, or by `engine` where one is given.
    """

    def __init__(
        self,
        recommender: Recommender,
        domains: Mapping[str, Domain],
        settings: ServeSettings,
        keys: Keys | None = None,
        sessions: SessionStore | None = None,
        follower: Follower | None = None,
        rates: SharedRates | None = None,
        engine: AsyncEngine | None = None,
    ) -> None:
        self._domains, self._settings, self._keys = dict(domains), settings, keys
        self._trained = recommender.spec.trained
        self._models = ModelEndpoints(recommender, self._domains, settings.name)
        self.telemetry = EngineTelemetry(trace=settings.trace)
        limits: Any = {"max_rows": settings.batch, "max_queue": settings.queue}
        self.worker: AnyWorker
        if engine is None:
            self.worker = Worker(recommender.engine, observe=self.telemetry.passed, **limits)
        else:
            self.worker = AsyncWorker(engine, wrote=self.telemetry.wrote, **limits)
        self._follower, self._rates = follower, rates
        self._measure()
        self._guiding = Guiding(settings, self.telemetry)
        self._turns = Turns(sessions)
        self._chats = Chats(
            recommender,
            self._domains,
            settings,
            self.worker,
            self.telemetry,
            self._turns,
            self._guiding,
        )

    def app(self) -> FastAPI:
        """The application; it answers between startup and shutdown of its lifespan."""
        about = "A chat model that recommends only what is in the catalog."
        app = new_app(title="incatalog", description=about, lifespan=self._lifespan)
        self._add_layers(app)
        add_problems(app)
        ChatEndpoints(self._chats).add_to(app)
        ResponseEndpoints(self._chats).add_to(app)
        asking: Any = self._domains, self._settings, self.worker, self._guiding
        RecommendationEndpoints(*asking).add_to(app)
        self._turns.add_to(app)
        self._models.add_to(app)
        CatalogEndpoints(self._domains, self._settings.state_timeout).add_to(app)
        PageEndpoints(self._domains, self._settings).add_to(app)

        add_states(
            app,
            self.telemetry,
            self._is_ready,
            ErrorAnswer,
            lambda status, message: ApiError(status, message).body(),
            "The process is alive; whether its model was trained on a catalog.",
            trained=self._trained,
        )

        return app

    def _is_ready(self) -> bool:
        """Whether a request would be answered, with the versions that other services have."""
        faults = [domain.fault for domain in self._domains.values()]
        return self.worker.has_room and not any(faults)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        self.worker.start()
        if self._follower is not None:
            self._follower.start()
        try:
            yield
        finally:
            if self._follower is not None:
                await asyncio.to_thread(self._follower.close)
            await asyncio.to_thread(self.worker.close)
            self._guiding.close()

    def _measure(self) -> None:
        """Adds gauges, which are read when someone asks for the counters."""
        gauge = self.telemetry.gauge
        gauge("active_answers", "Answers that grow.").set_function(lambda: self.worker.active)
        gauge("queued_requests", "Requests that wait.").set_function(lambda: self.worker.queued)
        if (follower := self._follower) is not None:
            since = gauge("state_silence_seconds", "Since the newest versions were known.")
            since.set_function(lambda: follower.silence)
        versions = gauge("catalog_version", "Version of each catalog.", "domain")
        items = gauge("catalog_items", "Items of each catalog.", "domain")

        def watch(domain: Domain) -> None:
            versions.labels(domain.name).set_function(lambda: domain.version.number)
            items.labels(domain.name).set_function(lambda: domain.version.catalog.num_live)

        for domain in self._domains.values():
            watch(domain)

    def _add_layers(self, app: FastAPI) -> None:
        """Adds what a request passes, from the inside to the outside."""
        settings = self._settings
        app.add_middleware(
            BodyLimit,
            max_bytes=settings.max_body,
            timeout=settings.timeout,
            refusal=lambda status, message: ApiError(status, message, param="body").body(),
            larger=lambda scope: settings.max_feed if is_feed(scope) else None,
        )
        app.add_middleware(
            Gate,
            keys=self._keys,
            rate=settings.rate,
            telemetry=self.telemetry,
            images=settings.allow_image,
            shared=self._rates,
        )
        if settings.allow_origin:
            app.add_middleware(
                CORSMiddleware,
                allow_origins=list(settings.allow_origin),
                allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
                allow_headers=["Authorization", "Content-Type"],
            )
        # A name that points here from elsewhere would let a foreign page ask in this one's name.
        hosts = list({*_THIS_MACHINE, *settings.allow_host, settings.host})
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
