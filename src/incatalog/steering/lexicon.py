"""Categories, brands and other values of a catalog's fields, as people name them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from rapidfuzz.distance import OSA

from incatalog.data.catalog import Catalog, Item
from incatalog.data.word_forms import stem
from incatalog.steering.stems import GOODS, GRAMMAR, Word, key_of, words_of

CATEGORY = "category"
_MOST_WORDS = 5
# A field whose values are mostly longer is a description, and one value a title.
_MEDIAN_WORDS = 4
# So much more often a word stands in texts than it is a value of the item.
_EVERYDAY = 1.5
_LINKS = ("http", "www.", "/", "data:")
# Names of fields that tell one item from all others, or that a machine reads.
_MACHINE = frozenset(("id", "asin", "sku", "ean", "gtin", "upc", "url", "link", "image", "img"))
# Other names of one kind of things. A group counts where a catalog has a value of such a name.
_SAME = (
    ("sci fi", "science fiction", "sf"),
    ("animation", "animated", "cartoon", "animations"),
    ("romance", "romantic", "love story", "love stories"),
    ("child", "kid", "children", "kids", "childrens"),
    ("documentary", "docu", "documentaries"),
    ("film noir", "noir"),
    ("comedy", "comic film", "comedic"),
    ("science", "scientific"),
    ("history", "historical"),
    ("television", "tv"),
    ("telephone", "phone"),
    ("cook", "cooking", "cookery"),
    ("laptop", "notebook computer"),
    ("cell phone", "mobile phone", "smartphone"),
    ("whiteboard", "white board", "dry erase board"),
    ("sofa", "couch"),
    ("refrigerator", "fridge"),
    ("sneaker", "trainer", "running shoe"),
)
# Who wants one has no use for the other.
ADULTS = re.compile(
    r"\b(?:only |just )?for (?:us )?(?:adults|grown-?ups)\b(?! (?:and|or|&) )|\badults? only\b|"
    r"(?<!young )\badult\b(?= \w)"
)
CHILDREN = "children"
_OWNERS = frozenset(("my", "your", "his", "her", "our", "their", "a", "an", "the"))


class Known(Protocol):
    """The words of all items' texts."""

    def count(self, word: str) -> int:
        """How many texts have a stem."""


class FieldValue(NamedTuple):
    """A value of a field, as the catalog writes it."""

    field: str
    text: str


class NamedValues(NamedTuple):
    """Where a text names values: from one word to another, and what it means."""

    start: int
    end: int
    values: tuple[FieldValue, ...]


@dataclass(frozen=True, eq=False)
class Lexicon:
    """The values that can be named; it grows with new items and forgets none."""

    by_key: dict[str, tuple[FieldValue, ...]]
    fields: frozenset[str]  # whose texts are values, and not descriptions
    sizes: Mapping[FieldValue, int]  # items that have each value
    _near: dict[tuple[str, int], list[str]] = field(init=False, repr=False, default_factory=dict)

    @classmethod
    def of(cls, catalog: Catalog) -> Lexicon:
        """Reads categories and all text attributes whose values are short."""
        items = list(catalog.live_items)
        return cls({}, frozenset((CATEGORY, *_value_fields(items))), {}).with_items(items)

    def with_items(self, items: Iterable[Item]) -> Lexicon:
        """The same with the values of further items."""
        found: defaultdict[str, dict[FieldValue, None]] = defaultdict(dict)
        new = Counter(value for item in items for value in self._values(item))
        for value in new:
            for key in _keys(value.text):
                found[key][value] = None
        if not new:
            return self
        sizes = dict(self.sizes)
        for value, count in new.items():
            sizes[value] = sizes.get(value, 0) + count
        joined = {
            key: tuple(dict.fromkeys((*self.by_key.get(key, ()), *own)))
            for key, own in found.items()
        }
        return Lexicon(self.by_key | joined, self.fields, sizes)

    def _values(self, item: Item) -> Iterable[FieldValue]:
        for name in item.categories:
            yield FieldValue(CATEGORY, name)
        for name, value in item.attributes.items():
            if name in self.fields:
                for text in value if isinstance(value, tuple) else (value,):
                    if isinstance(text, str):
                        yield FieldValue(name, text)

    def find(self, words: Sequence[Word], known: Known | None = None) -> list[NamedValues]:
        """The values that some words name, in their order; the longest name at each place.

        Args:
            words: Words of a text.
            known: How many items have each stem in their texts; one that none has may be a value
                misspelt. None forgives nothing.
        """
        found: list[NamedValues] = []
        at = 0
        while at < len(words):
            named = self._at(words, at, known) or self._misspelt(words, at, known)
            if named is None:
                at += 1
            else:
                found.append(named)
                at = named.end
        return found

    def _at(self, words: Sequence[Word], at: int, known: Known | None) -> NamedValues | None:
        for size in range(min(_MOST_WORDS, len(words) - at), 0, -1):
            part = words[at : at + size]
            values = self.by_key.get(key_of(part))
            if values is None:
                continue
            kept = tuple(
                value
                for value in values
                if _meant(value, part, words[:at])
                and not (size == 1 and self._everyday(value, part[0], known))
            )
            if kept:
                return NamedValues(at, at + size, kept)
        return None

    def _everyday(self, value: FieldValue, word: Word, known: Known | None) -> bool:
        """Whether most items that have a word in their texts do not have it as a value.

        Staples are more often staples than of that brand, unless they are written like it.
        """
        if known is None or word.text == value.text:
            return False
        return known.count(word.stem) > _EVERYDAY * self.sizes[value]

    def _misspelt(self, words: Sequence[Word], at: int, known: Known | None) -> NamedValues | None:
        if known is None:
            return None
        for size in (2, 1):
            part = words[at : at + size]
            key = key_of(part)
            if len(part) < size or len(key) < 5 or all(known.count(w.stem) for w in part):
                continue
            if any(word.stem in GRAMMAR or word.stem in GOODS for word in part):
                continue
            allowed = 1 if len(key) < 8 else 2
            near = [
                (OSA.distance(key, other, score_cutoff=allowed), other)
                for length in range(len(key) - allowed, len(key) + allowed + 1)
                for other in self._starting(key[0], length)
            ]
            # A name as it is written was refused before.
            near = [pair for pair in near if 0 < pair[0] <= allowed]
            if near:
                return NamedValues(at, at + size, self.by_key[min(near)[1]])
        return None

    def _starting(self, letter: str, length: int) -> list[str]:
        if not self._near:
            for key in self.by_key:
                self._near.setdefault((key[0], len(key)), []).append(key)
        return self._near.get((letter, length), []) if length >= 5 else []


def _meant(value: FieldValue, part: Sequence[Word], before: Sequence[Word]) -> bool:
    """Whether words that could be a value are meant as one.

    A brand that is an everyday word, such as Brother or One, is meant where it is written as the
    catalog writes it; "my brother" is not one.
    """
    written = [word.text for word in part]
    as_written = " ".join(written) == value.text and not value.text.islower()
    if len(part) == 1:
        word = part[0]
        everyday = word.stem in GRAMMAR or word.stem in GOODS or len(word.stem) < 2
        if everyday:
            return as_written and bool(before)
        owned = bool(before) and before[-1].text.lower() in _OWNERS - {"a", "an", "the"}
        if owned and value.field != CATEGORY:
            return as_written
    return True


def _keys(text: str) -> set[str]:
    """What a value is found by: its own name, other names of it, and the parts of "A & B"."""
    keys = set()
    parts = [text, *text.replace("/", "&").replace(",", "&").replace(" and ", "&").split("&")]
    for part in dict.fromkeys(part.strip() for part in parts):
        words = words_of(part)
        key = key_of(words)
        if not key or len(words) > _MOST_WORDS:
            continue
        # A part that says nothing by itself, as in "Home & Other".
        if part != text and all(word.stem in GRAMMAR or word.stem in GOODS for word in words):
            continue
        keys.add(key)
        keys |= other_names(key)
    return keys


def _value_fields(items: Sequence[Item]) -> list[str]:
    sizes: defaultdict[str, list[int]] = defaultdict(list)
    values: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for item in items:
        for name, value in item.attributes.items():
            for text in value if isinstance(value, tuple) else (value,):
                if isinstance(text, str):
                    sizes[name].append(len(text.split()))
                    values[name][text] += 1
    found = []
    for name, own in sizes.items():
        parts = {stem(part) for part in name.replace("-", "_").split("_")}
        total = sum(values[name].values())
        # Numbers and dates are compared, not named; what no two items share is a name of one.
        named = sum(count for text, count in values[name].items() if _nameable(text))
        shared = len(values[name]) <= max(total / 2, 50)
        short = sorted(own)[len(own) // 2] <= _MEDIAN_WORDS
        if not parts & _MACHINE and short and shared and named > total / 2:
            found.append(name)
    return found


def _nameable(text: str) -> bool:
    return any(letter.isalpha() for letter in text) and not text.startswith(_LINKS)


def _grouped() -> dict[str, frozenset[str]]:
    return {key_of(words_of(name)): frozenset(group) for group in _SAME for name in group}


_GROUPS = _grouped()


def other_names(name: str) -> set[str]:
    """The keys of a name of one word, and of the others of its group."""
    return {name, *(key_of(words_of(other)) for other in _GROUPS.get(name, ()))}


def written_names(name: str) -> frozenset[str]:
    """A name of one word, and the others of its group as they are written."""
    return _GROUPS.get(name, frozenset()) | {name}
