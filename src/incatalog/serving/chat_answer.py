"""From the body of a request to a request of the engine, and from its events to an answer."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from incatalog.data.catalog import Catalog
from incatalog.data.conversations import Role
from incatalog.decoding.events import Event, Finished
from incatalog.decoding.request import Request
from incatalog.dialogue.render import ItemRef, Message, Part, Text
from incatalog.errors import CatalogError
from incatalog.recommender.answer import AnswerText, Recommendation
from incatalog.recommender.mentions import conversation_items
from incatalog.recommender.recommender import Recommender
from incatalog.serving.schemas import AnswerItem, ChatMessage, ChatRequest, ItemQuestion
from incatalog.serving.worker import count_tokens

_MOST_SEED = 1 << 63


@dataclass(frozen=True)
class Piece:
    """A part of an answer: a text, and the item whose title it is, if it is one."""

    text: str
    item: AnswerItem | None = None


def chat_request(
    asked: ChatRequest, recommender: Recommender, *, items: bool, max_tokens: int
) -> Request:
    """What the engine is asked for; `items` says whether the answer may name items."""
    catalog = recommender.catalog
    history, excluded = [], None
    if items:
        check_items(asked, catalog)
        history = catalog.rows(asked.history).tolist()
        seen = history if asked.exclude_seen else []
        rules = asked.exclude, asked.categories, seen, bool(seen)
        excluded = recommender.excluded(*rules, asked.conditions)
    seed = int.from_bytes(os.urandom(7), "little") if asked.seed is None else asked.seed
    return recommender.chat_request(
        [_message(message, catalog if items else None) for message in asked.messages],
        history=history,
        k=asked.k if items else None,
        items=items,
        excluded=excluded,
        max_new_tokens=asked.max_completion_tokens or asked.max_tokens or max_tokens,
        temperature=asked.temperature or 0.0,
        top_p=1.0 if asked.top_p is None else asked.top_p,
        item_decode=asked.item_decode,
        seed=seed % _MOST_SEED,
    )


def named_items(asked: ChatRequest, recommender: Recommender) -> list[int]:
    """Rows of the items that a conversation names, for a guide that is given no history."""
    catalog, items = recommender.catalog, recommender.items
    return conversation_items([_message(one, catalog) for one in asked.messages], items)


def _message(message: ChatMessage, catalog: Catalog | None) -> Message:
    role: Role = "system" if message.role == "developer" else message.role
    if catalog is None or role != "assistant":
        return Message(role, (Text(message.text),))
    return Message(role, tuple(_parts(message, catalog)))


def _parts(message: ChatMessage, catalog: Catalog) -> Iterator[Part]:
    """An earlier answer, its items as items where the catalog still has them."""
    text, at = message.text, 0
    for named in sorted(message.items or (), key=lambda named: named.start):
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

    recommender: Recommender
    stops: tuple[str, ...] = ()  # the answer ends before them; not looked for in items
    text: str = ""
    items: list[AnswerItem] = field(default_factory=list)
    tokens: int = 0
    finish_reason: Literal["stop", "length"] | None = None

    def __post_init__(self) -> None:
        self._answer: AnswerText = self.recommender.answer_text()
        self._held = ""

    def feed(self, events: Sequence[Event]) -> list[Piece]:
        """What some events add; nothing after the end of the answer."""
        pieces: list[Piece] = []
        for event in events:
            if self.finish_reason is not None:
                break
            self.tokens += count_tokens(event)
            for said in self._answer.feed(event):
                if isinstance(said, Recommendation):
                    pieces += self._release()
                    pieces.append(self._item(said))
                else:
                    pieces += self._say(said)
            if isinstance(event, Finished) and self.finish_reason is None:
                pieces += self._release()
                self.finish_reason = "length" if event.reason == "length" else "stop"
        return pieces

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
        item = answer_item(self.recommender.catalog, found, start=len(self.text))
        self.text += found.title
        self.items.append(item)
        return Piece(found.title, item)


def answer_item(catalog: Catalog, found: Recommendation, start: int | None = None) -> AnswerItem:
    """An item as the client gets it, with its place if it stands in a text."""
    return AnswerItem(
        id=found.item_id,
        title=found.title,
        categories=list(catalog.item(catalog.row(found.item_id)).categories),
        rank=found.rank,
        score=found.score,
        start=start,
        end=None if start is None else start + len(found.title),
    )


def check_items(asked: ItemQuestion, catalog: Catalog) -> None:
    """Refuses items that are not in the catalog, without a search for similar names."""
    for name in ("history", "exclude", "boost"):
        for item_id in getattr(asked, name):
            if not catalog.has(item_id):
                raise CatalogError(f"{name}: catalog {catalog.name}: no item with id {item_id!r}")


def _overlap(text: str, stop: str) -> int:
    """Letters at the end of a text that a stop text begins with."""
    sizes = range(min(len(text), len(stop) - 1), 0, -1)
    return next((size for size in sizes if text.endswith(stop[:size])), 0)
