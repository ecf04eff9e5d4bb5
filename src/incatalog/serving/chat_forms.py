"""One answer of a conversation, as it grows and in the forms that clients get."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from incatalog.assistant.assistant import Assistant
from incatalog.assistant.planning import Plan
from incatalog.assistant.script import Script
from incatalog.decoding.events import Event
from incatalog.serving.answer_schemas import (
    AnswerFilter,
    AnswerMessage,
    ChatCompletion,
    Choice,
    ItemMention,
    Usage,
)
from incatalog.serving.catalogs import Version
from incatalog.serving.chat_answer import Piece, Writer
from incatalog.serving.chat_schemas import ChatRequest
from incatalog.serving.worker import Stream, count_tokens
from incatalog.steering.labels import phrases


@dataclass(eq=False)
class ChatAnswer:
    """A conversation that is being answered."""

    body: ChatRequest  # with the messages that are looked at
    version: Version | None  # the catalog it sees; None for plain text
    assistant: Assistant
    plan: Plan
    script: Script
    guided: bool | None  # whether a guide counts; None where there is none
    started: float  # by the clock that measures
    owner: str  # of the session it is a turn of
    left_out: int  # messages that were too many
    streams: list[Stream] = field(default_factory=list)
    mentions: list[ItemMention] = field(default_factory=list)
    invented: int = 0
    answer_id: str = field(default_factory=partial(secrets.token_hex, 12))
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.writer = Writer(self.assistant.recommender.catalog, self.body.stops)
        self._tokens = 0

    def is_over(self) -> bool:
        """Whether nothing more is said."""
        return self.script.over or self.writer.finish_reason is not None

    def begin(self) -> Iterator[list[Piece]]:
        """What is said before the model is asked."""
        if pieces := self.writer.feed(self.script.begin()):
            yield pieces

    def feed(self, events: Sequence[Event]) -> list[Piece]:
        """What some events of the model add."""
        pieces: list[Piece] = []
        for event in events:
            if not self.is_over():
                self._tokens += count_tokens(event)
                pieces += self.writer.feed(self.script.feed(event))
        return pieces

    def end(self) -> list[Piece]:
        """The rest, when all is said; what the text names is looked for."""
        ending, plan = self.script.ending, self.plan
        pieces = self.writer.end("length" if ending.reason == "length" else "stop")
        self.invented = ending.invented
        if self.version is not None:
            text, items = self.writer.text, self.writer.items
            spans = [(one.start, one.end) for one in items if one.start is not None and one.end]
            named = self.assistant.names(text, spans)
            if plan.act == "own":
                self.invented += sum(name.row is None for name in named)
            catalog = self.version.catalog
            self.mentions = [
                ItemMention(id=catalog.item(name.row).item_id, start=name.start, end=name.end)
                for name in named
                if name.row is not None
            ]
        if plan.act != "own":
            # Much of it was written without the model.
            encode = self.assistant.recommender.backbone.tokenizer.encode
            self._tokens = len(encode(self.writer.text, add_special_tokens=False))
        return pieces

    @property
    def usage(self) -> Usage:
        """Tokens that the model read, and those of the answer."""
        read = sum(len(stream.request.prompt_ids) for stream in self.streams)
        said = self._tokens
        return Usage(prompt_tokens=read, completion_tokens=said, total_tokens=read + said)

    @property
    def filters(self) -> list[AnswerFilter]:
        """What was understood as conditions."""
        return [
            AnswerFilter(
                id=chip.id,
                field=chip.condition.field,
                op=chip.condition.op,
                value=chip.condition.value,
                label=chip.label,
                phrase=label,
            )
            for label, chips in phrases(self.plan.filters)
            for chip in chips
        ]

    @property
    def lacking(self) -> list[str]:
        """What was limited or named and no item has."""
        wish = self.plan.wish
        return [] if wish is None else [*wish.lacking, *wish.unmentioned]


def facts(asked: ChatAnswer) -> dict[str, Any]:
    """What is known of an answer when all is said, beside what OpenAI's API has."""
    version = asked.version
    return {
        "items": asked.writer.items,
        "domain": None if version is None else version.catalog.name,
        "catalog_version": None if version is None else version.number,
        "guided": asked.guided,
        "left_out": asked.left_out,
        "filters": asked.filters,
        "lacking": asked.lacking,
        "unknown": list(asked.plan.unknown),
        "invented": asked.invented,
        "mentions": asked.mentions,
        "ignored": asked.body.ignored,
    }


def completion(asked: ChatAnswer) -> ChatCompletion:
    """An answer as a whole."""
    writer = asked.writer
    message = AnswerMessage(content=writer.text, items=writer.items)
    return ChatCompletion(
        id=f"chatcmpl-{asked.answer_id}",
        created=asked.created,
        model=asked.body.model,
        choices=[Choice(message=message, finish_reason=writer.finish_reason or "length")],
        usage=asked.usage,
        **facts(asked),
    )


@dataclass(frozen=True)
class ChunkWriter:
    """The chunks of an answer that is sent as a stream."""

    asked: ChatAnswer

    @property
    def tells_usage(self) -> bool:
        """Whether the stream ends with the number of tokens."""
        options = self.asked.body.stream_options
        return options is not None and options.include_usage

    def first(self) -> dict[str, Any]:
        """The first chunk: what was understood."""
        asked = self.asked
        told = self._chunk({"role": "assistant", "content": ""})
        filters = [one.model_dump() for one in asked.filters]
        understood = {"filters": filters, "lacking": asked.lacking}
        ignored = {"ignored": asked.body.ignored} if asked.body.ignored else {}
        return told | understood | {"unknown": list(asked.plan.unknown)} | ignored

    def piece(self, piece: Piece) -> dict[str, Any]:
        """A chunk with some text, or with an item."""
        chunk = self._chunk({"content": piece.text})
        return chunk if piece.item is None else chunk | {"items": [piece.item.model_dump()]}

    def last(self) -> dict[str, Any]:
        """The last chunk: what is known when all is said."""
        asked = self.asked
        told: dict[str, Any] = {"left_out": asked.left_out} if asked.left_out else {}
        if asked.version is not None:
            told |= {"invented": asked.invented}
            told |= {"mentions": [one.model_dump() for one in asked.mentions]}
        return self._chunk({}, asked.writer.finish_reason) | told

    def usage(self) -> dict[str, Any]:
        """The chunk that tells of tokens."""
        return self._chunk(None) | {"choices": [], "usage": self.asked.usage.model_dump()}

    def _chunk(
        self, delta: dict[str, Any] | None, finish_reason: str | None = None
    ) -> dict[str, Any]:
        asked = self.asked
        return {
            "id": f"chatcmpl-{asked.answer_id}",
            "object": "chat.completion.chunk",
            "created": asked.created,
            "model": asked.body.model,
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
            # As OpenAI has it: null in all chunks but the last, where usage is asked for.
            **({"usage": None} if self.tells_usage else {}),
            "catalog_version": None if asked.version is None else asked.version.number,
            "guided": asked.guided,
        }


def event_line(value: dict[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
