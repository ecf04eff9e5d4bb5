from __future__ import annotations

import pytest

from incatalog.dialogue.list_lines import list_starts


@pytest.mark.parametrize(
    ("text", "behind"),
    [
        ("1. Alien\n2. Fargo", ["Alien", "Fargo"]),
        ("These:\n\n 1) Alien\n- Fargo\n* Heat", ["Alien", "Fargo", "Heat"]),
        ('1. **Alien** is good\n2. "Fargo"', ["Alien**", "Fargo"]),
        ("Alien and Fargo\nHeat", []),
        ("I saw 3. Alien", []),
        ("1990. Alien", []),
    ],
)
def test_where_the_lines_of_a_list_begin(text: str, behind: list[str]) -> None:
    found = sorted(list_starts(text))
    assert len(found) == len(behind)
    assert all(text.startswith(title, at) for at, title in zip(found, behind, strict=True))
