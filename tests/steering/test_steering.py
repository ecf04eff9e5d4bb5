from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incatalog.data.catalog import Catalog, Item
from incatalog.data.where import Where
from incatalog.dialogue.render import Message
from incatalog.steering.balance import Balance
from incatalog.steering.sentences import Sentences
from incatalog.steering.steering import Steering
from incatalog.steering.wish import Wish
from shelves import FILMS, OFFICE, STATIONERY, LetterEncoder, answer, user

FILM = Steering.of(FILMS, encoder="words")


def filters(*turns: str | Message, off: tuple[str, ...] = ()) -> list[str]:
    messages = [user(turn) if isinstance(turn, str) else turn for turn in turns]
    return [one.id for one in FILM.read(messages, off=off).filters]


def best(wish: Wish) -> str:
    assert wish.log_weights is not None
    return FILMS.titles[int(wish.log_weights.argmax())]


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        (("horror", "from the seventies"), ["category=Horror", "year>=1970", "year<=1979"]),
        (("horror", "a comedy"), ["category=Comedy"]),
        (("horror", "a film about dogs"), []),
        (("horror", "and under 10 euros"), ["category=Horror", "price<=10"]),
        (("under 30 euros", "a comedy"), ["price<=30", "category=Comedy"]),
        (("under 30 euros", "under 20"), ["price<=20"]),
        (("between 5 and 30 euros", "under 20"), ["price>=5", "price<=20"]),
        (("not horror", "a thriller"), ["category!=Horror", "category=Thriller"]),
        (("not horror", "horror after all"), ["category=Horror"]),
        (("in stock", "a comedy"), ["in_stock=true", "category=Comedy"]),
        (("horror", "thanks"), ["category=Horror"]),
    ],
)
def test_filters_of_several_turns(turns: tuple[str, ...], expected: list[str]) -> None:
    between = [part for turn in turns for part in (turn, answer(1))][:-1]
    assert filters(*between) == expected


def test_what_was_asked_of_an_answer_is_no_wish() -> None:
    turns = [user("toys"), answer(3, 5), user("who directed the first horror film?"), answer()]
    wish = FILM.read([*turns, user("more like these")])
    assert (wish.words, wish.filters) == (("toys",), ())


def test_only_words_of_the_newest_wish_are_said_again() -> None:
    turns = [user("toys"), answer(3), user("falcons"), answer(5)]
    assert FILM.read([*turns, user("and something black")]).words == ("black", "falcons")


@pytest.mark.parametrize("who", ["I have", "They have", "My kids", "she has already"])
def test_what_people_have_seen_is_not_named(who: str) -> None:
    wish = FILM.read([user("horror"), answer(5, 1), user(f"{who} seen the first one")])
    assert wish.without == {5}
    assert [one.id for one in wish.filters] == ["category=Horror"]


def test_a_limit_beside_an_item_ends_with_a_new_wish() -> None:
    older = "horror like Alien, but older"
    assert filters(older) == ["year<1979", "category=Horror"]
    assert filters(older, "and in stock") == ["year<1979", "category=Horror", "in_stock=true"]
    assert filters(older, "a comedy") == ["category=Comedy"]


def test_a_filter_that_is_taken_off_weighs_instead() -> None:
    on, off = FILM.read([user("horror")]), FILM.read([user("horror")], off=["category=Horror"])
    assert [one.id for one in on.filters] == ["category=Horror"]
    assert on.log_weights is None
    assert off.filters == ()
    assert "Horror" in FILMS.item(int(off.log_weights.argmax())).categories
    assert filters("horror under 10 euros", off=("price<=10",)) == ["category=Horror"]


def test_where_of_a_wish_holds_all_filters() -> None:
    wish = FILM.read([user("horror or comedy under 10 euros, in stock")])
    expected = Where.parse(
        {"category": ["Horror", "Comedy"], "price": {"lte": 10}, "in_stock": True}
    )
    assert wish.where == expected
    rows = wish.where.rows(FILMS)
    assert [FILMS.titles[row] for row in rows.nonzero()[0]] == ["Toy Story (1995)", "Psycho (1960)"]


SHOP = Steering.of(STATIONERY, encoder="words")


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        (("a stapler",), ["title~~stapler"]),
        (("gel pens by Quill",), ["brand=Quill", "title~~pen"]),
        (("a pen or a marker",), ["title~~marker,pen"]),
        (("pens", "a stapler"), ["title~~stapler"]),
        (("pens", "only red ones"), ["title~~pen"]),
        (("pens", "something for my desk"), []),
        (("a new telephone",), ["title~~phone"]),
        (("something for whiteboards",), []),
    ],
)
def test_kinds_that_titles_tell(turns: tuple[str, ...], expected: list[str]) -> None:
    assert [one.id for one in SHOP.read([user(turn) for turn in turns]).filters] == expected


def test_a_kind_is_found_in_titles_and_can_be_taken_off() -> None:
    wish = SHOP.read([user("an electric stapler")])
    [only] = wish.filters
    assert (only.label, only.condition.op) == ("staplers", "words")
    found = [STATIONERY.titles[row] for row in np.flatnonzero(wish.where.rows(STATIONERY))]
    assert len(found) == 5
    assert all("Stapler" in title for title in found)
    off = SHOP.read([user("an electric stapler")], off=[only.id])
    assert off.filters == ()
    assert off.log_weights is not None
    assert "Stapler" in STATIONERY.titles[int(off.log_weights.argmax())]


def test_what_is_of_a_kind_comes_before_what_mentions_it() -> None:
    titles = [
        *(f"Acme {what} Pens" for what in ("Gel Ink", "Blue Ink", "Fountain", "Gel", "Felt")),
        *(f"Acme Ink Cartridge {number}" for number in range(4)),
        *(f"Acme Bottled Ink, {size} ml" for size in range(4)),
    ]
    shop = Catalog.from_items([Item(str(n), title) for n, title in enumerate(titles)], "shop")
    wish = Steering.of(shop, encoder="words").read([user("I need ink")])
    assert [one.id for one in wish.filters] == ["title~~ink"]
    assert np.flatnonzero(wish.where.rows(shop)).tolist() == [0, 1, *range(5, 13)]
    assert wish.log_weights is not None
    assert wish.log_weights[:5].max() < wish.log_weights[5:].min()


@pytest.mark.parametrize("text", ["a whiteboard", "whiteboards, please"])
def test_a_kind_is_found_by_its_other_names(text: str) -> None:
    boards = [*(f"Acme Whiteboard {n}" for n in range(4)), "Acme Dry-Erase Board", "White Board"]
    titles = [*boards, "Marker", "Dry Erase Marker for Boards", "Stapler"]
    shop = Catalog.from_items([Item(str(n), title) for n, title in enumerate(titles)], "shop")
    wish = Steering.of(shop, encoder="words").read([user(text)])
    assert [one.id for one in wish.filters] == ["title~~dry erase board,white board,whiteboard"]
    assert np.flatnonzero(wish.where.rows(shop)).tolist() == [0, 1, 2, 3, 4, 5, 7]
    assert wish.log_weights is not None
    assert wish.log_weights[7] < wish.log_weights[:6].min() - 1


def test_kinds_that_titles_tell_are_meant_where_none_is_named() -> None:
    read = Steering.of(STATIONERY, encoder=Sentences(LetterEncoder(), "letters"))
    assert read.kinds is not None
    assert read.kinds.by_titles
    assert read.balance == Balance.usual("", by_titles=True)
    assert read.kinds.named(STATIONERY.row("s1")) == ("staplers",)
    assert read.parts("to write").kinds is not None
    categories = Steering.of(FILMS, encoder=Sentences(LetterEncoder(), "letters"))
    assert categories.balance == Balance()


def test_a_limit_that_is_added_leaves_the_wish_what_it_was() -> None:
    before = FILM.read([user("a story about toys")])
    after = FILM.read([user("a story about toys"), answer(0), user("only ones before 2000")])
    assert [one.id for one in after.filters] == ["year<=1999"]
    assert before.log_weights is not None
    assert after.log_weights.tolist() == before.log_weights.tolist()


def test_newer_turns_count_more() -> None:
    alone = FILM.read([user("a story about toys")])
    both = FILM.read([user("a story about toys"), answer(0), user("something with the falcon")])
    assert (best(alone), best(both)) == ("Toy Story (1995)", "Maltese Falcon, The (1941)")
    toy, falcon = both.log_weights[0], both.log_weights[8]
    assert falcon > toy > both.log_weights[9]
    assert both.words == ("falcon",)


def test_items_that_are_pointed_at() -> None:
    turns = [user("a film"), answer(3, 5), user("like the second one")]
    wish = FILM.read(turns)
    assert (wish.about, wish.without) == ((5,), frozenset([5]))
    assert FILM.read([*turns, answer(9), user("no more of these")]).without == {3, 5, 9}
    told = Message("assistant", (replace(user("The Godfather").parts[0]),))
    assert FILM.read([user("a film"), told, user("like the first one")]).about == (3,)


def test_reasons_beside_the_items_of_a_list_are_not_of_the_list() -> None:
    text = "1. Fargo (1996) – like Star Wars (1977)\n2. Maltese Falcon, The (1941) – like Hamlet"
    told = Message("assistant", (replace(user(text).parts[0]),))
    wish = FILM.read([user("a film"), told, user("I have seen the first two")])
    assert wish.without == {7, 8}


def test_what_is_not_wanted_falls() -> None:
    wish = FILM.read([user("no toys")])
    assert wish.log_weights is not None
    assert wish.log_weights.argmin() == 0
    assert wish.filters == ()


def test_trends_follow_the_fields() -> None:
    cheap = FILM.read([user("something cheap")])
    assert best(cheap) == "Airplane! (1980)"
    assert best(FILM.read([user("newer ones")])) in ("Fargo (1996)", "Hamlet (1996)")
    # A later word takes the place of an earlier one.
    turned = FILM.read([user("something cheap"), answer(6), user("rather an expensive one")])
    assert best(turned) == "Godfather, The (1972)"


@pytest.mark.parametrize(
    "text", ["hello", "thanks", "why did you pick that?", "", "zebra xylophone"]
)
def test_what_says_nothing_of_items_changes_nothing(text: str) -> None:
    wish = FILM.read([user(text)])
    assert wish.log_weights is None
    assert not wish.filters
    assert not wish.about
    assert not wish.without


def test_no_user_no_wish() -> None:
    for messages in ([], [answer(1)], [Message("system", user("horror").parts)]):
        wish = FILM.read(messages)
        assert (wish.log_weights, wish.filters, wish.recommends) == (None, (), False)


def test_how_many() -> None:
    assert FILM.read([user("five comedies"), answer(0), user("a thriller")]).k is None
    assert FILM.read([user("a comedy"), answer(0), user("three others")]).k == 3
    assert FILM.read([user("a comedy"), answer(0), user("show me three others")]).k == 3


def test_a_changed_catalog_is_as_if_read_anew() -> None:
    new = [
        Item("n1", "Heat (1995)", categories=("Crime", "Western"), attributes={"minutes": 170}),
        Item("n2", "Psycho II (1983)", categories=("Horror",), attributes={"price": 1.0}),
    ]
    changed, rows = FILMS.with_changes(removed=["f5"])[0].with_changes(new)
    assert rows == [5, 10]
    encoder = LetterEncoder()
    steering = Steering.of(FILMS, encoder=Sentences(encoder, "letters"), balance=Balance())
    asked = len(encoder.read)
    after = steering.with_catalog(changed)
    assert len(encoder.read) == asked + 2
    fresh = Steering.of(changed, encoder=Sentences(LetterEncoder(), "letters"))
    for text in ("westerns", "more like Heat", "at most 180 minutes", "more like Psycho"):
        one, other = after.read([user(text)]), fresh.read([user(text)])
        assert (one.filters, one.about) == (other.filters, other.about)
    assert after.read([user("more like Psycho II")]).about == (10,)
    # The old version is as it was.
    assert steering.read([user("more like Psycho")]).about == (5,)
    assert steering.read([user("westerns")]).filters == ()
    away, _ = changed.with_changes(removed=["n1"])
    assert after.with_catalog(away).read([user("more like Heat")]).about == ()


def test_what_a_model_calls_the_items_changes_nothing() -> None:
    called = FILMS.with_titles_t([f"{title} X" for title in FILMS.titles])
    after = FILM.with_catalog(called)
    assert after.catalog is called
    assert after.listener.lexicon is FILM.listener.lexicon
    assert after.listener.titles is FILM.listener.titles


def test_vectors_words_and_kinds_are_added_up() -> None:
    encoder = Sentences(LetterEncoder(), "letters")
    text = "a story about a falcon"
    parts = {}
    for name, balance in {
        "vectors": Balance(1.0, 0.0, 0.0), "words": Balance(1.0, 1.0, 0.0),
        "kinds": Balance(0.0, 0.0, 1.0), "all": Balance(8.0, 0.25, 2.0),
    }.items():  # fmt: skip
        found = Steering.of(FILMS, encoder=encoder, balance=balance).read([user(text)])
        parts[name] = found.log_weights
    expected = 6 * parts["vectors"] + 2 * parts["words"] + 2 * parts["kinds"]
    np.testing.assert_allclose(parts["all"], expected - expected.max(), atol=1e-5)


PIECES = (
    "not no horror Alien 20 euros under between and like the second one from 1990s in stock, . "
    "comedies or HP more else five ? ! '\" #2 10-20 €"
)
SAID = st.lists(st.sampled_from(PIECES.split(" ")), max_size=12).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(SAID, st.text(max_size=30)), min_size=1, max_size=4))
def test_anything_may_be_said(texts: list[str]) -> None:
    for catalog, steering in ((FILMS, FILM), (OFFICE, Steering.of(OFFICE, encoder="words"))):
        turns = [part for text in texts for part in (user(text), answer(0, 2))][:-1]
        wish = steering.read(turns)
        rows = wish.where.rows(catalog)
        assert rows.shape == (len(catalog),)
        assert len({one.id for one in wish.filters}) == len(wish.filters)
        if wish.log_weights is not None:
            assert np.isfinite(wish.log_weights).all()
            assert wish.log_weights.max() == 0
        assert all(0 <= row < len(catalog) for row in (*wish.about, *wish.without))
        assert wish.k is None or 1 <= wish.k <= 100
        off = steering.read(turns, off=[one.id for one in wish.filters])
        assert off.filters == ()
