from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incatalog.data.catalog import CATEGORIES, METAS, Catalog, Item
from incatalog.data.documents import entries, unique_entries, write_document
from incatalog.data.parquet_documents import document, in_format
from incatalog.errors import CatalogError, DataError

IDS = ("item_id", "id", "asin")


def test_names_in_both_formats(tmp_path) -> None:
    assert in_format(METAS, "json") == METAS
    assert in_format(METAS, "parquet") == "metas.parquet"
    assert document(tmp_path, METAS) == tmp_path / METAS
    (tmp_path / "metas.parquet").touch()
    assert document(tmp_path, METAS) == tmp_path / "metas.parquet"
    (tmp_path / METAS).touch()
    with pytest.raises(DataError, match=r"holds metas.jsonl and metas.parquet; expected one: del"):
        document(tmp_path, METAS)


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
    st.lists(st.text()),
    st.lists(st.one_of(st.integers(), st.text(), st.none())),
    st.dictionaries(st.text(), st.integers()),
)
NAMES = st.sampled_from(["title", "price", "tags", "a b", "ü"])


@settings(deadline=None)
@given(st.dictionaries(st.text(min_size=1), st.dictionaries(NAMES, VALUES)))
def test_whatever_json_holds_comes_back(tmp_path_factory, records) -> None:
    path = tmp_path_factory.mktemp("d") / "metas.parquet"
    try:
        write_document(path, records)
    except UnicodeEncodeError:
        # Half a surrogate pair is no key of JSON that was read.
        return
    if not records:
        return
    found = list(entries(path, IDS))
    assert [(entry.key, entry.line) for entry in found] == [
        (key, row) for row, key in enumerate(records, 1)
    ]
    for entry, record in zip(found, records.values(), strict=True):
        known = {name: value for name, value in record.items() if value is not None}
        assert entry.value == known
        # One and 1.0 are equal, but not the same.
        assert json.dumps(entry.value, sort_keys=True) == json.dumps(known, sort_keys=True)


def test_columns_of_one_kind_have_it(tmp_path) -> None:
    path = tmp_path / "metas.parquet"
    write_document(
        path,
        {
            "a": {"title": "A", "year": 1999, "price": 1.5, "new": True, "tags": ["x"], "mixed": 1},
            "b": {"title": "B", "price": 2.0, "tags": [], "mixed": "one", "asin": "b"},
        },
    )
    assert dict(pl.scan_parquet(path).collect_schema()) == {
        "item_id": pl.String, "title": pl.String, "year": pl.Int64, "price": pl.Float64,
        "new": pl.Boolean, "tags": pl.List(pl.String), "mixed": pl.Struct({"json": pl.String}),
        "asin": pl.String,
    }  # fmt: skip
    with pytest.raises(DataError, match="entry 'a' has a field 'item_id' that is 'c'; expected no"):
        write_document(path, {"a": {"item_id": "c"}})


def test_categories_are_two_columns(tmp_path) -> None:
    path = tmp_path / "category.parquet"
    write_document(path, {"food": ["a", 7], "none": []})
    found = [(entry.key, entry.value) for entry in entries(path, ())]
    assert found == [("food", ["a", "7"]), ("none", [])]
    pl.DataFrame({"a": ["x"]}).write_parquet(path)
    with pytest.raises(DataError, match=r"category\.parquet: found a; expected two columns, key"):
        list(entries(path, ()))


def test_files_of_others_are_read(tmp_path) -> None:
    frame = pl.DataFrame(
        {
            "asin": [7, 8],
            "title": ["Seven", "Eight"],
            "day": pl.Series(["2020-01-31", None]).str.to_date(),
            "price": pl.Series(["1.50", "2.25"]).cast(pl.Decimal(10, 2)),
            "kind": pl.Series(["x", "y"], dtype=pl.Categorical),
            "object": [{"a": 1, "b": 2}, None],
        }
    )
    frame.write_parquet(tmp_path / "metas.parquet")
    catalog = Catalog.load(tmp_path, "shop")
    assert catalog == Catalog.from_items(
        [
            Item("7", "Seven", attributes={"day": "2020-01-31", "price": 1.5, "kind": "x"}),
            Item("8", "Eight", attributes={"price": 2.25, "kind": "y"}),
        ],
        "shop",
    )


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"title": ["A"]},
            r"metas\.parquet: no column item_id or id or asin or .*; found title",
        ),
        ({"id": ["a", None], "title": ["A", "B"]}, r"metas\.parquet:2: id is None; expected an id"),
        (
            {"id": ["a", "a"], "title": ["A", "B"]},
            r":2: item 'a' is already on line 1; expec",
        ),
        (
            {"id": ["a", "b"], "title": ["A", ""]},
            r":2: item 'b' has no title; expected text",
        ),
        (
            {"id": ["a"], "title": ["A"], "boost": [-1.0]},
            r":1: boost of item 'a' is -1.0; exp",
        ),
    ],
)
def test_broken_rows_are_one_line_with_file_and_row(tmp_path, columns, message) -> None:
    pl.DataFrame(columns).write_parquet(tmp_path / "metas.parquet")
    with pytest.raises(DataError, match=message) as caught:
        Catalog.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_parquet_and_categories_of_nobody(tmp_path) -> None:
    path = tmp_path / "metas.parquet"
    path.write_bytes(b"PAR1 or not")
    with pytest.raises(DataError, match=r"metas\.parquet: not a readable Parquet file: ") as caught:
        Catalog.load(tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="no such file"):
        list(unique_entries(Path("nowhere.parquet"), IDS, "item"))
    write_document(path, {"a": {"title": "A"}})
    write_document(tmp_path / "category.parquet", {"x": ["a", "q"]})
    with pytest.raises(DataError, match=r"category\.parquet:1: .* item 'q', unknown to metas"):
        Catalog.load(tmp_path)


def test_catalogs_are_saved_and_read_in_either_format(tmp_path) -> None:
    items = [
        Item("a", "A", "about", ("y", "x"), attributes={"price": 1.5, "tags": ("p", "q")}),
        Item("b", "B", boost=2.0, boost_until="2030-01-31", attributes={"price": 2, "new": True}),
        Item("c", "C", categories=("x",)),
    ]
    catalog = Catalog(tuple(items), "shop", formats=(("price", "EUR"),))
    catalog.save(tmp_path / "json")
    catalog.save(tmp_path / "parquet", "parquet")
    assert sorted(path.name for path in (tmp_path / "parquet").iterdir()) == [
        "catalog.json", in_format(CATEGORIES, "parquet"), in_format(METAS, "parquet")
    ]  # fmt: skip
    found = [Catalog.load(tmp_path / form, "shop") for form in ("json", "parquet")]
    assert found[0] == found[1]
    assert found[0].fingerprint == found[1].fingerprint == catalog.fingerprint
    for form in ("json", "parquet"):
        assert [type(item.attributes.get("price")) for item in found[0].items] == [
            float, int, type(None)
        ], form  # fmt: skip
    with pytest.raises(CatalogError):
        catalog.item(9)
