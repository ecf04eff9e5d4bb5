"""The items that a conversation names, for a guide that is given no history."""

from __future__ import annotations

from collections.abc import Sequence

from incatalog.dialogue.render import ItemRef, Message, Text
from incatalog.recommender.items import ModelItems
from incatalog.recommender.prompts import ChatMessage, as_message
from incatalog.recommender.spotting import Titles, titles_of


def conversation_items(messages: Sequence[ChatMessage], items: ModelItems) -> list[int]:
    """Rows of the items that a conversation names, each once, the last named last.

    These are the items in all messages, and the titles in what the user says.
    """
    titles = titles_of(items)
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
