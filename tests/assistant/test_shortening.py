from __future__ import annotations

import pytest

from incatalog.assistant.shortening import last_turn, shortened

ROLES = {"s": "system", "u": "user", "a": "assistant", "d": "developer"}


@pytest.mark.parametrize(
    ("kept", "most", "left"),
    [
        ("uaua", 4, [0, 1, 2, 3]),
        ("uaua", 3, [2, 3]),
        ("uaua", 1, []),
        ("suaua", 4, [0, 3, 4]),
        ("suaua", 2, [0]),
        ("suaua", 0, [0]),  # nothing else can go
        ("uuauua", 5, [3, 4, 5]),
        ("duasua", 4, [0, 3, 4, 5]),
        ("duasua", 3, [0, 3]),
        ("", 0, []),
        ("a", 0, []),
        ("uau", 2, [2]),
        ("uauauauauaua", 5, [8, 9, 10, 11]),
    ],
)
def test_fewest_oldest_turns_are_left_out(kept: str, most: int, left: list[int]) -> None:
    roles = [ROLES[letter] for letter in kept]
    assert shortened(roles, lambda some: len(some) <= most) == left


@pytest.mark.parametrize(("whole", "start"), [("uau", 2), ("suu", 1), ("u", 0), ("ua", 2), ("", 0)])
def test_what_the_user_says_last_is_the_last_turn(whole: str, start: int) -> None:
    assert last_turn([ROLES[letter] for letter in whole]) == start
