"""A model's own prose, let through sentence by sentence where it names nothing but items."""

from __future__ import annotations

import re
from collections.abc import Iterator

from incatalog.assistant.invented import names_in
from incatalog.assistant.known_names import KnownNames
from incatalog.assistant.sentence_buffer import SentenceBuffer, ends_whole

_ANNOUNCES = re.compile(
    r":\s*$|\b(?:here are|here is|here's|the following|some examples|such as these)\b",
    re.IGNORECASE,
)
# What small models say of themselves is neither asked for nor so.
_OF_ITSELF = re.compile(
    r"\b(?:as an ai|language model|(?:helpful|virtual|digital|ai) assistant|any (?:kind of )?task|"
    r"trained (?:by|on)|i(?:'m| am) (?:here|designed|programmed) to|my (?:creators?|training))\b",
    re.IGNORECASE,
)
# What goes on about something that was left out.
_GOES_ON = re.compile(
    r"\W*(?:it|it['’]s|its|he|she|they|his|her|their|this|that|these|those|both|"
    r"the (?:film|movie|story|plot|book|game|series|show|product|protagonist|cast))\b",
    re.IGNORECASE,
)
_LETTER = re.compile(r"[^\W\d_]")


class CheckedProse:
    """Lets whole sentences through, but for those that name what is no item.

    A sentence that announces others ("Here are some:") waits for the next, and goes with it; one
    that goes on about what was left out ("It is …") is left out too, and so is what a model says of
    itself. What was said already is not said again, and ends the text, as it does where there is
    enough.

    Attributes:
        invented: Names that are no items, so far.
        over: Whether no more is let through.
    """

    def __init__(self, known: KnownNames, most: int) -> None:
        self._known, self._buffer = known, SentenceBuffer()
        self._left, self._before = most, set[str]()
        self.over = False
        self._announced = ""
        self._said = self._dropped = False
        self.invented = 0

    def add(self, text: str) -> Iterator[str]:
        """The sentences that may be said, with some more text."""
        for sentence in self._buffer.add(text):
            yield from self._checked(sentence)

    def end(self, *, whole: bool) -> Iterator[str]:
        """The rest; where the text was cut off, only what is a whole sentence."""
        rest = self._buffer.rest()
        if rest.strip() and (whole or ends_whole(rest) or not self._said):
            yield from self._checked(rest.rstrip())
        self._announced = ""

    def _checked(self, sentence: str) -> Iterator[str]:
        plain = " ".join(sentence.casefold().split())
        self.over = self.over or plain in self._before or self._left == 0
        if self.over:
            return
        self._before.add(plain)
        if _OF_ITSELF.search(sentence):
            return
        named = names_in(sentence, self._known)
        unknown = sum(name.row is None for name in named)
        if unknown:
            self.invented += unknown
            self._announced, self._dropped = "", True
            return
        if self._dropped and _GOES_ON.match(sentence):
            return
        self._dropped = False
        text = self._announced + sentence
        if _ANNOUNCES.search(sentence):
            self._announced = text
            return
        self._announced = ""
        if not self._said:
            text = text.lstrip()
            self._said = bool(_LETTER.search(text))
        if text:
            self._left -= 1
            yield text
