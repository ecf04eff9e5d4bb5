from __future__ import annotations

import pytest

from incatalog.data.catalog import Catalog, Item
from incatalog.errors import ConfigError
from incatalog.items.texts import (
    TEXT_WORDINGS,
    item_text,
    item_texts,
    text_wording_named,
)

FILM = Item("f", "Salt &amp; Iron", "A <b>blacksmith</b><br>goes to sea.", ("Drama", "Sea"))
BARE = Item("b", "Harbour")


def test_pieces_without_a_value_are_left_out() -> None:
    wording = text_wording_named("tdc")
    assert item_text(FILM, wording) == (
        "Salt & Iron\nA blacksmith goes to sea.\nCategories: Drama, Sea"
    )
    assert item_text(BARE, wording) == "Harbour"
    assert item_text(BARE, ("{description}",)) == "Harbour"


def test_title_that_is_nothing_but_markup_stays() -> None:
    assert item_text(Item("x", "<br>"), text_wording_named("td")) == "<br>"


def test_braces_of_an_item_are_text() -> None:
    item = Item("x", "{description} {0}", "100 % {title}")
    assert item_text(item, text_wording_named("td")) == "{description} {0}\n100 % {title}"


def test_one_text_a_row_with_every_wording() -> None:
    catalog = Catalog.from_items([FILM, BARE])
    for wording in TEXT_WORDINGS:
        texts = item_texts(catalog, text_wording_named(wording))
        assert texts[1] == "Harbour"
        assert texts[0].startswith("Salt & Iron")
    with pytest.raises(ConfigError, match="expected one of td, t, tc, tdc"):
        text_wording_named("dt")
