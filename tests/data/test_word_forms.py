from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incatalog.data.word_forms import has_words, plural


@pytest.mark.parametrize(
    ("text", "other", "expected"),
    [
        ("pen", "gel pens, pack of 12", True),
        ("pens", "a pen", True),
        ("pen", "pencils in an open box", False),
        ("gel pen", "pens with black gel", True),
        ("gel pen", "ballpoint pens", False),
        ("battery", "aa batteries", True),
        ("box", "boxes", True),
        ("shelf", "two shelves", True),
        ("child", "children's chair", True),
        ("3 ring binder", "white 3-ring binders", True),
        ("ink", "inkjet", False),
        ("c", "c++ in a day", True),
    ],
)
def test_all_words_of_a_text_in_singular_or_plural(text: str, other: str, expected: bool) -> None:
    assert has_words(text)(other) is expected


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("pen", "pens"), ("box", "boxes"), ("brush", "brushes"), ("battery", "batteries"),
        ("tray", "trays"), ("child", "children"), ("knife", "knives"), ("pens", "pens"),
    ],
)  # fmt: skip
def test_plurals(word: str, expected: str) -> None:
    assert plural(word) == expected


@settings(deadline=None)
@given(st.text("abcdehinosxyz", min_size=3, max_size=9))
def test_a_plural_is_found_by_its_singular(word: str) -> None:
    assert has_words(word)(f"the {plural(word)} here")
    assert has_words(word)(word)
    assert not has_words(word)(f"{word}q")
