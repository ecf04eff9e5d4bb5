from __future__ import annotations

import pytest

from asked_messages import HELD_OUT, SEEN
from incatalog.steering.intent import goes_on, says_whether
from incatalog.steering.steering import Steering
from shelves import OFFICE


def right(steering: Steering, messages: dict[bool, tuple[str, ...]]) -> float:
    marks = [
        steering.recommends(text) == want for want, texts in messages.items() for text in texts
    ]
    return sum(marks) / len(marks)


@pytest.fixture(scope="module")
def by_vectors() -> Steering:
    return Steering.of(OFFICE)


def test_requests_are_told_from_other_messages(by_vectors: Steering) -> None:
    assert sum(map(len, (*SEEN.values(), *HELD_OUT.values()))) >= 120
    assert set(SEEN[True]).isdisjoint(HELD_OUT[True])
    assert right(by_vectors, SEEN) >= 0.95
    assert right(by_vectors, HELD_OUT) >= 0.95


def test_words_alone_tell_most_of_them() -> None:
    assert right(Steering.of(OFFICE, encoder="words"), SEEN) >= 0.9


ASKED = "Thanks. Is there anything like it?"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", False), ("   ", False), ("thanks!!", False), (ASKED, True),
        ("What is 2+2? And recommend me a film.", True), ("zebra", None), ("🎬", None),
    ],
)  # fmt: skip
def test_what_the_words_say(text: str, expected: bool | None) -> None:
    assert says_whether(text.lower()) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("with robots", True), ("but newer, please", True), ("maybe set in space", True),
        ("robots", False), ("for whom?", False),
        ("and then i went home and slept until ten", False),
    ],
)  # fmt: skip
def test_half_sentences(text: str, expected: bool) -> None:
    assert goes_on(text) is expected


@pytest.mark.parametrize("text", ["the last list was better", "your picks are boring"])
def test_what_is_said_of_lists_is_no_request(text: str) -> None:
    assert says_whether(text) is False
