from __future__ import annotations

import pytest

from incatalog.steering.steering import Steering
from shelves import FILMS, OFFICE

FILM = Steering.of(FILMS, encoder="words").listener
DESK = Steering.of(OFFICE, encoder="words").listener


@pytest.mark.parametrize(
    ("text", "filters"),
    [
        ("horror from the seventies", ["year>=1970", "year<=1979", "category=Horror"]),
        ("comedies or thrillers", ["category=Comedy,Thriller"]),
        ("comedies and thrillers", ["category=Comedy,Thriller"]),
        ("a sci-fi action film", ["category=Sci-Fi", "category=Action"]),
        ("not horror", ["category!=Horror"]),
        ("no horror, war or crime", ["category!=Crime,Horror,War"]),
        ("comedies but not cartoons under 20 euros",
         ["price<=20", "category!=Animation", "category=Comedy"]),
        ("not in stock", ["in_stock!=true"]),
        ("no more than 10 euros", ["price<=10"]),
        ("nothing after 1970", ["year<=1970"]),
        ("no films before 1970 please", ["year>=1970"]),
        ("none from before 1970", ["year>=1970"]),
        ("nothing from the seventies", ["year!=" + ",".join(map(str, range(1970, 1980)))]),
        ("not from 1979", ["year!=1979"]),
        ("nothing over 20 euros", ["price<=20"]),
        ("I don't want to spend more than 20 euros", ["price<=20"]),
        ("a thriller that must not cost more than 20 euros", ["price<=20", "category=Thriller"]),
        ("I can't afford more than 20 euros", ["price<=20"]),
        ("nothing between 10 and 20 euros", []),
        ("nothing scary under 20 euros", ["price<=20"]),
        ("not horror, and nothing after 1970", ["year<=1970", "category!=Horror"]),
        ("more like Star Wars", []),
        ("cheap thrillers", ["category=Thriller"]),
        ("my husband doesn't like horror", ["category!=Horror"]),
        ("something for adults instead", ["category!=Children's"]),
        ("adults only, please", ["category!=Children's"]),
        ("an adult comedy", ["category!=Children's", "category=Comedy"]),
        ("for adults and children", ["category=Children's"]),
        ("hello", []),
    ],
)  # fmt: skip
def test_filters_of_a_message(text: str, filters: list[str]) -> None:
    assert [one.id for one in FILM.hear(text).filters] == filters


def test_two_kinds_that_no_item_is_at_once_are_alternatives() -> None:
    # Two films are both science fiction and action, none is horror and comedy.
    few = FILM.hear("a horror comedy").filters
    assert [one.id for one in few] == ["category=Comedy,Horror"]


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("horror", ["Horror"]),
        ("not horror", ["not Horror"]),
        ("comedy or drama under 20 euros", ["price up to 20", "Comedy or Drama"]),
        ("in stock after 1990", ["from 1991", "in stock"]),
        ("from 1979", ["1979"]),
        ("before 1960", ["until 1959"]),
    ],
)
def test_labels(text: str, labels: list[str]) -> None:
    assert [one.label for one in FILM.hear(text).filters] == labels


def test_labels_of_other_fields() -> None:
    found = DESK.hear("in stock, wireless, at least 20 pages, by HP").filters
    assert [one.label for one in found] == ["pages from 20", "in stock", "wireless", "HP"]


def test_what_became_filters_weighs_nothing_by_itself() -> None:
    plain, more = FILM.hear("a horror film"), FILM.hear("a horror film in space")
    assert (plain.wanted, plain.named) == ("", "a horror film")
    assert more.wanted == more.named == "a horror film in space"
    assert more.words == ("horror", "space")


def test_what_is_not_wanted_is_no_word_of_the_wish() -> None:
    found = FILM.hear("a story about friends, nothing scary")
    assert (found.unwanted, found.words) == (("scary",), ("story", "friend"))
    assert FILM.hear("no horror stories").unwanted == ()


def test_words_that_say_more_than_the_filters() -> None:
    assert FILM.hear("a French comedy").beyond == ("french",)
    assert FILM.hear("horror from the seventies").beyond == ()
    assert DESK.hear("quiet pens by HP").beyond == ("quiet", "pens")
    found = FILM.hear("a comedy with Tom Hanks")
    assert (found.beyond, found.unmentioned) == (("tom", "hanks"), ("Tom Hanks",))


def test_titles_are_no_names_that_nobody_has() -> None:
    for title in FILMS.titles:
        assert FILM.hear(f"Have you seen {title} by the way?").unmentioned == ()


def test_words_of_talk_say_nothing() -> None:
    found = FILM.hear("exactly three, my friend said, similar to what people usually like")
    assert (found.beyond, found.k) == (("friend",), 3)


def test_trends() -> None:
    assert [(one.what, one.way) for one in FILM.hear("cheap and new").trends] == [
        ("price", -1), ("year", 1),
    ]  # fmt: skip
    assert [one.way for one in FILM.hear("not too expensive").trends] == [-1]
    assert [one.way for one in FILM.hear("that is too old").trends] == [1]
    assert FILM.hear("not too new, not too old").trends == ()


@pytest.mark.parametrize(
    ("text", "anew"),
    [
        ("a film about dogs", True), ("comedies", True), ("and with dogs", False),
        ("from the nineties", False), ("under 10 euros", False), ("something funnier", False),
        ("comedies instead", True), ("which of them is about dogs", False),
    ],
)  # fmt: skip
def test_whether_a_message_begins_a_new_wish(text: str, anew: bool) -> None:
    assert FILM.hear(text).anew is anew


@pytest.mark.parametrize(
    ("text", "filters"),
    [
        ("more like the second, but older", ["year<1979"]),
        ("something cheaper than the first one", ["price<25"]),
        ("like Alien but newer and cheaper", ["price<14", "year>1979"]),
        ("more expensive than Alien", ["price>14"]),
        ("older than the first two", ["year<1972"]),
        ("something older than Alien", ["year<1979"]),
        ("older than my father", []),
        ("older than 1970", ["year<=1969"]),
        ("like Alien, old", []),
        ("something cheaper", []),
    ],
)
def test_more_or_less_than_an_item(text: str, filters: list[str]) -> None:
    assert [one.id for one in FILM.hear(text, [[3, 1, 9]]).filters] == filters
