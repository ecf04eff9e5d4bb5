"""One answer of a conversation, as it grows and in the forms that clients get."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from incatalog.assistant.assistant import Assistant
from incatalog.assistant.planning import Plan
from incatalog.assistant.script import Script
from incatalog.decoding.events import Event
from incatalog.serving import schemas as forms
from incatalog.serving.catalogs import Version
from incatalog.serving.chat_answer import Piece, Writer
from incatalog.serving.worker import Stream, count_tokens


@dataclass(eq=False)
class ChatAnswer:
    """A conversation that is being answered."""

    body: forms.ChatRequest  # with the messages that are looked at
    version: Version | None  # the catalog it sees; None for plain text
    assistant: Assistant
    plan: Plan
    script: Script
    guided: bool | None  # whether a guide counts; None where there is none
    started: float  # by the clock that measures
    owner: str  # of the session it is a turn of
    left_out: int  # messages that were too many
    streams: list[Stream] = field(default_factory=list)
    mentions: list[forms.ItemMention] = field(default_factory=list)
    invented: int = 0
    answer_id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
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
                forms.ItemMention(id=catalog.item(name.row).item_id, start=name.start, end=name.end)
                for name in named
                if name.row is not None
            ]
        if plan.act != "own":
            # Much of it was written without the model.
            encode = self.assistant.recommender.backbone.tokenizer.encode
            self._tokens = len(encode(self.writer.text, add_special_tokens=False))
        return pieces

    @property
    def usage(self) -> forms.Usage:
        """Tokens that the model read, and those of the answer."""
        read = sum(len(stream.request.prompt_ids) for stream in self.streams)
        said = self._tokens
        return forms.Usage(prompt_tokens=read, completion_tokens=said, total_tokens=read + said)

    @property
    def filters(self) -> list[forms.AnswerFilter]:
        """What was understood as conditions."""
        return [
            forms.AnswerFilter(
                id=chip.id,
                field=chip.condition.field,
                op=chip.condition.op,
                value=chip.condition.value,
                label=chip.label,
            )
            for chip in self.plan.filters
        ]


def completion(asked: ChatAnswer) -> forms.ChatCompletion:
    """An answer as a whole."""
    writer, version = asked.writer, asked.version
    message = forms.AnswerMessage(content=writer.text, items=writer.items)
    choice = forms.Choice(message=message, finish_reason=writer.finish_reason or "length")
    return forms.ChatCompletion(
        id=asked.answer_id,
        created=asked.created,
        model=asked.body.model,
        choices=[choice],
        usage=asked.usage,
        items=writer.items,
        domain=None if version is None else version.catalog.name,
        catalog_version=None if version is None else version.number,
        guided=asked.guided,
        left_out=asked.left_out,
        filters=asked.filters,
        unknown=list(asked.plan.unknown),
        invented=asked.invented,
        mentions=asked.mentions,
    )


def first_chunk(asked: ChatAnswer) -> dict[str, Any]:
    """The first chunk of a stream: what was understood."""
    told = _chunk(asked, {"role": "assistant", "content": ""})
    filters = [one.model_dump() for one in asked.filters]
    return told | {"filters": filters, "unknown": list(asked.plan.unknown)}


def piece_chunk(asked: ChatAnswer, piece: Piece) -> dict[str, Any]:
    """A chunk with some text, or with an item."""
    chunk = _chunk(asked, {"content": piece.text})
    return chunk if piece.item is None else chunk | {"items": [piece.item.model_dump()]}


def last_chunk(asked: ChatAnswer) -> dict[str, Any]:
    """The last chunk: what is known when all is said."""
    told: dict[str, Any] = {"left_out": asked.left_out} if asked.left_out else {}
    if asked.version is not None:
        told |= {"invented": asked.invented}
        told |= {"mentions": [one.model_dump() for one in asked.mentions]}
    return _chunk(asked, {}, asked.writer.finish_reason) | told


def usage_chunk(asked: ChatAnswer) -> dict[str, Any]:
    """The chunk that tells of tokens."""
    return _chunk(asked, None) | {"choices": [], "usage": asked.usage.model_dump()}


def event_line(value: dict[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


def _chunk(
    asked: ChatAnswer, delta: dict[str, Any] | None, finish_reason: str | None = None
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
