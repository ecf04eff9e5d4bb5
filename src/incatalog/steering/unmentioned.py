"""Names in a request that no item has in its text: "with Tom Hanks", where no actor is listed."""

from __future__ import annotations

import calendar
import re

from incatalog.data.word_forms import stem
from incatalog.steering.lexicon import Known
from incatalog.steering.stems import GRAMMAR, words_of

_WORD = r"[A-Z][\w'’-]*[a-z0-9][\w'’-]*"
_NAME = re.compile(rf"\b{_WORD}(?:\s+(?:(?:of|de|la|van|von|der|the)\s+)*{_WORD})*")
# Behind these a single word with a capital is a name too.
_BEFORE = re.compile(r"\b(?:by|with|starring|featuring|from)\s+$")
_BEGINS = re.compile(r"(?:^|[.!?:\n])\W*$")
_RELATIVES = ("mum", "mom", "dad", "grandma", "grandpa", "mummy", "daddy")
# Names that are of no item and no maker: "with Mum and Dad", "by Friday".
_EVERYDAY = frozenset(
    stem(name.lower()) for name in (*_RELATIVES, *calendar.day_name, *calendar.month_name[1:])
)


def unmentioned(text: str, known: Known) -> tuple[str, ...]:
    """The names in a text, as they are written, one word of which at least no item has.

    Only what is plainly a name counts: several words with capitals, or one behind "by" or "with".

    Args:
        text: What is wanted, without what is known to be a title, a limit or a value.
        known: How many items have each stem in their texts.
    """
    if not any(word.stem in GRAMMAR for word in words_of(text) if word.text.islower()):
        # Another language, or a text that is all capitals.
        return ()
    found = []
    for match in _NAME.finditer(text):
        name, before = match[0], text[: match.start()]
        words = words_of(name)
        while words and words[0].stem in GRAMMAR:
            words = words[1:]
        if not words:
            continue
        name = name[words[0].start :]
        alone = len(words) == 1
        if alone and (_BEGINS.search(before) or not _BEFORE.search(before)):
            continue
        if any(word.stem in _EVERYDAY for word in words):
            continue
        if any(not word.stem.isdigit() and not known.count(word.stem) for word in words):
            found.append(name)
    return tuple(dict.fromkeys(found))
