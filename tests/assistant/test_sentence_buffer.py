from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from incatalog.assistant.sentence_buffer import SentenceBuffer, ends_whole


@given(st.lists(st.text('aB.!? \n1)"', max_size=9), max_size=9))
def test_sentences_are_the_text_however_it_is_cut(pieces: list[str]) -> None:
    buffer, other = SentenceBuffer(), SentenceBuffer()
    found = [one for piece in pieces for one in buffer.add(piece)]
    rest = buffer.rest()
    assert "".join(found) + rest == "".join(pieces)
    whole = other.add("".join(pieces))
    assert whole == found
    assert other.rest() == rest


@pytest.mark.parametrize(
    ("text", "sentences", "rest"),
    [
        ("One. Two! Three", ["One.", " Two!"], " Three"),
        ("Mr. Hill said 3.5 e.g. this. Yes", ["Mr. Hill said 3.5 e.g. this."], " Yes"),
        ("List:\n1. Alien\n2. Heat\n", ["List:", "\n1. Alien", "\n2. Heat"], "\n"),
        ('"Go!" he said. Then', ['"Go!"', " he said."], " Then"),
    ],
)
def test_sentences(text: str, sentences: list[str], rest: str) -> None:
    buffer = SentenceBuffer()
    assert buffer.add(text) == sentences
    assert buffer.rest() == rest


def test_a_text_that_ends_as_a_sentence_does() -> None:
    assert [ends_whole(text) for text in ("a.", 'a!" ', "a", "", "a (b.)")] == [
        True, True, False, False, True,
    ]  # fmt: skip
