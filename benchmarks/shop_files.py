"""The two files of a shop as people have them, made of prepared data such as Office's."""

from __future__ import annotations

import csv
import datetime
from pathlib import Path

import numpy as np

from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories

_FIRST = datetime.datetime(2021, 3, 1, 6)
_DAYS = 900
# Of so many products, one is on sale no longer.
_DISCONTINUED = 50


def shop_files(data: Path, out: Path, *, seed: int = 0) -> tuple[Path, Path]:
    """Writes orders and products with odd names, formats and ids; prices and stock are invented.

    Orders are a German export: semicolons, an encoding of Windows, ids with zeros in front and
    dates with the day first. Every fiftieth product was ordered and is on sale no longer.

    Returns:
        The files of the orders and of the products.
    """
    catalog = Catalog.load(data)
    histories = Histories.load(data, catalog)
    random = np.random.default_rng(seed)
    out.mkdir(parents=True, exist_ok=True)
    orders, products = out / "Bestellungen 2023.csv", out / "artikel.csv"
    rows = []
    for user, name in enumerate(histories.user_ids):
        history = histories.history(user).tolist()
        minutes = np.sort(random.integers(0, _DAYS * 24 * 60, len(history))).tolist()
        rows += [(minute, name, row) for minute, row in zip(minutes, history, strict=True)]
    rows.sort(key=lambda row: row[0])
    with orders.open("w", encoding="cp1252", newline="") as stream:
        writer = csv.writer(stream, delimiter=";")
        writer.writerow(["Beleg", "Kundennr.", "Größe", "ArtikelNr", "Menge", "Bestellt am"])
        for number, (minute, name, row) in enumerate(rows, 1):
            moment = _FIRST + datetime.timedelta(minutes=minute)
            item = catalog.item(row).item_id.zfill(6)
            count = int(random.integers(1, 4))
            writer.writerow([f"R{number}", name, "", item, count, f"{moment:%d.%m.%Y %H:%M}"])
    with products.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        names = ["Nr", "Bezeichnung", "Beschreibung", "Warengruppe", "VK", "Bestand"]
        writer.writerow(names)
        for row, item in enumerate(catalog.items):
            if row % _DISCONTINUED == 7:
                continue
            price = f"{float(np.exp(random.normal(2.7, 0.8))):.2f}"
            stock = int(random.integers(0, 40))
            group = item.categories[0] if item.categories else ""
            writer.writerow([item.item_id, item.title, item.description, group, price, stock])
    return orders, products
