from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from incatalog.steering.stems import in_lower_case, key_of, stem, words_of


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("Comedies", "comedy"), ("thrillers", "thriller"), ("Children's", "child"),
        ("dresses", "dress"), ("boxes", "box"), ("glass", "glass"), ("bus", "bus"),
        ("Café", "cafe"), ("movies", "movie"), ("matches", "match"), ("was", "was"),
    ],
)  # fmt: skip
def test_words_are_compared_in_the_singular(word: str, expected: str) -> None:
    assert stem(word) == expected


def test_one_name_written_in_many_ways_has_one_key() -> None:
    keys = {key_of(words_of(text)) for text in ("Sci-Fi", "sci fi", "SciFi", "SCI-FI")}
    assert keys == {"scifi"}


def test_words_know_where_they_stand() -> None:
    text = "a children's film, 8.5 x 11"
    assert [text[word.start : word.end] for word in words_of(text)] == [
        "a", "children's", "film", "8", "5", "x", "11",
    ]  # fmt: skip


@given(st.text())
def test_lower_case_keeps_every_place(text: str) -> None:
    assert len(in_lower_case(text)) == len(text)
