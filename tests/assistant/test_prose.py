from __future__ import annotations

import pytest

from incatalog import Recommender
from incatalog.assistant.known_names import KnownNames
from incatalog.assistant.prose import CheckedProse


def said(known: KnownNames, text: str, *, whole: bool = True, most: int = 9) -> tuple[str, int]:
    prose = CheckedProse(known, most)
    found = "".join([*(one for piece in text for one in prose.add(piece)), *prose.end(whole=whole)])
    return found, prose.invented


@pytest.mark.parametrize(
    ("text", "left", "invented"),
    [
        ("I like films. Inception is a good one. Do you?", "I like films. Do you?", 1),
        ("Try Heat (1995). It is good.", "Try Heat (1995). It is good.", 0),
        ("Here are some:\n1. Inception\n2. Avatar\nEnjoy!", "Enjoy!", 2),
        ("Here are some:\n1. Heat\n2. Avatar", "Here are some:\n1. Heat", 1),
        ("Inception is a film.", "", 1),
        ("Avatar is a film. It is blue. The story is long. Do you?", "Do you?", 1),
        ("As an AI language model, I can help. Yes.", "Yes.", 0),
        ("It is fun. It is fun. It is fun.", "It is fun.", 0),
    ],
)
def test_sentences_that_name_what_is_no_item_are_left_out(
    untrained: Recommender, text: str, left: str, invented: int
) -> None:
    assert said(KnownNames(untrained.items), text) == (left, invented)


def test_a_text_that_was_cut_ends_with_a_whole_sentence(untrained: Recommender) -> None:
    known = KnownNames(untrained.items)
    assert said(known, "One thing. Another th", whole=False)[0] == "One thing."
    assert said(known, "One thing without an end", whole=False)[0] == "One thing without an end"
    assert said(known, "One. Two. Three. Four.", most=2)[0] == "One. Two."
