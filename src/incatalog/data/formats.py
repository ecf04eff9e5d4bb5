"""How attributes are shown to people: prices with their currency, names as words."""

from __future__ import annotations

import re
from typing import TypedDict

from incatalog.data.attributes import Value

# What stands for a currency in front of or behind an amount. The signs that several countries share
# are those of the currency that is meant most often.
SYMBOLS = {
    "€": "EUR",
    "$": "USD",
    "US$": "USD",
    "£": "GBP",
    "¥": "JPY",
    "₹": "INR",
    "₩": "KRW",
    "₽": "RUB",
    "₺": "TRY",
    "₴": "UAH",
    "₪": "ILS",
    "₫": "VND",
    "zł": "PLN",
    "Kč": "CZK",
    "R$": "BRL",
    "C$": "CAD",
    "A$": "AUD",
}
_SIGN_OF = {code: sign for sign, code in reversed(SYMBOLS.items())}
_BEHIND = {"PLN", "CZK"}
_WHOLE = {"JPY", "KRW", "VND"}
_CODE = re.compile(r"[A-Z]{3}")


class ShownAttribute(TypedDict):
    """An attribute of an item, as people and programs get it."""

    name: str
    label: str
    value: bool | int | float | str | list[str]
    shown: str


def is_currency(code: str) -> bool:
    """Whether a text may be the code of a currency: three capitals, as ISO 4217 has them."""
    return _CODE.fullmatch(code) is not None


def attribute_shown(name: str, value: Value, currency: str = "") -> ShownAttribute:
    """An attribute with its label and its value in words."""
    plain = list(value) if isinstance(value, tuple) else value
    return {
        "name": name,
        "label": label(name),
        "value": plain,
        "shown": value_shown(value, currency),
    }


def label(name: str) -> str:
    """The name of an attribute as words, such as "In stock"."""
    words = " ".join(name.replace("_", " ").split())
    return words[:1].upper() + words[1:]


def value_shown(value: Value, currency: str = "") -> str:
    """A value as people read it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(value)
    if isinstance(value, str):
        return value
    if not currency:
        # Whole numbers may be years.
        return str(value) if isinstance(value, int) else f"{value:.10g}"
    amount = f"{abs(value):,.0f}" if currency in _WHOLE else f"{abs(value):,.2f}"
    sign = _SIGN_OF.get(currency)
    minus = "-" if value < 0 else ""
    if sign is None or currency in _BEHIND:
        return f"{minus}{amount} {sign or currency}"
    return f"{minus}{sign}{amount}"
