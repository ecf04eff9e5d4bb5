from __future__ import annotations

import pytest

from incatalog import Catalog, Item
from incatalog.assistant.facts import AskedFor, Facts, chosen, listed, together


def test_names_are_listed() -> None:
    assert [listed(names) for names in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "", "a", "a and b", "a, b and c",
    ]  # fmt: skip


def test_the_most_alike_of_a_history_shares_rare_categories_or_a_series(films: Catalog) -> None:
    facts = Facts(films)
    # First Contact shares two categories with Star Wars and one with Alien and Heat.
    assert facts.alike(4, [1, 0, 3]) == (0, ["Action", "Sci-Fi"])
    assert facts.alike(2, [3]) == (3, ["Crime"])
    assert facts.alike(2, [5]) == (None, [])
    assert facts.alike(7, [0, 1]) == (None, [])
    # Of equals the newest; an item is not like itself.
    assert facts.alike(3, [3, 2])[0] == 2


def test_reasons_are_made_of_what_is_known(films: Catalog) -> None:
    facts = Facts(films)
    liked = "Because you liked Star Wars (1977): both are Action and Sci-Fi."
    assert facts.reason(4, [0]) == liked
    assert facts.reason(4, [0], place=1) == "Like Star Wars (1977), it is Action and Sci-Fi."
    assert facts.reason(4, [0], mentioned={0}) == liked.replace("liked", "mentioned")
    horror = AskedFor(("Horror",))
    assert facts.reason(1, [], horror) == "Horror, as you asked, and Sci-Fi too."
    assert facts.reason(1, [], horror, 1) == "Horror, as you asked, with Sci-Fi."
    told = "Horror, as you asked, and Sci-Fi like Star Wars (1977), which you liked."
    assert facts.reason(1, [0], horror) == told
    early = AskedFor(others=("from 1970 to 1979",))
    assert facts.reason(1, [], early) == "Horror and Sci-Fi, from 1970 to 1979, as you asked."
    assert facts.reason(1, [], early, known=True) == "From 1970 to 1979, as you asked."
    both = AskedFor(("Horror",), ("from 1970 to 1979",))
    told = "Horror from 1970 to 1979, as you asked, and Sci-Fi too."
    assert facts.reason(1, [], both) == told
    # A category that the item has not is not claimed.
    assert facts.reason(2, [], horror) == "Crime and Drama."
    assert facts.reason(7, [0], horror) == "From 1977."


def test_limits_stand_behind_what_they_belong_to() -> None:
    assert together(("Horror", "War", "from 1970 to 1979")) == "Horror and War from 1970 to 1979"
    assert together(("in stock", "price up to 20")) == "price up to 20 in stock"
    assert together(("until 1970",), "something") == "something until 1970"
    assert together(("pens",), "something") == "pens"
    assert together(()) == ""


def test_nothing_is_said_where_nothing_is_known() -> None:
    bare = Catalog.from_items([Item("a", "A thing"), Item("b", "Another")])
    assert Facts(bare).reason(0, [1]) is None
    assert Facts(bare).known(0) == ("A thing is in the catalog. The catalog says no more of it.")


def test_a_brand_or_a_word_is_said_to_be_shared_where_it_is() -> None:
    brand = {"brand": "Acme"}
    items = [
        Item("a", "Anvil", attributes=brand),
        Item("b", "Rocket", attributes=brand),
        Item("c", "Rocket skates", attributes={"brand": "Other"}),
    ]
    facts = Facts(Catalog.from_items(items))
    assert facts.reason(1, [0]) == "Because you liked Anvil, which is by Acme too."
    assert facts.reason(2, [1]) == "Because you liked Rocket, whose name it shares in part."


def test_what_is_known_of_an_item(films: Catalog) -> None:
    facts = Facts(films)
    assert facts.known(3) == "Heat (1995): Crime and Action, from 1973."
    shop = Catalog.from_items(
        [Item("p", "Pen", "Pen. It writes in blue and in black ink. More.", ("Writing & Ink",),
              attributes={"brand": "Inky", "price": 2.5})]
    )  # fmt: skip
    expected = "Pen: Writing & Ink, by Inky, price 2.5. It writes in blue and in black ink."
    assert Facts(shop).known(0) == expected


@pytest.mark.parametrize("about", [("x", 1), "y", 3])
def test_words_vary_with_what_they_are_about_and_not_by_chance(about: object) -> None:
    texts = ["a", "b", "c"]
    assert chosen(texts, about) == chosen(texts, about)
    assert {chosen(texts, number) for number in range(40)} == set(texts)
