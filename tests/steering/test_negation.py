from __future__ import annotations

import pytest

from incatalog.steering.negation import blanked, denied


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("not horror", ["horror"]),
        ("a comedy but not horror", ["horror"]),
        ("no cartoons, please", ["cartoons"]),
        ("nothing scary", ["scary"]),
        ("no horror or war", ["horror or war"]),
        ("no horror, war or crime", ["horror, war or crime"]),
        ("no horror, comedies please", ["horror"]),
        ("anything but drama", ["drama"]),
        ("i don't like war films", ["war films"]),
        ("without violence and with jokes", ["violence and with jokes"]),
        ("no war and no crime", ["war", "crime"]),
        ("instead of horror, comedies", ["horror"]),
        ("my husband doesn't like musicals", ["musicals"]),
        ("she hates violence", ["violence"]),
        ("we can't stand animated films", ["animated films"]),
        ("i'm sick of romantic comedies", ["romantic comedies"]),
        ("he is not a big fan of westerns", ["westerns"]),
        ("my son is afraid of ghosts", ["ghosts"]),
        ("a film about hate crimes", []),
        ("a man who is afraid of ghosts", []),
        ("who's afraid of ghosts", []),
        ("for someone who hates horror", ["horror"]),
        ("not only comedies", []),
        ("no problem", []),
        ("i am not sure", []),
        ("why not a comedy", []),
        ("comedies", []),
    ],
)  # fmt: skip
def test_what_is_not_wanted(text: str, expected: list[str]) -> None:
    assert [text[start:end].strip() for _, start, end in denied(text)] == expected


def test_blanks_keep_places() -> None:
    assert blanked("not horror now", [(0, 10)]) == " " * 10 + " now"
