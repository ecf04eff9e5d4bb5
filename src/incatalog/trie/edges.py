"""Which node each edge of a trie leads to, without a search."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8

from incatalog.trie.build import CLOSE, TrieArrays

BLOCK = 128
"""Edges that share an entry of ``EdgeNodes.before``; also the mark of one that leads to a node."""


class EdgeNodes(NamedTuple):
    """The node each edge leads to, in a byte an edge and a number a node.

    A rank directory as succinct trees have them (Jacobson, "Space-efficient static trees and
    graphs", 1989), with bytes in place of bits: three reads where a search among all nodes would
    touch a dozen places of memory, one after the other.
    """

    # Edges of the same block before this one that lead to a node; BLOCK is added if this one does.
    rank: UInt8[np.ndarray, " edges"]
    before: Int32[np.ndarray, " blocks"]  # edges before each block that lead to a node
    nodes: Int32[np.ndarray, " led_to"]  # in the order of the edges that lead to them

    @classmethod
    def build(cls, arrays: TrieArrays) -> EdgeNodes:
        """Finds the nodes, by one search for each edge with several items behind it."""
        num_nodes, num_edges = len(arrays.node_lo), len(arrays.edge_token)
        owner = np.repeat(np.arange(num_nodes, dtype=np.int32), np.diff(arrays.node_edges))
        bound = np.arange(num_edges, dtype=np.int32) + owner
        lo = arrays.bounds[bound]
        several = (arrays.bounds[bound + 1] - lo > 1) & (arrays.edge_token != CLOSE)
        edge, lo, owner = several.nonzero()[0], lo[several], owner[several]
        first = edge == arrays.node_edges[owner]
        node = np.where(first, owner + 1, np.searchsorted(arrays.node_lo, lo)).astype(np.int32)
        # Items with equal rows end together.
        exists = arrays.node_lo[np.minimum(node, num_nodes - 1)] == lo
        exists &= node < num_nodes
        leads = np.zeros(num_edges, dtype=np.int32)
        leads[edge[exists]] = 1
        behind = np.cumsum(leads, dtype=np.int32)
        before = np.ascontiguousarray((behind - leads)[::BLOCK])
        rank = behind - leads - np.repeat(before, BLOCK)[:num_edges] + BLOCK * leads
        return cls(rank.astype(np.uint8), before, node[exists])
