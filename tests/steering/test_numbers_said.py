from __future__ import annotations

import pytest

from incatalog.steering.numbers_said import decade, number


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20", 20), ("$19.99", 19.99), ("1,000", 1000), ("1.000", 1000), ("1.234,50", 1234.5),
        ("2,5", 2.5), ("twenty", 20), ("€ 7", 7), ("12.0", 12), ("1,234,567", 1234567),
    ],
)  # fmt: skip
def test_numbers(text: str, expected: float) -> None:
    assert number(text) == expected
    assert isinstance(number(text), type(expected))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nineties", 1990), ("90s", 1990), ("1980's", 1980), ("20s", 2020), ("2000s", 2000),
        ("50’s", 1950), ("95s", None), ("horror", None),
    ],
)  # fmt: skip
def test_decades(text: str, expected: int | None) -> None:
    assert decade(text) == expected
