"""Words that order items without a limit: "cheap", "newer"; they become weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from incatalog.data.catalog import Catalog
from incatalog.steering.bounds import MeasuredFields

# From the least to the greatest value: what a word such as "cheap" changes log-weights by.
_REACH = 3.0
_TRENDS = {
    "price": (
        (re.compile(r"\b(?:cheap(?:er|est|ly)?|inexpensive|affordable|low[- ](?:cost|price[ds]?)|"
                    r"(?:on a |tight |small )budget|less expensive|good value)\b"), -1),
        (re.compile(r"\b(?:(?<!less )(?<!not )(?<!too )expensive|premium|luxur(?:y|ious)|"
                    r"high[- ]end|pric(?:ey|ier)|exclusive)\b"), 1),
    ),
    "year": (
        (re.compile(r"\b(?:old(?:er|est)?|classics?|vintage|retro|early)\b(?!\s+(?:than|enough))"
                    r"(?<!years old)(?<!year old)"), -1),
        (re.compile(r"\b(?:new(?:er|est)?|recent|latest|modern|up[- ]to[- ]date|current)\b"
                    r"(?!\s+(?:than|to me|for me|year|york))"), 1),
    ),
}  # fmt: skip


class Trend(NamedTuple):
    """Which way price or year is to go, and where a text says it."""

    what: str
    way: int
    start: int
    end: int


def trends(lower: str, measured: MeasuredFields) -> tuple[Trend, ...]:
    """The trends in a text in lower case that the catalog can follow."""
    return tuple(
        Trend(what, way, *match.span())
        for what, patterns in _TRENDS.items()
        if _field(what, measured) is not None
        for pattern, way in patterns
        for match in pattern.finditer(lower)
    )


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
