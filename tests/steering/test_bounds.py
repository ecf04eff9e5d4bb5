from __future__ import annotations

import pytest

from incatalog.data.catalog import Catalog, Item
from incatalog.steering.bounds import MeasuredFields
from incatalog.steering.wish import Filter
from shelves import FILMS, OFFICE


def said(catalog: Catalog, text: str) -> list[str]:
    found = MeasuredFields.of(catalog).read(text)
    return sorted(Filter.of(one.condition, "").id for one in found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("films under 20 euros", ["price<=20"]),
        ("at most 15", ["price<=15"]),
        ("no more than $9.99 please", ["price<=9.99"]),
        ("cheaper than twenty euros", ["price<=20"]),
        ("20 euros or less", ["price<=20"]),
        ("over 10 dollars", ["price>=10"]),
        ("10 euros and up", ["price>=10"]),
        ("between 10 and 20", ["price<=20", "price>=10"]),
        ("from 20 to 10 euros", ["price<=20", "price>=10"]),
        ("10-20 euros", ["price<=20", "price>=10"]),
        ("around 20 euros", ["price<=25", "price>=15"]),
        ("from the nineties", ["year<=1999", "year>=1990"]),
        ("an 80s film", ["year<=1989", "year>=1980"]),
        ("the late 1970s", ["year<=1979", "year>=1977"]),
        ("from the seventies or eighties", ["year<=1989", "year>=1970"]),
        ("from 1985 to 1989", ["year<=1989", "year>=1985"]),
        ("after 2000", ["year>=2001"]),
        ("since 1995", ["year>=1995"]),
        ("from 1995 on", ["year>=1995"]),
        ("from 1995", ["year=1995"]),
        ("older than 1960", ["year<=1959"]),
        ("until 1960", ["year<=1960"]),
        ("something in stock", ["in_stock=true"]),
        ("only available now", ["in_stock=true"]),
        ("from 1990 and under 20 euros", ["price<=20", "year=1990"]),
        ("for kids under 10 years", []),
        ("12 angry men", []),
        ("a film about 9 to 5 jobs", []),
        ("under the sea", []),
        ("at least 90 minutes", []),
        ("rating of at least 4", []),
    ],
)  # fmt: skip
def test_limits_of_films(text: str, expected: list[str]) -> None:
    assert said(FILMS, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("in stock", ["stock>0"]),
        ("at least 30 pages", ["pages>=30"]),
        ("wireless, under 100", ["price<=100", "wireless=true"]),
        ("released after 2018", ["released>=2019"]),
        ("from 2019", ["released<=2019", "released>=2019"]),
        ("more than 5 sheets", ["price>=5"]),
    ],
)
def test_limits_of_other_fields(text: str, expected: list[str]) -> None:
    assert said(OFFICE, text) == expected


def test_a_catalog_without_numbers_has_no_limits() -> None:
    plain = Catalog.from_items([Item("1", "A"), Item("2", "B")])
    assert said(plain, "under 20 euros from the nineties, in stock") == []


def test_new_items_bring_new_fields() -> None:
    before = MeasuredFields.of(FILMS)
    assert before.with_items([Item("x", "X", attributes={"year": 1999})]) is before
    after = before.with_items([Item("x", "X", attributes={"minutes": 90})])
    found = [one.condition for one in after.read("at most 90 minutes")]
    assert [(one.field, one.op, one.value) for one in found] == [("minutes", "lte", 90)]
