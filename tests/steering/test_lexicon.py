from __future__ import annotations

from collections import Counter

import pytest

from incatalog.data.catalog import Catalog, Item
from incatalog.steering.lexicon import Lexicon
from incatalog.steering.stems import words_of
from shelves import FILMS, OFFICE


class Counted(Counter[str]):
    def count(self, word: str) -> int:
        return self[word]


NONE = Counted()
FILM_WORDS = Lexicon.of(FILMS)
OFFICE_WORDS = Lexicon.of(OFFICE)


def named(lexicon: Lexicon, text: str, known: Counted | None = NONE) -> list[str]:
    found = lexicon.find(words_of(text), known)
    return [f"{value.field}={value.text}" for one in found for value in one.values]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a comedy", ["Comedy"]),
        ("comedies and thrillers", ["Comedy", "Thriller"]),
        ("science fiction", ["Sci-Fi"]),
        ("scifi films", ["Sci-Fi"]),
        ("film noir", ["Film-Noir"]),
        ("cartoons", ["Animation"]),
        ("for my kids", ["Children's"]),
        ("a commedy", ["Comedy"]),
        ("horor", ["Horror"]),
        ("animtion", ["Animation"]),
        ("a thrilling story", []),
        ("something warm", []),
    ],
)
def test_categories(text: str, expected: list[str]) -> None:
    assert named(FILM_WORDS, text) == [f"category={name}" for name in expected]


def test_words_of_the_catalog_are_not_misspelt() -> None:
    assert named(FILM_WORDS, "a horrow") == ["category=Horror"]
    assert named(FILM_WORDS, "a horrow", Counted(["horrow"])) == []
    assert named(FILM_WORDS, "a horrow", None) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a printer by HP", ["brand=HP"]),
        ("hp or canon", ["brand=HP", "brand=Canon"]),
        ("a Brother printer", ["brand=Brother"]),
        ("a gift for my brother", []),
        ("I need one", []),
        ("a stapler from One", ["brand=One"]),
        ("blue pens", ["colour=blue"]),
    ],
)
def test_values_of_attributes(text: str, expected: list[str]) -> None:
    assert named(OFFICE_WORDS, text) == expected


def test_a_word_that_is_mostly_no_brand_is_one_where_it_is_written_so() -> None:
    # Two items are of that brand, and ten have the word in their texts.
    known = Counted({"canon": 10, "hp": 2})
    assert named(OFFICE_WORDS, "hp or canon", known) == ["brand=HP"]
    assert named(OFFICE_WORDS, "hp or Canon", known) == ["brand=HP", "brand=Canon"]


def test_descriptions_dates_and_addresses_are_no_values() -> None:
    told = {"blurb": "a long text about a thing that is sold", "url": "http://x/y", "day": "2020"}
    items = [Item(str(row), f"T{row}", attributes=told | {"maker": "A"}) for row in range(3)]
    assert Lexicon.of(Catalog.from_items(items)).fields == {"category", "maker"}


def test_parts_of_a_name_name_it() -> None:
    items = [Item("1", "A", categories=("Toys & Games",)), Item("2", "B", categories=("Books",))]
    lexicon = Lexicon.of(Catalog.from_items(items))
    assert named(lexicon, "a toy") == ["category=Toys & Games"]
    assert named(lexicon, "toys and games") == ["category=Toys & Games"] * 2


def test_new_items_bring_new_values() -> None:
    assert FILM_WORDS.with_items([]) is FILM_WORDS
    more = FILM_WORDS.with_items([Item("x", "X", categories=("Western",))])
    assert named(more, "westerns") == ["category=Western"]
    assert named(FILM_WORDS, "westerns") == []
