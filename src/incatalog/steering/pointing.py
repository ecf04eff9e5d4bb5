"""Items that a sentence points at: "the second one", "like Alien", "no more of these"."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rapidfuzz import fuzz, process

from incatalog.data.catalog import Catalog
from incatalog.steering.places import PLACE, rows_of
from incatalog.steering.stems import GRAMMAR, Word, in_lower_case, key_of, words_of

_LIKE = re.compile(
    r"\b(?:(?:more|something|anything|things?|stuff|others?|ones?|just|similar|exactly|films?|"
    r"movies?|products?|items?|another|one|much|rather|and|,|again)\s+(?:\w+\s+)?)?"
    r"(?:like|similar to|such as|in the (?:style|vein|spirit) of|along the lines of|"
    r"comparable to|the same as|of the kind of)\s+"
)
_LIKED = re.compile(
    r"\b(?:(?:i|we)(?:'ve)?(?: have)?(?: really| also| just| always| both)?\s+"
    r"(?:liked?|loved?|enjoyed?|adored?)|liked|loved|enjoyed|adored|"
    r"(?:my|a|our) favou?rites? (?:is|was|are)|"
    r"fans? of|because of|more of|based on)\s+"
)
_OTHER_PEOPLE = r"(?:they|he|she|everyone|everybody|(?:my|our|the) \w+)(?:['’](?:ve|s)| have| has)?"
_DISLIKED = re.compile(
    r"\b(?:(?:(?:do|does|did|would)(?: not|n['’]?t)|never)\s+(?:really\s+)?"
    r"(?:like|liked|love|loved|enjoy|enjoyed|want)|(?:hate|dislike)[sd]?|detest(?:s|ed)?|"
    r"(?:can|could)(?:not| not|n?['’]?t) (?:stand|bear)|nothing like|"
    r"(?:i|we)(?:['’]ve| have)?\s+(?:already\s+)?(?:seen|watched|own|owned|have|had|bought|know|"
    rf"read|played)|{_OTHER_PEOPLE}\s+(?:already\s+)?(?:seen|watched|owned?|owns|bought|knows?|"
    r"read|played)|not|but not|except|without|leave out|skip|anything but|no more)\s+"
    r"(?:already\s+)?"
)
_THAN = re.compile(r"\s+than\s+")
_OTHERS = re.compile(
    r"\b(?:no more of (?:these|those|them|that|this)|none of (?:these|those|them)|"
    r"not (?:these|those|any of (?:these|those|them))|(?:some|any)thing (?:else|different)|"
    r"(?:what|who|which ones?) else|(?:any|some|have|are there)(?: \w+)? others?|"
    r"others? (?:ones?|films?|movies?|items?|products?|options?|suggestions?|ideas?|titles?)|"
    r"different (?:ones?|films?|movies?|items?|products?|titles?|suggestions?)|"
    r"(?:show|give|recommend|tell)(?: me| us)? (?:some |a few |\w+ )?(?:more|others?)\b|"
    r"(?:^|\b(?:some|any|few|\d+) )more(?: please)?\s*[.!?]*$|another(?: one| few)?|"
    r"(?:^|\bthe )next(?: ones?)?\b|(?:i|we)(?:['’]ve| have)? (?:already )?"
    r"(?:seen|watched|own|have|know) (?:all (?:of )?)?(?:these|those|them|that|all))"
)
_THESE = re.compile(
    r"(?:all (?:of )?)?(?:this|that|these|those|them|it)(?:\s+(?:one|ones|film|films|movie|movies|"
    r"item|items))?\b(?=\s*(?:$|[.,!?;]|but|and|please|too|so|with|from|under))"
)
_BOTH = re.compile(r"both(?: of (?:them|these|those)| films| movies| items)?\b")
# A title stands at the end, or before something that goes on; as far as this it is looked for.
_REST = re.compile(r"[.!?;\n]|\b(?:but|please|only|which|that|because)\b")
_JOINED = re.compile(r"\s*(?:,\s*(?:and|or)?|and|or|&)\s+")
_MOST_TITLE_WORDS = 24
_NEAR = 90
_YEAR_BEHIND = re.compile(r"\s*\((?:\d{4}|[^()]*)\)\s*$")
_ARTICLE_BEHIND = re.compile(r"^(.*),\s*(The|A|An|La|Le|Les|Der|Die|Das|El|Il)$", re.IGNORECASE)


class Pointed(NamedTuple):
    """Items that a text points at, and where."""

    rows: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, eq=False)
class TitleKeys:
    """Titles as people write them: without the year, with the article in front, in any case."""

    full: dict[str, tuple[int, ...]]
    # What is tried one after the other where a title is expected: as it is written, in another
    # number ("Alien" for "Aliens"), and what stands before a colon.
    short: tuple[dict[str, tuple[int, ...]], ...]

    @classmethod
    def of(cls, catalog: Catalog) -> TitleKeys:
        """Reads the titles of all items."""
        live = (row for row in range(len(catalog)) if row not in catalog.vacant)
        return cls({}, ({}, {}, {})).with_titles((row, catalog.titles[row]) for row in live)

    def with_titles(self, titles: Iterable[tuple[int, str]]) -> TitleKeys:
        """The same with further titles; rows may hold other items now."""
        new = list(titles)
        if not new:
            return self
        full, (plain, stemmed, parts) = dict(self.full), map(dict, self.short)
        for row, title in new:
            _add(full, _plain(words_of(title)), row)
            for name in _shorter(title):
                words = words_of(name)
                _add(plain, _plain(words), row)
                _add(stemmed, key_of(words), row)
                if ":" in name:
                    _add(parts, _plain(words_of(name.split(":")[0])), row)
        return TitleKeys(full, (plain, stemmed, parts))

    def spotted(self, text: str) -> list[Pointed]:
        """Whole titles in a text, in its order; the longest at each place."""
        words, at = words_of(text), 0
        found: list[Pointed] = []
        while at < len(words):
            # Titles of one word are everywhere.
            hits = [(self.full, _plain, 1), (self.short[0], _plain, 2)]
            hit = next(filter(None, (_longest(words, at, *how) for how in hits)), None)
            if hit is not None:
                found.append(hit[0])
            at = at + 1 if hit is None else hit[1]
        return found

    def named(self, text: str, start: int) -> Pointed | None:
        """The title that begins at a place, perhaps shortened or misspelt."""
        rest = _REST.search(text, start)
        words = words_of(text[start : rest.start() if rest else len(text)])
        words = [word._replace(start=word.start + start, end=word.end + start) for word in words]
        plain, stemmed, parts = self.short
        for at, word in enumerate(words):
            for titles, key in ((self.full, _plain), (plain, _plain), (stemmed, key_of),
                                (parts, _plain)):  # fmt: skip
                hit = _longest(words, at, titles, key, 1)
                if hit is not None and (hit[1] - at > 1 or word.stem not in GRAMMAR):
                    return hit[0]
            # "the movie Alien": words that say nothing may stand before.
            if word.says:
                break
        if not 0 < len(words) <= _MOST_TITLE_WORDS or all(w.stem in GRAMMAR for w in words):
            return None
        return self._misspelt(words)

    def _misspelt(self, words: Sequence[Word]) -> Pointed | None:
        key, titles = _plain(words), self.short[0]
        if len(key) < 6:
            return None
        found = process.extractOne(key, titles.keys(), scorer=fuzz.ratio, score_cutoff=_NEAR)
        return None if found is None else Pointed(titles[found[0]], words[0].start, words[-1].end)


@dataclass(frozen=True)
class Pointing:
    """What a message says of single items."""

    about: tuple[int, ...] = ()  # more like these
    without: frozenset[int] = frozenset()  # none of these
    spans: tuple[tuple[int, int], ...] = ()  # where it names them
    others: tuple[tuple[int, int], ...] = ()  # where it asks for other ones
    than: tuple[Pointed, ...] = ()  # what others are compared with, from the word before "than" on

    @property
    def compared(self) -> tuple[int, ...]:
        """Rows beside which "older" or "cheaper" is meant."""
        return tuple(row for one in self.than for row in one.rows) or self.about


def read_pointing(text: str, titles: TitleKeys, shown: Sequence[Sequence[int]]) -> Pointing:
    """Reads what a message says of items, of which the newest answer showed the last ``shown``."""
    lower = in_lower_case(text)
    newest = next((rows for rows in reversed(shown) if rows), ())
    about: list[int] = []
    without: set[int] = set()
    spans: list[tuple[int, int]] = []
    others: list[tuple[int, int]] = []

    def target(start: int) -> Pointed | None:
        place = PLACE.match(lower, start)
        if place is not None:
            rows = rows_of(place, newest)
            if rows:
                return Pointed(rows, *place.span())
        both = _BOTH.match(lower, start) if len(newest) == 2 else None
        these = both or _THESE.match(lower, start)
        if these is not None and newest:
            return Pointed(tuple(newest), *these.span())
        return titles.named(text, start)

    for match in _OTHERS.finditer(lower):
        without.update(row for rows in shown for row in rows)
        others.append(match.span())
    for pattern, wanted in ((_DISLIKED, False), (_LIKED, True), (_LIKE, True)):
        for match in pattern.finditer(lower):
            if any(start < match.end() <= end for start, end in (*spans, *others)):
                continue
            for found in _targets(lower, match.end(), target):
                # "Loved Fargo, hated Alien": each title belongs to its own word.
                if any(start <= found.start < end for start, end in spans):
                    continue
                if wanted:
                    about += found.rows
                without.update(found.rows)
                spans.append((match.start(), found.end))
    than = []
    for match in _THAN.finditer(lower):
        for found in _targets(lower, match.end(), target):
            than.append(found._replace(start=match.start()))
            spans.append((match.start(), found.end))
    return Pointing(
        tuple(dict.fromkeys(about)), frozenset(without), tuple(spans), tuple(others), tuple(than)
    )


def _targets(lower: str, start: int, target: Callable[[int], Pointed | None]) -> list[Pointed]:
    """What is named from a place on: "the first and the third", "Alien or Aliens"."""
    found = []
    while (hit := target(start)) is not None:
        found.append(hit)
        more = _JOINED.match(lower, hit.end)
        if more is None:
            break
        start = more.end()
    return found


def _shorter(title: str) -> list[str]:
    """The title without what stands in brackets behind it, and with the article in front."""
    plain = title
    while (match := _YEAR_BEHIND.search(plain)) and match.start() > 0:
        plain = plain[: match.start()]
    names = [plain]
    if match := _ARTICLE_BEHIND.match(plain):
        names = [f"{match[2]} {match[1]}", match[1]]
    return names


def _plain(words: Sequence[Word]) -> str:
    return "".join(word.text.casefold() for word in words)


def _add(titles: dict[str, tuple[int, ...]], key: str, row: int) -> None:
    rows = titles.get(key, ())
    if key and row not in rows:
        titles[key] = (*rows, row)


def _longest(
    words: Sequence[Word],
    at: int,
    titles: dict[str, tuple[int, ...]],
    key: Callable[[Sequence[Word]], str],
    least: int,
) -> tuple[Pointed, int] | None:
    """The longest title that begins at a word, of at least so many words; and where it ends."""
    for size in range(min(_MOST_TITLE_WORDS, len(words) - at), least - 1, -1):
        rows = titles.get(key(words[at : at + size]))
        if rows:
            end = at + size
            return Pointed(rows, words[at].start, words[end - 1].end), end
    return None
