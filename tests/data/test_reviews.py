from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from incatalog.data.fields import FilePlace
from incatalog.data.reviews import (
    check_reviews,
    first_fields,
    plain_field,
    require_fields,
    text_id,
    text_parts,
    title_problem,
)
from incatalog.data.settings import ReviewSettings
from incatalog.errors import ArtifactError, ConfigError, DataError

PLACE = FilePlace(Path("f"), 3)
NAN = float("nan")


@pytest.mark.parametrize(
    ("value", "found"),
    [("x", "x"), (None, ""), (NAN, ""), ("<b>A</b> &amp; B\n", "A & B"), ("nan", "nan")],
)
def test_text_without_markup(value, found) -> None:
    assert plain_field(PLACE, {"t": value}, "t") == found
    assert plain_field(PLACE, {}, "t") == ""


@pytest.mark.parametrize("value", [3, True, ["x"], {"en": "x"}, b"x"])
def test_what_is_no_text_is_refused(value) -> None:
    with pytest.raises(DataError, match=r"^f:3: field 't' is .*; expected text$"):
        plain_field(PLACE, {"t": value}, "t")
    with pytest.raises(DataError, match=r"^f:3: .* in field 't'; expected text$"):
        text_id(PLACE, {"t": value}, "t")


def test_ids() -> None:
    assert text_id(PLACE, {"t": "007"}, "t") == "007"
    with pytest.raises(DataError, match=r"^f:3: no field 't'; expected text$"):
        text_id(PLACE, {}, "t")
    with pytest.raises(DataError, match="expected an id without line breaks"):
        text_id(PLACE, {"t": "a\nb"}, "t")


def test_parts_of_a_list() -> None:
    for missing in (None, NAN, ""):
        assert text_parts(PLACE, {"t": missing}, "t") == []
    assert text_parts(PLACE, {"t": ["a", None, NAN, ""]}, "t") == ["a", ""]
    assert text_parts(PLACE, {"t": "a"}, "t", or_text=True) == ["a"]
    wrong: list[tuple[Any, bool, str]] = [
        ("a", False, "is 'a'; expected a list of text"),
        (3, True, "is 3; expected text or a list of text"),
        ([3], True, "holds 3; expected text or a list of text"),
        (["a", ["b"]], False, "holds a list; expected a list of text"),
    ]
    for value, or_text, message in wrong:
        with pytest.raises(DataError, match=rf"^f:3: field 't' {message}$"):
            text_parts(PLACE, {"t": value}, "t", or_text=or_text)


def test_titles_that_name_nothing() -> None:
    assert title_problem("Alien") == title_problem("1984") == ""
    assert title_problem(" \u200b") == "items without a title"
    for title in ("$9.99", "var aPageStart = (new Date()).getTime();"):
        assert title_problem(title) == "items whose title is page code or a price"


def test_fields_of_the_first_lines(tmp_path) -> None:
    path = tmp_path / "x"
    lines = [{"a": 1}] * 19 + [{"b": 1}, {"c": 1}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert list(first_fields(path)) == ["a", "b"]
    require_fields(path, "--meta", "games", ("a", "b"))
    expected = (
        f"{path}: no field 'c' in the first lines; found a, b; expected games for --meta; "
        "is it the file for --reviews?"
    )
    with pytest.raises(DataError) as caught:
        require_fields(path, "--meta", "games", ("a", "c"))
    assert str(caught.value) == expected


def test_numbers_and_folders_are_checked_first(tmp_path) -> None:
    none = tmp_path / "none"
    for flags, message in (
        ({"users": -1}, "--users -1: expected 0"),
        ({"length": 2}, "--length 2: expected at least 3"),
        ({"k_core": -1}, "--k-core -1: expected 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_reviews(ReviewSettings(none, none, tmp_path / "out", **flags))
    check_reviews(ReviewSettings(none, none, tmp_path / "out", length=1, k_core=1))
    meta = tmp_path / "metas.jsonl"
    meta.write_text("{}")
    with pytest.raises(ArtifactError, match=r"would overwrite metas\.jsonl"):
        check_reviews(ReviewSettings(none, meta, tmp_path))
