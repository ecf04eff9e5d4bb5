"""Conversations over HTTP: whole, as a stream, and the items without any prose."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from incatalog.decoding.request import Request as EngineRequest
from incatalog.errors import ContextLengthError
from incatalog.recommender.answer import Recommendation
from incatalog.recommender.recommender import Recommender
from incatalog.serving.catalogs import Domain, Version
from incatalog.serving.chat_answer import Piece, Writer, answer_item, chat_request, check_items
from incatalog.serving.engine_telemetry import Telemetry
from incatalog.serving.problems import PROBLEMS, ApiError, api_error, find_domain
from incatalog.serving.schemas import (
    AnswerMessage,
    ChatCompletion,
    ChatMessage,
    ChatRequest,
    Choice,
    ItemQuestion,
    RecommendationRequest,
    Recommendations,
    Usage,
)
from incatalog.serving.sessions import SessionStore
from incatalog.serving.settings import ServeSettings
from incatalog.serving.turns import Turns, shortened, written
from incatalog.serving.worker import Stream, Worker

# Letters beyond which a conversation is read off the event loop.
_LONG = 10_000
# Of the context is kept free for the answer, where a conversation that is kept has to be shortened.
_ANSWERS_SHARE = 4
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
        owner: Whose session it is a turn of.
        left_out: Messages of the session that were left out, as they were too many.
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
    owner: str
    left_out: int


class Conversations:
    """Answers conversations and questions about items.

    Args:
        recommender: The model, for text without items.
        domains: Catalogs by their names.
        settings: Limits and names.
        worker: The thread of the model.
        telemetry: Counters.
        sessions: Keeps conversations; None for none.
    """

    def __init__(
        self,
        recommender: Recommender,
        domains: Mapping[str, Domain],
        settings: ServeSettings,
        worker: Worker,
        telemetry: Telemetry,
        sessions: SessionStore | None,
    ) -> None:
        self._plain = recommender
        self._domains = domains
        self._config = settings
        self._worker, self._telemetry = worker, telemetry
        self._turns = Turns(sessions)

    def add_to(self, app: FastAPI) -> None:
        """Adds the endpoints to an application."""

        @app.post("/v1/chat/completions", responses=PROBLEMS, response_model=ChatCompletion)
        async def chat(body: ChatRequest, request: Request) -> Response:
            """Continues a conversation, as OpenAI's chat completions do."""
            owner = request.state.key.name
            kept = [] if body.session is None else await self._turns.begin(owner, body.session)
            try:
                asked = await self._asked(body, kept, owner)
            except BaseException:
                self._end_turn(owner, body)
                raise
            try:
                pieces = self._pieces(asked)
                if not body.stream:
                    await _unless_gone(request, _exhausted(pieces))
                    await self._keep(asked)
                    self._end(asked)
                    return JSONResponse(_completion(asked).model_dump())
                # An answer that cannot be begun is an error with a status of its own.
                first = await _unless_gone(request, anext(pieces, []))
            except BaseException:
                self._end(asked)
                raise
            return _Events(self._events(asked, first, pieces), partial(self._end, asked))

        @app.post("/v1/recommendations", responses=PROBLEMS)
        async def recommendations(body: RecommendationRequest, request: Request) -> Recommendations:
            """The items that follow a history, without any text."""
            self._check_question(body, body.k)
            if body.domain is None and len(self._domains) == 1:
                domain = next(iter(self._domains.values()))
            else:
                domain = find_domain(self._domains, body.domain or "")
            version = domain.version
            check_items(body, version.catalog)
            if body.decode == "list":
                found = await _unless_gone(request, self._listed(body, version.recommender))
            else:
                async with asyncio.timeout(self._config.timeout):
                    found = await _unless_gone(request, self._ranked(body, version.recommender))
            items = [answer_item(version.catalog, one) for one in found]
            return Recommendations(domain=domain.name, catalog_version=version.number, items=items)

    def add_sessions_to(self, app: FastAPI) -> None:
        """Adds the endpoints for conversations that are kept."""
        self._turns.add_to(app)

    async def _listed(
        self, body: RecommendationRequest, recommender: Recommender
    ) -> list[Recommendation]:
        """A list that is written beside the other answers.

        Raises:
            NoItemLeftError: The exclusions leave no item at all.
        """
        history = recommender.catalog.rows(body.history).tolist()
        excluded = recommender.excluded(body.exclude, body.categories, history, body.exclude_seen)
        stream = self._worker.submit(recommender.list_request(history, body.k, excluded))
        try:
            text = recommender.answer_text()
            async for events in stream.batches(self._config.timeout):
                for event in events:
                    deque(text.feed(event), maxlen=0)
            return list(text.answer().items)
        finally:
            self._worker.cancel(stream)

    async def _ranked(
        self, body: RecommendationRequest, recommender: Recommender
    ) -> list[Recommendation]:
        """The items of the first place, by their exact probability.

        Raises:
            NoItemLeftError: The exclusions leave no item at all.
        """
        history = recommender.catalog.rows(body.history).tolist()
        excluded = recommender.excluded(body.exclude, body.categories, history, body.exclude_seen)
        slot = recommender.slot(history, body.k, excluded)
        found = recommender.ranking(await self._worker.rank(recommender.beam, slot, body.k))
        if not found:
            raise recommender.items.no_item_left()
        return found

    async def _asked(self, body: ChatRequest, kept: list[ChatMessage], owner: str) -> _Asked:
        """Puts a conversation, behind what is kept of it, into the queue."""
        started = time.perf_counter()
        version = self._version(body)
        self._check_conversation(body)
        recommender = self._plain if version is None else version.recommender
        read = partial(self._read, body, kept, recommender, items=version is not None)
        characters = body.characters + sum(len(message.text) for message in kept)
        body, asked, left_out = await asyncio.to_thread(read) if characters > _LONG else read()
        seconds = min(body.deadline or self._config.timeout, self._config.timeout)
        return _Asked(
            body,
            version,
            self._worker.submit(asked),
            Writer(recommender, body.stops),
            len(asked.prompt_ids),
            seconds,
            f"chatcmpl-{secrets.token_hex(12)}",
            int(time.time()),
            started,
            owner,
            left_out,
        )

    def _read(
        self,
        body: ChatRequest,
        kept: list[ChatMessage],
        recommender: Recommender,
        *,
        items: bool,
    ) -> tuple[ChatRequest, EngineRequest, int]:
        """The whole conversation, what the engine is asked for, and how much was left out."""
        settings = self._config
        read = partial(
            chat_request, recommender=recommender, items=items, max_tokens=settings.max_tokens
        )
        wanted = body.max_completion_tokens or body.max_tokens or settings.max_tokens
        context = recommender.prompts.context_length

        def behind(left: Sequence[ChatMessage]) -> ChatRequest:
            return body.model_copy(update={"messages": [*left, *body.messages]})

        def fits(left: Sequence[ChatMessage]) -> bool:
            whole = behind(left)
            if len(whole.messages) > settings.max_messages:
                return False
            if whole.characters > settings.max_characters:
                return False
            try:
                prompt = len(read(whole).prompt_ids)
            except ContextLengthError:
                return False
            # A prompt that fits and leaves no room for an answer is of no use.
            room = 0 if context is None else min(wanted, context // _ANSWERS_SHARE)
            return context is None or prompt + room <= context

        left, left_out = shortened(kept, fits)
        whole = behind(left)
        return whole, read(whole), left_out

    async def _pieces(self, asked: _Asked) -> AsyncIterator[list[Piece]]:
        """The answer as it grows; once it has ended, or no one asks on, its place is free."""
        first = True
        try:
            async for events in asked.stream.batches(asked.seconds):
                pieces = asked.writer.feed(events)
                if pieces and first:
                    self._telemetry.first(time.perf_counter() - asked.started)
                    first = False
                if pieces:
                    yield pieces
                if asked.writer.finish_reason is not None:
                    break
        finally:
            self._worker.cancel(asked.stream)

    async def _events(
        self,
        asked: _Asked,
        first: list[Piece],
        pieces: AsyncIterator[list[Piece]],
    ) -> AsyncIterator[str]:
        """The answer as server-sent events."""
        try:
            yield _event(_chunk(asked, {"role": "assistant", "content": ""}))
            for piece in first:
                yield _event(_piece_chunk(asked, piece))
            async for several in pieces:
                yield "".join(_event(_piece_chunk(asked, piece)) for piece in several)
            await self._keep(asked)
            self._end(asked)
            last = _chunk(asked, {}, asked.writer.finish_reason)
            yield _event(last | ({"left_out": asked.left_out} if asked.left_out else {}))
            options = asked.body.stream_options
            if options is not None and options.include_usage:
                usage = _usage(asked).model_dump()
                yield _event(_chunk(asked, None) | {"choices": [], "usage": usage})
        except Exception as error:
            yield _event(api_error(error).body())
        yield "data: [DONE]\n\n"

    def _end(self, asked: _Asked) -> None:
        """Frees the answer's place, and lets the next turn of its session begin."""
        self._worker.cancel(asked.stream)
        self._end_turn(asked.owner, asked.body)

    def _end_turn(self, owner: str, body: ChatRequest) -> None:
        if body.session is not None:
            self._turns.end(owner, body.session)

    async def _keep(self, asked: _Asked) -> None:
        """Writes the conversation down, if the request named a session."""
        if asked.body.session is None:
            return
        items = [{"id": i.id, "start": i.start, "end": i.end} for i in asked.writer.items]
        answer = {"role": "assistant", "content": asked.writer.text, "items": items}
        said = [written(message) for message in asked.body.messages]
        await self._turns.save(asked.owner, asked.body.session, [*said, answer])

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
            return find_domain(self._domains, of_model, "model").version
        if body.domain is None:
            for field in ("history", "exclude", "categories", "k"):
                if getattr(body, field):
                    raise ApiError(
                        400, f"{field}: needs a domain to recommend from", param="domain",
                        code="domain_missing",
                    )  # fmt: skip
            return None
        return find_domain(self._domains, body.domain).version

    def _check_question(self, body: ItemQuestion, k: int | None) -> None:
        limit = self._config.max_history
        for field in ("history", "exclude", "categories"):
            if (count := len(getattr(body, field))) > limit:
                raise ApiError(
                    400, f"{field}: {count} entries; expected {limit} at most", param=field
                )
        if k is not None and k > self._config.max_k:
            raise ApiError(400, f"k: found {k}; expected {self._config.max_k} at most", param="k")

    def _check_conversation(self, body: ChatRequest) -> None:
        settings = self._config
        self._check_question(body, body.k)
        if len(body.messages) > settings.max_messages:
            raise ApiError(
                400, f"messages: {len(body.messages)}; expected {settings.max_messages} at most",
                param="messages",
            )  # fmt: skip
        characters = body.characters
        if characters > settings.max_characters:
            raise ApiError(
                400,
                f"messages: {characters} characters; expected {settings.max_characters} at most",
                param="messages",
            )  # fmt: skip
        for field in ("max_tokens", "max_completion_tokens"):
            if (getattr(body, field) or 0) > settings.max_tokens:
                raise ApiError(400, f"{field}: expected {settings.max_tokens} at most", param=field)


class _Events(StreamingResponse):
    """Server-sent events.

    Args:
        events: Each as it is sent.
        end: Called at their end, which is where the client has gone too.
    """

    def __init__(self, events: AsyncIterator[str], end: Callable[[], None]) -> None:
        super().__init__(
            events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
        )
        self._end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends them."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._end()


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
        left_out=asked.left_out,
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
