from __future__ import annotations

import pytest

from incatalog.steering.labels import phrases
from incatalog.steering.steering import Steering
from shelves import FILMS, OFFICE

FILM = Steering.of(FILMS, encoder="words").listener
DESK = Steering.of(OFFICE, encoder="words").listener


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from 1990 to 1999", {"from 1990 to 1999": ["year>=1990", "year<=1999"]}),
        ("between 10 and 20 euros", {"price between 10 and 20": ["price>=10", "price<=20"]}),
        ("under 20 euros", {"price up to 20": ["price<=20"]}),
        (
            "horror from the eighties under 20 euros",
            {
                "from 1980 to 1989": ["year>=1980", "year<=1989"],
                "price up to 20": ["price<=20"],
                "Horror": ["category=Horror"],
            },
        ),
    ],
)
def test_both_ends_of_a_range_are_one_phrase(text: str, expected: dict[str, list[str]]) -> None:
    found = phrases(FILM.hear(text).filters)
    assert {one.label: [own.id for own in one.filters] for one in found} == expected


def test_dates_of_one_year_are_that_year() -> None:
    [one] = phrases(DESK.hear("from 2019").filters)
    assert (one.label, len(one.filters)) == ("2019", 2)


def test_ends_that_were_said_apart_are_one_range() -> None:
    above = [*FILM.hear("in stock, over 5 euros").filters, *FILM.hear("under 9 euros").filters]
    labels = [one.label for one in phrases(above)]
    assert labels == ["price between 5 and 9", "in stock"]
