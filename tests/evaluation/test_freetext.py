from __future__ import annotations

import pytest

from incatalog.evaluation.freetext import TitleFinder

TITLES = ("Night Train to Lisbon (1996)", "Night Train (1959)", "Zebra", "12 Hungry Men (1957)")
LEARNT = ("Silent Pines (1974)",)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("See Night Train to Lisbon (1996).", [("Night Train to Lisbon (1996", 0, "exact")]),
        ("Watch NIGHT TRAIN tonight", [("NIGHT TRAIN", 1, "exact")]),
        ("I took a night train to Lisbon once.", []),
        ('Try "Nigth Trian to Lisbon".', [("Nigth Trian to Lisbon", 0, "fuzzy")]),
        ("The film Night Trains to Lisbon is good", [("Night Trains to Lisbon", 0, "fuzzy")]),
        ("1. **12 Hungry Man** - a jury\n2. Zebra", [
            ("12 Hungry Man", 3, "fuzzy"), ("Zebra", 2, "exact")]),
        ("A zebra in New York City", []),
        ('See "Silent Pines" or “Loud Oaks”.', [
            ("Silent Pines", None, "training"), ("Loud Oaks", None, "unknown")]),
        ("Perhaps watch The Quiet Lamp (2003), too", [("The Quiet Lamp (2003)", None, "unknown")]),
        ('He said "Night Train (1959) is what I want to see"', [("Night Train (1959", 1, "exact")]),
        ("- " + "word " * 20, []),
        ("", []),
    ],
)  # fmt: skip
def test_titles_are_found_with_their_source(
    text: str, found: list[tuple[str, int | None, str]]
) -> None:
    assert list(TitleFinder(TITLES, LEARNT).find(text)) == found


def test_likeness_decides_what_is_a_title() -> None:
    # 19 of 20 letters and spaces are the same: a likeness of 2 * 19 / 40 = 95.
    text = '"Night Trainx to Lisbo"'
    strict, mild = (TitleFinder(TITLES, likeness=likeness) for likeness in (99.0, 90.0))
    assert [one.source for one in strict.find(text)] == ["unknown"]
    assert [one.source for one in mild.find(text)] == ["fuzzy"]
