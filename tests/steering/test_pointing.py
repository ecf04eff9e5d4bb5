from __future__ import annotations

import pytest

from incatalog.steering.pointing import TitleKeys, read_pointing
from shelves import FILMS

TITLES = TitleKeys.of(FILMS)
SHOWN = [[5, 6], [7, 0, 3]]


@pytest.mark.parametrize(
    ("text", "about", "without"),
    [
        ("more like Alien", [1], {1}),
        ("something like aliens", [2], {2}),
        ("similar to The Godfather, please", [3], {3}),
        ("films like the maltese falcon", [8], {8}),
        ("like Star Wars but newer", [4], {4}),
        ("like the movie Fargo", [7], {7}),
        ("something like the Maltes Falcon", [8], {8}),
        ("like Toy Story (1995)", [0], {0}),
        ("I loved Alien and Fargo. What now?", [1, 7], {1, 7}),
        ("like the second one", [0], {0}),
        ("more like the last", [3], {3}),
        ("more like number 1", [7], {7}),
        ("like the first and the third", [7, 3], {7, 3}),
        ("more like these", [7, 0, 3], {7, 0, 3}),
        ("like the ninth", [], set()),
        ("I didn't like the first one", [], {7}),
        ("my wife didn't like Alien", [], {1}),
        ("she can't stand Alien", [], {1}),
        ("nothing like Alien, please", [], {1}),
        ("loved Fargo, hated Alien", [7], {1, 7}),
        ("I have already seen Psycho", [], {5}),
        ("not the 2nd", [], {0}),
        ("I have seen the first two", [], {7, 0}),
        ("more like the last two", [0, 3], {0, 3}),
        ("no more of these", [], {5, 6, 7, 0, 3}),
        ("something else", [], {5, 6, 7, 0, 3}),
        ("show me others", [], {5, 6, 7, 0, 3}),
        ("5 more please", [], {5, 6, 7, 0, 3}),
        ("I'd like a comedy", [], set()),
        ("I like horror films", [], set()),
        ("a film like no other", [], set()),
        ("what about Hamlet", [], set()),
    ],
)
def test_items_that_are_pointed_at(text: str, about: list[int], without: set[int]) -> None:
    found = read_pointing(text, TITLES, SHOWN)
    assert (list(found.about), set(found.without)) == (about, without)


def test_without_an_answer_nothing_is_pointed_at_by_its_place() -> None:
    assert read_pointing("like the second one", TITLES, []).about == ()
    assert read_pointing("more like these", TITLES, [[]]).about == ()


def test_both_are_the_two_of_a_short_list() -> None:
    assert read_pointing("I have seen both of them", TITLES, [[7, 0]]).without == {7, 0}
    assert read_pointing("I have seen both of them", TITLES, [[7, 0, 3]]).without == set()


def test_whole_titles_are_spotted_in_answers() -> None:
    text = "1. Alien (1979), 2. The Godfather, 3. Psycho and 4. maltese falcon, the (1941)"
    # A short title of one word is an everyday word.
    assert [hit.rows for hit in TITLES.spotted(text)] == [(1,), (3,), (8,)]
    [first, *_] = TITLES.spotted(text)
    assert text[first.start : first.end] == "Alien (1979"


def test_titles_that_come_later_are_known() -> None:
    more = TITLES.with_titles([(10, "Heat (1995)")])
    assert read_pointing("more like Heat", more, []).about == (10,)
    assert read_pointing("more like Heat", TITLES, []).about == ()
    assert TITLES.with_titles([]) is TITLES
