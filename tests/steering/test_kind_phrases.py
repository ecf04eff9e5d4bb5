from __future__ import annotations

import pytest

from incatalog.steering.kind_phrases import named_kinds
from incatalog.steering.stems import words_of

KINDS = frozenset(("pen", "pencil", "shredder", "label", "printer", "paper", "ink", "folder"))


def named(text: str) -> tuple[tuple[str, ...], str] | None:
    found = named_kinds(text, words_of(text), (), KINDS)
    return None if found is None else (found.values, found.label)


@pytest.mark.parametrize(
    ("text", "values", "label"),
    [
        ("a quiet shredder, please", ("shredder",), "shredders"),
        ("gel pens", ("pen",), "pens"),
        ("I need ink", ("ink",), "ink"),
        ("I'm looking for labels", ("label",), "labels"),
        ("Which labels fit my printer?", ("label",), "labels"),
        ("a box of pens", ("pen",), "pens"),
        ("paper shredders", ("shredder",), "shredders"),
        ("labels for my printer", ("label",), "labels"),
        ("pens or pencils", ("pen", "pencil"), "pens or pencils"),
        ("a pen and a pencil", ("pen", "pencil"), "pens or pencils"),
        ("My old one broke. I want to buy a new shredder", ("shredder",), "shredders"),
        ("shredder oil", ("shredder",), "shredder"),
    ],
)
def test_the_head_of_what_is_wanted(text: str, values: tuple[str, ...], label: str) -> None:
    assert named(text) == (values, label)


@pytest.mark.parametrize(
    "text",
    [
        "my printer is empty",
        "to put names on folders",
        "something to write on paper with",
        "something like ink",
        "so that nobody reads my papers",
        "for pens and pencils",
        "to keep letters, pens and paper in",
        "print the labels",
        "3-pen with a clip",
        "a D-pen, please",
        "a holder for pens and pencils",
        "",
    ],
)
def test_what_it_is_for_is_not_what_is_wanted(text: str) -> None:
    assert named(text) is None


def test_words_that_name_something_else_are_no_kinds() -> None:
    text = "label pens"
    assert named_kinds(text, words_of(text), {1}, KINDS) is None
