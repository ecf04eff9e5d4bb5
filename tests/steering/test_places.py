from __future__ import annotations

import pytest

from incatalog.steering.places import placed


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("the first two", [4, 7]),
        ("i have seen the first 3", [4, 7, 2]),
        ("the last two films", [2, 9]),
        ("the last one", [9]),
        ("the first one", [4]),
        ("the top three", [4, 7, 2]),
        ("the first couple", [4, 7]),
        ("the second and the 4th", [7, 9]),
        ("numbers 2", [7]),
        ("#3 and number one", [2, 4]),
        ("the first ten", []),
        ("the fifth", []),
        ("at first sight", [4]),
        ("two films", []),
        ("what is the difference between 1 and 3?", [4, 2]),
        ("compare 2 with 9", [7]),
        ("between 1 and 2 euros", []),
    ],
)
def test_places_of_a_list(text: str, rows: list[int]) -> None:
    assert list(placed(text, [4, 7, 2, 9])) == rows
