"""What the items of a catalog are called in prose, and which words of it name no item."""

from __future__ import annotations

import re
from collections.abc import Iterator
from weakref import WeakKeyDictionary

from incatalog.decoding.request import Grounding
from incatalog.recommender.items import ModelItems
from incatalog.recommender.spotting import titles_of

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_IN_BRACKETS = re.compile(r"\s*[(\[][^()\[\]]*[)\]]\s*$")
# Catalogs sort titles by their first real word: "Matrix, The".
_ARTICLE_BEHIND = re.compile(r"^(.+), (the|a|an|der|die|das|le|la|les|l'|il|el|los|las)$", re.I)
_ARTICLES = ("the ", "a ", "an ")


class KnownNames:
    """The names of a catalog's items, as people and models write them.

    An item is known by its title, by what a model calls it, and by either without what stands in
    brackets at its end, whatever the capitals, the marks and the article in front. Of several
    items with one name the first counts.
    """

    def __init__(self, items: ModelItems) -> None:
        catalog, aliases = items.catalog, items.aliases
        self._rows: dict[str, int] = {}
        live = [row for row in range(len(catalog)) if row not in catalog.vacant]
        names = [*zip(catalog.titles, range(len(catalog)), strict=True)]
        names += zip(catalog.names, range(len(catalog)), strict=True)
        taken = set(live)
        for spell in (_whole, _short):
            for name, row in [*names, *zip(aliases.texts, aliases.rows, strict=True)]:
                if row in taken:
                    for form in spell(name):
                        self._rows.setdefault(form, int(row))
        self._rows.pop("", None)
        self.words = frozenset(_catalog_words(items))
        self._titles = titles_of(items)

    def row(self, name: str) -> int | None:
        """The item that a name is that of."""
        for form in (*_whole(name), *_short(name)):
            if (row := self._rows.get(form)) is not None:
                return row
        return None

    def written_out(self, text: str) -> Iterator[tuple[int, int]]:
        """Where a text has titles as the catalog writes them, those of one word left out."""
        for start, end, _ in self._titles.places(text):
            if len(_WORD.findall(text[start:end])) > 1:
                yield start, end


def _whole(name: str) -> Iterator[str]:
    form = _plain(name)
    yield form
    yield _without_article(form)


def _short(name: str) -> Iterator[str]:
    """Forms without brackets, subtitles kept."""
    short = name.strip()
    while (cut := _IN_BRACKETS.sub("", short)) != short and cut:
        short = cut
        if turned := _ARTICLE_BEHIND.match(short):
            yield _plain(f"{turned[2]} {turned[1]}")
            yield _plain(turned[1])
        yield from _whole(short)
    if turned := _ARTICLE_BEHIND.match(short):
        yield _plain(f"{turned[2]} {turned[1]}")
        yield _plain(turned[1])


def _plain(name: str) -> str:
    return " ".join(_WORD.findall(name.casefold().replace("&", " and ").replace("’", "'")))


def _without_article(form: str) -> str:
    for article in _ARTICLES:
        if form.startswith(article):
            return form.removeprefix(article)
    return form


def _catalog_words(items: ModelItems) -> Iterator[str]:
    """Words that name no item: those of categories and of the catalog's own name."""
    for name in (*items.catalog.categories, items.catalog.name):
        for word in _WORD.findall(name.casefold()):
            yield word
            yield from (f"{word}s", f"{word.removesuffix('y')}ies", word.removesuffix("s"))


# Made once for each version of a catalog, when an answer first has prose.
_KNOWN: WeakKeyDictionary[Grounding, KnownNames] = WeakKeyDictionary()


def known_names(items: ModelItems) -> KnownNames:
    """The names of these items."""
    found = _KNOWN.get(items.grounding)
    if found is None:
        found = _KNOWN[items.grounding] = KnownNames(items)
    return found
