from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from incatalog import Catalog, Item, Recommender
from incatalog.dialogue.render import ItemRef, Message, Text
from incatalog.items.aliases import Aliases
from incatalog.model.backbone import Backbone
from incatalog.model.spec import ModelSpec
from incatalog.recommender.items import ModelItems
from incatalog.recommender.mentions import conversation_items
from incatalog.recommender.spotting import Titles


def written(
    backbone: Backbone, titles: Sequence[str], aliases: Aliases | None = None
) -> ModelItems:
    catalog = Catalog.from_items(Item(f"i{row}", title) for row, title in enumerate(titles))
    return ModelItems.of(backbone.tokenizer, "titles", catalog, aliases=aliases)


@pytest.fixture(scope="module")
def items(tiny_backbone: Backbone, titles: tuple[str, ...]) -> ModelItems:
    return written(tiny_backbone, titles)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I liked Harbour Lights (1991)!", ["Harbour Lights (1991)"]),
        ("Harbour Lights II (1994), and Harbour", ["Harbour Lights II (1994)", "Harbour"]),
        ("Harbourmaster, Zebras, harbour, Nightly, Midnight", []),
        ("(Harbour) Zebra's 'Night'", ["Harbour", "Zebra", "Night"]),
        ("12 Hungry Men (1957)3", ["12 Hungry Men (1957)"]),
        ("112 Hungry Men (1957)", []),
        ("Ä Ära Zebra Crossing (1970)", ["Ä", "Zebra Crossing (1970)"]),
        ("Zebra, Night, Zebra", ["Night", "Zebra"]),
        ("", []),
    ],
)
def test_titles_in_what_the_user_says(items: ModelItems, text: str, expected: list[str]) -> None:
    found = conversation_items([user(text)], items)
    assert [items.catalog.titles[row] for row in found] == expected


def test_the_longest_of_overlapping_titles_counts(tiny_backbone: Backbone) -> None:
    titles = ["Sea of", "of Glass and Grass", "Grass", "Sea", "Glass"]
    items = written(tiny_backbone, titles)
    assert Titles(items).rows("Sea of Glass and Grass") == [3, 1]
    assert Titles(items).rows("Sea of Glass") == [0, 4]


def test_items_of_all_messages_and_titles_of_the_user_alone(items: ModelItems) -> None:
    messages = [
        Message("system", (Text("Night Train (1959)"),)),
        Message("user", (Text("Like "), ItemRef(3), Text(", or Zebra"))),
        Message("assistant", (Text("Silent Pine (1973) or "), ItemRef(20), ItemRef(3))),
        user("More like Harbour"),
    ]
    zebra, harbour = items.catalog.titles.index("Zebra"), items.catalog.titles.index("Harbour")
    assert conversation_items(messages, items) == [zebra, 20, 3, harbour]


def test_aliases_and_changes(tiny_backbone: Backbone, titles: tuple[str, ...]) -> None:
    items = written(tiny_backbone, titles).with_aliases(Aliases((7,), ("The Lisbon One",)))
    assert conversation_items([user("The Lisbon One")], items) == [7]
    changed = items.with_changes([Item("new", "Moonlight Ferry")], ["i2", "i7"])
    row = changed.catalog.row("new")
    said = [user("Moonlight Ferry, The Lisbon One, Harbour")]
    assert conversation_items(said, changed) == [row]
    assert conversation_items(said, items) == [7, 2]


@example(["of", " ", "Glass"])
@given(st.lists(st.sampled_from(["Sea", "of", "Glass", "x", " ", ",", "Sea of", "1"]), max_size=12))
def test_found_is_what_stands_there(small: ModelItems, pieces: list[str]) -> None:
    """Brute force: at every place, the longest titles first."""
    text = "".join(pieces)
    titles = small.catalog.titles
    places = sorted(
        (-len(title), start, row)
        for row, title in enumerate(titles)
        for start in range(len(text))
        if text.startswith(title, start)
        if not (start and text[start - 1].isalnum() and title[0].isalnum())
        if not (text[start + len(title) :][:1].isalnum() and title[-1].isalnum())
    )
    free = [True] * len(text)
    expected = []
    for size, start, row in places:
        own = range(start, start - size)
        if all(free[at] for at in own):
            for at in own:
                free[at] = False
            expected.append((start, row))
    assert Titles(small).rows(text) == [row for _, row in sorted(expected)]


@pytest.fixture(scope="module")
def small(tiny_backbone: Backbone) -> ModelItems:
    return written(tiny_backbone, ["Sea", "Sea of", "of Glass", "Glass, Sea", "Glass", "x1"])


def test_a_long_text_is_read_in_time(items: ModelItems) -> None:
    text = "Night Train to Nowhere, The Harbour Master, " * 2500
    found = Titles(items).rows(text)
    assert len(found) == 5000


def test_the_recommender_reads_conversations(
    tiny_backbone: Backbone, titles: tuple[str, ...]
) -> None:
    catalog = Catalog.from_items(Item(f"i{row}", title) for row, title in enumerate(titles))
    recommender = Recommender(tiny_backbone, ModelSpec(base="tiny"), catalog)
    found = conversation_items([user("Zebra")], recommender.items)
    assert [catalog.titles[row] for row in found] == ["Zebra"]
