"""The number that an answer in words gives as its result."""

from __future__ import annotations

import re
from fractions import Fraction

# A unit may follow directly, such as kg, m2 or m³. Ordinals and thousands (5th, 5k) are other
# numbers than their digits; 0x1F and 5f3a are no numbers.
_UNIT = r"(?!(?:st|nd|rd|th|[kKMB])(?!\w))[^\W\d_]*[23]?(?!\w)"

# A sign touches its number: the dash of "- 18" marks an entry of a list, or a subtraction.
_NUMBER = re.compile(
    r"(?<![\w.,/])(?:(?<!-)(?P<sign>[-−+]))?(?:\\?[$€£]\s?)?"
    r"(?>(?P<whole>\d{1,3}(?:,\d{3})+(?!\d)|\d{1,30})?(?P<decimals>\.\d{1,30})?"
    r"(?:[eE](?P<exponent>[-+]?\d{1,3})(?!\w))?(?:\s?/\s?(?P<divisor>\d{1,30})(?!\d))?)"
    rf"(?={_UNIT})"
)
_MARKS = (
    re.compile(r"####(.*)"),
    re.compile(r"\\boxed\{([^{}]*)\}"),
    re.compile(r"(?i)\banswer(?:\s+is|\s*[:=])([^\n]*)"),
)


def final_number(text: str) -> Fraction | None:
    r"""The number that an answer gives as its result, exactly; None if it gives none.

    It is the first number after the last ``####`` (GSM8K's mark), else in the last ``\boxed{}``,
    else after the last "answer is" or "answer:", else the last of the text. Thousands are separated
    by commas; currencies, units and per cent signs are ignored; ``3/4`` is a fraction.
    """
    for mark in _MARKS:
        marked = mark.findall(text)
        if marked and (numbers := _numbers(marked[-1])):
            return numbers[0]
    numbers = _numbers(text)
    return numbers[-1] if numbers else None


def _numbers(text: str) -> list[Fraction]:
    found = []
    for match in _NUMBER.finditer(text):
        whole, decimals, divisor = match["whole"], match["decimals"], int(match["divisor"] or 1)
        if (whole or decimals) and divisor:
            value = Fraction((whole or "0").replace(",", "") + (decimals or ""))
            value *= Fraction(10) ** int(match["exponent"] or 0) / divisor
            found.append(-value if match["sign"] in ("-", "−") else value)
    return found
