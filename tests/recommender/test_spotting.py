from __future__ import annotations

import pytest

from incatalog import Catalog, Item, Recommender
from incatalog.dialogue.render import ItemRef, Message, Text
from incatalog.model.backbone import Backbone
from incatalog.model.spec import ModelSpec
from incatalog.recommender.items import ModelItems
from incatalog.recommender.mentions import conversation_items
from incatalog.recommender.spotting import Titles, as_known, with_listed_items

SHOWN = ("Night Train [VHS, 1959]", "Zebra", "Lamp", "Harbour Guide, 2nd ed.")
KNOWN = ("Night Train", "Lamp", "Zebra Lamp", "The Harbour Guide")


def catalog(names: tuple[str, ...] | None) -> Catalog:
    field = "title" if names is None else "title_t"
    items = [
        Item(f"i{row}", title, name=None if names is None else names[row])
        for row, title in enumerate(SHOWN)
    ]
    return Catalog.from_items(items, title_field=field)


@pytest.fixture(scope="module")
def items(tiny_backbone: Backbone) -> ModelItems:
    return ModelItems.of(tiny_backbone.tokenizer, "titles", catalog(KNOWN))


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("Like Night Train [VHS, 1959]!", "Like Night Train!"),
        ("Like Night Train, or The Harbour Guide", "Like Night Train, or The Harbour Guide"),
        # Zebra is shown for what is known as Lamp, Lamp for what is known as Zebra Lamp.
        ("Zebra, Lamp", "Lamp, Zebra Lamp"),
        ("a Zebra Lamp", "a Zebra Lamp"),
        ("Zebras and lamps", "Zebras and lamps"),
        ("", ""),
    ],
)
def test_what_people_are_shown_is_read_as_the_model_knows_it(
    items: ModelItems, said: str, read: str
) -> None:
    for role in ("user", "assistant"):
        message = Message(role, (Text(said), ItemRef(1)))
        assert as_known(message, items).parts == (Text(read), ItemRef(1))
    message = Message("system", (Text(said),))
    assert as_known(message, items) is message


def test_nothing_is_replaced_where_models_know_titles(tiny_backbone: Backbone) -> None:
    plain = ModelItems.of(tiny_backbone.tokenizer, "titles", catalog(None))
    message = Message("user", (Text("Night Train [VHS, 1959]"),))
    assert as_known(message, plain) is message


def test_items_are_found_by_either_name(items: ModelItems) -> None:
    def named(text: str) -> list[int]:
        return conversation_items([{"role": "user", "content": text}], items)

    assert named("Night Train [VHS, 1959]") == named("Night Train") == [0]
    assert named("The Harbour Guide") == named("Harbour Guide, 2nd ed.") == [3]
    # Where a text may be either, it is what people are shown.
    assert named("Lamp") == [2]
    found = Titles(items).places("x Night Train, Zebra")
    assert [(one.start, one.end, one.row) for one in found] == [(2, 13, 0), (15, 20, 1)]


def test_models_read_and_write_names_and_people_see_titles(tiny_backbone: Backbone) -> None:
    recommender = Recommender(tiny_backbone, ModelSpec(base="tiny"), catalog(KNOWN))
    assert recommender.catalog.titles_t == KNOWN
    read = tiny_backbone.tokenizer.decode(recommender.list_request([3, 0], 2).prompt_ids)
    assert "'The Harbour Guide' → 'Night Train'" in read or (
        "The Harbour Guide" in read and "2nd ed." not in read
    )
    found = recommender.recommend(["i0"], k=3, exclude_seen=False)
    assert {one.title for one in found} <= set(SHOWN)
    assert all(one.title == SHOWN[int(one.item_id[1:])] for one in found)
    asked = recommender.chat_request([{"role": "user", "content": "Night Train [VHS, 1959]?"}], k=2)
    said = tiny_backbone.tokenizer.decode(asked.prompt_ids)
    assert "Night Train?" in said
    assert "VHS" not in said
    # Without items nothing is read into what is said.
    plain = recommender.chat_request([{"role": "user", "content": "Zebra"}], items=False)
    assert "Zebra" in tiny_backbone.tokenizer.decode(plain.prompt_ids)
    added = recommender.with_changes([Item("n", "Moon [DVD]", name="Moon")], ["i1"])
    assert added.catalog.titles_t[added.catalog.row("n")] == "Moon"
    first, *_ = added.recommend([], k=4)
    answer = added.chat([{"role": "user", "content": "?"}], max_new_tokens=1)
    assert answer.text in ("", *SHOWN) or not answer.items
    assert first.title in {*SHOWN, "Moon [DVD]"}


def test_lists_that_clients_send_back_as_text_are_lists_of_items(items: ModelItems) -> None:
    text = "Two of them:\n\n1. Zebra – like Lamp, which you liked\n2. Harbour Guide, 2nd ed.\n\nBye"
    found = with_listed_items(Message("assistant", (Text(text),)), items)
    assert found.parts == (
        Text("Two of them:\n\n1. "),
        ItemRef(1),
        Text(" – like Lamp, which you liked\n2. "),
        ItemRef(3),
        Text("\n\nBye"),
    )


@pytest.mark.parametrize(
    "message",
    [
        Message("user", (Text("1. Zebra"),)),
        Message("assistant", (Text("Zebra and Lamp"),)),
        Message("assistant", (Text("1. Zebrafish"),)),
        Message("assistant", (Text("1. "), ItemRef(2), Text("\n2. Zebra"))),
    ],
)
def test_other_messages_stay_as_they_are(items: ModelItems, message: Message) -> None:
    assert with_listed_items(message, items) == message
