"""Conversations over HTTP: whole, as a stream, and the items without any prose."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from incatalog.assistant.assistant import Assistant
from incatalog.assistant.planning import Plan
from incatalog.assistant.shortening import last_turn
from incatalog.assistant.voices import voice_of
from incatalog.config import ItemDecode
from incatalog.constraint.excluded import ExcludedItems
from incatalog.constraint.weights import ItemWeights
from incatalog.decoding.request import Request as EngineRequest
from incatalog.decoding.request import Slot
from incatalog.recommender.answer import Recommendation
from incatalog.recommender.guide import Kind
from incatalog.recommender.recommender import Recommender
from incatalog.serving import schemas as forms
from incatalog.serving.any_worker import AnyWorker
from incatalog.serving.catalogs import Domain, Version
from incatalog.serving.chat_answer import Piece, answer_item, check_items, enquiry
from incatalog.serving.chat_forms import (
    ChatAnswer,
    completion,
    event_line,
    first_chunk,
    last_chunk,
    piece_chunk,
    usage_chunk,
)
from incatalog.serving.engine_telemetry import EngineTelemetry
from incatalog.serving.guiding import Guiding
from incatalog.serving.limits import Limits
from incatalog.serving.problems import PROBLEMS, ApiError, api_error, find_domain
from incatalog.serving.sessions import SessionStore
from incatalog.serving.settings import ServeSettings
from incatalog.serving.turns import Turns, written

_LONG = 10_000  # letters beyond which a conversation is read off the event loop
_T = TypeVar("_T")
_Messages = Sequence[forms.ChatMessage]


@dataclass
class Conversations:
    """Answers conversations and questions about items."""

    plain: Recommender  # answers where no domain is named
    domains: Mapping[str, Domain]
    settings: ServeSettings
    worker: AnyWorker
    telemetry: EngineTelemetry
    sessions: SessionStore | None
    guiding: Guiding

    def __post_init__(self) -> None:
        self._limits = Limits(self.settings, self.domains)
        self._voice = voice_of(self.settings.voice, self.plain.backbone)
        self._plain = Assistant(self.plain, self._voice)
        # One for each version of a catalog.
        self._assistants: WeakKeyDictionary[Recommender, Assistant] = WeakKeyDictionary()
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
                taken.callback(self._give_up, asked)
                pieces = self._pieces(asked)
                if not body.stream:
                    await _unless_gone(request, _exhausted(pieces))
                    await self._keep(asked)
                    return JSONResponse(completion(asked).model_dump())
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
            version = await self._limits.version_of(domain, body)
            model, catalog = version.recommender, version.catalog
            unknown = check_items(body, catalog)
            history = catalog.rows(filter(catalog.has, body.history)).tolist()
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
                unknown=unknown,
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
        usual = "decode" not in body.model_fields_set
        if usual and self.worker.item_decode(weighed.weights) == "token":
            # The default where an engine does not search; what is asked for, it refuses.
            greedy = body.model_copy(update={"decode": "greedy"})
            return await self._found(model, greedy, history, excluded)
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

    async def _asked(self, body: forms.ChatRequest, kept: _Messages, owner: str) -> ChatAnswer:
        """Plans the answer to a conversation, with what is kept of it."""
        started, messages = time.perf_counter(), len(body.messages)
        version = await self._limits.version(body)
        self._limits.check_bounds(body)
        planned = partial(self._planned, body, kept, version)
        characters = body.characters + sum(len(message.text) for message in kept)
        # Reading a catalog's names or a long conversation takes a while.
        apart = version is not None or characters > _LONG
        assistant, body, plan = await asyncio.to_thread(planned) if apart else planned()
        left_out = len(kept) + messages - len(plan.places)
        guided = None
        weights = None
        if version is not None:
            seconds = self.settings.timeout
            async with asyncio.timeout(min(body.deadline or seconds, seconds)):
                weights, guided = await self._weighed(body, plan, version.recommender)
        if plan.request is not None and "item_decode" not in body.model_fields_set:
            usual = replace(plan.request, item_decode=self.worker.item_decode(weights))
            plan = replace(plan, request=usual)
        script = assistant.script(plan, weights)
        known = body, version, assistant, plan, script
        return ChatAnswer(*known, guided, started, owner, left_out)

    async def _weighed(
        self, body: forms.ChatRequest, plan: Plan, model: Recommender
    ) -> tuple[ItemWeights | None, bool | None]:
        """What weighs the items of an answer, and whether a guide counts."""
        if not plan.names_items:
            return None, None if model.guide is None else False
        steer = None if plan.wish is None else plan.wish.log_weights
        how: Any = {"kind": "list", "steer": steer}
        weighed = await self.guiding.weigh(model, body, plan.history, plan.excluded, **how)
        return weighed.weights, weighed.guided

    def _planned(
        self, body: forms.ChatRequest, kept: _Messages, version: Version | None
    ) -> tuple[Assistant, forms.ChatRequest, Plan]:
        """The assistant, the conversation as far as it is looked at, and the plan of the answer."""
        whole = body.model_copy(update={"messages": [*kept, *body.messages]})

        def left(places: Sequence[int]) -> forms.ChatRequest:
            return body.model_copy(update={"messages": [whole.messages[one] for one in places]})

        def within(places: Sequence[int]) -> bool:
            try:
                self._limits.check_conversation(left(places))
            except ApiError:
                return False
            return True

        # What is said last is looked at whatever its length; the rest only as far as it fits.
        roles = [message.role for message in whole.messages]
        self._limits.check_conversation(left(range(last_turn(roles), len(roles))))
        if version is None:
            assistant = self._plain
            plan = assistant.plain(enquiry(whole, None, self.settings), within)
        else:
            assistant = self._assistant(version.recommender)
            check_items(body, version.catalog)
            plan = assistant.plan(enquiry(whole, version.catalog, self.settings), within)
        return assistant, left(plan.places), plan

    def _assistant(self, model: Recommender) -> Assistant:
        """The assistant of a catalog's version, made once."""
        found = self._assistants.get(model)
        if found is None:
            found = self._assistants[model] = Assistant(model, self._voice)
        return found

    def _give_up(self, asked: ChatAnswer) -> None:
        for stream in asked.streams:
            self.worker.cancel(stream)

    async def _pieces(self, asked: ChatAnswer) -> AsyncIterator[list[Piece]]:
        """The answer as it grows; its place is free when it ends or is not read any more."""
        first, seconds = True, self.settings.timeout
        clock = asyncio.get_running_loop().time
        end = clock() + min(asked.body.deadline or seconds, seconds)
        try:
            for pieces in asked.begin():
                yield pieces
            while not asked.is_over() and (requests := asked.script.take_requests()):
                # All of them grow side by side, and are told one after the other.
                streams = [self.worker.submit(request) for request in requests]
                asked.streams += streams
                for stream in streams:
                    async for events in stream.batches(end - clock()):
                        if pieces := asked.feed(events):
                            if first:
                                waited = time.perf_counter() - asked.started
                                self.telemetry.first_seconds.observe(waited)
                            first = False
                            yield pieces
                        if asked.is_over():
                            break
                    if asked.is_over():
                        break
            if pieces := await asyncio.to_thread(asked.end):
                yield pieces
        finally:
            self._give_up(asked)

    async def _events(
        self,
        asked: ChatAnswer,
        first: list[Piece],
        pieces: AsyncIterator[list[Piece]],
        end: Callable[[], None],
    ) -> AsyncIterator[str]:
        """The answer as server-sent events; `end` lets the next turn of the session begin."""
        try:
            yield event_line(first_chunk(asked))
            for piece in first:
                yield event_line(piece_chunk(asked, piece))
            async for several in pieces:
                yield "".join(event_line(piece_chunk(asked, piece)) for piece in several)
            await self._keep(asked)
            end()
            yield event_line(last_chunk(asked))
            options = asked.body.stream_options
            if options is not None and options.include_usage:
                yield event_line(usage_chunk(asked))
        except Exception as error:
            yield event_line(api_error(error).body())
        yield "data: [DONE]\n\n"

    async def _keep(self, asked: ChatAnswer) -> None:
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
