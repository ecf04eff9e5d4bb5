"""The number an answer ends with, read without evaluating anything."""

from __future__ import annotations

import re
from fractions import Fraction

_NUMBER = re.compile(
    r"(?<![\w.,/])(?P<sign>[-−+]?)\s?[$€£]?\s?(?P<whole>\d{1,3}(?:,\d{3})+|\d{1,30})?"
    r"(?P<decimals>\.\d{1,30})?(?:\s?/\s?(?P<divisor>\d{1,30}))?(?![\w])"
)
_MARKS = (
    re.compile(r"####(.*)"),
    re.compile(r"\\boxed\{([^{}]*)\}"),
    re.compile(r"(?i)\banswer(?:\s+is|\s*[:=])([^\n]*)"),
)


def final_number(text: str) -> Fraction | None:
    r"""The number that an answer gives as its result, exactly; None if it gives none.

    It is the first behind the last ``####`` (GSM8K's mark), else in the last ``\boxed{}``, else
    behind the last "answer is" or "answer:", else the last of the text. Thousands are separated by
    commas; currencies, units and per cent signs are passed over; ``3/4`` is a fraction.
    """
    for mark in _MARKS:
        marked = mark.findall(text)
        if marked:
            numbers = _numbers(marked[-1])
            if numbers:
                return numbers[0]
    numbers = _numbers(text)
    return numbers[-1] if numbers else None


def _numbers(text: str) -> list[Fraction]:
    found = []
    for match in _NUMBER.finditer(text):
        whole, decimals, divisor = match["whole"], match["decimals"], match["divisor"]
        if whole is None and decimals is None:
            continue
        value = Fraction((whole or "0").replace(",", "") + (decimals or ""))
        if divisor is not None:
            if int(divisor) == 0:
                continue
            value /= int(divisor)
        found.append(-value if match["sign"] in ("-", "−") else value)
    return found
