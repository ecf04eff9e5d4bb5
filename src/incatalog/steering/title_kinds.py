"""Kinds of products that titles tell: "Avery Address Labels, White, 30 a Sheet" is a label.

A title of a product is a noun phrase with details behind it, and the noun at the head of the phrase
says what it is. A word is a kind of a catalog where many titles have it there, and it seldom stands
anywhere else: "printer" is often only what a label is for.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from html import unescape

import numpy as np
from jaxtyping import Int64

from incatalog.data.catalog import Catalog, Item
from incatalog.data.word_forms import stem
from incatalog.steering.stems import GOODS, GRAMMAR, words_of

# Where the noun phrase ends, and details begin.
_DETAILS = re.compile(
    r"[,()\[\]|;:/!\"]|\s[-–—]+(?=\s)|\s(?:for|with|w|in|by|from|to|that|fits?|compatible|works?|"
    r"includes?|including|as|on|at|of|made|plus|featuring)(?=[\s/])",
    re.IGNORECASE,
)
_MARKS = re.compile(r"\((?:r|tm|c)\)|[®™©]", re.IGNORECASE)
_PACKED = re.compile(
    r"^\W*(?:\w+[- ])?(?:pack|set|box|case|lot|pair|bundle|carton|\d+)s? of (?:\d+)?\W*",
    re.IGNORECASE,
)
# An adjective comes before its noun, so that a colour after a kind begins the details.
_COLOURS = """
black white red blue green yellow orange purple violet pink brown grey gray silver gold golden
turquoise beige navy teal ivory clear color colour multicolor multicolour assorted
"""
COLOURS = frozenset(map(stem, _COLOURS.split()))
# Nouns that say how much there is, or nothing of what it is; in no shop a kind of its own.
_SAYS_NOTHING = """
pack packet set box case lot pair bundle carton count ct pk pc piece unit each dozen roll kit bag
item thing product machine device tool system model version edition series style type kind size
color colour supply accessory solution assortment collection combo value refurbished gift present
new inch ft foot mm cm oz lb gram
"""
GENERIC = frozenset(_SAYS_NOTHING.split())
# Titles that have a kind at their heads, at least: a number, and a part of the catalog.
_LEAST, _LEAST_PART = 4, 0.001
# The part of a kind's titles that have it at the head or just before.
_AT_HEAD = 0.35
# The part of the catalog that has kinds; names of films or songs have no nouns in common.
_HELD = 0.4
_TAIL = 2
# The part of a head's titles that have a kind just before it, where what they name is of that kind.
_MOSTLY = 0.5
# The part of the titles with a noun that it names, where what it does not name is something else.
_NAMES = 0.3


@dataclass(frozen=True, eq=False)
class TitleKinds:
    """The words of a catalog's titles; it grows with new items and forgets none.

    Attributes:
        heads: How many titles have a stem as their head.
        tails: How many have it as their head, or just before.
        seen: How many have it at all.
        pairs: How many titles with a head have a stem just before it, by stem and head.
        total: How many titles there are.
        tails_of: The last words of each title's noun phrase, which all versions share.
        before_colour: What a title's noun phrase has before a colour and its head, likewise.
    """

    heads: Mapping[str, int] = field(default_factory=dict)
    tails: Mapping[str, int] = field(default_factory=dict)
    seen: Mapping[str, int] = field(default_factory=dict)
    pairs: Mapping[tuple[str, str], int] = field(default_factory=dict)
    total: int = 0
    tails_of: dict[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    before_colour: dict[str, tuple[str, ...]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, catalog: Catalog) -> TitleKinds:
        """Reads all titles."""
        return cls().with_items(catalog.live_items)

    def with_items(self, items: Iterable[Item]) -> TitleKinds:
        """The same with the titles of further items."""
        heads, tails, seen, count = Counter[str](), Counter[str](), Counter[str](), 0
        pairs = Counter[tuple[str, str]]()
        for item in items:
            title = item.title
            phrase = phrase_of(title, _names(item))
            tail = self.tails_of[title] = phrase[-_TAIL:]
            if before := _before_colour(phrase):
                self.before_colour[title] = before
            heads.update(tail[-1:])
            tails.update(set(tail))
            pairs.update((word, tail[-1]) for word in set(tail[:-1]))
            seen.update({word.stem for word in words_of(title)})
            count += 1
        if not count:
            return self
        old = Counter(self.heads), Counter(self.tails), Counter(self.seen)
        counts = old[0] + heads, old[1] + tails, old[2] + seen
        together = Counter(self.pairs) + pairs
        total = self.total + count
        return TitleKinds(*counts, together, total, self.tails_of, self.before_colour)

    @cached_property
    def kinds(self) -> frozenset[str]:
        """Stems that are kinds; none where most titles have none."""
        least = max(_LEAST, _LEAST_PART * self.total)
        found = {
            word
            for word, count in self.heads.items()
            if count >= least and self.tails[word] >= _AT_HEAD * self.seen[word] and _is_noun(word)
        }
        held = sum(self.heads[word] for word in found)
        return frozenset(found) if held >= _HELD * self.total else frozenset()

    def of_title(self, title: str) -> tuple[str, ...]:
        """The kinds of an item with this title."""
        return tuple(word for word in self.tails_of.get(title, ()) if word in self.kinds)

    def named_rows(self, catalog: Catalog) -> dict[str, list[int]]:
        """The items that each noun names, and does not only describe.

        "Black Ink Cartridge" is ink, as most cartridges are called so; "Gel Ink Pens" are pens, and
        so is "Gel Pen Silver Ink". A word that describes far more than it names is left out: most
        rings are those of binders.
        """
        found: dict[str, list[int]] = {}
        for row, item in enumerate(catalog.items):
            if row not in catalog.vacant and (tail := self._named_by(item.title)):
                for word in set(tail):
                    if word == tail[-1] or self._mostly(word, tail[-1]):
                        found.setdefault(word, []).append(row)
        return {w: rows for w, rows in found.items() if len(rows) >= _NAMES * self.seen[w]}

    def _named_by(self, title: str) -> tuple[str, ...]:
        """The last words of what a title calls its item, without the details after a kind."""
        for word in reversed(self.before_colour.get(title, ())):
            if word in self.kinds:
                return (word,)
        return self.tails_of.get(title, ())

    def _mostly(self, word: str, head: str) -> bool:
        return self.pairs.get((word, head), 0) >= _MOSTLY * self.heads[head]

    def rows(self, catalog: Catalog) -> dict[str, Int64[np.ndarray, " rows"]]:
        """The items of each kind."""
        found: dict[str, list[int]] = {}
        for row, item in enumerate(catalog.items):
            if row not in catalog.vacant:
                for kind in self.of_title(item.title):
                    found.setdefault(kind, []).append(row)
        return {kind: np.array(rows, dtype=np.int64) for kind, rows in found.items()}


def phrase_of(title: str, names: Iterable[str] = ()) -> tuple[str, ...]:
    """The stems of the noun phrase that a title begins with, its head last.

    Args:
        title: The title.
        names: Brands and the like; one that the title begins with is no part of the phrase.
    """
    for name in names:
        if title.casefold().startswith(f"{name.casefold()} "):
            title = title[len(name) :]
    title = _PACKED.sub("", _MARKS.sub(" ", unescape(title)))
    for part in _DETAILS.split(title):
        words = [word.stem for word in words_of(part)]
        while words and not _is_noun(words[-1]):
            words.pop()
        if words:
            return tuple(words)
    return ()


def _before_colour(phrase: tuple[str, ...]) -> tuple[str, ...]:
    """What stands before a colour and the one word behind it."""
    return phrase[:-2] if len(phrase) > 2 and phrase[-2] in COLOURS else ()


def _names(item: Item) -> list[str]:
    """What may be a brand in front of a title."""
    values = item.attributes.values()
    return [*item.categories, *(value for value in values if isinstance(value, str))]


def _is_noun(word: str) -> bool:
    return (
        len(word) > 2
        and word.isalpha()
        and word not in GENERIC
        and word not in COLOURS
        and word not in GRAMMAR
        and word not in GOODS
    )
