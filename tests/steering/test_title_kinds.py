from __future__ import annotations

from collections.abc import Sequence

import pytest

from incatalog.data.catalog import Catalog, Item
from incatalog.steering.title_kinds import TitleKinds, phrase_of
from shelves import FILMS

TITLES = [
    *(f"Acme Gel Pens, Blue, {n} Count" for n in range(2, 8)),
    *(f"Acme Cross-Cut Shredder ({n}201)" for n in range(5)),
    *(f"Address Labels for Laser Printers, {n} Sheets" for n in range(1, 8)),
    "Acme 300 Printer",
    "Pack of 3 - Scotch(R) Magic Tape",
    "Acme Set",
]
SHOP = [Item(str(n), title, categories=("Acme",)) for n, title in enumerate(TITLES)]


def tail_of(title: str, names: Sequence[str] = ()) -> tuple[str, ...]:
    return phrase_of(title, names)[-2:]


def test_the_last_words_of_the_noun_phrase() -> None:
    assert tail_of("HP 74 Black & 75 Tri-color Original Ink Cartridges, 2 Cartridges") == (
        "ink", "cartridge",
    )  # fmt: skip
    assert tail_of("Address Labels for Laser Printers, 1 x 2 Inches") == ("address", "label")
    assert tail_of("Pack of 12 - AA Batteries") == ("aa", "battery")
    assert tail_of("Scotch (R) Magic Tape, 2 Rolls") == ("magic", "tape")
    assert tail_of("Stapler") == ("stapler",)
    assert tail_of("12 Count") == ()
    assert tail_of("Texas Instruments TI-30", ["Texas Instruments"]) == ()


def test_nouns_that_titles_share_are_kinds() -> None:
    kinds = TitleKinds().with_items(SHOP)
    # Only one of the eight titles with printers is one; of what is said once nothing is known.
    assert kinds.kinds == {"pen", "shredder", "label"}
    assert kinds.of_title(TITLES[0]) == ("pen",)
    assert kinds.of_title("Acme Set") == ()


def test_a_noun_names_what_it_heads_and_what_is_mostly_called_so() -> None:
    titles = [
        "Black Ink Cartridge", "Cyan Ink Cartridges, 2 Pack", "Toner Cartridge", "Bottled Ink",
        "Gel Ink Pen", "Fountain Pen", "Ballpoint Pen", "Binder with Ring", "Binder, 3 Ring",
        "White Binder, Ring", "Key Ring",
    ]  # fmt: skip
    catalog = Catalog.from_items([Item(str(n), title) for n, title in enumerate(titles)])
    named = TitleKinds.of(catalog).named_rows(catalog)
    assert (named["cartridge"], named["pen"]) == ([0, 1, 2], [4, 5, 6])
    # Two of three cartridges are of ink, and one of three pens.
    assert named["ink"] == [0, 1, 3]
    # One of four rings: what lacks the word at its head may be what is wanted.
    assert "ring" not in named


def test_a_colour_after_a_kind_begins_the_details() -> None:
    titles = [
        *(f"{n} Gel Pen" for n in ("Fine", "Bold", "Medium", "Broad")),
        "Gel Impact Pen Silver Ink, 3 pens per Pack", "Pens Fine Point 2-Pack Black Ink",
        "Bottled Black Ink", "Fountain Pen Ink", "Laser Printer Black Ink", "Blue Pen",
        "Pen Black", "Noodler's Ink 3 Oz Blue-Black", "Pen Black Ink Cartridge",
    ]  # fmt: skip
    catalog = Catalog.from_items([Item(str(n), title) for n, title in enumerate(titles)])
    kinds = TitleKinds.of(catalog)
    named = kinds.named_rows(catalog)
    assert "printer" not in kinds.kinds
    assert (named["ink"], named["pen"]) == ([6, 7, 8, 11, 12], [0, 1, 2, 3, 4, 5, 9, 10])


def test_it_grows_with_the_catalog() -> None:
    first = TitleKinds().with_items(SHOP[:12])
    assert first.with_items([]) is first
    whole = first.with_items(SHOP[12:])
    other = TitleKinds.of(Catalog.from_items(SHOP))
    assert (whole.heads, whole.tails, whole.seen, whole.total) == (
        other.heads, other.tails, other.seen, len(SHOP),
    )  # fmt: skip
    assert whole.kinds == other.kinds > first.kinds


@pytest.mark.parametrize("catalog", [FILMS, Catalog.from_items([Item("a", "Alien")])])
def test_names_of_works_have_no_kinds(catalog: Catalog) -> None:
    assert TitleKinds.of(catalog).kinds == frozenset()
