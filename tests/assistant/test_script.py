from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from incatalog.assistant.script import Ask, Ending, Lines, Script, in_order
from incatalog.decoding.events import Event, Finished, TextToken
from incatalog.decoding.request import Request


@given(st.lists(st.integers(0, 4), min_size=1, max_size=4), st.integers(0, 99))
def test_events_come_one_request_after_the_other(lengths: list[int], seed: int) -> None:
    own: list[list[Event]] = [
        [*(TextToken(index, token) for token in range(length)), Finished(index, "eos")]
        for index, length in enumerate(lengths)
    ]
    waiting, mixed = [list(events) for events in own], []
    draw = random.Random(seed)
    while left := [events for events in waiting if events]:
        mixed.append(draw.choice(left).pop(0))
    assert list(in_order(mixed, len(lengths))) == [event for events in own for event in events]


def test_a_script_says_asks_and_ends() -> None:
    request = Request([1])

    def lines() -> Lines:
        yield "one "
        yield Ask([request])
        while not isinstance((yield None), Finished):
            yield "token "
        yield "end"

    script = Script(lines(), Ending())
    assert script.begin() == ["one "]
    assert script.take_requests() == [request]
    assert script.take_requests() == ()
    assert script.feed(TextToken(0, 5)) == ["token "]
    assert not script.over
    assert script.feed(Finished(0, "eos")) == ["end"]
    assert script.over
    assert script.feed(TextToken(0, 5)) == []


def test_an_error_of_the_lines_is_that_of_the_script() -> None:
    def lines() -> Lines:
        yield None
        raise ValueError("wrong")

    script = Script(lines(), Ending())
    assert script.begin() == []
    with pytest.raises(ValueError, match="wrong"):
        script.feed(Finished(0, "eos"))
