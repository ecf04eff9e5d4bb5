from __future__ import annotations

import datetime
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from incatalog.data.catalog import CATEGORIES, METAS, Catalog, Item
from incatalog.errors import CatalogError, DataError

ITEMS = (
    Item("a", "Apple", "Red.", ("fruit",)),
    Item("b", "Beet", categories=("food", "root")),
    Item("c", "Cherry", categories=("food", "fruit"), title_t="Cherry (2)"),
)


def write(folder: Path, metas: str, categories: str | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / METAS).write_text(metas, encoding="utf-8")
    if categories is not None:
        (folder / CATEGORIES).write_text(categories, encoding="utf-8")
    return folder


def test_rows_and_ids() -> None:
    catalog = Catalog.from_items(ITEMS, "shop")
    assert len(catalog) == 3
    assert catalog.row("b") == 1
    assert catalog.item(2).title == "Cherry"
    assert catalog.rows(["c", "a"]).tolist() == [2, 0]
    assert catalog.rows([]).dtype == np.int64
    assert catalog.titles == ("Apple", "Beet", "Cherry")


def test_categories_and_masks() -> None:
    catalog = Catalog.from_items(ITEMS)
    assert catalog.categories == ("food", "fruit", "root")
    assert catalog.category_rows("fruit").tolist() == [0, 2]
    assert catalog.allowed_rows(["root"]).tolist() == [False, True, False]
    assert catalog.allowed_rows(["root", "fruit"]).tolist() == [True, True, True]
    assert catalog.allowed_rows([]).tolist() == [True, True, True]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.row("aa"), r"no item with id 'aa'; near: 'a'"),
        (lambda c: c.rows(["a", "z"]), r"no item with id 'z'"),
        (lambda c: c.item(3), r"no item at row 3; expected 0 to 2"),
        (lambda c: c.item(-1), r"no item at row -1"),
        (lambda c: c.category_rows("fruits"), r"no category 'fruits'; near: 'fruit'"),
        (lambda c: c.allowed_rows(["nuts"]), r"no category 'nuts'"),
        (lambda c: c.with_titles_t(["x"]), r"1 titles for 3 items"),
    ],
)
def test_unknown_names_are_named(call, message) -> None:
    with pytest.raises(CatalogError, match=message):
        call(Catalog.from_items(ITEMS, "shop"))


def test_a_catalog_has_items_with_unique_ids() -> None:
    with pytest.raises(CatalogError, match="no items"):
        Catalog.from_items([])
    with pytest.raises(CatalogError, match="'a' occurs twice"):
        Catalog.from_items([Item("a", "x"), Item("a", "y")])


def test_fingerprint_covers_ids_titles_and_order() -> None:
    one, two = Item("1", "x"), Item("2", "y")
    first = Catalog.from_items([one, two], "p").fingerprint
    assert first == Catalog.from_items([one, two], "q").fingerprint
    assert len({first, *(Catalog.from_items(i).fingerprint for i in ([two, one], [one]))}) == 3
    assert first == Catalog.from_items([one, two]).with_titles_t(["X", "Y"]).fingerprint
    # Ids and titles that read the same side by side must not collide.
    assert (
        Catalog.from_items([Item("1x", "y")]).fingerprint
        != Catalog.from_items([Item("1", "xy")]).fingerprint
    )


def test_save_and_load_round_trip(tmp_path) -> None:
    catalog = Catalog.from_items(ITEMS, "shop")
    catalog.save(tmp_path / "shop")
    assert Catalog.load(tmp_path / "shop") == catalog
    assert json.loads((tmp_path / "shop" / METAS).read_text())["a"] == {
        "title": "Apple",
        "description": "Red.",
    }
    assert json.loads((tmp_path / "shop" / CATEGORIES).read_text())["food"] == ["b", "c"]


@pytest.mark.parametrize(
    "metas",
    [
        '{"x": {"title": "X"}, "y": {"title": "Y", "description": ["p", "q"]}}',
        '{\n "x": {\n  "title": "X"\n },\n "y": {"title": "Y", "description": "p q"}\n}\n',
        '{"x": {"title": "X"}}\n\n{"y": {"title": "Y", "description": ["p", "q"]}}\n',
        '{"item_id": "x", "title": "X"}\n{"asin": "y", "title": "Y", "description": "p q"}',
        '\ufeff{"x": {"title": "", "name": "X"}, "y": {"title_t": "Y", "description": "p q"}}',
    ],
)
def test_every_shape_of_metas_is_read(tmp_path, metas) -> None:
    catalog = Catalog.load(write(tmp_path, metas), "named")
    assert [(i.item_id, i.title, i.description) for i in catalog.items] == [
        ("x", "X", ""),
        ("y", "Y", "p q"),
    ]
    assert catalog.name == "named"
    assert catalog.categories == ()


@pytest.mark.parametrize(
    ("metas", "categories", "message"),
    [
        ("", None, r"metas\.jsonl: the file is empty"),
        ("{}", None, r"metas\.jsonl: holds no items"),
        ("[]", None, r"metas\.jsonl:1: not valid JSON: expected '\{'"),
        ('{"a": {"title": "A"}', None, r"metas\.jsonl:1: .*found the end of the file"),
        ('{"a": {"title": "A"},\n"b": {"title": }}', None, r"metas\.jsonl:2: not valid JSON"),
        ('{"a": {"title": "A"},\n"a": {"title": "B"}}', None, r":2: item 'a' is already on line 1"),
        ('{\n"a": {"title": "  "}}', None, r"metas\.jsonl:2: item 'a' has no title"),
        ('{"a": "Apple"}', None, r"metas\.jsonl:1: item 'a' has no title"),
        ('{"a": {"price": 1}}', None, r"metas\.jsonl:1: item 'a' has no title"),
        ('{"a": {"title": "A", "description": 7}}', None, r":1: description of item 'a'"),
        ('{"a": {"title": "\\ud800"}}', None, r":1: title of item 'a' holds half a surrogate pair"),
        ('{"a": {"title": true}}', None, r":1: title of item 'a' is True; expected text"),
        ('{"a": {"title": ["A"]}}', None, r":1: title of item 'a' is a list; expected text"),
        ('{"a":\n{"title": {"en": "A"}, "name": "A"}}', None, r":1: title of item 'a' is an obj"),
        ('{"a": {"title": NaN}}', None, r":1: item 'a' has no title"),
        ('{"a": {"title": "\\u200b"}}', None, r":1: item 'a' has no title"),
        ('{"a": {"title": "\\u0000", "name": "&#8203;"}}', None, r":1: item 'a' has no title"),
        ('{"a": {"title": "A", "title_t": 1}}', None, r":1: title_t of item 'a' is 1; expected"),
        ('{"a": {"title": "A", "description": true}}', None, r":1: description of item 'a' is Tr"),
        ('{"a": {"title": "A", "description": [{}]}}', None, r":1: an entry of description of it"),
        ('{"a": {"title": "A", "title": "B"}}', None, r":1: field 'title' occurs twice"),
        ('{"id": "a"\n, "title": "A", "title": "B"}\n', None, r":1: field 'title' occurs twice"),
        ('{"a\\n": {"title": "A"}}', None, r":1: item id 'a\\n': expected an id without line br"),
        ('{"a\\u0085": {"title": "A"}}', None, r":1: item id 'a\\x85': expected an id without"),
        ('{"": {"title": "A"}}', None, r":1: item id '': expected an id that is not empty"),
        ('{"\\udc00": {"title": "A"}}', None, r":1: item id .* holds half a surrogate pair"),
        ('{"a": {"title": "A"}}', '{"\\udc00": ["a"]}', r":1: category .* half a surrogate pair"),
        ('{"a": {"title": ' + "[" * 100_000, None, r":1: not usable JSON: nested too deeply"),
        ('{"a": {"title": "A"}}', '{"c":\n["b"]}', r"category\.jsonl:1: .* item 'b', unknown"),
        ('{"a": {"title": "A"}}', '{"c": "a"}', r"category\.jsonl:1: .*expected a list"),
        ('{"a": {"title": "A"}}', '{"c": [],\n"c": []}', r"category\.jsonl:2: .*already on line 1"),
    ],
)
def test_broken_files_are_one_line_with_file_and_line(tmp_path, metas, categories, message) -> None:
    with pytest.raises(DataError, match=message) as caught:
        Catalog.load(write(tmp_path, metas, categories))
    assert "\n" not in str(caught.value)


def test_missing_files_and_wrong_encoding(tmp_path) -> None:
    with pytest.raises(DataError, match="no such file"):
        Catalog.load(tmp_path)
    (tmp_path / METAS).write_bytes(b'{"a":\n {"title": "\xff"}}')
    with pytest.raises(DataError, match=r"metas\.jsonl:2: not UTF-8"):
        Catalog.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "items", "categories"), [("office", 3459, 778), ("games", 16859, 0)]
)
def test_real_catalogs(shared_data, tmp_path, name, items, categories) -> None:
    catalog = Catalog.load(shared_data / name)
    assert (catalog.name, len(catalog), len(catalog.categories)) == (name, items, categories)
    catalog.save(tmp_path / name)
    assert Catalog.load(tmp_path / name) == catalog


def test_changes_keep_the_rows_of_the_others_and_reuse_vacant_ones() -> None:
    catalog = Catalog.from_items(Item(f"i{n}", f"T{n}", categories=("c",)) for n in range(4))
    fewer, rows = catalog.with_changes(removed=["i1", "i3"])
    assert rows == []
    assert [item.item_id for item in fewer.live_items] == ["i0", "i2"]
    assert (len(fewer), fewer.num_live) == (4, 2)
    assert fewer.row("i2") == 2
    assert not fewer.has("i1")
    assert fewer.category_rows("c").tolist() == [0, 2]
    assert fewer.allowed_rows(()).tolist() == [True, False, True, False]
    assert len(catalog) == catalog.num_live == 4
    more, rows = fewer.with_changes([Item(f"n{n}", "New") for n in range(3)], removed=["i0"])
    assert rows == [1, 3, 4]
    assert [item.item_id for item in more.live_items] == ["n0", "i2", "n1", "n2"]
    assert more.vacant == {0}
    # An item may come back under its id at once.
    back, rows = more.with_changes([Item("i2", "Again")], removed=["i2"])
    assert rows == [0]
    assert back.item(back.row("i2")).title == "Again"
    assert back.fingerprint != more.fingerprint


def test_changes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    catalog = Catalog.from_items([Item("a", "A"), Item("b", "B")])
    for items, removed, message in (
        ([Item("a", "Other")], [], "'a' is taken"),
        ([], ["c"], "no item with id 'c'"),
        ([], ["a", "b"], "nothing would be left"),
    ):
        with pytest.raises(CatalogError, match=message):
            catalog.with_changes(items, removed)
    changed, _ = catalog.with_changes(removed=["a"])
    changed.save(tmp_path)
    assert [item.item_id for item in Catalog.load(tmp_path).items] == ["b"]


def test_missing_values_are_missing(tmp_path) -> None:
    fields = '"title": NaN, "name": "A", "title_t": null, "description": NaN'
    lists = '"title": "nan", "description": ["x", null, "", NaN, "y"]'
    catalog = Catalog.load(write(tmp_path, f'{{"a": {{{fields}}}, "b": {{{lists}}}}}'))
    assert catalog.items == (Item("a", "A"), Item("b", "nan", "x y"))


def test_a_mark_at_the_beginning_is_passed_over(tmp_path) -> None:
    catalog = Catalog.load(write(tmp_path, '\ufeff{"a": {"title": "A"}}', '\ufeff{"c": ["a"]}'))
    assert catalog.category_rows("c").tolist() == [0]


def test_boosts_are_kept_beside_the_items_and_change_no_fingerprint(tmp_path: Path) -> None:
    metas = (
        '{"a": {"title": "A", "boost": 2}, "b": {"title": "B"}, "c": {"title": "C", "boost": 0.5}}'
    )
    boosted = Catalog.load(write(tmp_path / "boosted", metas))
    assert [item.boost for item in boosted.items] == [2.0, 1.0, 0.5]
    assert boosted.log_boosts is not None
    assert boosted.log_boosts.tolist() == [np.log(2), 0.0, np.log(0.5)]
    boosted.save(tmp_path / "again")
    assert Catalog.load(tmp_path / "again").items == boosted.items
    plain = Catalog.from_items(replace(item, boost=1.0) for item in boosted.items)
    assert plain.log_boosts is None
    assert plain.fingerprint == boosted.fingerprint
    plain.save(tmp_path / "plain")
    assert "boost" not in (tmp_path / "plain" / METAS).read_text()
    # Changes carry them along.
    changed, rows = boosted.with_changes([Item("d", "D", boost=8.0), Item("e", "E")], ["a"])
    assert changed.log_boosts is not None
    assert changed.log_boosts[rows].tolist() == [np.log(8.0), 0.0]
    assert changed.log_boosts[changed.row("c")] == np.log(0.5)
    unboosted, _ = plain.with_changes([Item("d", "D")], ["a"])
    assert unboosted.log_boosts is None
    late, _ = plain.with_changes([Item("d", "D", boost=3.0)])
    assert late.log_boosts is not None
    assert late.log_boosts.tolist() == [0.0, 0.0, 0.0, np.log(3.0)]


@pytest.mark.parametrize("boost", ["0", "-1", '"much"', "true", "[2]", "1e10", "NaNs"])
def test_boosts_that_are_no_factors_are_refused(tmp_path: Path, boost: str) -> None:
    folder = write(tmp_path, f'{{"a": {{"title": "A", "boost": {boost}}}}}')
    with pytest.raises(DataError, match=r"metas\.jsonl:1: (boost of item 'a' is|not valid JSON)"):
        Catalog.load(folder)


def test_boosts_end_on_their_day() -> None:
    items = (
        Item("a", "Apple", boost=2.0, boost_until="2026-02-01"),
        Item("b", "Beet", boost=3.0),
        Item("c", "Cherry"),
    )
    catalog = Catalog.from_items(items)
    last, later = datetime.date(2026, 2, 1), datetime.date(2026, 2, 2)
    assert catalog.log_boosts_on(last) == pytest.approx(np.log([2, 3, 1]))
    assert catalog.log_boosts_on(later) == pytest.approx(np.log([1, 3, 1]))
    changed, _ = catalog.with_changes([Item("d", "Date", boost=5, boost_until="2026-02-02")], ["a"])
    assert changed.log_boosts_on(later) == pytest.approx(np.log([1, 3, 1, 5]))
    assert changed.log_boosts_on(datetime.date(2026, 2, 3)) == pytest.approx(np.log([1, 3, 1, 1]))
    assert Catalog.from_items([Item("a", "A", boost_until="2020-01-01")]).log_boosts is None
    long_gone = Catalog.from_items([Item("a", "A", boost=2, boost_until="2020-01-01")])
    assert long_gone.log_boosts == pytest.approx([0])


def test_items_change_in_their_rows_without_their_names(tmp_path: Path) -> None:
    catalog = Catalog.from_items(ITEMS)
    assert catalog.category_rows("fruit").tolist() == [0, 2]
    assert not catalog.attribute("category").with_text("nut").any()
    new = replace(ITEMS[2], categories=("nut",), boost=2, attributes={"price": 1})
    updated = catalog.with_updated([new])
    assert updated.items == (*ITEMS[:2], new)
    assert updated.category_rows("nut").tolist() == [2]
    assert updated.category_rows("fruit").tolist() == [0]
    assert updated.attribute("category").with_text("nut").tolist() == [False, False, True]
    assert updated.attribute_names == ("price",)
    assert updated.log_boosts == pytest.approx([0, 0, np.log(2)])
    assert updated.row("c") == 2
    assert updated.fingerprint == catalog.fingerprint
    assert catalog.items == ITEMS
    assert catalog.log_boosts is None
    with pytest.raises(CatalogError, match="no item with id 'zz'"):
        catalog.with_updated([Item("zz", "Z")])
