"""In which voice an answer speaks, and what a model is told before it speaks in its own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from incatalog.assistant.facts import Facts
from incatalog.assistant.invented import names_in
from incatalog.assistant.known_names import KnownNames
from incatalog.assistant.sentence_buffer import SentenceBuffer, ends_whole
from incatalog.data.catalog import Catalog
from incatalog.dialogue.render import ItemRef, Message, Text
from incatalog.model.backbone import Backbone

Voice = Literal["facts", "model"]
"""Who speaks of items: sentences made of what is known, or the model in its own words."""
VoiceChoice = Literal["facts", "model", "auto"]

# Smaller models tell of items what is not so.
_ENOUGH_PARAMETERS = 1_000_000_000
SENTENCE_TOKENS = 30
# Small models say little of use, and repeat themselves.
TALK_TOKENS: Mapping[Voice, int] = {"facts": 80, "model": 400}
TALK_SENTENCES: Mapping[Voice, int] = {"facts": 3, "model": 12}
_MOST_SHOWN = 400  # letters of an item's text, and of a request


def voice_of(choice: VoiceChoice, backbone: Backbone) -> Voice:
    """The voice for a model: facts below a billion parameters, unless another one is chosen."""
    if choice != "auto":
        return choice
    count = sum(weights.numel() for weights in backbone.model.parameters())
    return "model" if count >= _ENOUGH_PARAMETERS else "facts"


def talk_messages(messages: Sequence[Message], catalog: Catalog) -> list[Message]:
    """A conversation as a model that never saw the catalog reads it: titles in plain text.

    Where the conversation brings no system message, one says what the model is here for.
    """
    plain = [in_plain_text(message, catalog) for message in messages]
    if plain and plain[0].role == "system":
        return plain
    told = (
        f"You are the friendly assistant of a catalog called {catalog.name}. The catalog "
        "recommends items; you only make conversation. Answer in one or two short sentences. "
        "Never name titles, products or examples."
    )
    return [Message("system", (Text(told),)), *plain]


def in_plain_text(message: Message, catalog: Catalog) -> Message:
    """A message with the titles of its items in place of their spans."""
    parts = (
        part.text if isinstance(part, Text) else catalog.item(part.row).title
        for part in message.parts
        if isinstance(part, Text | ItemRef)
    )
    return Message(message.role, (Text("".join(parts)),))


def item_question(row: int, request: str, facts: Facts) -> list[Message]:
    """What a model is asked for its own sentence about an item."""
    item = facts.catalog.item(row)
    known = facts.known(row)
    if item.description:
        known = f"{known} {item.description}"
    told = (
        "You explain recommendations. Answer with one short sentence that begins with 'It'. "
        "Use only what is written here. Name no other title."
    )
    asked = (
        f'Someone asked: "{request.strip()[:_MOST_SHOWN]}"\nThe recommendation: {item.title}\n'
        f"What is known: {known[:_MOST_SHOWN]}\nWhy does it fit?"
    )
    return [Message("system", (Text(told),)), Message("user", (Text(asked),))]


def own_sentence(text: str, row: int, known: KnownNames) -> tuple[str | None, int]:
    """The first whole sentence of a model about an item, and how many names in it are no items.

    None where there is none, or where it names anything but the item.
    """
    buffer = SentenceBuffer()
    found = [one.strip() for one in [*buffer.add(text), buffer.rest()]]
    sentence = next((re.sub(r"\s+", " ", one) for one in found if one), "")
    if not ends_whole(sentence):
        return None, 0
    named = names_in(sentence, known)
    unknown = sum(name.row is None for name in named)
    return (None if any(name.row != row for name in named) else sentence), unknown
