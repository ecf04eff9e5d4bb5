from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from incatalog.evaluation.answer_numbers import final_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She makes 9 * 2 = $<<9*2=18>>18 a day.\n#### 18", 18),
        ("#### 1,234,567", 1234567),
        ("#### $-2.50 per egg (of 3)", Fraction(-5, 2)),
        ("#### −7", -7),
        ("We get 3, then 4. The answer is 5 apples, not 6.", 5),
        ("Answer: 3/4", Fraction(3, 4)),
        (r"thus \boxed{42} of 50", 42),
        ("It takes 2 days and 12 hours.", 12),
        ("The total is 1,000.", 1000),
        ("rises by 12.5%", Fraction(25, 2)),
        ("about .5", Fraction(1, 2)),
        ("The answer is unknown, maybe 8", 8),
        ("It weighs 5kg", 5),
        ("The answer is 1,250.5km/h, not 3mph.", Fraction(2501, 2)),
        ("100m2 or 100m³ in all", 100),
        ("5 кг, no: 6кг", 6),
        ("at 10am", 10),
        ("x = -18kg", -18),
        ("half: 1/2kg", Fraction(1, 2)),
        ("#### 1.5e3", 1500),
        ("2e-2", Fraction(1, 50)),
        ("12 of them on the 5th, 1st or 22nd", 12),
        ("7, not 3.2k", 7),
        ("9 at 0x1F, 3f2a", 9),
        ("- 18", 18),
        ("My list:\n- 4\n- 18", 18),
        ("24 - 18", 18),
        ("24 − 18", 18),
        ("-18", -18),
        ("= -$18", -18),
        ("= $-18", -18),
        (r"= -\$18", -18),
        ("- $18", 18),
        ("(-1/2)", Fraction(-1, 2)),
        ("- 1/2", Fraction(1, 2)),
        ("it is 9 --18", 18),
        ("7-3", 3),
        ("1/0", None),
        ("none at all", None),
        ("", None),
        ("room B12 and x3y", None),
    ],
)
def test_number_of_an_answer(text: str, number: int | Fraction | None) -> None:
    assert final_number(text) == number


@given(st.integers(-(10**12), 10**12), st.integers(0, 6))
def test_decimals_and_thousands_are_read_exactly(value: int, places: int) -> None:
    number = Fraction(value, 10**places)
    written = f"{value / abs(value or 1):+.0f}"[0] if value < 0 else ""
    digits = f"{abs(value):0{places + 1}d}"
    whole, decimals = digits[: len(digits) - places], digits[len(digits) - places :]
    written += f"{int(whole):,}" + (f".{decimals}" if decimals else "")
    assert final_number(f"First 17.\n#### {written}") == number


@given(st.text(alphabet="0123456789,./-+$# (){}", max_size=60))
def test_no_text_breaks_it(text: str) -> None:
    final_number(text)


def test_every_reference_of_gsm8k_has_its_number(shared_data: Path) -> None:
    for line in (shared_data / "gsm8k" / "test.jsonl").read_text().splitlines():
        answer = json.loads(line)["answer"]
        assert final_number(answer) == Fraction(answer.split("####")[1].replace(",", "").strip())
