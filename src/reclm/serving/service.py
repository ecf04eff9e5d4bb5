"""The service as an ASGI application: endpoints and their limits."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from reclm.config import ServeConfig
from reclm.data.catalog import Item
from reclm.errors import ReclmError
from reclm.recommender import Recommender
from reclm.serving.access import Keys, RateLimit
from reclm.serving.catalogs import Domain, Version
from reclm.serving.chat import Piece, Writer, chat_request
from reclm.serving.gate import Gate
from reclm.serving.problems import (
    ApiError,
    api_error,
    respond_to_error,
    respond_to_form,
    respond_to_http,
)
from reclm.serving.schemas import (
    AnswerItem,
    AnswerMessage,
    CatalogInfo,
    CatalogItem,
    CatalogPage,
    Catalogs,
    Changed,
    ChatCompletion,
    ChatMessage,
    ChatRequest,
    Choice,
    ItemQuestion,
    ItemSwitch,
    Model,
    Models,
    NewCatalogItems,
    Problem,
    RecommendationRequest,
    Recommendations,
    Removal,
    Usage,
)
from reclm.serving.search import TitleSearch
from reclm.serving.sessions import SessionStore
from reclm.serving.store import NewItem
from reclm.serving.telemetry import Telemetry
from reclm.serving.worker import Stream, Worker
from reclm.teacher.bodies import BodyLimit

_PAGE = Path(__file__).parent / "page"
_OPEN = ("/", "/page/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/favicon.ico")
_THIS_MACHINE = ("localhost", "127.0.0.1", "[::1]")
# Letters beyond which a conversation is read off the event loop.
_LONG = 10_000
_MOST_LISTED = 1000
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The request cannot be answered."},
    401: {"model": Problem, "description": "No valid API key."},
    403: {"model": Problem, "description": "The key may not do this."},
    404: {"model": Problem, "description": "There is no such model, catalog, item or session."},
    413: {"model": Problem, "description": "The body is too large."},
    429: {"model": Problem, "description": "Too many requests; see `Retry-After`."},
    504: {"model": Problem, "description": "The answer took too long."},
}
_T = TypeVar("_T")


@dataclass(frozen=True)
class _Asked:
    """A conversation that is being answered.

    Attributes:
        body: What was sent.
        version: The catalog version it sees; None for plain text.
        stream: The answer to be.
        writer: Its text.
        prompt_tokens: Tokens of the prompt.
        seconds: Time it may take.
        answer_id: Its name.
        created: When it was asked for, in seconds since 1970.
        started: The same by the clock that measures.
    """

    body: ChatRequest
    version: Version | None
    stream: Stream
    writer: Writer
    prompt_tokens: int
    seconds: float
    answer_id: str
    created: int
    started: float


class ChatService:
    """A model, its catalogs, its thread and its counters, as an ASGI application.

    Args:
        recommender: The model.
        domains: Catalogs by their names.
        config: Limits and names; paths are not looked at.
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
        config: ServeConfig,
        keys: Keys | None = None,
        sessions: SessionStore | None = None,
    ) -> None:
        self._plain = recommender
        self._domains = dict(domains)
        self._config = config
        self._keys, self._sessions = keys, sessions
        self._searches: dict[str, tuple[Version, TitleSearch]] = {}
        self.telemetry = Telemetry(trace=config.trace)
        self.worker = Worker(
            recommender.engine,
            max_rows=config.batch,
            max_queue=config.queue,
            observe=self.telemetry.passed,
        )

    def app(self) -> FastAPI:
        """The application; it answers between startup and shutdown of its lifespan."""
        config = self._config
        # Swagger's pages load scripts from elsewhere, so only the schema is served.
        app = FastAPI(
            title="reclm",
            description="A chat model that recommends only what is in the catalog.",
            version="1",
            docs_url=None,
            redoc_url=None,
            lifespan=self._lifespan,
        )
        app.add_middleware(
            BodyLimit,
            max_bytes=config.max_body,
            timeout=config.timeout,
            problem=lambda status, message: ApiError(status, message, param="body").body(),
        )
        app.add_middleware(
            Gate,
            keys=self._keys,
            limit=RateLimit(config.rate),
            telemetry=self.telemetry,
            open_paths=_OPEN,
        )
        if config.allow_origin:
            app.add_middleware(
                CORSMiddleware,
                allow_origins=list(config.allow_origin),
                allow_methods=["GET", "POST", "PATCH", "DELETE"],
                allow_headers=["Authorization", "Content-Type"],
            )
        # A name that points here from elsewhere would let a foreign page ask in this one's name.
        hosts = list({*_THIS_MACHINE, *config.allow_host, config.host})
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
        app.add_exception_handler(RequestValidationError, respond_to_form)
        app.add_exception_handler(HTTPException, respond_to_http)
        for kind in (ApiError, ReclmError, TimeoutError):
            app.add_exception_handler(kind, respond_to_error)
        self._add_answers(app)
        self._add_catalogs(app)
        self._add_sessions(app)
        self._add_states(app)
        return app

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        self.worker.start()
        try:
            yield
        finally:
            await asyncio.to_thread(self.worker.close)

    def _add_answers(self, app: FastAPI) -> None:
        @app.post("/v1/chat/completions", responses=_PROBLEMS, response_model=ChatCompletion)
        async def chat(body: ChatRequest, request: Request) -> Response:
            """Continues a conversation, as OpenAI's chat completions do."""
            asked = await self._asked(body, request)
            try:
                pieces = self._pieces(asked)
                if not body.stream:
                    await _unless_gone(request, _exhausted(pieces))
                    self._keep(asked, request)
                    return JSONResponse(_completion(asked).model_dump())
                # An answer that cannot be begun is an error with a status of its own.
                first = await _unless_gone(request, anext(pieces, []))
            except BaseException:
                self.worker.cancel(asked.stream)
                raise
            return StreamingResponse(
                self._events(asked, first, pieces, request),
                media_type="text/event-stream",
                headers={"X-Accel-Buffering": "no"},
            )

        @app.post("/v1/recommendations", responses=_PROBLEMS)
        async def recommendations(body: RecommendationRequest, request: Request) -> Recommendations:
            """The items that follow a history, without any text."""
            self._check_question(body, body.k)
            if body.domain is None and len(self._domains) == 1:
                domain = next(iter(self._domains.values()))
            else:
                domain = self._domain(body.domain or "", "domain")
            version = domain.version
            recommender = version.recommender

            def answer() -> list[AnswerItem]:
                found = recommender.recommend(
                    body.history,
                    body.k,
                    body.exclude,
                    body.categories,
                    body.exclude_seen,
                    body.decode,
                )
                return [
                    AnswerItem(
                        id=one.item_id,
                        title=one.title,
                        categories=list(
                            version.catalog.item(version.catalog.row(one.item_id)).categories
                        ),
                        rank=one.rank,
                        score=one.score,
                    )
                    for one in found
                ]

            async with asyncio.timeout(self._config.timeout):
                items = await _unless_gone(request, self.worker.call(answer))
            return Recommendations(domain=domain.name, catalog_version=version.number, items=items)

        @app.get("/v1/models", responses=_PROBLEMS)
        async def models() -> Models:
            """The names that requests may give: the model alone, and with each domain."""
            name = self._config.name
            named = [Model(id=f"{name}/{domain}", domain=domain) for domain in self._domains]
            return Models(data=[Model(id=name), *named])

    def _add_catalogs(self, app: FastAPI) -> None:
        items_path = "/v1/catalogs/{domain}/items"

        @app.get("/v1/catalogs", responses=_PROBLEMS)
        async def catalogs() -> Catalogs:
            """All catalogs."""
            return Catalogs(catalogs=[_info(domain) for domain in self._domains.values()])

        @app.get("/v1/catalogs/{domain}", responses=_PROBLEMS)
        async def catalog(domain: str) -> CatalogInfo:
            """A catalog as it stands."""
            return _info(self._domain(domain))

        @app.get(items_path, responses=_PROBLEMS)
        async def items(
            domain: str,
            query: Annotated[str, Query(max_length=200)] = "",
            category: Annotated[str, Query(max_length=512)] = "",
            limit: Annotated[int, Query(ge=1, le=_MOST_LISTED)] = 20,
            offset: Annotated[int, Query(ge=0, le=1 << 31)] = 0,
        ) -> CatalogPage:
            """Items of a catalog whose titles hold the words of a query; all without one."""
            found = self._domain(domain)
            version = found.version
            rows = await asyncio.to_thread(self._search, found, version, query)
            if category:
                members = set(version.catalog.category_rows(category).tolist())
                rows = [row for row in rows if row in members]
            shown = [_item(version, row) for row in rows[offset : offset + limit]]
            return CatalogPage(domain=domain, version=version.number, total=len(rows), items=shown)

        @app.get(items_path + "/{item_id:path}", responses=_PROBLEMS)
        async def item(domain: str, item_id: str) -> CatalogItem:
            """One item."""
            version = self._domain(domain).version
            _check_item(version, item_id)
            return _item(version, version.catalog.row(item_id))

        @app.post(items_path, responses=_PROBLEMS)
        async def add(domain: str, body: NewCatalogItems, request: Request) -> Changed:
            """Adds items, or puts them in the place of those with their ids."""
            _check_admin(request)
            new = [
                NewItem(
                    Item(one.id, one.title, one.description, tuple(dict.fromkeys(one.categories))),
                    None if one.codes is None else tuple(one.codes),
                    None if one.vector is None else tuple(one.vector),
                )
                for one in body.items
            ]
            return self._changed(domain, await self._domain(domain).put(new))

        @app.post(items_path + "/remove", responses=_PROBLEMS)
        async def remove_several(domain: str, body: Removal, request: Request) -> Changed:
            """Removes several items at once."""
            _check_admin(request)
            found = self._domain(domain)
            for item_id in body.ids:
                _check_item(found.version, item_id)
            return self._changed(domain, await found.remove(body.ids))

        @app.delete(items_path + "/{item_id:path}", responses=_PROBLEMS)
        async def remove(domain: str, item_id: str, request: Request) -> Changed:
            """Removes an item."""
            _check_admin(request)
            found = self._domain(domain)
            _check_item(found.version, item_id)
            return self._changed(domain, await found.remove([item_id]))

        @app.patch(items_path + "/{item_id:path}", responses=_PROBLEMS)
        async def switch(domain: str, item_id: str, body: ItemSwitch, request: Request) -> Changed:
            """Lets an item be recommended, or not any longer."""
            _check_admin(request)
            found = self._domain(domain)
            _check_item(found.version, item_id)
            return self._changed(domain, await found.enable(item_id, enabled=body.enabled))

    def _add_sessions(self, app: FastAPI) -> None:
        @app.get("/v1/sessions/{name}", responses=_PROBLEMS)
        async def session(name: str, request: Request) -> dict[str, Any]:
            """A conversation that the server keeps."""
            messages = self._store().messages(request.state.key.name, name)
            if not messages:
                raise ApiError(404, "no such session", param="session", code="not_found")
            return {"session": name, "messages": messages}

        @app.delete("/v1/sessions/{name}", responses=_PROBLEMS)
        async def forget(name: str, request: Request) -> dict[str, Any]:
            """Forgets a conversation."""
            if not self._store().forget(request.state.key.name, name):
                raise ApiError(404, "no such session", param="session", code="not_found")
            return {"session": name, "deleted": True}

    def _add_states(self, app: FastAPI) -> None:
        @app.get("/healthz")
        async def healthz() -> dict[str, str]:
            """The process is alive."""
            return {"status": "ok"}

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

        if (_PAGE / "index.html").exists():

            @app.get("/", include_in_schema=False)
            async def page() -> FileResponse:
                return FileResponse(_PAGE / "index.html")

            app.mount("/page", StaticFiles(directory=_PAGE))

    async def _asked(self, body: ChatRequest, request: Request) -> _Asked:
        """Puts a conversation into the queue."""
        started = time.perf_counter()
        version = self._version(body)
        if body.session is not None:
            kept = self._store().messages(request.state.key.name, body.session)
            before = [ChatMessage.model_validate(message) for message in kept]
            body = body.model_copy(update={"messages": [*before, *body.messages]})
        self._check_conversation(body)
        recommender = self._plain if version is None else version.recommender
        letters = sum(len(message.text) for message in body.messages)

        def read() -> Any:
            return chat_request(
                body,
                recommender,
                items=version is not None,
                max_tokens=self._config.max_tokens,
            )

        asked = await asyncio.to_thread(read) if letters > _LONG else read()
        seconds = min(body.deadline or self._config.timeout, self._config.timeout)
        return _Asked(
            body,
            version,
            self.worker.submit(asked),
            Writer(recommender, body.stops),
            len(asked.prompt_ids),
            seconds,
            f"chatcmpl-{secrets.token_hex(12)}",
            int(time.time()),
            started,
        )

    async def _pieces(self, asked: _Asked) -> AsyncIterator[list[Piece]]:
        """The answer as it grows; once it has ended, or no one asks on, its place is free."""
        first = True
        try:
            async for events in asked.stream.batches(asked.seconds):
                pieces = asked.writer.feed(events)
                if pieces and first:
                    self.telemetry.first(time.perf_counter() - asked.started)
                    first = False
                if pieces:
                    yield pieces
                if asked.writer.finish_reason is not None:
                    break
        finally:
            self.worker.cancel(asked.stream)

    async def _events(
        self,
        asked: _Asked,
        first: list[Piece],
        pieces: AsyncIterator[list[Piece]],
        request: Request,
    ) -> AsyncIterator[str]:
        """The answer as server-sent events."""
        try:
            yield _event(_chunk(asked, {"role": "assistant", "content": ""}))
            for piece in first:
                yield _event(_piece_chunk(asked, piece))
            async for several in pieces:
                yield "".join(_event(_piece_chunk(asked, piece)) for piece in several)
            self._keep(asked, request)
            last = _chunk(asked, {}, asked.writer.finish_reason)
            yield _event(last)
            options = asked.body.stream_options
            if options is not None and options.include_usage:
                usage = _usage(asked).model_dump()
                yield _event(_chunk(asked, None) | {"choices": [], "usage": usage})
        except Exception as error:
            yield _event(api_error(error).body())
        finally:
            self.worker.cancel(asked.stream)
        yield "data: [DONE]\n\n"

    def _keep(self, asked: _Asked, request: Request) -> None:
        """Writes the conversation down, if the request named a session."""
        if asked.body.session is None:
            return
        writer = asked.writer
        said = [
            {"role": message.role, "content": message.text}
            | ({"items": [item.model_dump() for item in message.items]} if message.items else {})
            for message in asked.body.messages
        ]
        items = [{"id": i.id, "start": i.start, "end": i.end} for i in writer.items]
        answer = {"role": "assistant", "content": writer.text, "items": items}
        self._store().save(request.state.key.name, asked.body.session, [*said, answer])

    def _store(self) -> SessionStore:
        if self._sessions is None:
            raise ApiError(
                400, "session: this server keeps no conversations; send all messages",
                param="session", code="no_sessions",
            )  # fmt: skip
        return self._sessions

    def _version(self, body: ChatRequest) -> Version | None:
        """The catalog version a conversation sees; None for plain text."""
        name, _, of_model = body.model.partition("/")
        if name != self._config.name:
            raise ApiError(
                404, f"model: no model {body.model!r}; see /v1/models", param="model",
                code="model_not_found",
            )  # fmt: skip
        if of_model and body.domain not in (None, of_model):
            raise ApiError(400, "domain: the model's name says another", param="domain")
        if of_model:
            return self._domain(of_model, "model").version
        if body.domain is None:
            for field in ("history", "exclude", "categories", "k"):
                if getattr(body, field):
                    raise ApiError(
                        400, f"{field}: needs a domain to recommend from", param="domain",
                        code="domain_missing",
                    )  # fmt: skip
            return None
        return self._domain(body.domain, "domain").version

    def _domain(self, name: str, param: str = "domain") -> Domain:
        try:
            return self._domains[name]
        except KeyError:
            known = ", ".join(self._domains)
            message = f"{param}: no such catalog; expected one of {known}"
            raise ApiError(404, message, param=param, code="domain_not_found") from None

    def _check_question(self, body: ItemQuestion, k: int | None) -> None:
        limits = {
            "history": self._config.max_history,
            "exclude": self._config.max_history,
            "categories": self._config.max_history,
        }
        for field, limit in limits.items():
            if (count := len(getattr(body, field))) > limit:
                raise ApiError(
                    400, f"{field}: {count} entries; expected {limit} at most", param=field
                )
        if k is not None and k > self._config.max_k:
            raise ApiError(400, f"k: found {k}; expected {self._config.max_k} at most", param="k")

    def _check_conversation(self, body: ChatRequest) -> None:
        config = self._config
        self._check_question(body, body.k)
        if len(body.messages) > config.max_messages:
            raise ApiError(
                400, f"messages: {len(body.messages)}; expected {config.max_messages} at most",
                param="messages",
            )  # fmt: skip
        letters = sum(len(message.text) for message in body.messages)
        if letters > config.max_characters:
            raise ApiError(
                400, f"messages: {letters} characters; expected {config.max_characters} at most",
                param="messages",
            )  # fmt: skip
        for field in ("max_tokens", "max_completion_tokens"):
            if (getattr(body, field) or 0) > config.max_tokens:
                raise ApiError(400, f"{field}: expected {config.max_tokens} at most", param=field)

    def _search(self, domain: Domain, version: Version, query: str) -> list[int]:
        known = self._searches.get(domain.name)
        if known is None or known[0] is not version:
            known = self._searches[domain.name] = (version, TitleSearch(version.catalog))
        return known[1].rows(query)

    def _changed(self, domain: str, version: Version) -> Changed:
        return Changed(domain=domain, version=version.number)


async def _unless_gone(request: Request, work: Awaitable[_T]) -> _T:
    """Waits for something, and gives it up when the client has gone.

    Raises:
        ApiError: It has; no one reads this.
    """
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ApiError(499, "the client has gone")
        return working.result()
    finally:
        working.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _exhausted(pieces: AsyncIterator[list[Piece]]) -> None:
    async for _ in pieces:
        pass


def _completion(asked: _Asked) -> ChatCompletion:
    writer = asked.writer
    message = AnswerMessage(content=writer.text, items=writer.items)
    choice = Choice(message=message, finish_reason=writer.finish_reason or "length")
    return ChatCompletion(
        id=asked.answer_id,
        created=asked.created,
        model=asked.body.model,
        choices=[choice],
        usage=_usage(asked),
        items=writer.items,
        domain=_domain_of(asked),
        catalog_version=None if asked.version is None else asked.version.number,
    )


def _domain_of(asked: _Asked) -> str | None:
    return None if asked.version is None else asked.version.catalog.name


def _usage(asked: _Asked) -> Usage:
    written = asked.writer.tokens
    return Usage(
        prompt_tokens=asked.prompt_tokens,
        completion_tokens=written,
        total_tokens=asked.prompt_tokens + written,
    )


def _chunk(
    asked: _Asked, delta: dict[str, Any] | None, finish_reason: str | None = None
) -> dict[str, Any]:
    return {
        "id": asked.answer_id,
        "object": "chat.completion.chunk",
        "created": asked.created,
        "model": asked.body.model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
        "catalog_version": None if asked.version is None else asked.version.number,
    }


def _piece_chunk(asked: _Asked, piece: Piece) -> dict[str, Any]:
    chunk = _chunk(asked, {"content": piece.text})
    return chunk if piece.item is None else chunk | {"items": [piece.item.model_dump()]}


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


def _info(domain: Domain) -> CatalogInfo:
    version = domain.version
    return CatalogInfo(
        domain=domain.name,
        version=version.number,
        items=version.catalog.num_live,
        categories=list(version.catalog.categories),
    )


def _item(version: Version, row: int) -> CatalogItem:
    item = version.catalog.item(row)
    return CatalogItem(
        id=item.item_id,
        title=item.title,
        categories=list(item.categories),
        description=item.description,
        enabled=row not in version.recommender.disabled,
    )


def _check_item(version: Version, item_id: str) -> None:
    if not version.catalog.has(item_id):
        raise ApiError(404, "item: no item of this id in the catalog", param="id", code="not_found")


def _check_admin(request: Request) -> None:
    if not request.state.key.admin:
        raise ApiError(403, "this key may not change catalogs", code="not_admin")
