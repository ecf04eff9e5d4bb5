from __future__ import annotations

from incatalog.data.catalog import Catalog, Item
from incatalog.steering.nouns import Nouns

TITLES = ["Dry-Erase Board", "Cork Board", "Erase Marker for a Dry Board", "Whiteboard"]
CATALOG = Catalog.from_items([Item(str(n), title) for n, title in enumerate(TITLES)])
NOUNS = Nouns(CATALOG, {"board": [0, 1], "marker": [2], "whiteboard": [3]})


def test_the_last_word_is_the_noun_and_the_title_has_the_others() -> None:
    assert NOUNS.rows("board") == [0, 1]
    assert NOUNS.rows("dry erase boards") == [0]
    assert NOUNS.rows(("whiteboard", "dry erase board", "cork board")) == [0, 1, 3]


def test_what_no_title_is_called_names_nothing() -> None:
    assert NOUNS.rows("shredder") == NOUNS.rows("white marker") == NOUNS.rows("!") == []
