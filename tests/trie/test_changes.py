from __future__ import annotations

from dataclasses import fields
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs import SpelledCatalog, TokenCatalog, spelled_catalogs, token_catalogs
from incatalog.constraint.excluded import ExcludedItems
from incatalog.constraint.span import SpanConstraint
from incatalog.decoding.engine import Engine
from incatalog.decoding.request import Request
from incatalog.errors import NoItemLeftError, TrieError
from incatalog.trie import changes
from incatalog.trie.build import TrieArrays
from incatalog.trie.trie import ItemTrie
from worlds import EOI, SOI, STOP, make_model, prompts, token_rows


def assert_equal(found: ItemTrie, rows: dict[int, list[int]]) -> None:
    """The arrays are those of a trie that is built from the items that are there."""
    vacant = sorted(set(range(found.num_items)) - set(rows))
    assert found.vacant_rows.tolist() == vacant
    kept = sorted(rows)
    assert found.arrays.live.tolist() == [0, len(kept)]
    if not kept:
        assert len(found.arrays.tail) == len(found.arrays.edge_token) == found.num_nodes == 0
        return
    built = ItemTrie.build([rows[row] for row in kept])
    for field in fields(TrieArrays):
        own, expected = (getattr(trie.arrays, field.name).tolist() for trie in (found, built))
        if field.name == "order":
            expected = [*(kept[place] for place in expected), *vacant]
        assert own == expected, field.name
        assert getattr(found.arrays, field.name).dtype == np.int32


@settings(max_examples=400, deadline=None)
@given(token_catalogs(), st.data())
def test_any_changes_equal_building_from_what_is_left(
    catalog: TokenCatalog, data: st.DataObject
) -> None:
    rebuilt_from = data.draw(st.sampled_from([256, 1, 2]))
    known = {row: list(tokens) for row, tokens in enumerate(catalog.rows)}
    trie = ItemTrie.build(catalog.rows)
    with patch.object(changes, "_REBUILT_FROM", rebuilt_from):
        for _ in range(data.draw(st.integers(1, 4))):
            before, fingerprint = trie, trie.fingerprint
            if known and data.draw(st.booleans()):
                removed = data.draw(st.sets(st.sampled_from(sorted(known)), min_size=1))
                trie = trie.without_items(removed)
                known = {row: tokens for row, tokens in known.items() if row not in removed}
            else:
                added = data.draw(token_catalogs()).rows
                vacant = trie.vacant_rows.tolist()
                new = range(trie.num_items, trie.num_items + len(added))
                rows = data.draw(st.permutations([*vacant, *new]))
                rows = sorted(rows[: len(added)]) if data.draw(st.booleans()) else list(new)
                fresh = sorted(row for row in rows if row >= trie.num_items)
                swap = dict(zip(fresh, new, strict=False))
                rows = data.draw(st.permutations([swap.get(row, row) for row in rows]))
                known |= {row: list(tokens) for row, tokens in zip(rows, added, strict=True)}
                trie = trie.with_items(added, rows)
            assert_equal(trie, known)
            assert ItemTrie(before.arrays).fingerprint == fingerprint


def test_worked_by_hand() -> None:
    trie = ItemTrie.build([[4, 5], [4, 6]])
    grown = trie.with_items([[4, 5, 7], [4, 5]])
    assert grown.next_tokens([4, 5]) == [7, None]
    assert grown.order.tolist() == [2, 0, 3, 1]
    shrunk = grown.without_items([0, 3])
    assert shrunk.next_tokens([4]) == [5, 6]
    assert shrunk.next_tokens([4, 5]) == [7]
    assert shrunk.order.tolist() == [2, 1, 0, 3]
    assert shrunk.vacant_rows.tolist() == [0, 3]
    renamed = shrunk.without_items([1]).with_items([[9]], rows=[1])
    assert renamed.next_tokens([]) == [4, 9]
    assert renamed.num_nodes == 1
    assert trie.next_tokens([4, 5]) == [None]


def test_a_removed_item_is_named_by_nothing() -> None:
    trie = ItemTrie.build([[4, 5], [4, 6], [7]]).without_items([1])
    # A history may still hold it.
    excluded = ExcludedItems.build(trie, [1, 2])
    constraint = SpanConstraint(trie, 2, excluded=excluded)
    assert constraint.free_rows().tolist() == [True, False, False]
    with pytest.raises(TrieError, match="item row 1"):
        constraint.begin(1)
    constraint.begin()
    assert constraint.forced() == [4, 5, 2]
    with pytest.raises(TrieError, match="item row 1: was removed"):
        trie.decisions(1)
    with pytest.raises(NoItemLeftError):
        SpanConstraint(trie.without_items([0, 2]), 2).begin()


@settings(max_examples=40, deadline=None)
@given(token_rows, prompts, st.data())
def test_answers_are_those_with_the_removed_items_excluded(
    rows: list[list[int]], batch: list[list[int]], data: st.DataObject
) -> None:
    model, trie = make_model(1), ItemTrie.build(rows)
    removed = data.draw(st.sets(st.integers(0, len(rows) - 1)))
    excluded = ExcludedItems.build(trie, removed)
    answers = []
    for version, rule in ((trie, excluded), (trie.without_items(removed), None)):
        engine = Engine(model, version, soi_token_id=SOI, eoi_token_id=EOI, stop_token_ids=[STOP])
        requests = [Request(prompt, excluded=rule, max_new_tokens=30) for prompt in batch]
        answers.append([(one.token_ids, one.items) for one in engine.complete(requests)])
    assert answers[0] == answers[1]


def test_a_catalog_may_run_empty_and_fill_again(tmp_path) -> None:
    trie = ItemTrie.build([[4, 5], [6], [4]]).without_items([0, 2])
    assert trie.next_tokens([]) == [6]
    trie.without_items([1]).save(tmp_path / "trie")
    empty = ItemTrie.load(tmp_path / "trie")
    assert empty.next_tokens([]) == []
    full = empty.with_items([[8, 9], [8]], rows=[3, 0])
    assert full.next_tokens([8]) == [9, None]
    assert full.decisions_of([3, 0]).choice.tolist() == [0, 1]


@settings(max_examples=100, deadline=None)
@given(spelled_catalogs(), st.data())
def test_an_item_leaves_with_all_its_spellings_and_a_new_one_may_take_its_row(
    catalog: SpelledCatalog, data: st.DataObject
) -> None:
    trie = ItemTrie.build(catalog.rows, catalog.items)
    spelled = {
        item: [r for r, i in zip(catalog.rows, catalog.items, strict=True) if i == item]
        for item in range(catalog.num_items)
    }
    with patch.object(changes, "_REBUILT_FROM", data.draw(st.sampled_from([256, 1]))):
        for _ in range(3):
            removed = data.draw(st.sets(st.sampled_from(sorted(spelled)))) if spelled else set()
            trie = trie.without_items(removed)
            spelled = {item: rows for item, rows in spelled.items() if item not in removed}
            new = [*trie.vacant_rows.tolist()[:1], trie.num_items, trie.num_items + 1]
            added = [[1, 2], [1], [3]][: len(new)]
            trie = trie.with_items(added, new)
            spelled |= {item: [tokens] for item, tokens in zip(new, added, strict=True)}
            gone = sorted(set(range(trie.num_items)) - set(spelled))
            assert trie.vacant_rows.tolist() == gone
            assert set(np.flatnonzero(trie.live_rows).tolist()) == set(spelled)
            for left_out in (set[int](), {item for item in spelled if item % 2}):
                rows = [row for item in set(spelled) - left_out for row in spelled[item]]
                assert trie.next_tokens([], left_out) == sorted({row[0] for row in rows})
            constraint = SpanConstraint(trie, 100)
            for item in new:
                constraint.begin(item)
                assert constraint.forced() == [*spelled[item][0], 100]
                for token in constraint.forced():
                    named = constraint.accept(token)
                assert named == item


def test_what_cannot_be_changed_is_refused() -> None:
    trie = ItemTrie.build([[4], [5], [6]]).without_items([2])
    for rows, message in (([2], "was removed"), ([3], "not in the trie"), ([-1], "not in")):
        with pytest.raises(TrieError, match=message):
            trie.without_items(rows)
    assert trie.without_items([]) is trie
    for rows in ([0], [4], [2, 2], [3, 5], [-1]):
        with pytest.raises(TrieError, match="expected each once, a vacant row or the next from 3"):
            trie.with_items([[7]] * len(rows), rows)
    with pytest.raises(TrieError, match="2 token rows, 1 rows"):
        trie.with_items([[7], [8]], [3])
    with pytest.raises(TrieError, match="item row 0: has no token"):
        trie.with_items([[]])
