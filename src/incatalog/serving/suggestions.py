"""What people may begin with: popular items, and questions that name something of the catalog."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int64

from incatalog.errors import TeacherError
from incatalog.recommender.recommender import Recommender
from incatalog.serving.facets import NumberFacet, category_sizes, number_facets

_log = logging.getLogger(__name__)

_MOST_POPULAR = 12  # items to pick from
_MOST_OF_A_CATEGORY = 3  # of them
_LOOKED_AT = 200  # popular items at most, until there are enough of several categories
_MOST_SUGGESTIONS = 4
_WIDEST = 0.5  # share of the items from which on a category says nothing
_ASK_ALONE = "What would you recommend?"


def popularity(recommender: Recommender) -> Int64[np.ndarray, " live"] | None:
    """Rows of the items that may be recommended, the most popular first.

    None where the guide does not know what is popular, or there is none. A guide that is served
    elsewhere is asked over HTTP.
    """
    guide, items = recommender.guide, recommender.items
    if guide is None or guide.empty != "popularity":
        return None
    try:
        [found] = guide.log_weights([np.zeros(0, dtype=np.int64)], items)
    except TeacherError as error:
        _log.error("the teacher failed to say what is popular: %s", error)
        return None
    if found is None:
        return None
    rows = _rows(recommender)
    return rows[np.argsort(-found[rows], kind="stable")]


def begin_with(
    recommender: Recommender, popular: Int64[np.ndarray, " live"] | None
) -> Iterator[int]:
    """Rows of items to pick from, of several categories, the most popular first.

    Without popularity their order in the catalog counts.
    """
    rows = _rows(recommender) if popular is None else popular
    rows, taken = rows[:_LOOKED_AT], Counter[str]()
    number, late = 0, []
    for row in rows.tolist():
        first = next(iter(recommender.catalog.item(row).categories), "")
        if taken[first] >= _MOST_OF_A_CATEGORY and len(rows) > _MOST_POPULAR:
            late.append(row)
            continue
        taken[first] += 1
        yield row
        number += 1
        if number == _MOST_POPULAR:
            return
    yield from late[: _MOST_POPULAR - number]


def questions(recommender: Recommender, popular: Sequence[int]) -> list[str]:
    """Questions that name a category, a number or a title of the catalog, most telling first."""
    catalog = recommender.catalog
    wide = _WIDEST * catalog.num_live
    names = [name for name, size in category_sizes(recommender) if 1 < size <= wide]
    numbers = [text for facet in number_facets(recommender) if (text := _limit(facet))]
    found = []
    if names:
        found.append(f"What is good in {names[0]}?")
    if numbers:
        found.append(f"{names[1] if len(names) > 1 else 'Something'} {numbers[0]}")
    elif len(names) > 1:
        found.append(f"Show me {names[1]}.")
    if popular:
        found.append(f"Something like {catalog.item(popular[0]).title}")
    return [*found[: _MOST_SUGGESTIONS - 1], _ASK_ALONE]


def _limit(facet: NumberFacet) -> str:
    """A usual limit of a field, in words; empty where none is usual."""
    if facet.is_year:
        decade = int(np.median(facet.values)) // 10 * 10
        return f"from the {decade}s"
    if not facet.is_price:
        return ""
    middle = float(np.median(facet.values))
    if middle <= 0:
        return ""
    power = 10.0 ** np.floor(np.log10(middle))
    most: float = next(step * power for step in (1, 2, 5, 10) if step * power >= middle)
    return f"under {facet.shown(most)}"


def _rows(recommender: Recommender) -> Int64[np.ndarray, " live"]:
    """Rows of the items that may be recommended, ascending."""
    hidden = recommender.catalog.vacant | recommender.disabled
    rows = [row for row in range(len(recommender.catalog)) if row not in hidden]
    return np.array(rows, dtype=np.int64)
