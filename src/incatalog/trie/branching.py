"""The decisions on the way to an item: what the losses weigh and the policy is sampled from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Int64

from incatalog.trie.build import TrieArrays


class Decisions(NamedTuple):
    """The nodes on the way to some items, where they close too; one item's after another's."""

    offsets: Int64[np.ndarray, " rows+1"]  # where each item's start; one more marks the end
    depth: Int32[np.ndarray, " decisions"]  # number of tokens of the item before the decision
    node: Int32[np.ndarray, " decisions"]  # the node
    choice: Int32[np.ndarray, " decisions"]  # index of the item's among ``node_tokens(node)``


def find_decisions(arrays: TrieArrays, position: Int32[np.ndarray, " rows"]) -> Decisions:
    """Walks down to the items at some positions, all of them at once, level by level."""
    num_nodes = len(arrays.node_lo)
    lo, hi = (np.full(len(position), end) for end in arrays.live)
    node = np.zeros(len(position), dtype=np.int64)
    item = np.arange(len(position))
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    while len(item):
        inside = (hi - lo > 1) & (node < num_nodes)
        inside[inside] = arrays.node_lo[node[inside]] == lo[inside]
        item, node = item[inside], node[inside]
        if not len(item):
            break
        at = position[item]
        first = arrays.node_edges[node].astype(np.int64) + node
        count = arrays.node_edges[node + 1] - arrays.node_edges[node]
        choice = _last_not_above(arrays.bounds, first, first + count, at) - first
        found.append((item, node, choice))
        lo = arrays.bounds[first + choice]
        hi = arrays.bounds[first + choice + 1]
        node = np.where(choice == 0, node + 1, np.searchsorted(arrays.node_lo, lo))
    if not found:
        none = np.zeros(0, dtype=np.int32)
        return Decisions(np.zeros(len(position) + 1, dtype=np.int64), none, none, none)
    item, node, choice = (np.concatenate(part) for part in zip(*found, strict=True))
    by_item = np.argsort(item, kind="stable")
    item, node, choice = item[by_item], node[by_item], choice[by_item]
    offsets = np.concatenate(([0], np.cumsum(np.bincount(item, minlength=len(position)))))
    node, choice = node.astype(np.int32), choice.astype(np.int32)
    return Decisions(offsets, arrays.node_depth[node], node, choice)


def _last_not_above(
    values: np.ndarray, first: np.ndarray, end: np.ndarray, wanted: np.ndarray
) -> np.ndarray:
    """For each segment ``[first, end)`` of ``values``, ascending, the last index not above."""
    low, high = first.copy(), end.copy()
    while (high - low > 1).any():
        middle = (low + high) // 2
        below = values[middle] <= wanted
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return low
