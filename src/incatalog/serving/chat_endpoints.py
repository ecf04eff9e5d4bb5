"""Conversations over HTTP: whole, as a stream, and the items without any prose."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from incatalog.config import ItemDecode
from incatalog.constraint.excluded import ExcludedItems
from incatalog.decoding.request import Request as EngineRequest
from incatalog.decoding.request import Slot
from incatalog.errors import ContextLengthError
from incatalog.recommender.answer import Recommendation
from incatalog.recommender.guide import Kind
from incatalog.recommender.prompts import weighed_request
from incatalog.recommender.recommender import Recommender
from incatalog.serving import schemas as forms
from incatalog.serving.catalogs import Domain, Version
from incatalog.serving.chat_answer import (
    Piece,
    Writer,
    answer_item,
    chat_request,
    check_items,
    named_items,
)
from incatalog.serving.engine_telemetry import EngineTelemetry
from incatalog.serving.guiding import Guiding
from incatalog.serving.limits import Limits
from incatalog.serving.problems import PROBLEMS, ApiError, api_error, find_domain
from incatalog.serving.sessions import SessionStore
from incatalog.serving.settings import ServeSettings
from incatalog.serving.turns import Turns, shortened, written
from incatalog.serving.worker import Stream, Worker

_LONG = 10_000  # letters beyond which a conversation is read off the event loop
# Part of the context that is kept free for the answer where a kept conversation is shortened.
_ANSWERS_SHARE = 4
_T = TypeVar("_T")
_Messages = Sequence[forms.ChatMessage]


@dataclass(frozen=True)
class _Asked:
    """A conversation that is being answered."""

    body: forms.ChatRequest
    version: Version | None  # the catalog it sees; None for plain text
    stream: Stream
    writer: Writer
    guided: bool | None  # whether a guide counts; None where there is none
    started: float  # by the clock that measures
    owner: str  # of the session it is a turn of
    left_out: int  # messages of the session that were too many
    answer_id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))


@dataclass
class Conversations:
    """Answers conversations and questions about items."""

    plain: Recommender  # answers where no domain is named
    domains: Mapping[str, Domain]
    settings: ServeSettings
    worker: Worker
    telemetry: EngineTelemetry
    sessions: SessionStore | None
    guiding: Guiding

    def __post_init__(self) -> None:
        self._limits = Limits(self.settings, self.domains)
        self._turns = Turns(self.sessions)

    def add_to(self, app: FastAPI) -> None:
        """Adds the endpoints to an application."""

        @app.post("/v1/chat/completions", responses=PROBLEMS, response_model=forms.ChatCompletion)
        async def chat(body: forms.ChatRequest, request: Request) -> Response:
            """Continues a conversation, as OpenAI's chat completions do."""
            owner = request.state.key.name
            with ExitStack() as taken:
                kept: _Messages = []
                if body.session is not None:
                    kept = await self._turns.begin(owner, body.session, taken)
                asked = await self._asked(body, kept, owner)
                taken.callback(self.worker.cancel, asked.stream)
                pieces = self._pieces(asked)
                if not body.stream:
                    await _unless_gone(request, _exhausted(pieces))
                    await self._keep(asked)
                    return JSONResponse(_completion(asked).model_dump())
                # An answer that cannot be begun is an error with a status of its own.
                first = await _unless_gone(request, anext(pieces, []))
                end = taken.pop_all().close
            return _Events(self._events(asked, first, pieces, end), end)

        @app.post("/v1/recommendations", responses=PROBLEMS)
        async def recommendations(
            body: forms.RecommendationRequest, request: Request
        ) -> forms.Recommendations:
            """The items that follow a history, without any text."""
            self._limits.check_question(body, body.k)
            if body.domain is None and len(self.domains) == 1:
                domain = next(iter(self.domains.values()))
            else:
                domain = find_domain(self.domains, body.domain or "")
            version = domain.version
            model, catalog = version.recommender, version.catalog
            check_items(body, catalog)
            history = catalog.rows(body.history).tolist()
            rules = body.exclude, body.categories, history, body.exclude_seen, body.conditions
            # A field that was not asked about before is looked up for all items.
            excluded = await asyncio.to_thread(model.excluded, *rules)
            finding = self._found(model, body, history, excluded)
            async with asyncio.timeout(self.settings.timeout):
                found, guided = await _unless_gone(request, finding)
            return forms.Recommendations(
                domain=domain.name,
                catalog_version=version.number,
                guided=guided,
                items=[answer_item(catalog, one) for one in found],
            )

        self._turns.add_to(app)

    async def _found(
        self,
        model: Recommender,
        body: forms.RecommendationRequest,
        history: Sequence[int],
        excluded: ExcludedItems,
    ) -> tuple[list[Recommendation], bool | None]:
        """The items, and whether a guide counted."""
        kind: Kind = "ranking" if body.decode == "beam" else "list"
        weighed = await self.guiding.weigh(model, body, history, excluded, kind)
        how: Any = {"excluded": excluded, "weights": weighed.weights}
        if kind == "ranking":
            found = await self._ranked(model, model.slot(history, body.k, **how), body.k)
        else:
            by: ItemDecode = "search" if body.decode == "list" else "token"
            asked = model.list_request(history, body.k, item_decode=by, **how)
            found = await self._listed(model, asked)
        return found, weighed.guided

    async def _listed(self, model: Recommender, asked: EngineRequest) -> list[Recommendation]:
        """A list that is written beside the other answers."""
        stream = self.worker.submit(asked)
        try:
            text = model.answer_text()
            async for events in stream.batches(self.settings.timeout):
                for event in events:
                    deque(text.feed(event), maxlen=0)
            return list(text.answer().items)
        finally:
            self.worker.cancel(stream)

    async def _ranked(self, model: Recommender, slot: Slot, k: int) -> list[Recommendation]:
        """The items of the first place, by their exact probability."""
        found = model.ranking(await self.worker.rank(model.beam, slot, k))
        if not found:
            raise model.items.no_item_left()
        return found

    async def _asked(self, body: forms.ChatRequest, kept: _Messages, owner: str) -> _Asked:
        """Puts a conversation, with what is kept of it, into the queue."""
        started = time.perf_counter()
        version = self._limits.version(body)
        self._limits.check_conversation(body)
        model = self.plain if version is None else version.recommender
        read = partial(self._read, body, kept, model, items=version is not None)
        characters = body.characters + sum(len(message.text) for message in kept)
        long = characters > _LONG or bool(body.where)
        body, asked, left_out = await asyncio.to_thread(read) if long else read()
        guided = None
        if version is not None:
            seconds = self.settings.timeout
            async with asyncio.timeout(min(body.deadline or seconds, seconds)):
                asked, guided = await self._weighed(body, asked, model)
        stream, writer = self.worker.submit(asked), Writer(model, body.stops)
        return _Asked(body, version, stream, writer, guided, started, owner, left_out)

    async def _weighed(
        self, body: forms.ChatRequest, asked: EngineRequest, model: Recommender
    ) -> tuple[EngineRequest, bool | None]:
        """What the engine is asked for, with what weighs the items, and whether a guide counts."""
        history, excluded = model.catalog.rows(body.history).tolist(), asked.excluded
        if model.guide is not None and body.guide_weight != 0 and not history:
            # What the conversation names is the history.
            history = await asyncio.to_thread(named_items, body, model)
            seen = body.exclude, body.categories, history, body.exclude_seen, body.conditions
            excluded = await asyncio.to_thread(model.excluded, *seen)
        weighed = await self.guiding.weigh(model, body, history, excluded, "list")
        return weighed_request(asked, excluded, weighed.weights), weighed.guided

    def _read(
        self, body: forms.ChatRequest, kept: _Messages, model: Recommender, *, items: bool
    ) -> tuple[forms.ChatRequest, EngineRequest, int]:
        """The whole conversation, what the engine is asked for, and how much was left out."""
        most = self.settings.max_tokens
        read = partial(chat_request, recommender=model, items=items, max_tokens=most)
        wanted = body.max_completion_tokens or body.max_tokens or most
        context = model.prompts.context_length

        def behind(left: _Messages) -> forms.ChatRequest:
            return body.model_copy(update={"messages": [*left, *body.messages]})

        def fits(left: _Messages) -> bool:
            whole = behind(left)
            try:
                self._limits.check_conversation(whole)
                prompt = len(read(whole).prompt_ids)
            except (ApiError, ContextLengthError):
                return False
            # The answer needs room too.
            return context is None or prompt + min(wanted, context // _ANSWERS_SHARE) <= context

        left, left_out = shortened(kept, fits)
        whole = behind(left)
        return whole, read(whole), left_out

    async def _pieces(self, asked: _Asked) -> AsyncIterator[list[Piece]]:
        """The answer as it grows; its place is free when it ends or is not read any more."""
        first, seconds = True, self.settings.timeout
        try:
            async for events in asked.stream.batches(min(asked.body.deadline or seconds, seconds)):
                pieces = asked.writer.feed(events)
                if pieces and first:
                    self.telemetry.first_seconds.observe(time.perf_counter() - asked.started)
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
        end: Callable[[], None],
    ) -> AsyncIterator[str]:
        """The answer as server-sent events; `end` lets the next turn of the session begin."""
        try:
            yield _event(_chunk(asked, {"role": "assistant", "content": ""}))
            for piece in first:
                yield _event(_piece_chunk(asked, piece))
            async for several in pieces:
                yield "".join(_event(_piece_chunk(asked, piece)) for piece in several)
            await self._keep(asked)
            end()
            last = _chunk(asked, {}, asked.writer.finish_reason)
            yield _event(last | ({"left_out": asked.left_out} if asked.left_out else {}))
            options = asked.body.stream_options
            if options is not None and options.include_usage:
                usage = _usage(asked).model_dump()
                yield _event(_chunk(asked, None) | {"choices": [], "usage": usage})
        except Exception as error:
            yield _event(api_error(error).body())
        yield "data: [DONE]\n\n"

    async def _keep(self, asked: _Asked) -> None:
        """Writes the conversation down, if the request named a session."""
        if asked.body.session is None:
            return
        items = [{"id": i.id, "start": i.start, "end": i.end} for i in asked.writer.items]
        answer = {"role": "assistant", "content": asked.writer.text, "items": items}
        said = [written(message) for message in asked.body.messages]
        await self._turns.save(asked.owner, asked.body.session, [*said, answer])


class _Events(StreamingResponse):
    """Server-sent events; `end` is called at their end, or when the client has gone."""

    def __init__(self, events: AsyncIterator[str], end: Callable[[], None]) -> None:
        headers = {"X-Accel-Buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._end()


async def _unless_gone(request: Request, work: Awaitable[_T]) -> _T:
    """Waits for something, and gives it up when the client has gone."""

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(disconnected())
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ApiError(499, "the client has gone")
        return working.result()
    finally:
        working.cancel()
        gone.cancel()


async def _exhausted(pieces: AsyncIterator[list[Piece]]) -> None:
    async for _ in pieces:
        pass


def _completion(asked: _Asked) -> forms.ChatCompletion:
    writer, version = asked.writer, asked.version
    message = forms.AnswerMessage(content=writer.text, items=writer.items)
    choice = forms.Choice(message=message, finish_reason=writer.finish_reason or "length")
    return forms.ChatCompletion(
        id=asked.answer_id,
        created=asked.created,
        model=asked.body.model,
        choices=[choice],
        usage=_usage(asked),
        items=writer.items,
        domain=None if version is None else version.catalog.name,
        catalog_version=None if version is None else version.number,
        guided=asked.guided,
        left_out=asked.left_out,
    )


def _usage(asked: _Asked) -> forms.Usage:
    read, said = len(asked.stream.request.prompt_ids), asked.writer.tokens
    return forms.Usage(prompt_tokens=read, completion_tokens=said, total_tokens=read + said)


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
        "guided": asked.guided,
    }


def _piece_chunk(asked: _Asked, piece: Piece) -> dict[str, Any]:
    chunk = _chunk(asked, {"content": piece.text})
    return chunk if piece.item is None else chunk | {"items": [piece.item.model_dump()]}


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
