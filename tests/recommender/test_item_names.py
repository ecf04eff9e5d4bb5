"""Items by id, by title as people type it, and by what is near."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from incatalog import Catalog, Item
from incatalog.errors import CatalogError, ConfigError
from incatalog.recommender.item_names import ItemNames

FILMS = {
    "1": "Toy Story (1995)",
    "7": "Godfather, The (1972)",
    "8": "Godfather: Part II, The (1974)",
    "20": "Sabrina (1954)",
    "21": "Sabrina (1995)",
    "30": "Monsters, Inc. (2001)",
    "40": "1984 (1984)",
    "x, y": "Été à Nîmes",
}


@pytest.fixture(scope="module")
def names() -> ItemNames:
    return ItemNames(Catalog.from_items([Item(*pair) for pair in FILMS.items()]))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("1", ["1"]),
        ("Toy Story (1995)", ["1"]),
        ("toy  STORY", ["1"]),
        ("The Godfather", ["7"]),
        ("godfather, the", ["7"]),
        ("the godfather (1972)", ["7"]),
        ("Sabrina", ["20", "21"]),
        ("Sabrina (1995)", ["21"]),
        ("monsters, inc.", ["30"]),
        ("1984", ["40"]),
        ("x, y", ["x, y"]),
        ("été à nîmes", ["x, y"]),
        ("Toy", []),
        ("", []),
    ],
)
def test_what_an_item_may_be_called(names: ItemNames, name: str, expected: list[str]) -> None:
    assert [names.item_id(row) for row in names.rows(name)] == expected
    assert (name in names) == bool(expected)


@given(st.sampled_from(sorted(FILMS.items())), st.booleans(), st.integers(1, 3))
def test_every_id_and_every_whole_title_is_found(
    film: tuple[str, str], upper: bool, spaces: int
) -> None:
    names = ItemNames(Catalog.from_items([Item(*pair) for pair in FILMS.items()]))
    item_id, title = film
    typed = (title.upper() if upper else title).replace(" ", " " * spaces)
    assert [names.item_id(row) for row in names.rows(typed)] == [item_id]
    assert [names.item_id(row) for row in names.rows(item_id)] == [item_id]


def test_what_is_misspelled_is_near(names: ItemNames) -> None:
    for typed, nearest in (("Toy Stroy", "1"), ("godfahter", "7"), ("monster inc", "30")):
        found = names.alike(typed)
        assert names.item_id(found[0][0]) == nearest
        assert [likeness for _, likeness in found] == sorted((x for _, x in found), reverse=True)
    with pytest.raises(CatalogError) as raised:
        names.one("--history", "Godfahter")
    assert str(raised.value).startswith(
        "--history: no item 'Godfahter' in the model's catalog of 8"
    )
    assert "near: '7' (Godfather, The (1972)), '8' (Godfather: Part II" in str(raised.value)
    with pytest.raises(CatalogError, match=r"'sabrina' is the title of 2 items: '20' \(Sabrina \("):
        names.one("--history", "sabrina")


def test_values_of_a_flag(names: ItemNames) -> None:
    assert names.listed("--history", ["1,8", "Monsters, Inc.", '"x, y",the godfather']) == [
        "1", "8", "30", "x, y", "7",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="no list of names between commas"):
        names.listed("--history", ['1,"8'])


def test_removed_items_are_not_named() -> None:
    catalog, _ = Catalog.from_items([Item(*pair) for pair in FILMS.items()]).with_changes(
        removed=["20"]
    )
    names = ItemNames(catalog)
    assert [names.item_id(row) for row in names.rows("Sabrina")] == ["21"]
    assert names.rows("20") == []


def test_ids_of_another_type_are_refused_with_a_sentence(names: ItemNames) -> None:
    catalog = Catalog.from_items([Item(*pair) for pair in FILMS.items()])
    with pytest.raises(CatalogError, match="no item with id 7, which is of type int; expected a"):
        catalog.rows([7])  # type: ignore[list-item]
    with pytest.raises(CatalogError, match=r"no item with id \['7'\], which is of type list"):
        catalog.row(["7"])  # type: ignore[arg-type]
    with pytest.raises(CatalogError, match=r"item ids are the text '1,7'; give \['1,7'\]"):
        catalog.rows("1,7")
