from __future__ import annotations

import pytest

from incatalog.steering.steering import Steering
from incatalog.steering.unmentioned import unmentioned
from shelves import FILMS

MEMORY = Steering.of(FILMS, encoder="words").listener.memory


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("movies with Tom Hanks", ("Tom Hanks",)),
        ("Tom Hanks movies, please", ("Tom Hanks",)),
        ("anything by Spielberg?", ("Spielberg",)),
        ("something from Lars von Trier or with Björk", ("Lars von Trier", "Björk")),
        # Every word of it is in the text of an item.
        ("a film with Star Wars in it", ()),
        # A word alone with a capital may be anything.
        ("a French comedy", ()),
        ("Surprise me with something", ()),
        ("a film with Mum and Dad", ()),
        ("I need it by Friday", ()),
        ("something with tom hanks", ()),
        ("SOMETHING WITH TOM HANKS", ()),
        ("Zeig mir Filme mit Tom Hanks", ()),
        ("", ()),
    ],
)
def test_names_that_no_item_has(text: str, names: tuple[str, ...]) -> None:
    assert unmentioned(text, MEMORY) == names
