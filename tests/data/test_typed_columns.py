from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from incatalog.data.typed_columns import TypedColumn, item_attributes, typed_column


@pytest.mark.parametrize(
    ("cells", "values", "kind"),
    [
        (["12.50", "3", ""], [12.5, 3.0, None], "numbers"),
        (["12", " 3 ", ""], [12, 3, None], "numbers"),
        (["12", "n/a", "-"], [12, None, None], "numbers"),
        (["1,234.50", "99"], [1234.5, 99.0], "numbers"),
        (["1.234,50", "99"], [1234.5, 99.0], "numbers"),
        (["12,50", "3,99"], [12.5, 3.99], "numbers"),
        (["1e3", "-2"], [1000, -2], "numbers"),
        (["12.50", "3,99"], ["12.50", "3,99"], "texts"),
        (["12.50", "dear"], ["12.50", "dear"], "texts"),
        (["0012", "34"], ["0012", "34"], "texts"),
        (["0.5", "0"], [0.5, 0.0], "numbers"),
        (["99999999999999999999", "1"], ["99999999999999999999", "1"], "texts"),
        (["€12.50", "€ 3"], [12.5, 3.0], "prices in EUR"),
        (["12,50 €", "1.299,00 €", ""], [12.5, 1299.0, None], "prices in EUR"),
        (["$1,299.00", "-$5", "7"], [1299.0, -5.0, 7.0], "prices in USD"),
        (["EUR 12.50", "12.50 EUR"], [12.5, 12.5], "prices in EUR"),
        (["12 CHF", "N/A"], [12, None], "prices in CHF"),
        (["€12", "$12"], ["€12", "$12"], "texts"),
        (["€12", "free"], ["€12", "free"], "texts"),
        (["true", "False"], [True, False], "yes or no"),
        (["Yes", "no", ""], [True, False, None], "yes or no"),
        (["1", "0"], [1, 0], "numbers"),
        (["yes", "maybe"], ["yes", "maybe"], "texts"),
        (["2024-05-01", "2023-01-01 10:00"], ["2024-05-01", "2023-01-01 10:00"], "dates"),
        (["2024", "1999"], [2024, 1999], "numbers"),
        (['["a", "b"]', "[]"], [("a", "b"), None], "lists"),
        (["['a', 'b']", "['c']"], [("a", "b"), ("c",)], "lists"),
        (["[a]", "['c']"], ["[a]", "['c']"], "texts"),
        (["  two\nlines ", ""], ["two lines", None], "texts"),
        (["", None, float("nan")], [None, None, None], "nothing"),
        ([1, 2.5, None], [1, 2.5, None], "numbers"),
        ([True, None], [True, None], "yes or no"),
        ([Decimal("1.50"), Decimal("NaN")], [1.5, None], "numbers"),
        ([datetime.date(2024, 5, 1)], ["2024-05-01"], "dates"),
        ([datetime.datetime(2024, 5, 1, 10)], ["2024-05-01T10:00:00"], "dates"),
        ([["a", 1], [], None], [("a", "1"), None, None], "lists"),
        ([["a"], "b"], [("a",), ("b",)], "lists"),
        ([1, "x"], ["1", "x"], "texts"),
        (["1", 2], [1, 2], "numbers"),
        ([{"a": 1}, None], [None, None], "nothing"),
        ([float("inf")], [None], "nothing"),
    ],
)
def test_a_column_is_of_the_kind_that_all_its_cells_are_of(
    cells: list[Any], values: list[Any], kind: str
) -> None:
    found = typed_column(cells)
    assert list(found.values) == values
    assert found.kind == kind
    assert found.currency == (kind.removeprefix("prices in ") if "prices" in kind else "")
    assert found.empty == (kind == "nothing")
    kinds = [type(value) for value in found.values if value is not None]
    if kind == "numbers":
        assert len(set(kinds)) == 1 or not all(isinstance(cell, str) for cell in cells)


@given(st.lists(st.decimals(-(10**6), 10**6, places=2), min_size=1, max_size=6))
def test_amounts_are_read_as_they_are_written(amounts: list[Any]) -> None:
    wanted = [float(amount) for amount in amounts]
    english = [f"{amount:,.2f}" for amount in amounts]
    german = [text.translate(str.maketrans(",.", ".,")) for text in english]
    for cells in (english, german, [f"{text} €" for text in german], [f"€{t}" for t in english]):
        found = typed_column(cells)
        assert list(found.values) == pytest.approx(wanted)
    assert typed_column([f"${text}" for text in english]).currency == "USD"


def test_rows_get_what_their_cells_hold() -> None:
    columns = {"a": TypedColumn([1, None], "numbers"), "b": TypedColumn(["x", None], "texts")}
    first, second = item_attributes(columns, 2)
    assert (dict(first), dict(second)) == ({"a": 1, "b": "x"}, {})
    assert [dict(one) for one in item_attributes({}, 2)] == [{}, {}]
