from __future__ import annotations

import copy
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs import SpelledCatalog, TokenCatalog, spelled_catalogs, token_catalogs
from incatalog.errors import TrieError
from incatalog.trie.build import CLOSE
from incatalog.trie.trie import ItemTrie


@settings(max_examples=2000, deadline=None)
@given(token_catalogs())
def test_next_tokens_equal_brute_force_for_every_prefix_and_any_exclusion(
    catalog: TokenCatalog,
) -> None:
    trie = ItemTrie.build(catalog.rows)
    for prefix in catalog.prefixes():
        for excluded in (frozenset[int](), catalog.excluded):
            expected = catalog.continuations(catalog.members - excluded, prefix)
            assert trie.next_tokens(prefix, excluded) == expected


@settings(max_examples=1000, deadline=None)
@given(token_catalogs(), st.lists(st.integers(-1, 4), max_size=4))
def test_an_unknown_prefix_is_refused(catalog: TokenCatalog, prefix: list[int]) -> None:
    trie = ItemTrie.build(catalog.rows)
    if prefix in catalog.prefixes():
        assert trie.next_tokens(prefix)
    else:
        with pytest.raises(TrieError, match="no item starts with its first"):
            trie.next_tokens(prefix)


@settings(max_examples=1000, deadline=None)
@given(token_catalogs())
def test_nodes_are_the_branching_prefixes_and_ranges_hold_their_items(
    catalog: TokenCatalog,
) -> None:
    rows = catalog.rows
    trie = ItemTrie.build(rows)
    branching = 0
    for prefix in catalog.prefixes():
        branching += len(catalog.continuations(catalog.members, prefix)) > 1
        cursor = trie.root()
        for token in prefix:
            cursor = trie.step(cursor, token)
        below = {i for i in catalog.members if rows[i][: len(prefix)] == prefix}
        assert set(trie.order[cursor.lo : cursor.hi].tolist()) == below
        assert cursor.depth == len(prefix)
        children = trie.children(cursor)
        for token, lo, hi in zip(*children[:3], strict=True):
            assert {rows[i][len(prefix)] for i in trie.order[lo:hi]} == {token}
        ends = {i for i in below if rows[i] == prefix}
        assert set(trie.order[slice(*children.closes)].tolist()) == ends
        for row in ends:
            own, lo, hi = trie.leaf(int(trie.position[row]))
            assert (own, (lo, hi)) == (prefix, children.closes)
    assert trie.num_nodes == branching


def test_three_forms_of_token_rows_build_the_same_trie() -> None:
    rows = np.random.default_rng(0).integers(0, 5, (40, 4))
    nested = ItemTrie.build(rows.tolist())
    matrix = ItemTrie.build(rows)
    flat = ItemTrie.build((rows.reshape(-1).astype(np.int32), np.arange(41) * 4))
    assert nested.fingerprint == matrix.fingerprint == flat.fingerprint
    assert nested.fingerprint != ItemTrie.build(rows[:39]).fingerprint


def test_a_title_that_starts_another_may_close_or_go_on() -> None:
    trie = ItemTrie.build([[7, 8], [7, 8, 9], [7, 8, 9, 9]])
    assert trie.next_tokens([7]) == [8]
    assert trie.next_tokens([7, 8]) == [9, None]
    assert trie.next_tokens([7, 8, 9]) == [9, None]
    assert trie.next_tokens([7, 8], excluded=[0]) == [9]
    assert trie.next_tokens([7, 8], excluded=[1, 2]) == [None]
    assert trie.next_tokens([7, 8, 9, 9]) == [None]


def test_two_items_with_one_title_stand_at_one_leaf_in_row_order() -> None:
    trie = ItemTrie.build([[5, 6], [1], [5, 6], [5, 6]])
    leaf = trie.step(trie.step(trie.root(), 5), 6)
    assert trie.order[slice(*trie.children(leaf).closes)].tolist() == [0, 2, 3]
    assert trie.next_tokens([5, 6], excluded=[0, 2]) == [None]
    assert trie.next_tokens([5, 6], excluded=[0, 2, 3]) == []
    assert trie.next_tokens([], excluded=[0, 2, 3]) == [1]


def test_one_item_is_a_catalog() -> None:
    trie = ItemTrie.build([[3, 1, 4]])
    assert trie.num_nodes == 0
    assert trie.next_tokens([]) == [3]
    assert trie.next_tokens([3, 1, 4]) == [None]
    assert trie.next_tokens([3], excluded=[0]) == []


def test_tries_deeper_than_a_byte_or_a_thousand() -> None:
    for depth in (127, 128, 129, 255, 256, 257, 3000):
        shared = [1, 2, 3] * (depth // 3) + [1] * (depth % 3)
        trie = ItemTrie.build([[*shared, 5], [*shared, 6, 6], shared, [*shared, 5]])
        assert trie.next_tokens(shared) == [5, 6, None]
        assert trie.next_tokens([*shared, 6]) == [6]
        assert trie.decisions(1)[0].tolist() == [depth]
        assert trie.num_nodes == 1


def test_a_chain_of_prefixes_is_built_in_no_time() -> None:
    # Every prefix of one row branches: the worst case of the search for the next smaller value.
    rows = [[1] * length for length in range(1, 2001)]
    start = time.perf_counter()
    trie = ItemTrie.build(rows)
    assert time.perf_counter() - start < 5
    assert trie.num_nodes == 1999
    assert trie.next_tokens([1] * 1999, excluded=[1998]) == [1]
    assert trie.next_tokens([1] * 2000) == [None]


def test_token_ids_up_to_the_largest() -> None:
    largest = 2**31 - 3
    trie = ItemTrie.build([[0], [largest], [largest, 0], [largest, largest]])
    assert trie.next_tokens([]) == [0, largest]
    assert trie.next_tokens([largest]) == [0, largest, None]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "catalog is empty"),
        (np.zeros((0, 4), dtype=np.int64), "catalog is empty"),
        ([[1], [], [2]], "item row 1: has no token"),
        (np.zeros((2, 0), dtype=np.int64), "item row 0: has no token"),
        ([[1], [2, -1]], "item row 1"),
        ([[1], [2**31]], "item row 1"),
        ([[1], [2**70]], "item row 1"),
        ([[1], [1.5]], "item row 1"),
        ([[1], ["a"]], "item row 1"),
        ([[1], 3], "item row 1"),
        (np.ones((2, 2)), "float64"),
        (np.ones(3, dtype=np.int64), "shape"),
        ((np.ones(3, dtype=np.int64), np.array([0, 2])), "offsets"),
        ((np.ones(3, dtype=np.int64), np.array([0, 3, 2, 3])), "item row 1"),
    ],
)
def test_what_is_no_catalog_is_refused(rows: object, message: str) -> None:
    with pytest.raises(TrieError, match=message):
        ItemTrie.build(rows)  # type: ignore[arg-type]


def test_what_does_not_exist_is_refused() -> None:
    trie = ItemTrie.build([[1], [2]])
    for row in (-1, 2):
        with pytest.raises(TrieError, match=f"item row {row}"):
            trie.next_tokens([], excluded=[row])
        with pytest.raises(TrieError, match=f"item row {row}"):
            trie.decisions(row)
    for token in (CLOSE, 3):
        with pytest.raises(TrieError, match=f"token {token} at depth 0"):
            trie.step(trie.root(), token)


def test_closing_is_no_token_to_step_to() -> None:
    trie = ItemTrie.build([[1], [1, 2]])
    with pytest.raises(TrieError):
        trie.step(trie.step(trie.root(), 1), CLOSE)


def test_it_is_immutable_and_travels_to_workers() -> None:
    trie = ItemTrie.build([[1, 2], [1, 3], [1, 2]])
    for array in (trie.order, trie.position, trie.node_tokens(0)):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 9
    assert pickle.loads(pickle.dumps(trie)).fingerprint == trie.fingerprint
    assert copy.deepcopy(trie).next_tokens([1]) == [2, 3]


def test_it_knows_which_tokens_it_contains() -> None:
    trie = ItemTrie.build([[1, 2, 3], [1, 4], [1]])
    assert [token for token in range(-2, 9) if trie.contains_token(token)] == [1, 2, 3, 4]


def test_the_exclusion_of_many_items_at_once_is_exact() -> None:
    generator = np.random.default_rng([2026, 1])
    rows = generator.integers(0, 12, (4000, 4))
    trie = ItemTrie.build(rows)
    for share in (0.001, 0.3, 0.97, 1.0):
        excluded = np.flatnonzero(generator.random(len(rows)) < share)
        left = np.delete(rows, excluded, axis=0)
        assert trie.next_tokens([], excluded.tolist()) == sorted(set(left[:, 0].tolist()))
        first = int(rows[0, 0])
        second = left[left[:, 0] == first, 1]
        assert trie.next_tokens([first], excluded.tolist()) == sorted(set(second.tolist()))


@settings(max_examples=500, deadline=None)
@given(spelled_catalogs())
def test_an_item_is_excluded_with_all_its_spellings(catalog: SpelledCatalog) -> None:
    trie = ItemTrie.build(catalog.rows, catalog.items)
    assert (trie.num_items, trie.num_positions) == (catalog.num_items, len(catalog.rows))
    assert trie.live_rows.all()
    for excluded in (frozenset[int](), catalog.excluded):
        left = catalog.spelled(catalog.members - excluded)
        for prefix in catalog.spelled(catalog.members).prefixes():
            expected = left.continuations(left.members, prefix)
            assert trie.next_tokens(prefix, excluded) == expected
    for item in range(catalog.num_items):
        own = [row for row, of in enumerate(catalog.items) if of == item]
        assert sorted(trie.positions([item])) == sorted(trie.position[own])
        assert {trie.order[position] for position in trie.positions([item])} == {item}
        assert trie.title_position(item) == trie.position[own[0]]
        assert sorted(trie.with_other_spellings(trie.position[own[-1:]])) == sorted(
            trie.position[own]
        )


def test_spellings_are_decided_on_as_rows_of_their_own() -> None:
    trie = ItemTrie.build([[4, 5], [6], [4, 7], [4]], items=[0, 1, 0, 1])
    plain = ItemTrie.build([[4, 5], [6], [4, 7], [4]])
    assert trie.order.tolist() == [0, 0, 1, 1]
    for row in range(4):
        for own, expected in zip(trie.decisions(row), plain.decisions(row), strict=True):
            assert own.tolist() == expected.tolist()
    with pytest.raises(TrieError, match="item row 4: not in the trie; expected 0 to 3"):
        trie.decisions(4)
    with pytest.raises(TrieError, match="item row 2: not in the trie; expected 0 to 1"):
        trie.positions([2])


def test_spellings_are_saved_and_a_folder_without_them_still_loads(tmp_path: Path) -> None:
    rows, items = [[4, 5], [6], [4, 7]], [0, 1, 0]
    trie, plain = ItemTrie.build(rows, items=items), ItemTrie.build(rows)
    assert trie.fingerprint != plain.fingerprint
    for number, one in enumerate((trie, plain)):
        one.save(tmp_path / str(number))
        for again in (ItemTrie.load(tmp_path / str(number)), pickle.loads(pickle.dumps(one))):
            assert again.fingerprint == one.fingerprint
            assert again.next_tokens([], [0]) == one.next_tokens([], [0])
    assert trie.next_tokens([], [0]) == [6]
    assert plain.next_tokens([], [0]) == [4, 6]
    assert not (tmp_path / "1" / "spelling_item.npy").exists()
    (tmp_path / "0" / "spelling_item.npy").unlink()
    with pytest.raises(TrieError, match=r"spelling_item\.npy: no such file"):
        ItemTrie.load(tmp_path / "0")


def test_items_of_one_spelling_each_cost_nothing() -> None:
    trie = ItemTrie.build([[4, 5], [6]], items=[0, 1])
    assert trie.spellings is None
    assert trie.nbytes == ItemTrie.build([[4, 5], [6]]).nbytes
    assert trie.order is trie.arrays.order


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([0, 1], "found 2 item rows; expected one for each of 3 token rows"),
        ([0, 2, 0], "none of them 1"),
        ([-1, 0, 0], "none of them 0"),
        ([0, 1, 0], "token row 2: item row 0 is spelled so already"),
    ],
)
def test_what_are_no_spellings_is_refused(items: list[int], message: str) -> None:
    with pytest.raises(TrieError, match=message):
        ItemTrie.build([[4], [5], [4]], items)
