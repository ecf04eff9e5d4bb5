from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs import TokenCatalog, token_catalogs
from incatalog.trie.build import CLOSE
from incatalog.trie.trie import ItemTrie


def expected_decisions(catalog: TokenCatalog, item: int) -> list[tuple[int, list[int], int]]:
    """Brute force: (depth, tokens of the node, choice) wherever two continuations exist."""
    row = catalog.rows[item]
    found = []
    for depth in range(len(row) + 1):
        among = catalog.continuations(catalog.members, row[:depth])
        tokens = [CLOSE if token is None else token for token in among]
        if len(tokens) > 1:
            found.append((depth, tokens, tokens.index(row[depth] if depth < len(row) else CLOSE)))
    return found


@settings(max_examples=1500, deadline=None)
@given(token_catalogs(), st.lists(st.integers(0, 1000), max_size=12))
def test_decisions_equal_brute_force(catalog: TokenCatalog, numbers: list[int]) -> None:
    trie = ItemTrie.build(catalog.rows)
    wanted = [number % len(catalog.rows) for number in numbers]
    found = trie.decisions_of(wanted)
    assert len(found.offsets) == len(wanted) + 1
    for index, item in enumerate(wanted):
        part = slice(found.offsets[index], found.offsets[index + 1])
        depth, node, choice = (array[part].tolist() for array in found[1:])
        tokens = [trie.node_tokens(number).tolist() for number in node]
        assert list(zip(depth, tokens, choice, strict=True)) == expected_decisions(catalog, item)
        assert [array.tolist() for array in trie.decisions(item)] == [depth, node, choice]


def test_worked_by_hand() -> None:
    #  row 0: 4 5      row 1: 4 5 6      row 2: 4 7      row 3: 4 5
    trie = ItemTrie.build([[4, 5], [4, 5, 6], [4, 7], [4, 5]])
    assert trie.num_nodes == 2
    assert trie.node_tokens(0).tolist() == [5, 7]
    assert trie.node_tokens(1).tolist() == [6, CLOSE]
    found = trie.decisions_of([2, 1, 0, 3])
    assert found.offsets.tolist() == [0, 1, 3, 5, 7]
    assert found.depth.tolist() == [1, 1, 2, 1, 2, 1, 2]
    assert found.node.tolist() == [0, 0, 1, 0, 1, 0, 1]
    assert found.choice.tolist() == [1, 0, 0, 0, 1, 0, 1]


def test_an_item_without_choices_has_none() -> None:
    trie = ItemTrie.build([[4, 5], [4, 5]])
    found = trie.decisions_of(np.array([0, 1, 0]))
    assert found.offsets.tolist() == [0, 0, 0, 0]
    assert len(found.depth) == len(found.node) == len(found.choice) == 0
    assert trie.decisions_of([]).offsets.tolist() == [0]
