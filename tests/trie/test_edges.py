from __future__ import annotations

import numpy as np
from hypothesis import given, settings

from catalogs import TokenCatalog, token_catalogs
from incatalog.trie.build import CLOSE
from incatalog.trie.edges import BLOCK, EdgeNodes
from incatalog.trie.trie import ItemTrie


def led_to(trie: ItemTrie, edges: np.ndarray) -> np.ndarray:
    """The node each edge leads to, read off the tables as the compiled loops do."""
    known = trie.edge_nodes
    rank = known.rank[edges].astype(np.int32)
    leads = rank >= BLOCK
    found = np.full(len(edges), -1, dtype=np.int32)
    found[leads] = known.nodes[known.before[edges[leads] // BLOCK] + rank[leads] - BLOCK]
    return found


def nodes_by_search(trie: ItemTrie) -> list[int]:
    """The node each edge leads to, found by going there."""
    found = []
    for node in range(trie.num_nodes):
        tokens, bounds = trie.choices(node)
        for choice, token in enumerate(tokens.tolist()):
            lo, hi = bounds[choice : choice + 2].tolist()
            # Of the nodes with just these items, an edge leads to the first behind its own.
            below = [
                number
                for number in range(node + 1, trie.num_nodes)
                if trie.choices(number)[1][[0, -1]].tolist() == [lo, hi]
            ]
            found.append(below[0] if below and token != CLOSE else -1)
    return found


@settings(max_examples=1000, deadline=None)
@given(token_catalogs())
def test_edges_lead_where_a_search_among_all_nodes_leads(catalog: TokenCatalog) -> None:
    trie = ItemTrie.build(catalog.rows)
    edges = np.arange(len(trie.arrays.edge_token), dtype=np.int32)
    assert led_to(trie, edges).tolist() == nodes_by_search(trie)


def test_blocks_count_on() -> None:
    # Each of 300 first tokens has two items, so that each edge of the root leads to a node.
    rows = [[first, second] for first in range(300) for second in (0, 1)]
    trie = ItemTrie.build(rows)
    root_edges = np.arange(300, dtype=np.int32)
    assert led_to(trie, root_edges).tolist() == list(range(1, 301))
    assert (led_to(trie, root_edges + 300) == -1).all()
    assert trie.edge_nodes.rank[:300].tolist() == [edge % BLOCK + BLOCK for edge in range(300)]
    assert trie.edge_nodes.before[:3].tolist() == [0, BLOCK, 2 * BLOCK]


def test_a_trie_of_one_item_has_no_edges() -> None:
    trie = ItemTrie.build([[1, 2, 3]])
    assert len(trie.edge_nodes.nodes) == 0
    assert led_to(trie, np.empty(0, np.int32)).tolist() == []


def test_tables_take_a_byte_an_edge_and_a_number_a_node() -> None:
    codes = np.random.default_rng(0).integers(16, size=(10_000, 4)) + 16 * np.arange(4)
    trie = ItemTrie.build(np.unique(codes, axis=0))
    num_edges = len(trie.arrays.edge_token)
    size = sum(array.nbytes for array in EdgeNodes.build(trie.arrays))
    assert size <= num_edges + 4 * (num_edges // BLOCK + 1) + 4 * trie.num_nodes
