"""Items as people name them: by id, by title, or by something like it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property

from rapidfuzz import fuzz, process, utils

from incatalog.data.catalog import Catalog
from incatalog.errors import CatalogError
from incatalog.names import names, quoted_name

_YEAR = re.compile(r"\s*[(\[]\d{4}(?:[-–/]\d{2,4})?[)\]]\s*$")
_ARTICLE = re.compile(r"^(.+), (the|a|an|der|die|das|le|la|les|l'|el|los|il)$")
# Likeness, from 0 to 100, below which nobody meant that.
_LEAST, _LEAST_ID = 50.0, 40.0
_SHOWN = 3


class ItemNames(Collection[str]):
    """What the items of a catalog may be called: their ids, and their titles as people type them.

    A title is found whatever its capitals and white space are, with or without the year behind it,
    and with an article in front where the catalog has it behind a comma.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        live = [row for row in range(len(catalog)) if row not in catalog.vacant]
        self._whole: defaultdict[str, list[int]] = defaultdict(list)
        self._short: defaultdict[str, list[int]] = defaultdict(list)
        for row in live:
            title, *shorter = typed_forms(catalog.titles[row])
            self._whole[title].append(row)
            for form in shorter:
                self._short[form].append(row)
        self._live = live

    def rows(self, name: str) -> list[int]:
        """Rows of the items of exactly that name; several where titles are alike but for a year."""
        if self._catalog.has(name):
            return [self._catalog.row(name)]
        folded = _folded(name)
        return self._whole.get(folded) or self._short.get(folded) or []

    def near(self, name: str, most: int = _SHOWN) -> list[int]:
        """Rows of the items whose title or id is most like a name, best first."""
        return [row for row, _ in self.alike(name, most)]

    def alike(self, name: str, most: int = _SHOWN) -> list[tuple[int, float]]:
        """The same, each with how alike it is, from 0 to 100."""
        found = process.extract(
            name,
            self._titles,
            scorer=fuzz.WRatio,
            processor=utils.default_process,
            limit=most,
            score_cutoff=_LEAST,
        )
        ids = {row: self._catalog.item(row).item_id for row in self._live}
        found += process.extract(name, ids, scorer=fuzz.ratio, limit=most, score_cutoff=_LEAST_ID)
        best: dict[int, float] = {}
        for _, likeness, row in found:
            best[row] = max(likeness, best.get(row, 0.0))
        return sorted(best.items(), key=lambda one: -one[1])[:most]

    def one(self, place: str, name: str) -> int:
        """The row of the item of a name.

        Raises:
            CatalogError: No item is called that, or several are; names the nearest ones.
        """
        rows = self.rows(name)
        if len(rows) == 1:
            return rows[0]
        if rows:
            several = f"{name!r} is the title of {len(rows)} items"
            raise CatalogError(f"{place}: {several}: {self.told(rows[:_SHOWN])}; give one's id")
        near = self.told(self.near(name))
        count = self._catalog.num_live
        lacking = f"no item {name!r} in the model's catalog of {count} items"
        hint = (f"; near: {near}" if near else "") + quoted_name(place, name, self)
        raise CatalogError(f"{place}: {lacking}{hint}")

    def listed(self, flag: str, values: Sequence[str]) -> list[str]:
        """Ids of the items that the values of a flag name, several of them between commas.

        Raises:
            CatalogError: As in :meth:`one`.
            ConfigError: A value is no list of names, or may be read in two ways.
        """
        rows = [self.one(flag, name) for name in names(flag, values, self)]
        return list(map(self.item_id, rows))

    def item_id(self, row: int) -> str:
        """The id of an item."""
        return self._catalog.item(row).item_id

    def told(self, rows: Sequence[int]) -> str:
        """Items as an error names them."""
        items = [self._catalog.item(row) for row in rows]
        return ", ".join(f"{item.item_id!r} ({item.title})" for item in items)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.rows(name))

    def __iter__(self) -> Iterator[str]:
        for row in self._live:
            yield self._catalog.item(row).item_id
            yield self._catalog.titles[row]

    def __len__(self) -> int:
        return 2 * len(self._live)

    @cached_property
    def _titles(self) -> dict[int, str]:
        return {row: _YEAR.sub("", self._catalog.titles[row]) for row in self._live}


def typed_forms(title: str) -> list[str]:
    """A title as people may type it, in small letters: whole first, then without year or comma."""
    whole = _folded(title)
    short = _YEAR.sub("", whole)
    moved, year = _in_front(short), whole[len(short) :]
    forms = dict.fromkeys([whole, short, moved, moved + year, _in_front(whole)])
    return [form for form in forms if form]


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _in_front(title: str) -> str:
    """A folded title with the article in front that stands behind a comma."""
    found = _ARTICLE.match(title)
    if found is None:
        return title
    between = "" if found[2].endswith("'") else " "
    return f"{found[2]}{between}{found[1]}"
