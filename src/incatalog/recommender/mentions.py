"""The items that a conversation names, for a guide that is given no history."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from weakref import WeakKeyDictionary

from incatalog.decoding.request import Grounding
from incatalog.dialogue.render import ItemRef, Message, Text
from incatalog.recommender.items import ModelItems
from incatalog.recommender.prompts import ChatMessage, as_message

_PIECE = re.compile(r"\w+|\S")


class Titles:
    """Finds titles and other names of items in a text.

    A title is found where it stands exactly as it is written in the catalog and neither begins nor
    ends within a word. Of titles that overlap the longest counts, of equally long ones the first.
    """

    def __init__(self, items: ModelItems) -> None:
        catalog, aliases = items.catalog, items.aliases
        self._row_of: dict[str, int] = {}
        live = [row for row in range(len(catalog)) if row not in catalog.vacant]
        for titles in (catalog.titles, catalog.titles_t):
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
        found: list[tuple[int, int, int]] = []
        for piece in _PIECE.finditer(text):
            start = piece.start()
            for length in self._lengths.get(piece[0], ()):
                end = start + length
                row = self._row_of.get(text[start:end])
                # At the end of the text a shorter title would count as one of this length.
                if row is not None and end <= len(text) and _ends_a_word(text, end):
                    found.append((-length, start, row))
        kept: list[tuple[int, int]] = []
        taken = bytearray(len(text))
        for size, start, row in sorted(found):
            end = start - size
            if taken.find(1, start, end) < 0:
                taken[start:end] = b"\1" * -size
                kept.append((start, row))
        return [row for _, row in sorted(kept)]


# Made once for each version of a catalog, when a conversation first asks.
_TITLES: WeakKeyDictionary[Grounding, Titles] = WeakKeyDictionary()


def conversation_items(messages: Sequence[ChatMessage], items: ModelItems) -> list[int]:
    """Rows of the items that a conversation names, each once, the last named last.

    These are the items in all messages, and the titles in what the user says.
    """
    titles = _TITLES.get(items.grounding)
    if titles is None:
        titles = _TITLES[items.grounding] = Titles(items)
    rows = [row for message in map(as_message, messages) for row in _named(message, titles)]
    gone = items.catalog.vacant
    # The last of several places counts.
    return [row for row in dict.fromkeys(reversed(rows)) if row not in gone][::-1]


def _named(message: Message, titles: Titles) -> list[int]:
    rows: list[int] = []
    for part in message.parts:
        if isinstance(part, ItemRef):
            rows.append(part.row)
        elif isinstance(part, Text) and message.role == "user":
            rows += titles.rows(part.text)
    return rows


def _first_piece(title: str) -> str:
    found = _PIECE.search(title)
    return found[0] if found else ""


def _ends_a_word(text: str, end: int) -> bool:
    """Whether no word goes on beyond a place."""
    return end >= len(text) or not (text[end - 1].isalnum() and text[end].isalnum())
