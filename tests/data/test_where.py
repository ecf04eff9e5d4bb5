from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from incatalog.data.catalog import Catalog, Item
from incatalog.data.where import EVERYTHING, OPS, Condition, Where
from incatalog.errors import CatalogError, ConfigError

ITEMS = (
    Item("a", "Apple Tree", categories=("fruit",), attributes={
        "price": 2, "brand": "Orchard", "in_stock": True, "since": "2024-05-01", "tags": ["x"],
    }),
    Item("b", "Beet", categories=("food", "root"), attributes={
        "price": 20.0, "brand": "FIELD", "in_stock": False, "since": "2023", "tags": ["x", "y"],
    }),
    Item("A", "Cherry tart", categories=("food",), attributes={"price": 30, "stock": 4}),
    Item("d", "Date", attributes={"brand": "Field", "since": "2024-01-01 10:00", "stock": "many"}),
)  # fmt: skip
SHOP = Catalog.from_items(ITEMS, "shop")


def found(where: Any) -> str:
    """Ids of the items that fulfil conditions."""
    where = Where.parse(where) if isinstance(where, dict) else where
    return "".join(SHOP.items[row].item_id for row in np.flatnonzero(where.rows(SHOP)))


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, "abAd"),
        ({"price": {"lte": 20}}, "ab"),
        ({"price": {"lt": 20}}, "a"),
        ({"price": {"gt": 2, "lt": 30}}, "b"),
        ({"price": {"gte": 20}}, "bA"),
        ({"price": 20}, "b"),
        ({"price": "20"}, "b"),
        ({"price": {"ne": 20}}, "aAd"),
        ({"price": [2, 30, 7]}, "aA"),
        ({"price": {"not_in": [2, 30]}}, "bd"),
        ({"brand": "field"}, "bd"),
        ({"brand": {"ne": "Field"}}, "aA"),
        ({"brand": ["Orchard", "field"]}, "abd"),
        ({"brand": {"contains": "CHAR"}}, "a"),
        ({"in_stock": True}, "a"),
        ({"in_stock": 1}, "a"),
        ({"in_stock": False}, "b"),
        ({"in_stock": {"ne": True}}, "bAd"),
        ({"tags": "y"}, "b"),
        ({"tags": {"ne": "y"}}, "aAd"),
        ({"tags": ["x", "y"]}, "ab"),
        ({"since": {"gte": "2024"}}, "ad"),
        ({"since": {"gt": 2023}}, "ad"),
        ({"since": {"lte": "2024-01"}}, "bd"),
        ({"since": {"lt": "2024-01-01T11"}}, "bd"),
        ({"stock": {"gte": 4}}, "A"),
        ({"stock": "MANY"}, "d"),
        ({"category": "food"}, "bA"),
        ({"category": ["Root", "fruit"]}, "ab"),
        ({"category": {"ne": "food"}}, "ad"),
        ({"title": {"contains": "tree"}}, "a"),
        ({"title": {"contains": "T"}}, "abAd"),
        ({"title": {"words": "trees APPLE"}}, "a"),
        ({"title": {"words": ["trees", "beet"]}}, "ab"),
        ({"title": {"words": "tar"}}, ""),
        ({"tags": {"words": "y"}}, "b"),
        ({"id": "a"}, "a"),
        ({"id": ["a", "A"]}, "aA"),
        ({"id": {"words": "A"}}, "A"),
        ({"price": {"lte": 20}, "brand": ["Field"]}, "b"),
    ],
)
def test_the_items_that_fulfil_conditions(where: Any, expected: str) -> None:
    assert found(where) == expected


def test_rows_of_removed_items_fulfil_nothing() -> None:
    changed, _ = SHOP.with_changes(removed=["a"])
    assert EVERYTHING.rows(changed).tolist() == [False, True, True, True]
    assert Where.parse({"price": {"ne": 7}}).rows(changed).tolist() == [False, True, True, True]


@pytest.mark.parametrize(
    ("flags", "same"),
    [
        (["price<=20"], {"price": {"lte": 20}}),
        (["price <= 20", "price>5"], {"price": {"lte": 20, "gt": 5}}),
        (["price>=1.5", "price<2.50"], {"price": {"gte": 1.5, "lt": "2.50"}}),
        (["brand=A,B"], {"brand": ["B", "A"]}),
        (["brand=A", "brand=B"], None),
        (['brand="A, Inc.",B'], {"brand": ["A, Inc.", "B"]}),
        (["brand!=A"], {"brand": {"ne": "A"}}),
        (["brand!=A,B"], {"brand": {"not_in": ["A", "B"]}}),
        (["in_stock"], {"in_stock": True}),
        (["in_stock=false"], {"in_stock": False}),
        (["title~a, b"], {"title": {"contains": "a, b"}}),
        (["title~~gel pens"], {"title": {"words": "gel pens"}}),
        (["title~~2, pens"], {"title": {"words": ["pens", "2"]}}),
        (["sku=0012"], {"sku": "0012"}),
        (["name of it==x=y"], {"name of it": "x=y"}),
        ([], {}),
    ],
)
def test_flags_are_the_same_conditions(flags: list[str], same: Any) -> None:
    where = Where.from_flags(flags)
    if same is None:
        assert len(where.conditions) == 2
    else:
        assert where == Where.parse(same)
        assert hash(where) == hash(Where.parse(same))
        assert Where.parse(where.as_mapping()) == where
        assert bool(where) == bool(flags)


def test_conditions_have_one_order_and_one_form() -> None:
    one = Where.parse({"b": ["x", "y", "x"], "a": {"lt": 3, "gt": 1}, "c": ["z"]})
    other = Where.parse({"c": "z", "a": {"gt": 1, "lt": 3.0}, "b": {"in": ["y", "x"]}})
    assert one == other
    assert len({one, other}) == 1
    assert str(one) == "a>1 and a<3 and b=x,y and c=z"
    assert one.joined(other) == one
    assert EVERYTHING.joined(one) == one == Where(one.conditions[::-1])
    assert Where((Condition("price", "lte", 20),)) == Where.parse({"price": {"lte": 20}})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], r"^where: found a list; expected an object such as"),
        ({"price": None}, r"^where: price: found None; expected true or false, a number or a text"),
        ({"price": {}}, r"^where: price: found no condition; expected some of eq, ne"),
        ({"price": {"less": 3}}, r"^where: price: no condition 'less'; expected one of eq, ne"),
        ({"price": {"lte": [1, 2]}}, r"^where: price: found a list; expected true or false"),
        ({"price": []}, r"^where: price: in: found a list; expected a list of values"),
        ({"price": {"in": "x"}}, r"^where: price: in: found 'x'; expected a list of values"),
        ({"price": [[1]]}, r"^where: price: found a list; expected true or false"),
        ({"price": math.nan}, r"^where: price: found nan; expected true or false"),
        ({"price": ""}, r"^where: price: found a text of 0 characters; expected 1 to 2000"),
        ({"price": list(range(1001))}, r"^where: price: in: found 1001 values; expected 1000 at"),
        ({str(n): n for n in range(65)}, r"^where: expected 64 conditions at most"),
        ({"": 1}, r"^where: found the field ''; expected a name"),
    ],
)
def test_what_is_no_condition_is_refused_with_its_field(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Where.parse(given)


@pytest.mark.parametrize("flag", ["", "<=20", "price<=", "price=<20x>", "=", "~x", "!in_stock"])
def test_what_is_no_flag_is_refused(flag: str) -> None:
    if flag == "price=<20x>":
        assert Where.from_flags([flag]) == Where.parse({"price": "<20x>"})
        return
    with pytest.raises(ConfigError, match=r"^--where '.*': no condition; expected one such as"):
        Where.from_flags([flag])


@pytest.mark.parametrize(
    ("where", "error", "message"),
    [
        ({"prize": 3}, CatalogError, r"^where: catalog shop: no field 'prize'; near: 'price'$"),
        ({"zzz": 3}, CatalogError, r"no field 'zzz'; expected one of price, brand, in_stock, s"),
        ({"brand": {"lt": 3}}, ConfigError, r"^where: brand: lt: found 3, and items of shop have "
         r"texts there; use eq, ne, in, not_in, contains or words"),
        ({"price": {"lt": "b"}}, ConfigError, r"have numbers there; compare it with a number"),
        ({"price": {"lt": "2024-05"}}, ConfigError, r"have numbers there; compare it with a num"),
        ({"since": {"gt": "May"}}, ConfigError, r"^where: since: gt: found 'May', and items of "
         r"shop have dates there; compare it with a date such as"),
        ({"since": {"gt": 5}}, ConfigError, r"compare it with a date"),
        ({"title": {"words": "--"}}, ConfigError, r"words: found '--'; expected a text with words"),
    ],
)  # fmt: skip
def test_what_a_catalog_cannot_be_asked_is_refused(
    where: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Where.parse(where).rows(SHOP)


numbers = st.integers(-2, 3) | st.sampled_from([0.5, 2.0])
texts = st.sampled_from(["a", "b", "Ab", "ba"])
attributes = st.fixed_dictionaries(
    {},
    optional={
        "n": numbers,
        "t": texts,
        "l": st.lists(texts, min_size=1, max_size=3).map(tuple),
        "flag": st.booleans(),
    },
)


def fulfils(own: dict[str, Any], field: str, op: str, value: Any) -> bool:
    """The obvious reference."""
    if field not in own:
        return op in ("ne", "not_in")
    held = own[field]
    if op in ("lt", "lte", "gt", "gte"):
        signs = {"lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
        return bool(eval(f"{float(held)} {signs[op]} {float(value)}"))
    entries = [one.lower() for one in (held if isinstance(held, tuple) else [str(held)])]
    if op == "contains":
        return isinstance(held, str | tuple) and any(value.lower() in one for one in entries)
    if op == "words":
        # All texts here are a word, and none is the plural of another.
        return isinstance(held, str | tuple) and value.lower() in entries
    wanted = value if op in ("in", "not_in") else [value]
    if isinstance(held, str | tuple):
        hit = any(str(one).lower() in entries for one in wanted)
    else:
        hit = any(float(one) == float(held) for one in wanted)
    return hit == (op in ("eq", "in"))


@st.composite
def questions(draw: st.DrawFn) -> tuple[str, str, Any]:
    field = draw(st.sampled_from("ntl") | st.just("flag"))
    ops = [op for op in OPS if (op in ("lt", "lte", "gt", "gte")) <= (field in ("n", "flag"))]
    op = draw(
        st.sampled_from([op for op in ops if (op in ("contains", "words")) <= (field in "tl")])
    )
    value = numbers if field in ("n", "flag") else texts
    several = op in ("in", "not_in")
    return field, op, draw(st.lists(value, min_size=1, max_size=3) if several else value)


@given(st.lists(attributes, min_size=1, max_size=8), st.lists(questions(), max_size=3))
def test_conditions_hold_as_one_would_look_at_each_item(
    all_attributes: list[dict[str, Any]], asked: list[tuple[str, str, Any]]
) -> None:
    every = {"n": 1, "t": "b", "l": ("Ab",), "flag": True}  # so that all fields are there
    all_attributes = [every, *all_attributes]
    catalog = Catalog.from_items(
        Item(str(row), "x", attributes=own) for row, own in enumerate(all_attributes)
    )
    where = EVERYTHING
    for field, op, value in asked:
        where = where.joined(Where.parse({field: {op: value}}))
    expected = [all(fulfils(own, *one) for one in asked) for own in all_attributes]
    assert where.rows(catalog).tolist() == expected
