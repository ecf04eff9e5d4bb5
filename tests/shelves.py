"""Small catalogs that people talk about in the tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from incatalog.data.catalog import Catalog, Item
from incatalog.dialogue.render import ItemRef, Message, Text


def _film(number: int, title: str, categories: str, **more: object) -> Item:
    known = {"year": int(title[-5:-1]), **more}
    return Item(f"f{number}", title, categories=tuple(categories.split()), attributes=known)


FILMS = Catalog.from_items(
    [
        _film(0, "Toy Story (1995)", "Animation Children's Comedy", price=9.5, in_stock=True),
        _film(1, "Alien (1979)", "Horror Sci-Fi", price=14.0, in_stock=True),
        _film(2, "Aliens (1986)", "Action Sci-Fi", price=19.99, in_stock=False),
        _film(3, "Godfather, The (1972)", "Crime Drama", price=25.0, in_stock=True),
        _film(4, "Star Wars (1977)", "Action Sci-Fi War", price=12.0, in_stock=True),
        _film(5, "Psycho (1960)", "Horror Thriller", price=8.0, in_stock=True),
        _film(6, "Airplane! (1980)", "Comedy", price=6.0, in_stock=False),
        _film(7, "Fargo (1996)", "Crime Thriller", price=11.0, in_stock=True),
        _film(8, "Maltese Falcon, The (1941)", "Film-Noir Crime", price=21.0, in_stock=True),
        _film(9, "Hamlet (1996)", "Drama", price=13.0, in_stock=True),
    ],
    "films",
)
OFFICE = Catalog.from_items(
    [
        Item(f"o{row}", title, attributes={"brand": brand, "price": price, "stock": stock} | more)
        for row, (title, brand, price, stock, more) in enumerate(
            [
                ("Laser printer", "Brother", 120, 3, {"wireless": True, "pages": 30}),
                ("Ink printer", "HP", 80.5, 0, {"wireless": False, "pages": 20}),
                ("Black ink cartridge", "HP", 19, 12, {"colour": ("black",)}),
                ("Tri-color ink cartridge", "Canon", 25, 5, {"colour": ("red", "blue")}),
                ("Gel pens, pack of 12", "Pilot", 9.99, 40, {"colour": ("black", "blue")}),
                ("Stapler", "One", 15, 7, {"released": "2019-05-02"}),
                ("Notebook, 200 pages", "Brother", 4, 9, {"pages": 200}),
            ]
        )
    ],
    "office",
)

STATIONERY = Catalog.from_items(
    [
        Item(f"s{row}", title, attributes={"brand": brand})
        for row, (title, brand) in enumerate(
            (f"{brand} {what}, {place}", brand)
            for place, brand in enumerate(("Acme", "Nordlicht", "Tilde", "Quill", "Oak"))
            for what in ("Gel Pens", "Electric Stapler", "Marker for Whiteboards", "Desk Phone")
        )
    ],
    "stationery",
)


def user(text: str) -> Message:
    return Message("user", (Text(text),))


def answer(*rows: int) -> Message:
    """An answer that names items."""
    return Message("assistant", tuple(part for row in rows for part in (Text("- "), ItemRef(row))))


class LetterEncoder:
    """Vectors of texts that count their letters; remembers what it was asked to read."""

    max_tokens = 1000

    def __init__(self) -> None:
        self.read: list[str] = []

    def lengths(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([len(text) for text in texts])

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.read += texts
        rows = [[text.lower().count(chr(97 + at)) + 0.01 for at in range(26)] for text in texts]
        return np.array(rows, dtype=np.float32)
