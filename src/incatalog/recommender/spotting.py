"""Titles and other names of items in a text, and the names by which a model knows them."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import NamedTuple
from weakref import WeakKeyDictionary

from incatalog.data.naming import TITLE
from incatalog.decoding.request import Grounding
from incatalog.dialogue.list_lines import list_starts
from incatalog.dialogue.render import ItemRef, Message, Part, Text
from incatalog.recommender.items import ModelItems

_PIECE = re.compile(r"\w+|\S")


class Spotted(NamedTuple):
    """Where a text names an item."""

    start: int
    end: int
    row: int


class Titles:
    """Finds titles and other names of items in a text.

    A title is found where it stands exactly as it is written in the catalog and neither begins nor
    ends within a word. Of titles that overlap the longest counts, of equally long ones the first.
    """

    def __init__(self, items: ModelItems) -> None:
        catalog, aliases = items.catalog, items.aliases
        self._row_of: dict[str, int] = {}
        live = [row for row in range(len(catalog)) if row not in catalog.vacant]
        for titles in (catalog.titles, catalog.names, catalog.titles_t):
            for row in live:
                self._row_of.setdefault(titles[row].strip(), row)
        for row, name in zip(aliases.rows, aliases.texts, strict=True):
            self._row_of.setdefault(name.strip(), row)
        self._row_of.pop("", None)
        # The first word of a title says how long the titles are that may begin there.
        lengths: defaultdict[str, set[int]] = defaultdict(set)
        for title in self._row_of:
            lengths[_first_piece(title)].add(len(title))
        self._lengths = {piece: sorted(own, reverse=True) for piece, own in lengths.items()}

    def rows(self, text: str) -> list[int]:
        """Rows of the items that a text names, in its order."""
        return [found.row for found in self.places(text)]

    def places(self, text: str) -> list[Spotted]:
        """Where a text names items, in its order."""
        found: list[tuple[int, int, int]] = []
        for piece in _PIECE.finditer(text):
            start = piece.start()
            for length in self._lengths.get(piece[0], ()):
                end = start + length
                row = self._row_of.get(text[start:end]) if end <= len(text) else None
                if row is not None and _ends_a_word(text, end):
                    found.append((-length, start, row))
        kept: list[Spotted] = []
        taken = bytearray(len(text))
        for size, start, row in sorted(found):
            end = start - size
            if taken.find(1, start, end) < 0:
                taken[start:end] = b"\1" * -size
                kept.append(Spotted(start, end, row))
        return sorted(kept)


# Made once for each version of a catalog, when a conversation first asks.
_TITLES: WeakKeyDictionary[Grounding, Titles] = WeakKeyDictionary()


def titles_of(items: ModelItems) -> Titles:
    """What finds the titles of these items."""
    found = _TITLES.get(items.grounding)
    if found is None:
        found = _TITLES[items.grounding] = Titles(items)
    return found


def as_known(message: Message, items: ModelItems) -> Message:
    """A turn of the user or the assistant with items called as the model knows them.

    People are shown titles and repeat them. Where the model knows items by another field, a title
    that stands in the text is replaced by that name; otherwise the turn stays as it is.
    """
    if items.catalog.title_field == TITLE or message.role == "system":
        return message
    known = (Text(_known(p.text, items)) if isinstance(p, Text) else p for p in message.parts)
    parts: tuple[Part, ...] = tuple(known)
    return message if parts == message.parts else Message(message.role, parts)


def with_listed_items(message: Message, items: ModelItems) -> Message:
    """An earlier answer with the titles of its lists as items.

    Clients send back what they were answered as plain text. Titles in the middle of a line, such as
    those in a reason, stay text.
    """
    if message.role != "assistant" or any(isinstance(part, ItemRef) for part in message.parts):
        return message
    text = "".join(part.text for part in message.parts if isinstance(part, Text))
    starts = list_starts(text)
    if not starts or len(message.parts) > 1:
        return message
    parts: list[Part] = []
    at = 0
    for start, end, row in titles_of(items).places(text):
        if start in starts:
            parts += [Text(text[at:start]), ItemRef(row)]
            at = end
    if not parts:
        return message
    if at < len(text):
        parts.append(Text(text[at:]))
    return Message(message.role, tuple(part for part in parts if part != Text("")))


def _known(text: str, items: ModelItems) -> str:
    pieces: list[str] = []
    at = 0
    for start, end, row in titles_of(items).places(text):
        # A name, or a spelling that the model writes too, is one it knows.
        if text[start:end] == items.catalog.titles[row].strip():
            pieces += (text[at:start], items.catalog.titles_t[row])
            at = end
    return "".join([*pieces, text[at:]])


def _first_piece(title: str) -> str:
    found = _PIECE.search(title)
    return found[0] if found else ""


def _ends_a_word(text: str, end: int) -> bool:
    """Whether no word goes on beyond a place."""
    return end >= len(text) or not (text[end - 1].isalnum() and text[end].isalnum())
