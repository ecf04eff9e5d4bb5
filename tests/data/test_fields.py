from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path

import pytest

from incatalog.data.fields import FilePlace, id_problem
from incatalog.errors import DataError

PLACE = FilePlace(Path("f"), 3)
NO_TEXT = [
    True,
    False,
    b"Alien",
    {"en": "Alien"},
    ["Alien"],
    2.5,
    float("inf"),
    Decimal("1.5"),
    datetime.date(2020, 1, 1),
]


@pytest.mark.parametrize("value", [None, float("nan"), Decimal("NaN"), ""])
def test_missing_values_are_empty(value) -> None:
    assert PLACE.text("title", value) == ""


def test_text_is_text_as_it_stands() -> None:
    for text in ("nan", "None", "null", "True", " NaN ", "1984"):
        assert PLACE.text("title", text) == text
    assert PLACE.text("title", 1984, numbers=True) == "1984"
    parts = ["a", None, "", float("nan"), "b"]
    assert PLACE.text("title", parts, several=True, numbers=True) == "a b"
    assert PLACE.texts("genre", ["a", 7], numbers=True) == ["a", "7"]
    assert PLACE.texts("genre", ["a", None]) == ["a", ""]


@pytest.mark.parametrize("value", NO_TEXT)
def test_nothing_else_becomes_text(value) -> None:
    with pytest.raises(DataError, match=r"^f:3: title is .*; expected text$") as caught:
        PLACE.text("title", value, numbers=True)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"^f:3: an entry of text is .*; expected text$"):
        PLACE.text("text", ["a", value], several=True, numbers=True)


def test_whole_numbers_are_text_in_tables_only() -> None:
    with pytest.raises(DataError, match=r"^f:3: an entry of text is 7; expected text$"):
        PLACE.text("text", ["a", 7], several=True, numbers=True)
    with pytest.raises(DataError, match=r"^f:3: title is 1984; expected text$"):
        PLACE.text("title", 1984)


def test_half_a_surrogate_pair_is_named() -> None:
    with pytest.raises(DataError, match=r"^f:3: title holds half a surrogate pair"):
        PLACE.text("title", "x \ud83d")
    with pytest.raises(DataError, match=r"^f:3: id holds half a surrogate pair"):
        PLACE.id("id", "\udc00")


def test_ids() -> None:
    assert PLACE.id("id", 7) == "7"
    assert PLACE.id("id", "a, b/c é") == "a, b/c é"
    for value in (None, float("nan"), "", True, 1.0, b"a", ["a"]):
        with pytest.raises(DataError, match=r"^f:3: id is .*; expected an id$"):
            PLACE.id("id", value)
    for letter in "\n\r\t\0\x0b\x1f\x7f\x85\x9f\u2028\u2029":
        assert id_problem(f"a{letter}b")
        with pytest.raises(DataError, match="expected an id without line breaks") as caught:
            PLACE.id("id", f"a{letter}b")
        assert len(str(caught.value).splitlines()) == 1
