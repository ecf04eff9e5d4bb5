"""From the body of a request to what the assistant is asked, and from what it says to an answer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from incatalog.assistant.planning import Enquiry
from incatalog.assistant.script import Said
from incatalog.data.catalog import Catalog
from incatalog.data.conversations import Role
from incatalog.dialogue.render import ItemRef, Message, Part, Text
from incatalog.errors import CatalogError
from incatalog.recommender.answer import Recommendation
from incatalog.serving.answer_schemas import AnswerItem
from incatalog.serving.attribute_form import Attribute
from incatalog.serving.chat_schemas import ChatRequest
from incatalog.serving.message_schemas import ChatMessage
from incatalog.serving.question_schemas import ItemQuestion
from incatalog.serving.settings import ServeSettings

_MOST_SEED = 1 << 63


@dataclass(frozen=True)
class Piece:
    """A part of an answer: a text, and the item whose title it is, if it is one."""

    text: str
    item: AnswerItem | None = None


def enquiry(asked: ChatRequest, catalog: Catalog | None, settings: ServeSettings) -> Enquiry:
    """What the assistant is asked; without a catalog the answer names no item."""
    messages = [_message(message, catalog) for message in asked.messages]
    seed = int.from_bytes(os.urandom(7), "little") if asked.seed is None else asked.seed
    return Enquiry(
        messages,
        history=asked.history,
        k=asked.k,
        exclude=asked.exclude,
        categories=asked.categories,
        where=asked.conditions,
        exclude_seen=asked.exclude_seen,
        boost=asked.boost,
        guide_weight=asked.guide_weight,
        unknown=asked.unknown,
        steer=asked.steer,
        filters_off=asked.filters_off,
        voice=asked.voice,
        max_new_tokens=_most_tokens(asked, settings),
        usual_tokens=settings.max_tokens,
        most_items=settings.max_k,
        temperature=asked.temperature or 0.0,
        top_p=1.0 if asked.top_p is None else asked.top_p,
        seed=seed % _MOST_SEED,
        item_decode=asked.item_decode,
    )


def _most_tokens(asked: ChatRequest, settings: ServeSettings) -> int | None:
    """How long the answer may be, if the request says so; never longer than the service lets it."""
    most = asked.max_completion_tokens or asked.max_tokens
    return most and min(most, settings.max_tokens)


def _message(message: ChatMessage, catalog: Catalog | None) -> Message:
    role: Role = "system" if message.role == "developer" else message.role
    if catalog is None or role != "assistant":
        return Message(role, (Text(message.text),))
    return Message(role, tuple(_parts(message, catalog)))


def _parts(message: ChatMessage, catalog: Catalog) -> Iterator[Part]:
    """An earlier answer, its items as items where the catalog still has them."""
    text, at = message.text, 0
    for named in sorted(message.named, key=lambda named: named.start):
        if named.start < at or not catalog.has(named.id):
            continue
        row = catalog.row(named.id)
        item = catalog.item(row)
        if text[named.start : named.end] not in (item.title, item.called):
            continue
        if named.start > at:
            yield Text(text[at : named.start])
        yield ItemRef(row)
        at = named.end
    if at < len(text) or not at:
        yield Text(text[at:])


@dataclass
class Writer:
    """The text of one answer as it grows, with the items in it."""

    catalog: Catalog
    stops: tuple[str, ...] = ()  # the answer ends before them; not looked for in items
    text: str = ""
    items: list[AnswerItem] = field(default_factory=list)
    finish_reason: Literal["stop", "length"] | None = None

    def __post_init__(self) -> None:
        self._held = ""

    def feed(self, said: Iterable[Said]) -> list[Piece]:
        """What is added; nothing after the end of the answer."""
        pieces: list[Piece] = []
        for one in said:
            if self.finish_reason is not None:
                break
            if isinstance(one, Recommendation):
                pieces += self._release()
                pieces.append(self._item(one))
            else:
                pieces += self._say(one)
        return pieces

    def end(self, reason: Literal["stop", "length"]) -> list[Piece]:
        """The rest, where the answer has not ended before a stop text."""
        if self.finish_reason is not None:
            return []
        self.finish_reason = reason
        return self._release()

    def _say(self, text: str) -> list[Piece]:
        """Text, as far as it cannot be the beginning of a stop text."""
        if self.finish_reason is not None:
            return []
        self._held += text
        found = [place for stop in self.stops if (place := self._held.find(stop)) >= 0]
        if found:
            self._held = self._held[: min(found)]
            self.finish_reason = "stop"
            return self._release()
        keep = max((_overlap(self._held, stop) for stop in self.stops), default=0)
        return self._release(keep)

    def _release(self, keep: int = 0) -> list[Piece]:
        cut = len(self._held) - keep
        text, self._held = self._held[:cut], self._held[cut:]
        self.text += text
        return [Piece(text)] if text else []

    def _item(self, found: Recommendation) -> Piece:
        item = answer_item(self.catalog, found, start=len(self.text))
        self.text += found.title
        self.items.append(item)
        return Piece(found.title, item)


def answer_item(catalog: Catalog, found: Recommendation, start: int | None = None) -> AnswerItem:
    """An item as the client gets it, with its place if it stands in a text."""
    item = catalog.item(catalog.row(found.item_id))
    return AnswerItem(
        id=found.item_id,
        title=found.title,
        categories=list(item.categories),
        rank=found.rank,
        score=found.score,
        start=start,
        end=None if start is None else start + len(found.title),
        reason=found.reason,
        attributes=[Attribute(**one) for one in catalog.shown(item)],
    )


def check_items(asked: ItemQuestion, catalog: Catalog) -> list[str]:
    """Refuses items that are not in the catalog, without a search for similar names.

    Ids of the history are let go, and returned, unless the request will have them refused.
    """
    for name in ("exclude", "boost", *(("history",) if asked.unknown == "error" else ())):
        for item_id in getattr(asked, name):
            if not catalog.has(item_id):
                raise CatalogError(f"{name}: catalog {catalog.name}: no item with id {item_id!r}")
    return [item_id for item_id in asked.history if not catalog.has(item_id)]


def _overlap(text: str, stop: str) -> int:
    """Letters at the end of a text that a stop text begins with."""
    sizes = range(min(len(text), len(stop) - 1), 0, -1)
    return next((size for size in sizes if text.endswith(stop[:size])), 0)
