"""How a trie changes with its catalog: items come and go without sorting the others again.

A copy of the arrays is edited: a few memory moves a change, whatever the catalog holds. Many
changes at a time are sorted in with the others.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Int64

from incatalog.trie.build import CLOSE, TrieArrays, build_arrays, spread
from incatalog.trie.editor import TrieEditor

# Where sorting everything anew is faster than one edit after the other: an edit takes as long as
# sorting some forty items, and longer by what it has to move.
_REBUILT_FROM = 32
_ITEMS_AN_EDIT = 40
_ITEMS_A_MOVE = 1600


class NewItems(NamedTuple):
    """Items to add."""

    flat: Int32[np.ndarray, " tokens"]  # their token rows, one after the other
    offsets: Int64[np.ndarray, " added+1"]  # where each row starts; one more marks the end
    rows: Int64[np.ndarray, " added"]  # item row of each: a vacant one, or the next after all


def add_items(arrays: TrieArrays, added: NewItems) -> TrieArrays:
    """The trie with some items more, equal to one that is built from all of them."""
    if _pays_to_rebuild(arrays, len(added.rows)):
        kept = _items(arrays)
        merged = NewItems(
            np.concatenate((kept.flat, added.flat)),
            np.concatenate((kept.offsets, added.offsets[1:] + kept.offsets[-1])),
            np.concatenate((kept.rows, added.rows)),
        )
        size = max(len(arrays.order), int(added.rows.max()) + 1)
        return _rebuild(_without(merged, np.empty(0, np.int64)), size)
    editor = TrieEditor(arrays, items=len(added.rows), tokens=len(added.flat))
    tokens = added.flat.tolist()
    for number in np.argsort(added.rows, kind="stable").tolist():
        row = tokens[added.offsets[number] : added.offsets[number + 1]]
        editor.add(int(added.rows[number]), row)
    return editor.arrays()


def remove_items(arrays: TrieArrays, rows: Int64[np.ndarray, " removed"]) -> TrieArrays:
    """The trie without some of its items; their rows become vacant."""
    if _pays_to_rebuild(arrays, len(rows)):
        return _rebuild(_without(_items(arrays), rows), len(arrays.order))
    editor = TrieEditor(arrays, items=0, tokens=len(rows))
    for row in rows.tolist():
        editor.remove(row)
    return editor.arrays()


def _pays_to_rebuild(arrays: TrieArrays, changes: int) -> bool:
    items = len(arrays.order)
    return changes >= _REBUILT_FROM + items // (_ITEMS_AN_EDIT + items // _ITEMS_A_MOVE)


def _items(arrays: TrieArrays) -> NewItems:
    """All items of a trie in sorted order."""
    num_edges, num_nodes = len(arrays.edge_token), len(arrays.node_lo)
    live = int(arrays.live[1])
    node = np.repeat(np.arange(num_nodes), np.diff(arrays.node_edges))
    at = np.arange(num_edges) + node
    lo = np.append(arrays.bounds[at], 0).astype(np.int64)
    hi = np.append(arrays.bounds[at + 1], live).astype(np.int64)
    depth = np.append(arrays.node_depth[node], 0).astype(np.int64)
    own = np.append(arrays.edge_token != CLOSE, False).astype(np.int64)
    tail = np.diff(arrays.tail_start)

    steps = np.zeros(live + 1, dtype=np.int64)
    np.add.at(steps, lo, own + tail)
    np.subtract.at(steps, hi, own + tail)
    offsets = np.concatenate(([0], np.cumsum(np.cumsum(steps[:live]))))
    flat = np.empty(offsets[-1], dtype=np.int32)
    edge, position = spread(hi - lo)
    position += lo[edge]
    start = offsets[position] + depth[edge]
    named = own[edge] > 0
    flat[start[named]] = arrays.edge_token[edge[named]]
    pair, within = spread(tail[edge])
    source = arrays.tail_start[edge[pair]] + within
    flat[start[pair] + own[edge[pair]] + within] = arrays.tail[source]
    return NewItems(flat, offsets, arrays.order[:live].astype(np.int64))


def _without(items: NewItems, rows: Int64[np.ndarray, " removed"]) -> NewItems:
    """Some items in the order of their rows, without the removed ones."""
    kept = np.argsort(items.rows, kind="stable")
    kept = kept[~np.isin(items.rows[kept], rows)]
    length = np.diff(items.offsets)[kept]
    item, within = spread(length)
    flat = items.flat[items.offsets[kept][item] + within]
    offsets = np.concatenate(([0], np.cumsum(length)))
    return NewItems(flat, offsets, items.rows[kept])


def _rebuild(items: NewItems, size: int) -> TrieArrays:
    """Sorts items that come in the order of their rows; there are ``size`` rows in all."""
    is_vacant = np.ones(size, dtype=bool)
    is_vacant[items.rows] = False
    vacant = np.flatnonzero(is_vacant).astype(np.int32)
    live = np.array([0, len(items.rows)], dtype=np.int32)
    if not len(items.rows):
        none = np.zeros(0, np.int32)
        start, tail_start = np.zeros(1, np.int32), np.zeros(2, np.int32)
        return TrieArrays(vacant, none, none, start, none, none, tail_start, none, live)
    built = build_arrays(items.flat, items.offsets)
    order = np.concatenate((items.rows[built.order], vacant)).astype(np.int32)
    return replace(built, order=order, live=live)
