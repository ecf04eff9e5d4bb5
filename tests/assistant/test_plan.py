from __future__ import annotations

import pytest

from incatalog import Recommender
from incatalog.assistant.known_names import KnownNames
from incatalog.assistant.plan import act_of, asked_about, asked_count, asks_which, last_items
from incatalog.dialogue.render import ItemRef, Message, Text

CATEGORIES = ("Comedy", "Sci-Fi")


@pytest.mark.parametrize(
    ("text", "act"),
    [
        ("Something for tonight?", "recommend"),
        ("Recommend two films", "recommend"),
        ("comedies, please", "recommend"),
        ("sci-fi", "recommend"),
        ("What should I watch?", "recommend"),
        ("I am bored.", "recommend"),
        ("Hi", "greet"),
        ("Thank you very much!", "greet"),
        ("How are you?", "greet"),
        ("What can you do?", "help"),
        ("help", "help"),
        ("Why?", "explain"),
        ("Why did you pick the first one?", "explain"),
        ("What is 12 times 7?", "talk"),
        ("Tell me a joke", "talk"),
        ("Who was the first president?", "talk"),
    ],
)
def test_what_an_answer_does(text: str, act: str) -> None:
    assert act_of(text, (), categories=CATEGORIES, recommends=None) == act


@pytest.mark.parametrize(
    ("text", "recommends", "act"),
    [
        ("Why did you pick the first one?", False, "explain"),
        ("Who directed it?", False, "explain"),
        ("More like the second one", True, "recommend"),
        ("Is it scary?", False, "explain"),
        ("Suitable for children?", False, "explain"),
        ("I saw that yesterday.", False, "talk"),
    ],
)
def test_questions_about_items_are_explained(text: str, recommends: bool, act: str) -> None:
    assert act_of(text, (1,), recommends=recommends) == act


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Three westerns from the nineties", 3),
        ("give me 4 dramas", 4),
        ("a list of ten films", 10),
        ("two more", 2),
        ("I have two kids", None),
        ("something from 1990", None),
        ("a film", None),
    ],
)
def test_how_many_are_asked_for(text: str, count: int | None) -> None:
    assert asked_count(text) == count


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("Why the first one?", [5]),
        ("and number 3?", [1]),
        ("the last one", [1]),
        ("why the first two?", [5, 0]),
        ("compare the 1st and the second", [5, 0]),
        ("why these?", [5, 0, 1]),
        ("tell me more about it", [5]),
        ("What is Heat about?", [3]),
        ("why the ninth?", []),
    ],
)
def test_what_a_question_is_about(untrained: Recommender, text: str, rows: list[int]) -> None:
    assert asked_about(text, [5, 0, 1], KnownNames(untrained.items)) == rows


def test_the_items_of_the_newest_answer_that_has_some() -> None:
    def said(*rows: int) -> Message:
        return Message("assistant", (Text("Try "), *map(ItemRef, rows)))

    asked = Message("user", (Text("?"),))
    assert last_items([asked, said(3, 4), asked, said(1), asked, said()]) == [1]
    assert last_items([asked]) == []


def test_it_is_what_the_user_pointed_at(untrained: Recommender) -> None:
    known = KnownNames(untrained.items)
    assert asked_about("Who plays in it?", [5, 0], known, [3]) == [3]
    assert asked_about("Who plays in the second one?", [5, 0], known, [3]) == [0]
    assert asked_about("Who plays in it?", [5, 0], known) == [5]


@pytest.mark.parametrize(
    ("text", "asks"),
    [
        ("Which one would you pick?", True),
        ("which of these should we watch first?", True),
        ("what is your favourite?", True),
        ("choose one for me", True),
        ("which one fits best?", True),
        ("which film should I watch?", False),
        ("which one is best for kids?", False),
        ("what would you recommend?", False),
    ],
)
def test_which_item_of_a_list_to_take(text: str, asks: bool) -> None:
    assert asks_which(text) is asks
