"""Which items a noun names: "ink" is what a cartridge is called, and what a gel pen only has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from incatalog.data.catalog import Catalog
from incatalog.data.word_forms import has_words
from incatalog.steering.stems import words_of


@dataclass(frozen=True, eq=False)
class Nouns:
    """The items of one version of a catalog, by the nouns that their titles call them."""

    catalog: Catalog
    by_stem: Mapping[str, Sequence[int]]

    def rows(self, kinds: object) -> list[int]:
        """Items of any of some kinds, ascending.

        Args:
            kinds: A name or several; the last word of each is the noun, and a title has the others.
        """
        found: set[int] = set()
        for name in kinds if isinstance(kinds, tuple) else (kinds,):
            words = [word.stem for word in words_of(str(name))]
            has = has_words(" ".join(words[:-1]))
            rows = self.by_stem.get(words[-1], ()) if words else ()
            found.update(row for row in rows if has(self.catalog.items[row].title.casefold()))
        return sorted(found)
