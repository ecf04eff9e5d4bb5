"""Sentences about items that are made of what is known, and so are true."""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from incatalog.data.catalog import Catalog, Item

# Labels that belong behind a noun: "from 1970 to 1979", "in stock".
_LIMIT = re.compile(r"(?:not )?(?:from|until|after|before|in)\b")
_TITLE_WORD = re.compile(r"[^\W\d_]{4,}")
# Categories that say nothing.
_NO_CATEGORY = frozenset({"unknown", "other", "misc", "none", "n/a", "all", "(no genres listed)"})
_MOST_SHARED = 3
# Two items of a series are more alike than two of a category.
_SERIES = 2.0
_BRANDS = ("brand", "manufacturer", "maker", "author", "artist", "publisher", "developer")


@dataclass(frozen=True)
class AskedFor:
    """What a request named.

    Attributes:
        categories: The categories it asks for.
        others: What else an item fulfils, in words, such as "price at most 20".
        unwanted: What it does not want, in words.
        words: Other words by which it was understood.
        avoided: What it does not want, and items may have all the same.
        lacking: What it limits and no item has, such as "prices".
        unmentioned: Names in it that no item has in its text.
        missing: Whether it asked for an item by a name that none has.
    """

    categories: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    avoided: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    unmentioned: tuple[str, ...] = ()
    missing: bool = False

    @property
    def labels(self) -> tuple[str, ...]:
        """What was asked for, category or not."""
        return (*self.categories, *self.others)


@dataclass(frozen=True, eq=False)
class Facts:
    """What a catalog says of its items, in sentences.

    Nothing is said that the catalog or the request does not hold: what the request named and the
    item has, what it shares with an item of the history, and its own fields.
    """

    catalog: Catalog
    _kinds: dict[int, tuple[str, ...]] = field(init=False, repr=False, default_factory=dict)

    def reason(
        self,
        row: int,
        history: Sequence[int] = (),
        asked: AskedFor | None = None,
        place: int = 0,
        *,
        mentioned: Collection[int] = (),
        known: bool = False,
    ) -> str | None:
        """Why an item was chosen, in one sentence; None where nothing is known of it.

        Args:
            row: The item.
            history: Rows of what the user took or named, oldest first.
            asked: What the request named.
            place: The item's place in its answer, by which the words vary.
            mentioned: The rows of the history that the conversation named, and that are not known
                to be liked.
            known: Whether its own fields stand beside the sentence, and are not told again.
        """
        asked = asked or AskedFor()
        own = self.kinds(row)
        named = [name for name in own if name in asked.categories]
        fulfilled = [*named, *asked.others]
        liked, shared = self.alike(row, history)
        wanted = f"{together(fulfilled)}, as you asked" if fulfilled else ""
        if liked is None:
            if wanted and known:
                return _sentence(wanted)
            others = [name for name in own if name not in named][:_MOST_SHARED]
            if wanted and others:
                told = both_in(others)
                if not named:
                    return _sentence(f"{told}, {wanted}")
                return _sentence(f"{wanted}, {f'with {told}' if place % 2 else f'and {told} too'}")
            parts = [part for part in (wanted or listed(others), *self.details(row)) if part]
            return _sentence(", ".join(parts)) if parts else None
        title, did = self.catalog.item(liked).title, "mentioned" if liked in mentioned else "liked"
        rest = [name for name in shared if name not in named]
        if wanted and rest:
            return _sentence(f"{wanted}, and {both_in(rest)} like {title}, which you {did}")
        if wanted:
            return _sentence(f"{wanted}, like {title}")
        if not rest:
            brand = self._brand(row)
            if brand is not None and brand == self._brand(liked):
                return f"Because you {did} {title}, which is by {brand} too."
            return f"Because you {did} {title}, whose name it shares in part."
        ways = (
            f"Because you {did} {title}: both are {_in(rest)}{listed(rest)}.",
            f"Like {title}, it is {_in(rest)}{listed(rest)}.",
            f"It shares {listed(rest)} with {title}, which you {did}.",
        )
        # The first says most; the others keep a list from repeating itself.
        return ways[place % len(ways)]

    def known(self, row: int) -> str:
        """What the catalog says of an item, in a sentence or two."""
        item, own = self.catalog.item(row), self.kinds(row)
        parts = [part for part in (listed(own), *self.details(row)) if part]
        described = self._described(item)
        if not parts and not described:
            return f"{item.title} is in the catalog. The catalog says no more of it."
        return f"{item.title}{': ' if parts else ''}{', '.join(parts)}.{described}"

    def kinds(self, row: int) -> tuple[str, ...]:
        """The categories of an item that say something, in the catalog's order."""
        found = self._kinds.get(row)
        if found is None:
            names = self.catalog.item(row).categories
            found = tuple(name for name in names if name.casefold() not in _NO_CATEGORY)
            self._kinds[row] = found
        return found

    def details(self, row: int) -> list[str]:
        """What the other fields of an item say, such as its brand, its price and its year."""
        item = self.catalog.item(row)
        fields, found = item.attributes, list[str]()
        for name in _BRANDS:
            value = fields.get(name)
            if isinstance(value, str) and value and value.casefold() not in item.title.casefold():
                found.append(f"by {value}")
                break
        year = fields.get("year")
        if isinstance(year, int) and not isinstance(year, bool) and str(year) not in item.title:
            found.append(f"from {year}")
        price = next((one for one in self.catalog.shown(item) if one["name"] == "price"), None)
        if price is not None:
            found.append(f"{price['label'].lower()} {price['shown']}")
        return found

    def alike(self, row: int, history: Sequence[int]) -> tuple[int | None, list[str]]:
        """The item of a history that is most like one, and the categories they share.

        Only those count that share a category, a brand or a word of the title; rare categories
        count more, and of equals the newest. None where there is none.
        """
        own, brand = set(self.kinds(row)), self._brand(row)
        words = self._words(row)
        best, most = None, 0.0
        for other in reversed(list(history)):
            if other == row or other in self.catalog.vacant:
                continue
            theirs = self.kinds(other)
            shared = own.intersection(theirs)
            alike = sum(self._rarity[name] for name in shared)
            # Few shared of many say less than few of few.
            alike /= max(1.0, np.sqrt(len(own.union(theirs))))
            alike += _SERIES * len(words & self._words(other))
            alike += brand is not None and brand == self._brand(other)
            if alike > most:
                best, most = other, alike
        if best is None:
            return None, []
        both = [name for name in self.kinds(row) if name in self.kinds(best)]
        rare = sorted(both, key=lambda name: -self._rarity[name])[:_MOST_SHARED]
        return best, [name for name in both if name in rare]

    def _described(self, item: Item) -> str:
        """The first sentence of a description that is not the title again."""
        text = item.description.strip()
        if text.casefold().startswith(item.title.casefold()):
            text = text[len(item.title) :].lstrip(" .:-–")
        first = re.split(r"(?<=[.!?])\s", text, maxsplit=1)[0].strip()
        return f" {first}" if 20 <= len(first) <= 240 and first[-1] in ".!?" else ""

    def _brand(self, row: int) -> str | None:
        fields = self.catalog.item(row).attributes
        value = next((fields[name] for name in _BRANDS if fields.get(name)), None)
        return value if isinstance(value, str) else None

    def _words(self, row: int) -> set[str]:
        """The rare words of a title, which the titles of a series share."""
        found = _TITLE_WORD.findall(self.catalog.item(row).title.casefold())
        return {word for word in found if 2 <= self._title_words.get(word, 0) <= 12}

    @cached_property
    def _title_words(self) -> Mapping[str, int]:
        counts: dict[str, int] = {}
        for item in self.catalog.live_items:
            for word in set(_TITLE_WORD.findall(item.title.casefold())):
                counts[word] = counts.get(word, 0) + 1
        return counts

    @cached_property
    def _rarity(self) -> Mapping[str, float]:
        total = self.catalog.num_live
        return {
            name: float(np.log(1 + total / len(self.catalog.category_rows(name))))
            for name in self.catalog.categories
        }


def chosen(texts: Sequence[str], *about: object) -> str:
    """One of several texts, always the same for the same things."""
    return texts[zlib.crc32(repr(about).encode()) % len(texts)]


def listed(names: Sequence[str], joining: str = "and") -> str:
    """Names with commas, and a joining word before the last."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} {joining} {names[-1]}"


def together(labels: Sequence[str], noun: str = "") -> str:
    """What was asked for as one phrase: "Horror from 1970 to 1979".

    Args:
        labels: Categories, and what else an item fulfils.
        noun: What limits stand behind where nothing else is named.
    """
    limits = [label for label in labels if _LIMIT.match(label)]
    named = listed([label for label in labels if label not in limits])
    return " ".join(filter(None, (named or noun, listed(limits))))


def _in(names: Collection[str]) -> str:
    """What stands before categories that are no adjectives."""
    return "" if all(" " not in name.strip() for name in names) else "in "


def both_in(names: Sequence[str]) -> str:
    """Categories, with what has to stand before them."""
    return f"{_in(names)}{listed(names)}"


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."
