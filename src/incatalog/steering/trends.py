"""Words that order items without a limit: "cheap", "newer"; they become weights."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from incatalog.data.catalog import Catalog
from incatalog.data.where import Condition
from incatalog.steering.bounds import MeasuredFields

# From the least to the greatest value: what a word such as "cheap" changes log-weights by.
_REACH = 3.0
_TRENDS = {
    "price": (
        (re.compile(r"\b(?:cheap(?:er|est|ly)?|inexpensive|affordable|low[- ](?:cost|price[ds]?)|"
                    r"(?:on a |tight |small )budget|less expensive|good value)\b"), -1),
        (re.compile(r"\b(?:(?<!less )expensive|premium|luxur(?:y|ious)|"
                    r"high[- ]end|pric(?:ey|ier)|exclusive)\b"), 1),
    ),
    "year": (
        (re.compile(r"\b(?:old(?:er|est)?|classics?|vintage|retro|early)\b(?!\s+enough)"
                    r"(?<!years old)(?<!year old)"), -1),
        (re.compile(r"\b(?:new(?:er|est)?|recent|latest|modern|up[- ]to[- ]date|current)\b"
                    r"(?!\s+(?:to me|for me|year|york))"), 1),
    ),
}  # fmt: skip


_THAN = re.compile(r"\s+than\b")
_COMPARED = re.compile(r"(?:more|less) |er$")
# "That is too old" asks for what is newer.
_TOO = re.compile(r"\btoo $")


class Trend(NamedTuple):
    """Which way price or year is to go, and where a text says it.

    Compared says whether it is more or less than something ("older", not "old").
    """

    what: str
    way: int
    start: int
    end: int
    compared: bool


def trends(lower: str, measured: MeasuredFields) -> tuple[Trend, ...]:
    """The trends in a text in lower case that the catalog can follow; "older than" is none."""
    found = []
    for what, patterns in _TRENDS.items():
        if _field(what, measured) is None:
            continue
        for pattern, way in patterns:
            for match in pattern.finditer(lower):
                if _THAN.match(lower, match.end()):
                    continue
                before = lower[max(match.start() - 5, 0) : match.start()]
                compared = bool(_COMPARED.search(match[0]) or _COMPARED.match(before))
                found.append(Trend(what, way, *match.span(), compared))
    return tuple(found)


def turned(trend: Trend, lower: str, refused: Sequence[tuple[int, int, int]]) -> Trend:
    """A trend the other way where it is denied, or there is too much of it: "not too old"."""
    denied = any(start <= trend.start < end for _, start, end in refused)
    too_much = _TOO.search(lower[: trend.start]) is not None
    return trend._replace(way=-trend.way) if denied or too_much else trend


def beside(
    trend: Trend, rows: Sequence[int], catalog: Catalog, measured: MeasuredFields
) -> Condition | None:
    """The limit that "older" or "cheaper" sets beside some items; None if they have no value."""
    name = _field(trend.what, measured)
    if name is None or not trend.compared:
        return None
    numbers = catalog.attribute(name).numbers[list(rows)]
    known = numbers[~np.isnan(numbers)]
    if not len(known):
        return None
    value = float(known.min() if trend.way < 0 else known.max())
    whole = int(value) if value == int(value) else value
    return Condition(name, "lt" if trend.way < 0 else "gt", whole)


def _field(what: str, measured: MeasuredFields) -> str | None:
    if what == "price":
        return measured.price
    return None if measured.dated else measured.year


def trend_weights(
    catalog: Catalog, measured: MeasuredFields, wanted: Mapping[str, int]
) -> Float64[np.ndarray, " items"] | None:
    """Log-weights that rise or fall with the rank of the items' prices and years."""
    found: Float64[np.ndarray, " items"] | None = None
    for what, way in wanted.items():
        name = _field(what, measured)
        if name is None:
            continue
        values = catalog.attribute(name).numbers
        known = ~np.isnan(values)
        rank = np.full(len(values), 0.5)
        order = np.unique(values[known], return_inverse=True)[1]
        rank[known] = order / max(int(order.max(initial=0)), 1)
        own = way * _REACH * (rank - 0.5)
        found = own if found is None else found + own
    return found
