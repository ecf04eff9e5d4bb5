"""`incatalog sample`: the orders and products of a small shop that does not exist, to try with."""

from __future__ import annotations

import csv
import datetime
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float64, Int64
from rich.console import Console

from incatalog.artifacts import atomic_path
from incatalog.data.settings import SampleShopSettings
from incatalog.errors import ArtifactError

ORDERS_FILE: Final = "orders.csv"
PRODUCTS_FILE: Final = "products.csv"

# Kinds, the things of each with what they cost about, and what they are for.
_KINDS: Final[dict[str, dict[str, tuple[float, str]]]] = {
    "Camping": {
        "Tent": (180, "nights outside in any weather"),
        "Sleeping Bag": (90, "cold nights on the ground"),
        "Sleeping Mat": (45, "sleeping soft and warm"),
        "Camping Stove": (60, "hot meals far from any kitchen"),
        "Headlamp": (30, "both hands free in the dark"),
    },
    "Hiking": {
        "Backpack": (110, "long days on the trail"),
        "Hiking Boots": (150, "rough paths and wet ground"),
        "Trekking Poles": (55, "steep ways down"),
        "Water Bottle": (18, "water that stays cold"),
        "Rain Jacket": (95, "showers on the way"),
    },
    "Cycling": {
        "Bike Helmet": (65, "riding safely in town"),
        "Bike Light": (28, "being seen at night"),
        "Pannier Bag": (70, "shopping by bike"),
        "Bike Lock": (40, "leaving the bike anywhere"),
        "Repair Kit": (16, "a flat tyre on the road"),
    },
    "Kitchen": {
        "Chef Knife": (75, "vegetables and herbs cut fine"),
        "Cutting Board": (32, "a calm place to chop"),
        "Frying Pan": (55, "eggs that do not stick"),
        "Stock Pot": (80, "soup for many guests"),
        "Mixing Bowls": (26, "doughs and salads"),
    },
    "Coffee": {
        "Coffee Grinder": (85, "fresh coffee every morning"),
        "French Press": (34, "strong coffee without paper"),
        "Espresso Maker": (45, "small strong cups"),
        "Coffee Beans": (14, "a dark roast with little acid"),
        "Travel Mug": (22, "coffee on the train"),
    },
    "Garden": {
        "Watering Can": (24, "thirsty pots and beds"),
        "Pruning Shears": (29, "roses and small branches"),
        "Plant Pots": (19, "herbs on the balcony"),
        "Garden Gloves": (12, "work among thorns"),
        "Seed Set": (9, "flowers for bees"),
    },
    "Office": {
        "Notebook": (11, "notes that last"),
        "Fountain Pen": (38, "writing by hand with joy"),
        "Desk Lamp": (49, "light where you read"),
        "Desk Organizer": (23, "a tidy desk"),
        "Laptop Stand": (36, "a straight back at work"),
    },
    "Yoga": {
        "Yoga Mat": (39, "a floor that does not slip"),
        "Yoga Block": (13, "poses that are out of reach"),
        "Foam Roller": (27, "tired muscles"),
        "Meditation Cushion": (42, "sitting still for long"),
        "Resistance Bands": (17, "strength without weights"),
    },
}
_MANNERS = ("Compact", "Classic", "Light", "Sturdy", "Premium")
_BRANDS = ("Alder", "Birkby", "Corvan", "Dunmore", "Elkhart", "Fennel & Co", "Granvik", "Halden")
_FIRST_DAY = datetime.datetime(2023, 1, 2, 8)
_DAYS = 700
_FEWEST_ROWS, _MEAN_MORE_ROWS = 3, 6.0
# What the next product is chosen by: what goes with the last one, a kind one likes, any.
_GOES_WITH, _LIKED = 0.4, 0.45
_OUT_OF_STOCK = 0.1
# Products that were sold once and are on sale no more.
_GONE = 4


@dataclass(frozen=True, eq=False)
class _Shop:
    """What is on sale, and what decides who buys what."""

    products: list[dict[str, str]]
    kinds: Int64[np.ndarray, " products"]
    popularity: Float64[np.ndarray, " products"]
    goes_with: Int64[np.ndarray, " products"]


def write_sample(settings: SampleShopSettings) -> Path:
    """Writes ``orders.csv`` and ``products.csv`` of an invented shop.

    Customers like a few kinds of product, popular ones more than others, and what they buy goes
    with what they bought last, so that there is something to learn. A few products that were
    ordered are on sale no longer, as in any shop. The same seed gives the same files.

    Returns:
        The folder.

    Raises:
        ArtifactError: One of the files is there already.
    """
    out = Path(settings.out)
    for name in (ORDERS_FILE, PRODUCTS_FILE):
        if (out / name).exists():
            raise ArtifactError(f"--out {out}: holds {name} already; name another folder")
    random = np.random.default_rng(settings.seed)
    shop = _shop(random)
    orders = _orders(shop, settings.customers, random)
    gone = {product["sku"] for product in shop.products[:: len(shop.products) // _GONE][:_GONE]}
    on_sale = [product for product in shop.products if product["sku"] not in gone]
    _write(out / PRODUCTS_FILE, list(on_sale[0]), (list(one.values()) for one in on_sale))
    _write(out / ORDERS_FILE, ["order_number", "customer", "sku", "quantity", "ordered_at"], orders)
    console = Console(soft_wrap=True, highlight=False)
    console.print(
        f"written to {out}: {len(orders):,} rows of orders by {settings.customers} customers, "
        f"{len(on_sale)} products"
    )
    console.print(f"next: incatalog quickstart {out / ORDERS_FILE} {out / PRODUCTS_FILE}")
    return out


def _shop(random: np.random.Generator) -> _Shop:
    products, kinds = list[dict[str, str]](), list[int]()
    for number, (kind, things) in enumerate(_KINDS.items()):
        for thing, (cost, use) in things.items():
            brands = random.choice(len(_BRANDS), len(_MANNERS), replace=False)
            for manner, brand in zip(_MANNERS, brands.tolist(), strict=True):
                price = cost * float(np.exp(random.normal(0, 0.25)))
                price *= 1.5 if manner == "Premium" else 1.0
                out = random.random() < _OUT_OF_STOCK
                title = f"{_BRANDS[brand]} {manner} {thing}"
                products.append({
                    "sku": f"{kind[:2].upper()}-{len(products) + 1:04d}",
                    "name": title,
                    "category": kind,
                    "brand": _BRANDS[brand],
                    "price": f"{max(1, round(price)) - 0.05:.2f}",
                    "stock": str(0 if out else int(random.integers(1, 80))),
                    "description": f"{manner} {thing.lower()} by {_BRANDS[brand]}: made for {use}.",
                })  # fmt: skip
                kinds.append(number)
    total = len(products)
    popularity = 1 / (1 + random.permutation(total).astype(np.float64)) ** 0.6
    kind_of = np.array(kinds)
    # Each product is followed by one of its kind or of the next kind, as tents are by mats.
    goes_with = np.array([
        random.choice(np.flatnonzero((kind_of - kind_of[one]) % len(_KINDS) <= 1))
        for one in range(total)
    ])  # fmt: skip
    return _Shop(products, kind_of, popularity, goes_with)


def _orders(shop: _Shop, customers: int, random: np.random.Generator) -> list[list[str]]:
    """Rows of orders, by time; what is bought within an hour is one order."""
    rows = []
    for customer in range(1, customers + 1):
        count = _FEWEST_ROWS + int(random.poisson(_MEAN_MORE_ROWS))
        bought = _basket(shop, count, random)
        hours = np.sort(random.integers(0, _DAYS * 24, count)).tolist()
        rows += [(hour, customer, product) for hour, product in zip(hours, bought, strict=True)]
    rows.sort(key=lambda row: row[:2])
    found = []
    orders = itertools.groupby(rows, key=lambda row: row[:2])
    for number, ((hour, customer), lines) in enumerate(orders, 10_001):
        time = _FIRST_DAY + datetime.timedelta(hours=hour)
        for _, _, product in lines:
            quantity = 1 + int(random.random() < 0.1)
            sku = shop.products[product]["sku"]
            found.append(
                [str(number), f"C{customer:05d}", sku, str(quantity), f"{time:%Y-%m-%d %H:%M}"]
            )
    return found


def _basket(shop: _Shop, count: int, random: np.random.Generator) -> Sequence[int]:
    """Products that one customer buys, in order, none twice."""
    liked = random.choice(len(_KINDS), 2, replace=False)
    own = shop.popularity * np.isin(shop.kinds, liked)
    bought: list[int] = []
    left = np.ones(len(shop.products))
    while len(bought) < count:
        drawn = random.random()
        if bought and drawn < _GOES_WITH and left[shop.goes_with[bought[-1]]]:
            product = int(shop.goes_with[bought[-1]])
        else:
            weights = (own if drawn < _GOES_WITH + _LIKED else shop.popularity) * left
            weights = weights if weights.sum() else shop.popularity * left
            product = int(random.choice(len(weights), p=weights / weights.sum()))
        bought.append(product)
        left[product] = 0
    return bought


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
