"""Limits that are said of what a catalog knows nothing of: "under 20 euros" without prices."""

from __future__ import annotations

import re
from dataclasses import dataclass

from incatalog.data.where import Condition
from incatalog.steering.bounds import (
    IN_STOCK,
    PRICE,
    STOCK,
    YEAR,
    MeasuredFields,
    called,
    says_stock,
)
from incatalog.steering.numbers_said import MONEY


@dataclass(frozen=True)
class Lacked:
    """What of the items a text limits and no item has, and where it says so."""

    what: str
    start: int
    end: int


_RUNTIME = ("minute", "min", "hour", "runtime", "duration", "length")
# A catalog that knows all that is usual; by each field, the names that a catalog may have for it,
# and what people call it.
_USUAL = {
    "price": (PRICE, "prices"),
    "year": (YEAR, "years"),
    "page": (("page", "page count"), "numbers of pages"),
    "runtime": (_RUNTIME, "running times"),
    "hour": (_RUNTIME, "running times"),
    "rating": (("rating", "star", "score"), "ratings"),
    "player": (("player",), "numbers of players"),
}
_EVERY = MeasuredFields(numbers=tuple(_USUAL), price="price", year="year")
# "in 1944" may be when a story plays, and "up to 2000" is of sheets.
_NO_YEAR = re.compile(r"(?:in|of|the year|from the year|up to)\b")


def lacked(text: str, measured: MeasuredFields) -> list[Lacked]:
    """The limits that a text in lower case says of fields that the catalog has not."""
    known = measured.read(text)
    found = []
    for said in _EVERY.read(text):
        condition, part = said.condition, text[said.start : said.end]
        if any(one.start < said.end and said.start < one.end for one in known):
            continue
        if _has(condition, measured) or not _plain(condition, part):
            continue
        found.append(Lacked(_USUAL[condition.field][1], said.start, said.end))
    has_stock = called(IN_STOCK, measured.truths) or called(STOCK, measured.numbers)
    if not has_stock:
        found += [Lacked("stock levels", *span) for span in says_stock(text)]
    return sorted(set(found), key=lambda one: (one.start, one.what))


def _has(condition: Condition, measured: MeasuredFields) -> bool:
    if condition.field == "price":
        return measured.price is not None
    if condition.field == "year":
        return measured.year is not None
    return called(_USUAL[condition.field][0], measured.numbers) is not None


def _plain(condition: Condition, part: str) -> bool:
    """Whether a limit says plainly what it is of."""
    if condition.field == "price":
        return bool(re.search(MONEY, part)) or part.startswith("cheaper")
    return not (condition.field == "year" and _NO_YEAR.match(part))
