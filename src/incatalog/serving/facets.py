"""What a catalog can be filtered by: its categories, and the attributes of its items."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64

from incatalog.data.attributes import Value
from incatalog.data.formats import label, value_shown
from incatalog.recommender.recommender import Recommender
from incatalog.serving.page_schemas import Facet, FacetChoice

_MOST_FIELDS = 12
_MOST_CHOICES = 50
# A text of more different values names single items rather than kinds of them.
_MOST_DIFFERENT = 0.5
_LONGEST_CHOICE = 80
# A field that fewer items have is of no use as a filter.
_LEAST_SHARE = 0.02
_YEARS = (1000, 2200)
# What the page shows in its own way.
_NO_FILTER = frozenset(("url", "image"))


@dataclass(frozen=True, eq=False)
class NumberFacet:
    """The numbers of one field, ascending."""

    field: str
    values: Float64[np.ndarray, " items"]
    currency: str = ""  # that they are amounts of

    @property
    def whole(self) -> bool:
        """Whether all of them are whole numbers."""
        return bool((self.values == np.floor(self.values)).all())

    @property
    def is_year(self) -> bool:
        """Whether they are years."""
        least, most = _YEARS
        within = self.whole and least <= self.values[0] and self.values[-1] <= most
        return within and "year" in self.field.lower()

    @property
    def is_price(self) -> bool:
        """Whether they are prices."""
        return bool(self.currency) or "price" in self.field.lower()

    def shown(self, value: float) -> str:
        """A number as people read it; of an amount without cents only what is whole."""
        text = value_shown(int(value) if value.is_integer() else value, self.currency)
        return re.sub(r"\.00(?!\d)", "", text)


def category_sizes(recommender: Recommender) -> list[tuple[str, int]]:
    """The categories with the number of items that may be recommended, the largest first."""
    sizes = Counter[str]()
    for row, item in enumerate(recommender.catalog.items):
        if row not in recommender.catalog.vacant and row not in recommender.disabled:
            sizes.update(set(item.categories))
    return sorted(sizes.items(), key=lambda one: (-one[1], one[0]))


def number_facets(recommender: Recommender) -> list[NumberFacet]:
    """The fields that hold numbers, those of the most items first."""
    found, currencies = [], dict(recommender.catalog.formats)
    for field, values in _columns(recommender).items():
        numbers = [one for one in values if isinstance(one, int | float)]
        if len(numbers) == len(values) and not any(isinstance(one, bool) for one in values):
            ascending = np.sort(np.array(numbers, dtype=np.float64))
            if ascending[0] < ascending[-1]:
                found.append(NumberFacet(field, ascending, currencies.get(field, "")))
    return found


def facets(recommender: Recommender) -> list[Facet]:
    """The fields that items can be filtered by, those of the most items first."""
    numbers = {one.field: one for one in number_facets(recommender)}
    found = []
    for field, values in _columns(recommender).items():
        if (number := numbers.get(field)) is not None:
            found.append(_number(number))
        elif all(isinstance(one, bool) for one in values):
            found.append(_named(field, "switch", len(values)))
        elif (choice := _choice(field, values)) is not None:
            found.append(choice)
    # What people ask for most stands first.
    prices = {one.field for one in numbers.values() if one.is_price}
    return sorted(found[:_MOST_FIELDS], key=lambda one: one.field not in prices)


def _columns(recommender: Recommender) -> dict[str, list[Value]]:
    """What the items that may be recommended hold in each field, fields of the most items first."""
    columns: dict[str, list[Value]] = defaultdict(list)
    total = 0
    for row, item in enumerate(recommender.catalog.items):
        if row in recommender.catalog.vacant or row in recommender.disabled:
            continue
        total += 1
        for field, value in item.attributes.items():
            if field not in _NO_FILTER:
                columns[field].append(value)
    enough = (one for one in columns.items() if len(one[1]) >= max(1, _LEAST_SHARE * total))
    return dict(sorted(enough, key=lambda one: (-len(one[1]), one[0])))


def _number(facet: NumberFacet) -> Facet:
    least, most = float(facet.values[0]), float(facet.values[-1])
    known = {"least": least, "most": most, "whole": facet.whole, "currency": facet.currency}
    return _named(facet.field, "number", len(facet.values)).model_copy(update=known)


def _choice(field: str, values: list[Value]) -> Facet | None:
    """A field whose texts stand for kinds of items; None where they do not."""
    counts = Counter[str]()
    for value in values:
        if isinstance(value, str):
            counts[value] += 1
        elif isinstance(value, tuple):
            counts.update(set(value))
    counts = Counter({text: n for text, n in counts.items() if len(text) <= _LONGEST_CHOICE})
    if len(counts) < 2 or len(counts) > max(1, _MOST_DIFFERENT * len(values)):
        return None
    best = sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:_MOST_CHOICES]
    choices = [FacetChoice(value=text, shown=text, items=number) for text, number in best]
    return _named(field, "choice", len(values)).model_copy(update={"choices": choices})


def _named(field: str, kind: Literal["number", "choice", "switch"], items: int) -> Facet:
    return Facet(field=field, label=label(field), kind=kind, items=items, choices=[])
