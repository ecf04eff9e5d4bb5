"""How the arrays of an item trie are built: sort the token rows, then find where they part."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from operator import index as to_index
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, Int64, Integer, UInt64

from incatalog.errors import TrieError

CLOSE = -1
"""Stands for "the span closes here" among the choices of a node; follows all tokens."""

_LARGEST_TOKEN = 2**31 - 3
_SAME = np.iinfo(np.int32).max
_MAX_TOKENS_A_KEY = 8
# Items or tokens of which intermediate results exist at a time.
_PART = 1 << 16


Tokens = Int32[np.ndarray, " tokens"]
Offsets = Int64[np.ndarray, " rows+1"]
Numbers = Int32[np.ndarray, " n"]
Keys = UInt64[np.ndarray, " n"]
Spread = Int64[np.ndarray, " total"]
TokenRows = (
    Sequence[Sequence[int]]
    | Integer[np.ndarray, "items length"]
    | tuple[Integer[np.ndarray, " tokens"], Integer[np.ndarray, " items+1"]]
)
"""Token ids of each item row; see :meth:`incatalog.trie.trie.ItemTrie.build`."""


@dataclass(frozen=True, eq=False)
class TrieArrays:
    """The trie of items sorted by their token rows, in compressed sparse row form.

    A *node* is a prefix after which at least two choices exist. Nodes are numbered in preorder.
    An *edge* is one choice of a node; edges of one node lie side by side, tokens ascending,
    ``CLOSE`` last. Behind the edges of all nodes stands one that leads to the first node.
    """

    order: Int32[np.ndarray, " items"]  # item row at each position; removed ones stand last
    node_lo: Int32[np.ndarray, " nodes"]  # first sorted position below a node
    node_depth: Int32[np.ndarray, " nodes"]  # number of tokens before a node
    node_edges: Int32[np.ndarray, " nodes+1"]  # first edge of a node; one more entry marks the end
    edge_token: Int32[np.ndarray, " edges"]  # token of an edge, or ``CLOSE``
    # Sorted positions that part the edges of a node. Node ``k`` with edges ``[a, b)`` has them at
    # ``[a + k, b + k]``: one more than it has edges.
    bounds: Int32[np.ndarray, " edges+nodes"]
    tail_start: Int32[np.ndarray, " edges+2"]  # of an edge in ``tail``; one more marks the end
    tail: Int32[np.ndarray, " tail"]  # what follows an edge's own token without another choice
    live: Int32[np.ndarray, " 2"]  # first and end of the sorted positions that something leads to


def flatten_rows(token_rows: TokenRows) -> tuple[Tokens, Offsets]:
    """Token rows of any accepted form as one array and the offsets of the rows."""
    if isinstance(token_rows, np.ndarray):
        if token_rows.ndim != 2:
            raise TrieError(
                f"token_rows: found an array of shape {token_rows.shape}; "
                "expected [items, length], nested sequences, or the pair (flat, offsets)"
            )
        flat = token_rows.reshape(-1)
        offsets = np.arange(len(token_rows) + 1, dtype=np.int64) * token_rows.shape[1]
    elif (
        isinstance(token_rows, tuple)
        and len(token_rows) == 2
        and all(isinstance(part, np.ndarray) for part in token_rows)
    ):
        flat = np.asarray(token_rows[0])
        offsets = np.asarray(token_rows[1], dtype=np.int64)
        if flat.ndim != 1 or len(offsets) < 1 or offsets[0] != 0 or offsets[-1] != len(flat):
            raise TrieError("token_rows: the offsets do not run from 0 to the number of tokens")
    else:
        # An array of machine integers refuses everything else, where numpy would round it.
        tokens, ends = array("q"), [0]
        for number, row in enumerate(token_rows):
            try:
                tokens.extend(map(to_index, row))
            except (TypeError, OverflowError) as error:
                raise TrieError(
                    f"item row {number}: holds something that is no token id"
                ) from error
            ends.append(len(tokens))
        flat = np.array(tokens, dtype=np.int64)
        offsets = np.array(ends, dtype=np.int64)
    if len(offsets) < 2:
        raise TrieError("token_rows: the catalog is empty; expected at least one item")
    empty = np.flatnonzero(offsets[1:] <= offsets[:-1])
    if len(empty):
        raise TrieError(f"item row {empty[0]}: has no token; expected at least one")
    if not np.issubdtype(flat.dtype, np.integer):
        raise TrieError(f"token_rows: found {flat.dtype} values; expected token ids (integers)")
    if flat.min() < 0 or flat.max() > _LARGEST_TOKEN or len(flat) > _LARGEST_TOKEN:
        where = np.flatnonzero((flat < 0) | (flat > _LARGEST_TOKEN))
        place = int(np.searchsorted(offsets, where[0], side="right")) - 1 if len(where) else 0
        raise TrieError(
            f"item row {place}: holds something that is no token id, or the catalog holds more "
            f"than {_LARGEST_TOKEN} tokens; expected ids from 0 to {_LARGEST_TOKEN}"
        )
    return flat.astype(np.int32, copy=False), offsets


def build_arrays(flat: Tokens, offsets: Offsets) -> TrieArrays:
    """Builds the trie of token rows, none of them empty.

    All that is as long as the catalog is held in 32 bits, and made in parts where it needs more, so
    that building takes little memory however long the rows are.
    """
    order, common = _sort(flat, offsets)

    leaf = _indices(common != _SAME)
    node_leaf, node_end, node_depth, splits, first_split = _find_nodes(common[leaf])
    del common
    num_nodes, num_edges = len(first_split), len(first_split) + len(splits)
    node_edges = first_split + np.arange(num_nodes, dtype=np.int32)
    node_edges = np.append(node_edges, np.int32(num_edges))
    is_first = np.zeros(num_edges, dtype=bool)
    is_first[node_edges[:-1]] = True
    edge_leaf = np.empty(num_edges, dtype=np.int32)
    edge_leaf[is_first] = node_leaf
    edge_leaf[~is_first] = splits
    edge_node = np.repeat(np.arange(num_nodes, dtype=np.int32), np.diff(node_edges))
    del splits, first_split

    bounds = np.empty(num_edges + num_nodes, dtype=np.int32)
    bounds[np.arange(num_edges, dtype=np.int32) + edge_node] = leaf[edge_leaf]
    bounds[node_edges[1:] + np.arange(num_nodes)] = np.append(leaf, len(order))[node_end]

    # The node an edge leads to is the shallowest one that starts at the edge's first leaf; for
    # the first edge of a node, which shares its node's leaf, it is the next node in preorder.
    shallowest = np.full(len(leaf), -1, dtype=np.int32)
    shallowest[node_leaf[::-1]] = np.arange(num_nodes, dtype=np.int32)[::-1]
    target = np.append(shallowest[edge_leaf], shallowest[0])
    del shallowest
    nested = np.append(node_leaf[1:] == node_leaf[:-1], False)[:num_nodes]
    follower = np.arange(1, num_nodes + 1, dtype=np.int32)
    target[:num_edges][is_first] = np.where(nested, follower, np.int32(-1))

    row = order[leaf[np.append(edge_leaf, np.int32(0))]]
    node_lo = leaf[node_leaf]
    del leaf, edge_leaf, is_first
    begin = offsets[row].astype(np.int32)
    length = offsets[row + 1].astype(np.int32) - begin
    del row
    depth = np.append(node_depth[edge_node], np.int32(-1))
    at = begin + depth
    del begin, edge_node
    edge_token = flat[np.minimum(at[:num_edges], np.int32(len(flat) - 1))]
    edge_token[depth[:num_edges] >= length[:num_edges]] = CLOSE
    leads = _indices(target >= 0)
    length[leads] = node_depth[target[leads]]
    del target, leads
    length -= depth
    length -= 1
    tail_start = np.zeros(len(length) + 1, dtype=np.int32)
    np.cumsum(np.maximum(length, 0, out=length), out=tail_start[1:])

    tail = _gather(flat, at + np.int32(1), tail_start)
    live = np.array([0, len(order)], dtype=np.int32)
    return TrieArrays(
        order, node_lo, node_depth, node_edges, edge_token, bounds, tail_start, tail, live
    )


def _find_nodes(leaf_common: Numbers) -> tuple[Numbers, Numbers, Numbers, Numbers, Numbers]:
    """Finds the nodes from how many tokens each leaf has in common with the one before.

    Leaves are different rows, sorted. Returned are, in preorder, the first leaf below each node,
    the end of these, and the tokens before it; then the leaves at which choices part, node by
    node, and where those of each node begin.
    """
    splits = _indices(leaf_common >= 0)
    depth = leaf_common[splits]
    # Splits of one node share its first leaf and its depth, and sorting by those two is preorder.
    key = _previous_smaller(leaf_common)[splits].astype(np.int64)
    key *= int(leaf_common.max()) + 1
    key += depth
    by_node = np.argsort(key, kind="stable").astype(np.int32)
    key = key[by_node]
    opens = np.ones(len(splits), dtype=bool)
    opens[1:] = key[1:] != key[:-1]
    del key
    first_split = _indices(opens)
    splits = splits[by_node]
    del by_node, depth
    node_split = splits[first_split]
    lower = _previous_smaller(leaf_common)[node_split]
    upper = len(leaf_common) - 1 - _previous_smaller(leaf_common[::-1])[::-1][node_split]
    return lower, upper, leaf_common[node_split], splits, first_split


def _gather(flat: Tokens, begin: Numbers, starts: Int32[np.ndarray, " n+1"]) -> Tokens:
    """Runs of tokens, one after the other; made in parts, as a run may be long."""
    found = np.empty(starts[-1], dtype=np.int32)
    # From a place in the result to that in the rows.
    ahead = begin - starts[:-1]
    for first in range(0, len(found), _PART):
        end = min(first + _PART, len(found))
        lo, hi = starts.searchsorted((first, end), side="right") - 1
        hi = min(int(hi), len(ahead) - 1)
        inside = np.diff(np.clip(starts[lo : hi + 2], first, end))
        part = np.arange(first, end, dtype=np.int32)
        part += np.repeat(ahead[lo : hi + 1], inside)
        found[first:end] = flat[part]
    return found


def _sort(flat: Tokens, offsets: Offsets) -> tuple[Numbers, Numbers]:
    """Sorts items by token row, then item row; a prefix follows what it starts.

    Only items that still tie are looked at again, so that one very long row costs nothing to the
    others. Returned are the item row at each sorted position, and how many tokens the item there
    has in common with the one before: ``-1`` for the first, ``_SAME`` if all.
    """
    end_of_row = int(flat.max()) + 1
    packing = _Packing.of(end_of_row)
    order = np.arange(len(offsets) - 1, dtype=np.int32)
    segment = np.zeros(len(order), dtype=np.int32)
    active = np.arange(len(order), dtype=np.int32)
    common = np.full(len(order), _SAME, dtype=np.int32)
    common[0] = -1

    depth = 0
    while len(active):
        rows = order[active]
        key = packing.keys(flat, offsets, rows, depth)
        alike = segment[0] == segment[-1]
        by_key = np.argsort(key, kind="stable") if alike else np.lexsort((key, segment))
        order[active] = rows[by_key]
        key = key[by_key]
        del rows, by_key

        opens = np.ones(len(key), dtype=bool)
        opens[1:] = key[1:] != key[:-1]
        same_segment = np.zeros(len(key), dtype=bool)
        same_segment[1:] = segment[1:] == segment[:-1]
        for start in range(0, len(key), _PART):
            part = slice(start, start + _PART)
            parts = start + np.flatnonzero(same_segment[part] & opens[part])
            common[active[parts]] = depth + packing.shared(key[parts], key[parts - 1])

        opens |= ~same_segment
        del same_segment
        # Alone in its segment is what opens one and is followed by another that does.
        keep = ~(opens & np.append(opens[1:], True))
        keep &= (key & packing.mask) != end_of_row
        segment = np.cumsum(opens, dtype=np.int32)[keep]
        active = active[keep]
        depth += packing.tokens
    return order, common


class _Packing(NamedTuple):
    """How several tokens are packed into one number that sorts as they do."""

    end_of_row: int  # stands for the end of a row; larger than any token
    bits: int  # of a token
    tokens: int  # of a number
    mask: np.uint64  # bits of the last token

    @classmethod
    def of(cls, end_of_row: int) -> _Packing:
        """The packing that takes as many tokens as fit."""
        bits = max(end_of_row.bit_length(), 1)
        tokens = min(64 // bits, _MAX_TOKENS_A_KEY)
        return cls(end_of_row, bits, tokens, np.uint64((1 << bits) - 1))

    def keys(self, flat: Tokens, offsets: Offsets, rows: Numbers, depth: int) -> Keys:
        """The tokens of some rows from a depth on."""
        keys = np.zeros(len(rows), dtype=np.uint64)
        for first in range(0, len(rows), _PART):
            part = rows[first : first + _PART]
            start, stop = offsets[part] + depth, offsets[part + 1]
            key = keys[first : first + _PART]
            for step in range(self.tokens):
                at = start + step
                token = np.where(at < stop, flat[np.minimum(at, len(flat) - 1)], self.end_of_row)
                key <<= np.uint64(self.bits)
                key |= token.astype(np.uint64)
        return keys

    def shared(self, keys: Keys, others: Keys) -> Numbers:
        """How many tokens two numbers that are not equal begin with alike."""
        differs = keys ^ others
        shared = np.zeros(len(keys), dtype=np.int32)
        for step in range(1, self.tokens):
            shared += (differs >> np.uint64(self.bits * (self.tokens - step))) == 0
        return shared


def _previous_smaller(values: Numbers) -> Numbers:
    """Index of the nearest smaller value to the left of each, ``-1`` where there is none.

    Candidates jump to their own candidate until they are smaller, all of them at once.
    """
    nearest = np.arange(-1, len(values) - 1, dtype=np.int32)
    active = np.arange(len(values), dtype=np.int32)
    while len(active):
        candidate = nearest[active]
        active = active[(candidate >= 0) & (values[candidate] >= values[active])]
        del candidate
        nearest[active] = nearest[nearest[active]]
    return nearest


def _indices(mask: Bool[np.ndarray, " n"]) -> Int32[np.ndarray, " true"]:
    """Where a mask is true."""
    return np.flatnonzero(mask).astype(np.int32)


def spread(counts: Integer[np.ndarray, " n"]) -> tuple[Spread, Spread]:
    """Each index as often as it counts, and which time it is, from 0 on."""
    index = np.repeat(np.arange(len(counts)), counts)
    return index, np.arange(len(index)) - (np.cumsum(counts) - counts)[index]
