from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from incatalog.data.catalog import Catalog, Item
from incatalog.data.formats import is_currency, label, value_shown
from incatalog.errors import CatalogError


@pytest.mark.parametrize(
    ("value", "currency", "shown"),
    [
        (12.5, "EUR", "€12.50"),
        (1299, "USD", "$1,299.00"),
        (-5, "GBP", "-£5.00"),
        (1299.4, "JPY", "¥1,299"),
        (12.5, "CHF", "12.50 CHF"),
        (12.5, "PLN", "12.50 zł"),
        (1995, "", "1995"),
        (0.1 + 0.2, "", "0.3"),
        (12345678, "", "12345678"),
        (True, "", "yes"),
        (False, "EUR", "no"),
        (("a", "b"), "", "a, b"),
        ("on request", "EUR", "on request"),
    ],
)
def test_values_as_people_read_them(value: Any, currency: str, shown: str) -> None:
    assert value_shown(value, currency) == shown


def test_names_become_words() -> None:
    assert label("in_stock") == "In stock"
    assert label("Brand name") == "Brand name"
    assert label("EAN") == "EAN"


def test_a_catalog_shows_what_it_knows_and_keeps_its_formats(tmp_path: Path) -> None:
    item = Item("a", "Apple", attributes={"price": 2.5, "tags": ["x", "y"], "in_stock": True})
    catalog = Catalog((item,), "shop", formats=(("price", "EUR"),))
    shown = [
        {"name": "price", "label": "Price", "value": 2.5, "shown": "€2.50"},
        {"name": "tags", "label": "Tags", "value": ["x", "y"], "shown": "x, y"},
        {"name": "in_stock", "label": "In stock", "value": True, "shown": "yes"},
    ]
    assert catalog.shown(item) == shown
    catalog.save(tmp_path)
    assert Catalog.load(tmp_path, "shop") == catalog
    changed, _ = catalog.with_changes([Item("b", "Beet", attributes={"price": 1})])
    assert changed.shown(changed.item(1))[0]["shown"] == "€1.00"
    assert catalog.with_titles_t(["Apple"]).formats == catalog.formats
    Catalog.from_items([item]).save(tmp_path)
    assert Catalog.load(tmp_path).formats == ()


@pytest.mark.parametrize("noted", ['{"formats": {"price": "euro"}}', '{"formats": []}', "[]"])
def test_damaged_formats_are_named(tmp_path: Path, noted: str) -> None:
    Catalog.from_items([Item("a", "Apple")]).save(tmp_path)
    (tmp_path / "catalog.json").write_text(noted)
    with pytest.raises(CatalogError, match=r"catalog\.json: "):
        Catalog.load(tmp_path)


def test_codes_of_currencies() -> None:
    assert is_currency("EUR")
    assert not any(map(is_currency, ("eur", "EU", "EURO", "€", "")))
