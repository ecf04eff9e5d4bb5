from __future__ import annotations

import pytest

from incatalog.data.catalog import Catalog, Item
from incatalog.steering.bounds import MeasuredFields
from incatalog.steering.lacking import lacked
from incatalog.steering.steering import Steering
from shelves import FILMS, user

PLAIN = Catalog.from_items([Item("1", "Gel pens"), Item("2", "Stapler")], "plain")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pens under 20 euros", ["prices"]),
        ("between $10 and $20", ["prices"]),
        ("from the nineties, cheaper than 5", ["years", "prices"]),
        ("made after 2010", ["years"]),
        ("at least 300 pages", ["numbers of pages"]),
        ("rating of at least 4", ["ratings"]),
        ("at least 4 stars", ["ratings"]),
        ("at most 90 minutes", ["running times"]),
        ("pens in stock", ["stock levels"]),
        # These may be limits of anything, or of nothing.
        ("under 20", []),
        ("for up to 2000 sheets", []),
        ("about Normandy in 1944", []),
        ("for children under 10 years", []),
        ("12 pens", []),
    ],
)
def test_limits_that_a_catalog_knows_nothing_of(text: str, expected: list[str]) -> None:
    assert [one.what for one in lacked(text, MeasuredFields.of(PLAIN))] == expected


@pytest.mark.parametrize(
    "text", ["under 20 euros", "from the nineties", "in stock", "more than 5 dollars"]
)
def test_nothing_is_lacking_where_the_catalog_knows_it(text: str) -> None:
    assert lacked(text, MeasuredFields.of(FILMS)) == []


def test_a_limit_that_is_left_out_is_no_words() -> None:
    steering = Steering.of(PLAIN, encoder="words")
    wish = steering.read([user("something under 20 euros")])
    assert (wish.lacking, wish.words, wish.filters) == (("prices",), (), ())
    assert wish.log_weights is None
    assert wish.recommends
    later = steering.read([user("under 20 euros"), user("a stapler")])
    assert later.lacking == ()
