from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from incatalog.data.catalog import Catalog, Item
from incatalog.data.naming import remember_catalog, remembered_field
from incatalog.errors import CatalogError, DataError

METAS = {
    "a": {"title": "Alien [VHS, 1979]", "title_t": "Alien", "short": "al", "year": 1979},
    "b": {"title": "Brazil", "title_t": "Brazil", "short": "br"},
}


def write(folder: Path, metas: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "metas.jsonl").write_text(json.dumps(metas, indent=0))
    return folder


def test_items_are_called_by_the_field_and_shown_by_their_title(tmp_path: Path) -> None:
    data = write(tmp_path / "data", METAS)
    catalog = Catalog.load(data, title_field="short")
    assert catalog.titles == ("Alien [VHS, 1979]", "Brazil")
    assert catalog.names == ("al", "br")
    assert [item.called for item in catalog.items] == ["al", "br"]
    plain = Catalog.load(data)
    assert plain.names == plain.titles == catalog.titles
    assert plain == Catalog.load(data, title_field="title")


def test_the_field_and_what_it_holds_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    data = write(tmp_path / "data", METAS)
    found = {f: Catalog.load(data, title_field=f) for f in ("title", "title_t", "short")}
    assert len({one.fingerprint for one in found.values()}) == 3
    assert len({one.items_fingerprint for one in found.values()}) == 1
    # As it was before there was a choice: ids and titles alone, one JSON list a line.
    lines = ['["a", "Alien [VHS, 1979]"]\n', '["b", "Brazil"]\n']
    assert found["title"].fingerprint == hashlib.sha256("".join(lines).encode()).hexdigest()
    # The same texts under another name are another catalog, and other texts too.
    twin = write(
        tmp_path / "twin", {key: {**one, "twin": one["short"]} for key, one in METAS.items()}
    )
    assert Catalog.load(twin, title_field="twin").fingerprint != found["short"].fingerprint
    moved = write(tmp_path / "moved", {**METAS, "b": {**METAS["b"], "short": "bz"}})
    assert Catalog.load(moved, title_field="short").fingerprint != found["short"].fingerprint
    assert Catalog.load(moved).fingerprint == found["title"].fingerprint


@pytest.mark.parametrize("field", ["title_t", "short"])
def test_a_saved_catalog_remembers_its_field(tmp_path: Path, field: str) -> None:
    catalog = Catalog.load(write(tmp_path / "data", METAS), title_field=field)
    folder = tmp_path / "model"
    # As a training saves it: `title_t` is then what the model writes.
    catalog.with_titles_t(["Written a", "Written b"]).save(folder)
    assert remembered_field(folder) == field
    again = Catalog.load(folder)
    assert again.title_field == field
    assert (again.names, again.titles) == (catalog.names, catalog.titles)
    assert again.fingerprint == catalog.fingerprint
    assert Catalog.load(folder, title_field=field).fingerprint == catalog.fingerprint
    with pytest.raises(CatalogError, match=f"knows its items by their {field}, not by their title"):
        Catalog.load(folder, title_field="title")
    Catalog.load(tmp_path / "data").save(folder)
    assert remembered_field(folder) == "title"
    assert not (folder / "catalog.json").exists()


@pytest.mark.parametrize(
    ("entry", "field", "message"),
    [
        (
            {"title": "C"},
            "title_t",
            "item 'c' has no field 'title_t'; expected text .* it has title",
        ),
        ({"title": "C", "x": None}, "x", "x of item 'c' is empty"),
        ({"title": "C", "x": " &nbsp; "}, "x", "x of item 'c' is empty"),
        ({"title": "C", "x": 1979}, "x", "x of item 'c' is 1979; expected text"),
        ({"title": "C", "x": ["C"]}, "x", "x of item 'c' is a list; expected text"),
        ({"title": "C", "x": True}, "x", "x of item 'c' is True"),
        ({"title": "C", "x": "\ud800"}, "x", "half a surrogate pair"),
    ],
)
def test_a_field_that_names_no_item_is_an_error_with_its_place(
    tmp_path: Path, entry: object, field: str, message: str
) -> None:
    metas = {"a": {"title": "A", "title_t": "A", "x": "a"}, "c": entry}
    with pytest.raises(DataError, match=message) as raised:
        Catalog.load(write(tmp_path / "d", metas), title_field=field)
    # The key of the second item stands behind the three fields of the first.
    assert str(raised.value).startswith(f"{tmp_path / 'd' / 'metas.jsonl'}:7: ")
    assert "\n" not in str(raised.value)


def test_items_without_a_name_join_no_catalog_that_has_names() -> None:
    named = Catalog.from_items([Item("a", "Alien", name="al")], title_field="short")
    with pytest.raises(CatalogError, match=r"item 'b' has no name; .* by their short"):
        named.with_changes([Item("b", "Brazil")])
    changed, rows = named.with_changes([Item("b", "Brazil", name="br")], ["a"])
    assert (changed.title_field, changed.item(rows[0]).called) == ("short", "br")
    with pytest.raises(CatalogError, match="has no name"):
        Catalog.from_items([Item("a", "Alien")], title_field="short")
    with pytest.raises(CatalogError, match=r"has the name 'al'; .* by their title"):
        Catalog.from_items([Item("a", "Alien", name="al")])


@pytest.mark.parametrize("text", ['{"title_field": 3}', "[]", '{"title_field": ""}'])
def test_a_damaged_note_is_named(tmp_path: Path, text: str) -> None:
    write(tmp_path / "m", METAS)
    (tmp_path / "m" / "catalog.json").write_text(text)
    with pytest.raises(CatalogError, match=r"catalog\.json: title_field: found"):
        Catalog.load(tmp_path / "m")


def test_the_title_needs_no_note(tmp_path: Path) -> None:
    remember_catalog(tmp_path, "short")
    assert json.loads((tmp_path / "catalog.json").read_text()) == {"title_field": "short"}
    remember_catalog(tmp_path, "title")
    assert list(tmp_path.iterdir()) == []
