from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from incatalog.cli import main
from incatalog.data.sample_shop import write_sample
from incatalog.data.settings import SampleShopSettings


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample(SampleShopSettings(tmp_path_factory.mktemp("shop") / "new"))


def test_it_is_large_enough_and_has_what_shops_have(shop: Path) -> None:
    orders, products = rows(shop / "orders.csv"), rows(shop / "products.csv")
    assert len(orders) >= 2000
    assert len(products) == 196
    known = {product["sku"] for product in products}
    assert len(known) == len({product["name"] for product in products}) == len(products)
    gone = {order["sku"] for order in orders} - known
    assert 1 <= len(gone) <= 4
    assert any(product["stock"] == "0" for product in products)
    assert all(float(product["price"]) > 0 for product in products)
    times = [order["ordered_at"] for order in orders]
    assert times == sorted(times)
    customers = Counter(order["customer"] for order in orders)
    assert len(customers) == 700
    assert min(customers.values()) >= 3
    bought = Counter((order["customer"], order["sku"]) for order in orders)
    assert max(bought.values()) == 1


def test_what_is_bought_next_goes_with_what_was_bought_last(shop: Path) -> None:
    """The product that most often follows another follows it far more often than by chance."""
    last: dict[str, str] = {}
    follows: dict[str, Counter[str]] = {}
    for order in rows(shop / "orders.csv"):
        if order["customer"] in last:
            follows.setdefault(last[order["customer"]], Counter())[order["sku"]] += 1
        last[order["customer"]] = order["sku"]
    shares = [one.most_common(1)[0][1] / one.total() for one in follows.values()]
    assert sum(shares) / len(shares) > 0.2


def test_the_seed_makes_it_and_nothing_is_overwritten(shop: Path, tmp_path: Path, capsys) -> None:
    assert main(["sample", str(tmp_path / "same")]) == 0
    assert main(["sample", str(tmp_path / "other"), "--seed", "1"]) == 0
    for name in ("orders.csv", "products.csv"):
        same = (tmp_path / "same" / name).read_bytes()
        assert same == (shop / name).read_bytes()
        assert same != (tmp_path / "other" / name).read_bytes()
    assert main(["sample", str(tmp_path / "same")]) == 2
    assert "holds orders.csv already; name another folder" in capsys.readouterr().err
