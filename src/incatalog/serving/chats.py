"""Conversations that are being answered: planned, grown side by side, and kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from incatalog.assistant.assistant import Assistant
from incatalog.assistant.planning import Plan
from incatalog.assistant.shortening import last_turn
from incatalog.assistant.voices import voice_of
from incatalog.constraint.weights import ItemWeights
from incatalog.recommender.recommender import Recommender
from incatalog.serving.any_worker import AnyWorker
from incatalog.serving.catalogs import Domain, Version
from incatalog.serving.chat_answer import Piece, check_items, enquiry
from incatalog.serving.chat_forms import ChatAnswer
from incatalog.serving.chat_schemas import ChatRequest
from incatalog.serving.engine_telemetry import EngineTelemetry
from incatalog.serving.guiding import Guiding
from incatalog.serving.limits import Limits
from incatalog.serving.message_schemas import ChatMessage
from incatalog.serving.problems import ApiError
from incatalog.serving.settings import ServeSettings
from incatalog.serving.turns import Turns, written

_LONG = 10_000  # letters beyond which a conversation is read off the event loop
_Messages = Sequence[ChatMessage]


@dataclass
class Chats:
    """Answers conversations, whatever the form they came in."""

    plain: Recommender  # answers where no domain is named
    domains: Mapping[str, Domain]
    settings: ServeSettings
    worker: AnyWorker
    telemetry: EngineTelemetry
    turns: Turns
    guiding: Guiding

    def __post_init__(self) -> None:
        self._limits = Limits(self.settings, self.domains)
        self._voice = voice_of(self.settings.voice, self.plain.backbone)
        self._plain = Assistant(self.plain, self._voice)
        # One for each version of a catalog.
        self._assistants: WeakKeyDictionary[Recommender, Assistant] = WeakKeyDictionary()

    async def begin(self, body: ChatRequest, owner: str, taken: ExitStack) -> ChatAnswer:
        """Plans an answer; its place, and the turn of its session, are free when `taken` closes."""
        kept: _Messages = []
        if body.session is not None:
            kept = await self.turns.begin(owner, body.session, taken)
        asked = await self._asked(body, kept, owner)
        taken.callback(self._give_up, asked)
        return asked

    async def _asked(self, body: ChatRequest, kept: _Messages, owner: str) -> ChatAnswer:
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
        self, body: ChatRequest, plan: Plan, model: Recommender
    ) -> tuple[ItemWeights | None, bool | None]:
        """What weighs the items of an answer, and whether a guide counts."""
        if not plan.names_items:
            return None, None if model.guide is None else False
        steer = None if plan.wish is None else plan.wish.log_weights
        how: Any = {"kind": "list", "steer": steer}
        weighed = await self.guiding.weigh(model, body, plan.history, plan.excluded, **how)
        return weighed.weights, weighed.guided

    def _planned(
        self, body: ChatRequest, kept: _Messages, version: Version | None
    ) -> tuple[Assistant, ChatRequest, Plan]:
        """The assistant, the conversation as far as it is looked at, and the plan of the answer."""
        whole = body.model_copy(update={"messages": [*kept, *body.messages]})

        def left(places: Sequence[int]) -> ChatRequest:
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

    async def pieces(self, asked: ChatAnswer) -> AsyncIterator[list[Piece]]:
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

    async def grown(
        self,
        asked: ChatAnswer,
        first: list[Piece],
        pieces: AsyncIterator[list[Piece]],
        end: Callable[[], None],
    ) -> AsyncIterator[list[Piece]]:
        """All of an answer that has begun; at its end it is kept, and `end` is called."""
        if first:
            yield first
        async for several in pieces:
            yield several
        await self.keep(asked)
        end()

    async def keep(self, asked: ChatAnswer) -> None:
        """Writes the conversation down, if the request named a session."""
        if asked.body.session is None:
            return
        items = [{"id": i.id, "start": i.start, "end": i.end} for i in asked.writer.items]
        answer = {"role": "assistant", "content": asked.writer.text, "items": items}
        said = [written(message) for message in asked.body.messages]
        await self.turns.save(asked.owner, asked.body.session, [*said, answer])
