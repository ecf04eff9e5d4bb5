from __future__ import annotations

import pytest

from incatalog.steering.amounts import amount


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("five films", 5), ("a list of 3 westerns", 3), ("show me 5 more", 5), ("top 10", 10),
        ("two good detective stories, ideas", None), ("a couple of movies", 2),
        ("just one", 1), ("the best one", None), ("i want one that is funny", None),
        ("3 of them", 3), ("give me ten thrillers", 10), ("four old french films", 4),
        ("2 kids of 6 and 9", None), ("under 20 euros", None), ("films of 1994", None),
        ("number 2", None), ("pens for 10 dollars", None), ("recommend 500 films", None),
        ("a film for 2 people", None), ("only 3 please", 3),
        ("four friends, two of them can't stand horror", None), ("two of them are kids", None),
        ("two of them please", 2), ("two of those are kids", None),
    ],
)  # fmt: skip
def test_how_many_are_asked_for(text: str, expected: int | None) -> None:
    found = amount(text)
    assert (None if found is None else found.k) == expected
