from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from incatalog import Catalog, Item, Recommender
from incatalog.data.where import EVERYTHING, Where
from incatalog.errors import CatalogError, SemanticIdError
from incatalog.items.aliases import Aliases
from incatalog.model.backbone import Backbone
from incatalog.model.spec import ModelSpec
from incatalog.recommender.items import ModelItems

ALIASES = Aliases((0, 3), ("The one about the lighthouse, which is a long alias", "Other"))


@pytest.fixture
def items(tiny_backbone: Backbone, titles: tuple[str, ...]) -> ModelItems:
    catalog = Catalog.from_items(
        Item(f"i{row}", title, categories=(("even", "odd")[row % 2],))
        for row, title in enumerate(titles)
    )
    return ModelItems.of(tiny_backbone.tokenizer, "titles", catalog)


def test_a_change_makes_another_value_and_leaves_the_first_as_it_was(items: ModelItems) -> None:
    before = [items.catalog, items.tokens, items.grounding, items.disabled]
    new = Item("new", "Paper Moon Over Leeds", categories=("late",))
    changed = items.with_disabled(["i1", "i2"]).with_changes([new], ["i1"])
    assert [items.catalog, items.tokens, items.grounding, items.disabled] == before
    row = changed.catalog.row("new")
    assert changed.tokens.decode(row, items.tokenizer) == "Paper Moon Over Leeds"
    assert changed.disabled == {2}
    late = changed.excluded(categories=["late"])
    assert np.flatnonzero(~late.rows).tolist() == [row]
    with pytest.raises(CatalogError, match="late"):
        items.excluded(categories=["late"])
    assert changed.with_changes() is changed
    # What the engine names items in stays one value while only the rules change.
    assert items.with_disabled(["i1"]).grounding is items.grounding
    assert items.with_metadata(items.catalog).grounding is items.grounding


def test_the_longest_span_is_that_of_any_name(items: ModelItems) -> None:
    longest = max(len(items.tokens.span(row)) for row in range(len(items.catalog)))
    assert items.longest_span == longest
    named = items.with_aliases(ALIASES)
    assert named.longest_span == len(items.spelled(ALIASES).row(len(items.catalog))) + 2
    assert named.tokens is items.tokens
    assert named.grounding.trie.num_items == len(items.catalog)


def test_items_that_were_written_before_are_recommended_as_from_their_catalog(
    tiny_backbone: Backbone, items: ModelItems
) -> None:
    spec = ModelSpec(base="tiny")
    for aliases, written in ((None, items), (ALIASES, items.with_aliases(ALIASES))):
        anew = Recommender(tiny_backbone, spec, items.catalog, aliases=aliases)
        handed = Recommender(tiny_backbone, spec, written)
        assert handed.items is written
        for decode in ("beam", "list"):
            asked: Any = {"k": 5, "decode": decode, "categories": ["odd"]}
            assert handed.recommend(["i3"], **asked) == anew.recommend(["i3"], **asked)


def test_a_model_that_writes_codes_needs_them(tiny_backbone: Backbone, items: ModelItems) -> None:
    with pytest.raises(SemanticIdError, match="comes without"):
        ModelItems.of(tiny_backbone.tokenizer, "codes", items.catalog)


def test_a_rule_is_made_once_for_a_set_of_categories(items: ModelItems) -> None:
    assert items.rule() is None
    rule = items.rule(["odd", "even", "odd"])
    assert rule is items.rule(["even", "odd"])
    assert rule is not None
    assert not rule.rows.any()
    odd = items.rule(["odd"])
    assert odd is not None
    assert np.flatnonzero(~odd.rows).tolist() == list(range(1, len(items.catalog), 2))


def allowed(items: ModelItems, **how: Any) -> list[int]:
    return np.flatnonzero(~items.excluded(**how).rows).tolist()


def test_conditions_exclude_what_does_not_fulfil_them(items: ModelItems) -> None:
    priced = items.with_metadata(
        Catalog.from_items(
            replace(item, attributes={"price": row}) for row, item in enumerate(items.catalog.items)
        )
    )
    cheap = Where.parse({"price": {"lt": 6}})
    assert allowed(priced, where=cheap) == [0, 1, 2, 3, 4, 5]
    assert allowed(priced, where=cheap, categories=["odd"], exclude=["i3"]) == [1, 5]
    assert allowed(priced.with_disabled(["i1"]), where=cheap) == [0, 2, 3, 4, 5]
    assert priced.rule(where=EVERYTHING) is None
    assert priced.rule((), cheap) is priced.rule((), Where.parse({"price": {"lt": 6.0}}))
    with pytest.raises(CatalogError, match="no field 'price'"):
        items.excluded(where=cheap)


def test_conditions_hold_right_after_a_change(items: ModelItems) -> None:
    where = Where.parse({"price": {"lt": 6}, "kind": {"ne": "old"}})
    first = [Item("a", "Alpha Alpha", attributes={"price": 5, "kind": "new"})]
    now = items.with_changes(first)
    row = now.catalog.row("a")
    assert allowed(now, where=where) == [row]
    dearer = now.with_changes([replace(first[0], attributes={"price": 7})], ["a"])
    assert allowed(now, where=where) == [row]
    assert dearer.excluded(where=where).rows.all()
    both = dearer.with_changes([Item("b", "Beta Beta", attributes={"price": 1, "kind": "OLD"})])
    assert both.excluded(where=where).rows.all()
    assert allowed(both, where=Where.parse({"kind": "old"})) == [both.catalog.row("b")]


def test_many_different_conditions_take_no_more_room(items: ModelItems) -> None:
    priced = items.with_changes([Item("a", "Alpha Alpha", attributes={"price": 5})])
    for number in range(2000):
        priced.excluded(where=Where.parse({"price": {"ne": number}}))
        priced.excluded(where=Where.parse({"title": {"contains": f"x{number}"}}))
    assert len(priced._rules) <= 16
    assert len(priced.catalog._columns) == 2


def test_items_that_know_something_else_keep_their_index(items: ModelItems) -> None:
    old = items.catalog.items[3]
    new = replace(old, title_t=None, description="New.", attributes={"price": 2})
    updated = items.with_updated([new])
    assert updated.grounding is items.grounding
    assert updated.tokens is items.tokens
    assert updated.catalog.items[3] == replace(new, title_t=old.title_t)
    assert allowed(updated, where=Where.parse({"price": 2})) == [3]
    assert items.with_updated([]) is items
    for wrong, message in ((replace(old, title="Other"), "is called 'Other', before"),
                           (replace(old, item_id="zz"), "no item with id 'zz'")):  # fmt: skip
        with pytest.raises(CatalogError, match=message):
            items.with_updated([wrong])
