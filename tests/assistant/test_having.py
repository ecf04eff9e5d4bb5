from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from incatalog import Recommender
from incatalog.assistant.having import Having, having, name_asked_for
from incatalog.assistant.known_names import KnownNames
from incatalog.steering.steering import Steering
from shelves import FILMS, OFFICE, user


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Do you have The Matrix?", "The Matrix"),
        ("do you sell laser printers in stock?", "laser printers"),
        ("Is the movie Alien in there?", "Alien"),
        ("hi, is “Alien” available?", "Alien"),
        ("Have you got Heat, please?", "Heat,"),
        ("Do you know The Matrix?", "The Matrix"),
        ("have you heard of Alien?", "Alien"),
        ("do you know what I mean?", None),
        ("do you know a good comedy?", None),
        ("do you have something scary?", None),
        ("do you have a comedy?", None),
        ("do you have any idea?", None),
        ("is it available?", None),
        ("is Alien any good?", None),
        ("who directed Alien?", None),
    ],
)
def test_the_name_in_a_question(text: str, name: str | None) -> None:
    assert name_asked_for(text) == name


def test_what_the_catalog_has(untrained: Recommender) -> None:
    items = untrained.items
    known, live = KnownNames(items), np.ones(len(items.catalog), dtype=np.bool_)

    def found(text: str, understood: bool = False, live: Any = live) -> Having | None:
        return having(text, items.catalog, live, known, understood=understood)

    titles = {title: row for row, title in enumerate(items.catalog.titles)}
    alien = titles["Alien (1979)"]
    assert found("Do you have alien?") == Having((alien,))
    assert found("Do you have alien?", live=np.arange(len(live)) == 0) == Having(missing=True)
    assert found("Do you have Wars?") == Having((titles["Star Wars (1977)"],))
    assert found("Do you have Wars?", understood=True) is None
    assert found("Do you have The Matrix?") == Having(missing=True)
    # A title has one of the words.
    assert found("Do you have Star Dust?") == Having()
    assert found("Who directed Alien?") is None


def test_what_is_asked_of_items_holds_or_is_unmet() -> None:
    def unmet(text: str, catalog: Any, row: int) -> tuple[str, ...]:
        wish = Steering.of(catalog, encoder="words").read([user(text)])
        return Having((row,)).asked(wish.filters, catalog).unmet

    assert unmet("Is Aliens in stock?", FILMS, 2) == ("in stock",)
    assert unmet("Is Alien in stock?", FILMS, 1) == ()
    assert unmet("Is the ink printer in stock?", OFFICE, 1) == ("in stock",)
    assert unmet("Do you have Aliens?", FILMS, 2) == ()
