from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest

from incatalog.data.attributes import Attributes, read_attributes
from incatalog.data.catalog import METAS, Catalog, Item
from incatalog.data.fields import FilePlace
from incatalog.errors import CatalogError, DataError

PLACE = FilePlace(Path("metas.jsonl"), 3)


def test_every_further_field_of_an_item_is_an_attribute_and_comes_back(tmp_path: Path) -> None:
    record = """{"a": {"title": "Apple", "description": "Red.", "title_t": "Apple", "boost": 2,
        "price": 2.5, "stock": 3, "bio": true, "brand": "Orchard", "tags": ["red", "sweet", 7],
        "since": "2024-05-01", "nothing": null, "empty": "", "none": [], "nested": {"x": 1},
        "mixed": [["x"]], "category": "fruit", "id": "a", "nan": NaN}}"""
    (tmp_path / METAS).write_text(record)
    catalog = Catalog.load(tmp_path)
    expected = {
        "price": 2.5,
        "stock": 3,
        "bio": True,
        "brand": "Orchard",
        "tags": ("red", "sweet", "7"),
        "since": "2024-05-01",
    }
    assert dict(catalog.items[0].attributes) == expected
    assert catalog.attribute_names == tuple(expected)
    catalog.save(tmp_path / "again")
    again = Catalog.load(tmp_path / "again", name=catalog.name)
    assert again.items == catalog.items
    assert [type(value) for value in again.items[0].attributes.values()] == [
        type(value) for value in expected.values()
    ]


def test_the_field_that_names_an_item_is_no_attribute(tmp_path: Path) -> None:
    lines = '{"item_id": "1", "name": "One", "asin": "B01"}\n{"item_id": "2", "name": "Two"}\n'
    (tmp_path / METAS).write_text(lines)
    first, second = Catalog.load(tmp_path).items
    assert (first.title, dict(first.attributes)) == ("One", {"asin": "B01"})
    assert dict(second.attributes) == {}
    (tmp_path / METAS).write_text('{"1": {"title": "One", "short": "1st", "name": "Uno"}}')
    [item] = Catalog.load(tmp_path, title_field="short").items
    assert (item.name, dict(item.attributes)) == ("1st", {"name": "Uno"})
    [item] = Catalog.load(tmp_path).items
    assert dict(item.attributes) == {"short": "1st", "name": "Uno"}


def test_attributes_are_not_in_the_fingerprint_nor_in_the_hash() -> None:
    plain, priced = Item("a", "Apple"), Item("a", "Apple", attributes={"price": 1})
    assert hash(plain) == hash(priced)
    assert plain != priced
    assert priced == Item("a", "Apple", attributes={"price": 1.0})
    assert Catalog.from_items([plain]).fingerprint == Catalog.from_items([priced]).fingerprint


def test_attributes_never_change() -> None:
    given: dict[str, Any] = {"tags": ["red"], "price": 1}
    item = Item("a", "Apple", attributes=given)
    given["price"] = 2
    assert dict(item.attributes) == {"tags": ("red",), "price": 1}
    with pytest.raises(TypeError):
        item.attributes["price"] = 3  # type: ignore[index]
    for same in (copy.deepcopy(item), pickle.loads(pickle.dumps(item))):
        assert same == item
        assert isinstance(same.attributes, Attributes)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"price": float("nan")}, r"item 'a': attribute 'price' is nan; expected a finite number"),
        ({"price": 1 << 63}, r"'price' is 9223372036854775808; expected a finite number"),
        ({"price": None}, r"'price' is None; expected true or false, a number"),
        ({"tags": ["x", 1]}, r"'tags' is a list; expected texts in the list"),
        ({"title": "B"}, r"'title' is 'B'; expected a name that is not empty and none of boost,"),
        ({"": "B"}, r"expected a name that is not empty"),
    ],
)
def test_an_attribute_that_cannot_be_is_refused(attributes: Any, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        Item("a", "Apple", attributes=attributes)


def test_a_number_without_end_is_an_error_with_its_place() -> None:
    with pytest.raises(DataError, match=r"metas.jsonl:3: price of item 'a' is inf; expected a"):
        read_attributes(PLACE, "item 'a'", {"price": float("inf")}, ())
    with pytest.raises(DataError, match="half a surrogate pair"):
        read_attributes(PLACE, "item 'a'", {"brand": "\ud800"}, ())
