from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incatalog import Catalog, Item
from incatalog.serving.title_search import TitleSearch, folded

FILMS = (
    "Star Wars (1977)",
    "Godfather, The (1972)",
    "Godfather: Part II, The (1974)",
    "Empire Strikes Back, The (1980)",
    "Léon (1994)",
    "Toy Story (1995)",
    "Star Maps (1997)",
)


def catalog(titles: tuple[str, ...]) -> Catalog:
    return Catalog.from_items(Item(f"i{row}", title) for row, title in enumerate(titles))


@pytest.fixture(scope="module")
def search() -> TitleSearch:
    return TitleSearch(catalog(FILMS))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("star wars", [0]),
        ("starwars", [0]),
        ("star wras", [0]),
        ("godfahter", [1, 2]),
        ("the god father", [1, 2]),
        ("godfather part", [2]),
        ("empire stikes", [3]),
        ("EMP", [3]),
        ("leon", [4]),
        ("story 1995", [5]),
        ("star", [0, 6]),
        ("the toy storey film", [5]),
        ("xyz", []),
        ("!?", []),
        ("", []),
        # A word alone of three says too little.
        ("star xyz uvw", []),
        # A slip in a number is another number.
        ("1973", []),
    ],
)
def test_what_is_meant_is_found(search: TitleSearch, typed: str, meant: list[int]) -> None:
    assert search.near(typed) == meant


def test_words_as_they_stand_are_worth_more_than_near_ones() -> None:
    found = TitleSearch(catalog(("Harbor Lights", "Harbour Lights", "The Harbour")))
    assert found.near("harbour") == [1, 2, 0]
    assert found.near("harbor") == [0, 1, 2]


def test_popularity_decides_between_equals(search: TitleSearch) -> None:
    places = np.arange(len(FILMS))[::-1].copy()
    assert search.near("star", places) == [6, 0]
    assert search.near("star wars", places) == [0]


def test_removed_items_are_not_found_and_a_price_changes_nothing() -> None:
    before = catalog(FILMS)
    found = TitleSearch(before)
    changed, _ = before.with_changes([], ["i0"])
    assert not found.fits(changed)
    assert TitleSearch(changed).near("star") == [6]
    cheaper = Catalog.from_items(
        Item(item.item_id, item.title, attributes={"price": 1.0}) for item in before.items
    )
    assert found.fits(cheaper)


_TITLES = st.lists(st.text("abc Éé1", min_size=1, max_size=12), min_size=1, max_size=8)


@given(titles=_TITLES, query=st.text("abc é1", max_size=8))
@settings(max_examples=200, deadline=None)
def test_forgiving_search_misses_nothing_that_the_strict_one_finds(
    titles: list[str], query: str
) -> None:
    found = TitleSearch(catalog(tuple(titles)))
    rows = found.near(query)
    assert len(set(rows)) == len(rows)
    assert set(rows) <= set(range(len(titles)))
    words = folded(query).split()
    # Words of one or two letters count where a word begins only.
    whole = [row for row, t in enumerate(titles) if set(words) <= set(folded(t).split())]
    if words:
        assert set(whole) <= set(rows)
