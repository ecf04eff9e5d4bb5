from __future__ import annotations

import gzip
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from incatalog.data.guessing import TableGuess, guess_columns
from incatalog.data.settings import TableSettings

_COLUMNS = ("user_column", "item_column", "time_column", "item_id_column", "title_column",
            "description_column", "category_column")  # fmt: skip


def guess(folder: Path, orders: str | bytes, products: str | bytes, **flags: Any) -> TableGuess:
    paths = folder / "orders.csv", folder / "products.csv"
    for path, text in zip(paths, (orders, products), strict=True):
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    return guess_columns(TableSettings(*paths, folder / "out", **flags))


def columns(found: TableGuess) -> list[str | None]:
    return [getattr(found.settings, name) for name in _COLUMNS]


def table(header: str, *cells: Any, rows: int = 300, separator: str = ",") -> str:
    """Rows of which each cell is what a function makes of the row's number."""
    lines = [header, *(separator.join(str(cell(row)) for cell in cells) for row in range(rows))]
    return "\n".join(lines) + "\n"


def drawn(seed: int, low: int, high: int, form: str = "{}") -> Any:
    """A function that gives numbers by chance, the same ones each time."""
    source = random.Random(seed)
    numbers = [form.format(source.randint(low, high)) for _ in range(2000)]
    return numbers.__getitem__


def test_an_export_of_shopify(tmp_path) -> None:
    orders = table(
        "Name,Email,Financial Status,Created at,Lineitem quantity,Lineitem name,Lineitem price,"
        "Lineitem sku,Billing Name",
        lambda row: f"#{1000 + row // 2}", drawn(1, 1, 40, "u{}@x.com"), lambda _: "paid",
        lambda row: f"2023-01-{1 + row % 28:02d} 10:{row % 60:02d}:00 +0100", lambda _: 1,
        drawn(2, 1, 60, "Mug {}"), lambda _: 9.99, drawn(2, 1, 60, "MUG-{}"), lambda _: "Ann",
    )  # fmt: skip
    products = table(
        "Handle,Title,Body (HTML),Vendor,Type,Tags,Variant SKU,Variant Price,"
        "Variant Inventory Qty,Image Src",
        lambda row: f"mug-{row}", lambda row: f"Mug {row}", lambda row: f"<p>Mug {row} holds</p>",
        drawn(3, 1, 3, "Maker {}"), drawn(4, 1, 3, "Kind {}"), lambda _: '"a, b"',
        lambda row: f"MUG-{row}", lambda _: 9.99, lambda row: row, lambda row: f"http://x/{row}",
        rows=61,
    )  # fmt: skip
    found = guess(tmp_path, orders, products)
    assert columns(found) == ["Email", "Lineitem sku", "Created at", "Variant SKU", "Title",
                              "Body (HTML)", "Type"]  # fmt: skip
    assert [one.column for one in found.kept] == ["Variant Price", "Variant Inventory Qty"]
    assert found.open == []
    assert found.settings.id_form == "exact"


def test_small_numbers_do_not_hide_the_ids(tmp_path) -> None:
    """Quantities and customers are numbers that products have too."""
    orders = table(
        "order_id,customer_id,product_id,quantity,order_date",
        lambda row: row, drawn(1, 1, 150), drawn(2, 1, 200), drawn(3, 1, 4),
        lambda row: f"2023-{1 + row % 12:02d}-01", rows=1500,
    )  # fmt: skip
    products = table(
        "product_id,product_name,category,price,stock",
        lambda row: row + 1, lambda row: f"Thing {row}", lambda row: f'"Toys, {row % 4}"',
        lambda row: row / 2, lambda row: row % 9, rows=200,
    )  # fmt: skip
    found = guess(tmp_path, orders, products)
    assert columns(found) == ["customer_id", "product_id", "order_date", "product_id",
                              "product_name", "", "category"]  # fmt: skip
    # A comma within the names of categories separates nothing.
    assert found.settings.category_separator == ""


def test_french_tabs_utf_16_and_spaces_around_ids(tmp_path) -> None:
    orders = table(
        "id_commande\tclient\tref\tdate_commande", lambda row: row, drawn(1, 1, 40, "c{}"),
        drawn(2, 1, 60, " A{} "), lambda row: f"{1 + row % 28}/{1 + row % 12}/2023",
        separator="\t",
    )  # fmt: skip
    products = table(
        "Référence;Nom;Catégories;Prix TTC", lambda row: f"a{row + 1}", lambda row: f"Lampe {row}",
        lambda row: ("Maison > Salon", "Maison > Bureau", "Jardin")[row % 3],
        lambda row: f"{row},50 €", rows=60, separator=";",
    )  # fmt: skip
    found = guess(tmp_path, orders.encode("utf-16"), products)
    assert columns(found)[:5] == ["client", "ref", "date_commande", "Référence", "Nom"]
    settings = found.settings
    assert (settings.id_form, settings.time_format) == ("folded", "%d/%m/%Y")
    assert settings.category_separator == ">"


def test_without_names_contents_decide_and_the_rest_is_open(tmp_path) -> None:
    orders = table("a,b,c,d", lambda row: row, drawn(1, 1, 80), drawn(2, 1000, 1059),
                   lambda row: 1_700_000_000 + 50 * row)  # fmt: skip
    products = table("x,y,z", lambda row: 1000 + row, lambda row: f"Thing number {row}",
                     lambda row: f"kind {row % 3}", rows=60)  # fmt: skip
    found = guess(tmp_path, orders, products)
    assert columns(found)[1:5] == ["c", "d", "x", "y"]
    assert found.settings.category_column == "z"
    [left] = found.open
    assert (left.flag, left.choices[0]) == ("--user-column", "b")
    assert guess(tmp_path, orders, products, user_column="b").open == []


def test_what_is_given_wins(tmp_path) -> None:
    orders = table("user_id,buyer,item_id,timestamp", drawn(1, 1, 9), drawn(2, 1, 9),
                   drawn(3, 1, 30), lambda row: row)  # fmt: skip
    products = table("item_id,title,name,category", lambda row: row, lambda row: f"Title {row}",
                     lambda row: f"Name {row}", lambda row: f"Kind {row % 3}", rows=31)  # fmt: skip
    plain = guess(tmp_path, orders, products)
    assert columns(plain) == ["user_id", "item_id", "timestamp", "item_id", "title", "", "category"]
    given = {"user_column": "buyer", "title_column": "name", "category_column": "",
             "time_column": "", "id_form": "number"}  # fmt: skip
    found = guess(tmp_path, orders, products, **given).settings
    assert {name: getattr(found, name) for name in given} == given


def test_products_that_share_only_their_names_with_orders(tmp_path) -> None:
    orders = table("customer,Product", drawn(1, 1, 20), drawn(2, 1, 40, "Lamp {}"))
    products = table("Title,Price", lambda row: f"Lamp {row + 1}", lambda row: row, rows=40)
    found = guess(tmp_path, orders, products)
    assert columns(found)[:5] == ["customer", "Product", "", "Title", "Title"]


def test_parquet_and_zipped_json_tell_as_much(tmp_path) -> None:
    random.seed(0)
    orders = pl.DataFrame({
        "buyer": [random.randint(1, 9) for _ in range(200)],
        "sku": [float(random.randint(1, 30)) for _ in range(200)],
        "at": pl.Series(range(200)).cast(pl.Datetime("ms")),
    })  # fmt: skip
    products = pl.DataFrame({
        "sku": range(1, 31), "label": [f"Thing {one}" for one in range(30)],
        "genres": [["x", "y"], ["x"], []] * 10,
    })  # fmt: skip
    orders.write_parquet(tmp_path / "o.parquet")
    (tmp_path / "p.jsonl.gz").write_bytes(gzip.compress(products.write_ndjson().encode()))
    settings = TableSettings(tmp_path / "o.parquet", tmp_path / "p.jsonl.gz", tmp_path / "out")
    found = guess_columns(settings)
    assert columns(found) == ["buyer", "sku", "at", "sku", "label", "", "genres"]
    assert found.settings.id_form == "number"


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["Action|Drama", "Comedy"], "|"),
        (["Action, Comedy", "Drama", "Comedy", "Action, Drama"], ","),
        (["Toys, Games", "Ink", "Toys, Games", "Paper"], ""),
        (["Home > Kitchen", "Home > Bath", "Garden"], ">"),
        (["Action/Comedy", "Comedy/Drama", "Drama", "Action"], "/"),
        (["Ink", "Paper"], ""),
    ],
)
def test_what_separates_categories(tmp_path, cells, expected) -> None:
    orders = table("user_id,item_id", drawn(1, 1, 9), drawn(2, 0, 23))
    products = table("item_id,title,category", lambda row: row, lambda row: f"T{row}",
                     lambda row: f'"{cells[row % len(cells)]}"', rows=24)  # fmt: skip
    assert guess(tmp_path, orders, products).settings.category_separator == expected
