"""Numbers in a sentence: digits and words, prices, years and decades."""

from __future__ import annotations

import re

UNITS_AND_TENS = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
    "eight": 8, "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "fifteen": 15, "twenty": 20,
    "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80,
    "ninety": 90, "hundred": 100, "thousand": 1000,
}  # fmt: skip
DECADES = {
    "twenties": 1920, "thirties": 1930, "forties": 1940, "fifties": 1950, "sixties": 1960,
    "seventies": 1970, "eighties": 1980, "nineties": 1990,
}  # fmt: skip

_WORDS = "|".join(sorted(UNITS_AND_TENS, key=len, reverse=True))
MONEY = r"(?:euros?|eur|dollars?|usd|bucks?|pounds?|quid|gbp|francs?|chf|yen|[$€£¥])"
# What a number may look like in a pattern; the groups of several are numbered by their place.
NUMBER = rf"(?:(?:[$€£¥]|usd|eur|gbp)\s?)?(?:\d[\d.,]*\d|\d|(?:a\s)?\b(?:{_WORDS})\b)"
_PLAIN = re.compile(rf"\d[\d.,]*\d|\d|\b(?:{_WORDS})\b")
_THOUSANDS = re.compile(r"\d{1,3}(?:[.,]\d{3})+")
_CENTS = re.compile(r"(.+)[.,](\d{1,2})")


def number(text: str) -> int | float:
    """The number that a text matched by :data:`NUMBER` means.

    A comma or point before three digits at the end separates thousands, before one or two it is
    that of a fraction.
    """
    found = _PLAIN.search(text.lower())
    assert found is not None
    said = found[0]
    if said in UNITS_AND_TENS:
        return UNITS_AND_TENS[said]
    whole, rest = said, ""
    if not _THOUSANDS.fullmatch(said) and (cents := _CENTS.fullmatch(said)):
        whole, rest = cents[1], cents[2]
    digits = re.sub(r"\D", "", whole)
    value = float(f"{digits}.{rest}") if rest else int(digits)
    return int(value) if value == int(value) else value


def is_year(value: float) -> bool:
    """Whether a number can be the year of something that is sold or shown."""
    return value == int(value) and 1850 <= value <= 2100


def decade(text: str) -> int | None:
    """The first year of a decade: "nineties", "90s", "the 1980's"."""
    said = text.lower().replace("'", "").replace("’", "")
    if said in DECADES:
        return DECADES[said]
    match = re.fullmatch(r"(\d{2}|\d{4})s", said)
    if match is None or not said[:-1].endswith("0"):
        return None
    years = int(match[1])
    if years < 100:
        years += 2000 if years < 30 else 1900
    return years
