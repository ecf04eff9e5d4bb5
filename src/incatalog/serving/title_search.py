"""Search by title: by the words as they stand, and as people misspell them."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np
from jaxtyping import Float64, Int64
from rapidfuzz.distance import OSA
from rapidfuzz.process import cdist

from incatalog.data.catalog import Catalog

_WORD = re.compile(r"\w+")
# What a word of a title is worth to a word that was typed.
_SAME, _BEGINS, _NEAR, _WITHIN = 1.0, 0.9, 0.8, 0.6
_A_SLIP = 0.15  # what each further slip takes off
# Shorter words stand within half of all titles, and are a slip away from half of all words.
_SHORTEST_WITHIN, _SHORTEST_SLIPPED, _SHORTEST_WITH_TWO = 3, 4, 8
_MOST_WORDS = 12  # of a query that are looked for
_END = "\n"  # of a title; in no word


class TitleSearch:
    """Items by the words of their titles, with whatever accents and capitals."""

    def __init__(self, catalog: Catalog) -> None:
        self._named = (catalog.titles, catalog.vacant)
        self._rows = [row for row in range(len(catalog)) if row not in catalog.vacant]
        self._titles = [folded(catalog.titles[row]) for row in self._rows]

    def fits(self, catalog: Catalog) -> bool:
        """Whether a catalog has the same titles at the same rows."""
        return self._named == (catalog.titles, catalog.vacant)

    def rows(self, query: str) -> list[int]:
        """Rows of the items whose titles hold all words of a query.

        Those that begin with the query come first, then by row.
        """
        words = folded(query).split()
        whole = " ".join(words)
        found = [
            (not title.startswith(whole), f" {whole}" not in f" {title}", row)
            for row, title in zip(self._rows, self._titles, strict=True)
            if all(word in title for word in words)
        ]
        return [row for *_, row in sorted(found)]

    def near(self, query: str, places: Int64[np.ndarray, " items"] | None = None) -> list[int]:
        """Rows of the items that are probably meant, best first; none if nothing is near.

        A word may be begun only, joined with its neighbour or torn in two, and a longer one may
        have a slip or two. The items are those that hold the most of the words.

        Args:
            query: What was typed.
            places: Place of each row in an order that decides between items that fit equally well,
                such as popularity; the order of rows by default.
        """
        words = _WORD.findall(folded(query))[:_MOST_WORDS]
        if not words:
            return []
        held, worth = np.zeros(len(self._rows)), np.zeros(len(self._rows))
        for own in self._worths(words):
            held += own > 0
            worth += own
        most = held.max()
        # Fewer than half of the words say too little.
        if most < (len(words) + 1) // 2:
            return []
        found = np.flatnonzero(held == most)
        rows = np.array(self._rows)[found]
        order = rows if places is None else places[rows]
        whole = "".join(words)
        begins = np.array([self._index.begins(int(place), whole) for place in found])
        best = np.lexsort((order, -worth[found].round(6), ~begins))
        return [int(row) for row in rows[best]]

    @cached_property
    def _index(self) -> _WordIndex:
        return _WordIndex([_WORD.findall(title) for title in self._titles])

    def _worths(self, words: Sequence[str]) -> list[Float64[np.ndarray, " titles"]]:
        """What each title is worth to each word, and to two of them that belong together."""
        found = [self._index.worth(word) for word in words]
        for place, (first, second) in enumerate(pairwise(words)):
            # As many slips as the shorter one has letters would make the other one of both.
            most = min(len(first), len(second)) - 1
            pair = self._index.worth(first + second, whole=True, most=most)
            for own in (found[place], found[place + 1]):
                np.maximum(own, pair, out=own)
        return found


class _WordIndex:
    """Which titles hold which words."""

    def __init__(self, titles: Sequence[Sequence[str]]) -> None:
        self._size = len(titles)
        flat = [word for words in titles for word in words]
        self._words = sorted(set(flat))
        place = {word: place for place, word in enumerate(self._words)}
        ids = np.fromiter((place[word] for word in flat), dtype=np.int64, count=len(flat))
        holders = np.repeat(np.arange(self._size), [len(words) for words in titles])
        # The titles of one word side by side, and of words that begin alike too.
        self._holders = holders[np.argsort(ids, kind="stable")]
        self._starts = np.searchsorted(np.sort(ids), np.arange(len(self._words) + 1))
        # Titles without their spaces: "starwars" stands in one of them.
        closed = ["".join(words) for words in titles]
        self._text = _END.join(closed)
        lengths = np.array([len(one) + 1 for one in closed])
        self._closed_starts = np.concatenate(([0], np.cumsum(lengths)))
        self._of_length = defaultdict[int, list[str]](list)
        for word in self._words:
            self._of_length[len(word)].append(word)

    def begins(self, title: int, whole: str) -> bool:
        """Whether a title begins with some letters, its spaces left out."""
        return self._text.startswith(whole, int(self._closed_starts[title]))

    def worth(
        self, typed: str, *, whole: bool = False, most: int = 2
    ) -> Float64[np.ndarray, " titles"]:
        """What each title is worth to a word that was typed, with `most` slips at most.

        Unless it is `whole` it may only be the beginning of a word, or stand within one.
        """
        worth = np.zeros(self._size)
        if not whole and len(typed) >= _SHORTEST_WITHIN:
            places = [found.start() for found in re.finditer(re.escape(typed), self._text)]
            worth[np.searchsorted(self._closed_starts, places, side="right") - 1] = _WITHIN
        for words, slips in self._slipped(typed, most):
            for word in words:
                place = bisect_left(self._words, word)
                self._give(worth, place, place + 1, _NEAR - _A_SLIP * (slips - 1))
        first, past = bisect_left(self._words, typed), bisect_right(self._words, typed)
        if not whole:
            last = bisect_left(self._words, typed + chr(0x10FFFF))
            self._give(worth, first, last, _BEGINS)
        self._give(worth, first, past, _SAME)
        return worth

    def _give(
        self, worth: Float64[np.ndarray, " titles"], first: int, past: int, value: float
    ) -> None:
        """Gives a value to the titles that hold one of some neighbouring words."""
        titles = self._holders[self._starts[first] : self._starts[past]]
        worth[titles] = np.maximum(worth[titles], value)

    def _slipped(self, typed: str, most: int) -> list[tuple[list[str], int]]:
        """Words that become what was typed by a slip or two, the most slips first."""
        if len(typed) < _SHORTEST_SLIPPED or typed.isdigit():
            return []
        most = min(most, 1 if len(typed) < _SHORTEST_WITH_TWO else 2)
        lengths = range(len(typed) - most, len(typed) + most + 1)
        words = [word for length in lengths for word in self._of_length.get(length, ())]
        if not words:
            return []
        slips = cdist([typed], words, scorer=OSA.distance, score_cutoff=most, dtype=np.uint8)[0]
        return [
            ([words[place] for place in np.flatnonzero(slips == number)], number)
            for number in range(most, 0, -1)
        ]


def folded(text: str) -> str:
    """Text without accents and capitals."""
    if text.isascii():
        return text.casefold()
    letters = unicodedata.normalize("NFKD", text)
    return "".join(letter for letter in letters if not unicodedata.combining(letter)).casefold()
