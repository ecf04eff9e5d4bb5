"""Titles that an answer names in its free text, outside item spans."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal, NamedTuple

from incatalog.errors import require

Source = Literal["exact", "fuzzy", "training", "unknown"]

_WORD = re.compile(r"\w+(?:['’]\w+)*")
_YEAR = re.compile(r"\s*\(\d{4}\)\s*$")
_LIST_LINE = re.compile(r"^[ \t]*(?:\d+[ \t]*[.):]|[-*•–])[ \t]+(\S[^\n]*)$", re.MULTILINE)
_QUOTED = re.compile(
    r"\"([^\"\n]{2,100})\"|“([^”\n]{2,100})”|«([^»\n]{2,100})»|(?<!\w)'([^'\n]{2,100})'(?!\w)"
)
_SMALL = r"(?:(?:of|the|and|in|a|to|for|&|from|on)[ ]+)*"
_WITH_YEAR = re.compile(rf"((?:[A-ZÀ-Þ0-9][\w'’]*[:,]?[ ]+{_SMALL})+\(\d{{4}}\))")
_CAPITALISED = re.compile(rf"[A-ZÀ-Þ][\w'’]*(?:[ ]+{_SMALL}[A-ZÀ-Þ0-9][\w'’]*)+")
_DESCRIPTION = re.compile(r"\s+[-–—]\s+|:\s+")
_MOST_WORDS = 16


class Mention(NamedTuple):
    """A title in free text, as it is written, with its item if the catalog has one.

    ``exact`` is a title of the catalog, whatever its case and punctuation; ``fuzzy`` is like one;
    ``training`` is like a title that the model was trained on and that is not in this catalog;
    ``unknown`` is marked as a title and like none of these.
    """

    text: str
    row: int | None
    source: Source


class TitleFinder:
    """Finds titles in text, exactly and by likeness.

    A title of two words or more is found wherever it begins with a capital letter or a digit.
    Quoted names, lines of lists and names with a year are compared with all titles by likeness
    (normalised indel similarity); what is like none of them is an unknown title. Other runs of
    capitalised words count only if they are like a title of the catalog.
    """

    def __init__(
        self, titles: Sequence[str], training_titles: Sequence[str] = (), likeness: float = 88.0
    ) -> None:
        """Takes the title of each row, and the titles of the training if they differ."""
        ratio = require("rapidfuzz.fuzz", extra="evaluate").ratio
        find = require("rapidfuzz.process", extra="evaluate").extractOne
        # The name most like a text, its likeness and its place; None if none is like it.
        self._most_like = partial(find, scorer=ratio, score_cutoff=likeness)
        self._row_of: dict[tuple[str, ...], int] = {}
        # All full titles come before those without their year.
        for forms in (titles, [_YEAR.sub("", title) for title in titles]):
            for row, title in enumerate(forms):
                if words := _words(title):
                    self._row_of.setdefault(words, row)
        self._longest = max(map(len, self._row_of), default=0)
        self._names = [" ".join(words) for words in self._row_of]
        self._rows = list(self._row_of.values())
        forms = (*training_titles, *(_YEAR.sub("", title) for title in training_titles))
        learnt = set(map(_words, forms)) - self._row_of.keys() - {()}
        self._learnt = [" ".join(words) for words in sorted(learnt)]

    def find(self, text: str) -> tuple[Mention, ...]:
        """All titles of a text in order; none overlaps another."""
        found: dict[tuple[int, int], Mention] = {}
        for (start, end), whole, marked in _candidates(text):
            name = text[start:end]
            # A sentence on a line of a list is no title, but it may contain one.
            too_long = len(_words(name)) > _MOST_WORDS
            if too_long or any(start < other[1] and other[0] < end for other in found):
                continue
            mention = self._identify(name)
            inside = self._exact(text, start, end)
            if mention.source == "exact" or (mention.row is not None and (whole or not inside)):
                found[start, end] = mention
            elif inside or marked:
                found |= inside or {(start, end): mention}
        for place, mention in self._exact(text, 0, len(text)).items():
            if not any(place[0] < other[1] and other[0] < place[1] for other in found):
                found[place] = mention
        return tuple(found[place] for place in sorted(found))

    def _exact(self, text: str, start: int, end: int) -> dict[tuple[int, int], Mention]:
        """Titles of two words or more that stand in a part of the text."""
        words = list(_WORD.finditer(text, start, end))
        folded = [word[0].casefold() for word in words]
        found: dict[tuple[int, int], Mention] = {}
        free = 0
        for position, word in enumerate(words):
            if position < free or not (word[0][0].isupper() or word[0][0].isdigit()):
                continue
            for past in range(min(position + self._longest, len(words)), position + 1, -1):
                row = self._row_of.get(tuple(folded[position:past]))
                if row is not None:
                    place = word.start(), words[past - 1].end()
                    found[place] = Mention(text[slice(*place)], row, "exact")
                    free = past
                    break
        return found

    def _identify(self, name: str) -> Mention:
        words = _words(name)
        wanted = " ".join(words)
        if (row := self._row_of.get(words)) is not None:
            return Mention(name, row, "exact")
        if like := self._most_like(wanted, self._names):
            return Mention(name, self._rows[like[2]], "fuzzy")
        learnt = self._most_like(wanted, self._learnt)
        return Mention(name, None, "training" if learnt else "unknown")


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.casefold() for word in _WORD.findall(text))


def _candidates(text: str) -> Iterator[tuple[tuple[int, int], bool, bool]]:
    """Where a title may stand, whether its ends are sure, and whether it is marked as a title.

    Names in quotes, on a line of a list or before a year are marked. Before a year, and in other
    runs of capitalised words, the first words may belong to the sentence around them.
    """
    places = [match.span(match.lastindex or 0) for match in _QUOTED.finditer(text)]
    for match in _LIST_LINE.finditer(text):
        line = _DESCRIPTION.split(match[1], maxsplit=1)[0].rstrip(" \t.,;*_\"'”’")
        bare = line.lstrip(" \t*_\"'“‘")
        start = match.start(1) + len(line) - len(bare)
        places.append((start, start + len(bare)))
    yield from ((place, True, True) for place in places if _words(text[slice(*place)]))
    yield from ((match.span(1), False, True) for match in _WITH_YEAR.finditer(text))
    yield from ((match.span(), False, False) for match in _CAPITALISED.finditer(text))
