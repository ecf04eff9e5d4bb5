"""How the arrays of an item trie are built: sort the token rows, then find where they part."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from operator import index

import numpy as np
from jaxtyping import Int32, Int64, Integer

from reclm.errors import TrieError

CLOSE = -1
"""Stands for "the span closes here" among the choices of a node; follows all tokens."""

_LARGEST_TOKEN = 2**31 - 3
_SAME = np.iinfo(np.int32).max
_MAX_TOKENS_A_KEY = 8


TokenRows = (
    Sequence[Sequence[int]]
    | Integer[np.ndarray, "items length"]
    | tuple[Integer[np.ndarray, " tokens"], Integer[np.ndarray, " items+1"]]
)
"""Token ids of each item row; see :meth:`reclm.items.trie.ItemTrie.build`."""


@dataclass(frozen=True, eq=False)
class TrieArrays:
    """The trie of items sorted by their token rows, in compressed sparse row form.

    A *node* is a prefix after which at least two choices exist. Nodes are numbered in preorder.
    An *edge* is one choice of a node; edges of one node lie side by side, tokens ascending,
    ``CLOSE`` last. Behind the edges of all nodes, each domain has one edge that leads to its
    first node.

    Attributes:
        order: Item row at each sorted position.
        node_lo: First sorted position below a node.
        node_depth: Number of tokens before a node.
        node_edges: First edge of a node; one more entry marks the end.
        edge_token: Token of an edge, or ``CLOSE``.
        bounds: Sorted positions that part the edges of a node. Node ``k`` with edges
            ``[a, b)`` has them at ``[a + k, b + k]``: one more than it has edges.
        tail_start: First entry of an edge in ``tail``; one more entry marks the end.
        tail: Tokens that follow an edge's own token without another choice.
        domain_bounds: Sorted positions that part the domains.
    """

    order: Int32[np.ndarray, " items"]
    node_lo: Int32[np.ndarray, " nodes"]
    node_depth: Int32[np.ndarray, " nodes"]
    node_edges: Int32[np.ndarray, " nodes+1"]
    edge_token: Int32[np.ndarray, " edges"]
    bounds: Int32[np.ndarray, " edges+nodes"]
    tail_start: Int32[np.ndarray, " edges+domains+1"]
    tail: Int32[np.ndarray, " tail"]
    domain_bounds: Int32[np.ndarray, " domains+1"]


def flatten_rows(
    token_rows: TokenRows,
) -> tuple[Int32[np.ndarray, " tokens"], Int64[np.ndarray, " items+1"]]:
    """Token rows of any accepted form as one array and the offsets of the rows.

    Raises:
        TrieError: There is no row, one is empty, or a token is not a token id.
    """
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
        tokens = array("q")
        ends = [0]
        for number, row in enumerate(token_rows):
            try:
                tokens.extend(map(index, row))
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


def is_token_row(row: np.ndarray) -> bool:
    """Whether a row holds token ids and nothing else."""
    return bool(
        np.issubdtype(row.dtype, np.integer) and row.min() >= 0 and row.max() <= _LARGEST_TOKEN
    )


def build_arrays(
    flat: Int32[np.ndarray, " tokens"],
    offsets: Int64[np.ndarray, " items+1"],
    domain: Int32[np.ndarray, " items"],
) -> TrieArrays:
    """Builds the trie.

    Args:
        flat: Token rows of all items, one after the other; no row is empty.
        offsets: Where each row starts; one more entry marks the end.
        domain: Domain of each item, numbered from 0 without gaps.
    """
    domain_bounds = np.concatenate(([0], np.cumsum(np.bincount(domain))))
    order, common = _sort(flat, offsets, domain)

    leaf = np.flatnonzero(common != _SAME)
    leaf_common = common[leaf]
    leaf_bounds = np.append(leaf, len(order))
    lower = _previous_smaller(leaf_common)
    upper = len(leaf) - 1 - _previous_smaller(leaf_common[::-1])[::-1]

    splits = np.flatnonzero(leaf_common >= 0)
    # Splits of one node share its first leaf and its depth, and sorting by those two is preorder.
    key = lower[splits].astype(np.int64) * (int(leaf_common.max()) + 1) + leaf_common[splits]
    by_node = np.argsort(key, kind="stable")
    splits, key = splits[by_node], key[by_node]
    opens = np.ones(len(splits), dtype=bool)
    opens[1:] = key[1:] != key[:-1]
    first_split = np.flatnonzero(opens)
    node_of_split = np.cumsum(opens) - 1
    num_nodes, num_edges = len(first_split), len(splits) + len(first_split)

    node_leaf = lower[splits[first_split]]
    node_depth = leaf_common[splits[first_split]]
    node_edges = np.append(first_split + np.arange(num_nodes), num_edges)
    is_first = np.zeros(num_edges, dtype=bool)
    is_first[node_edges[:-1]] = True

    edge_leaf = np.empty(num_edges, dtype=np.int64)
    edge_leaf[is_first] = node_leaf
    edge_leaf[~is_first] = splits
    edge_node = np.empty(num_edges, dtype=np.int64)
    edge_node[is_first] = np.arange(num_nodes)
    edge_node[~is_first] = node_of_split
    bounds = np.empty(num_edges + num_nodes, dtype=np.int32)
    bounds[np.arange(num_edges) + edge_node] = leaf_bounds[edge_leaf]
    bounds[node_edges[1:] + np.arange(num_nodes)] = leaf_bounds[upper[splits[first_split]]]

    # The node an edge leads to is the shallowest one that starts at the edge's first leaf; for
    # the first edge of a node, which shares its node's leaf, it is the next node in preorder.
    shallowest = np.full(len(leaf), -1, dtype=np.int64)
    shallowest[node_leaf[::-1]] = np.arange(num_nodes)[::-1]
    target = shallowest[edge_leaf]
    follower = np.arange(1, num_nodes + 1)
    nested = np.append(node_leaf[1:] == node_leaf[:-1], False)[:num_nodes]
    target[is_first] = np.where(nested, follower, -1)

    domain_leaf = np.searchsorted(leaf, domain_bounds[:-1])
    edge_leaf = np.concatenate((edge_leaf, domain_leaf))
    target = np.concatenate((target, shallowest[domain_leaf]))
    row = order[leaf[edge_leaf]]
    length = (offsets[1:] - offsets[:-1])[row]
    depth = np.concatenate((node_depth[edge_node], np.full(len(domain_leaf), -1))).astype(np.int64)
    at = offsets[row] + depth

    tokens = flat[np.minimum(at[:num_edges], len(flat) - 1)]
    edge_token = np.where(depth[:num_edges] < length[:num_edges], tokens, CLOSE)
    end = np.where(target >= 0, node_depth[target] if num_nodes else 0, length)
    tail_length = np.maximum(end - depth - 1, 0)
    tail_start = np.concatenate(([0], np.cumsum(tail_length)))
    within = np.arange(tail_start[-1]) - np.repeat(tail_start[:-1], tail_length)
    tail = flat[np.repeat(at + 1, tail_length) + within]

    return TrieArrays(
        order=order.astype(np.int32),
        node_lo=leaf[node_leaf].astype(np.int32),
        node_depth=node_depth.astype(np.int32),
        node_edges=node_edges.astype(np.int32),
        edge_token=edge_token.astype(np.int32),
        bounds=bounds,
        tail_start=tail_start.astype(np.int32),
        tail=tail.astype(np.int32),
        domain_bounds=domain_bounds.astype(np.int32),
    )


def _sort(
    flat: Int32[np.ndarray, " tokens"],
    offsets: Int64[np.ndarray, " items+1"],
    domain: Int32[np.ndarray, " items"],
) -> tuple[Int64[np.ndarray, " items"], Int32[np.ndarray, " items"]]:
    """Sorts items by domain, then token row, then item row; a prefix follows what it starts.

    Only items that still tie are looked at again, so that one very long row costs nothing to the
    others.

    Returns:
        The item row at each sorted position, and how many tokens the item there has in common
        with the one before: ``-1`` at the start of a domain, ``_SAME`` if all.
    """
    end_of_row = int(flat.max()) + 1
    bits = max(end_of_row.bit_length(), 1)
    per_key = min(64 // bits, _MAX_TOKENS_A_KEY)
    mask = np.uint64((1 << bits) - 1)

    order = np.argsort(domain, kind="stable")
    segment = domain[order].astype(np.int64)
    active = np.arange(len(order))
    common = np.full(len(order), _SAME, dtype=np.int32)
    common[np.flatnonzero(np.diff(segment, prepend=-1))] = -1

    depth = 0
    while len(active):
        rows = order[active]
        start, stop = offsets[rows] + depth, offsets[rows + 1]
        key = np.zeros(len(rows), dtype=np.uint64)
        for step in range(per_key):
            at = start + step
            token = np.where(at < stop, flat[np.minimum(at, len(flat) - 1)], end_of_row)
            key = (key << np.uint64(bits)) | token.astype(np.uint64)
        if segment[0] == segment[-1]:
            by_key = np.argsort(key, kind="stable")
        else:
            by_key = np.lexsort((key, segment))
        key = key[by_key]
        order[active] = rows[by_key]

        same_segment = segment[1:] == segment[:-1]
        parts = np.flatnonzero(same_segment & (key[1:] != key[:-1])) + 1
        differs = key[parts] ^ key[parts - 1]
        shared = np.zeros(len(parts), dtype=np.int32)
        for step in range(1, per_key):
            shared += (differs >> np.uint64(bits * (per_key - step))) == 0
        common[active[parts]] = depth + shared

        opens = np.ones(len(key), dtype=bool)
        opens[1:] = ~same_segment | (key[1:] != key[:-1])
        segment = np.cumsum(opens) - 1
        keep = (np.bincount(segment)[segment] > 1) & ((key & mask) != end_of_row)
        active, segment = active[keep], segment[keep]
        depth += per_key
    return order, common


def _previous_smaller(values: Int32[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Index of the nearest smaller value to the left of each, ``-1`` where there is none.

    Candidates jump to their own candidate until they are smaller, all of them at once.
    """
    nearest = np.arange(-1, len(values) - 1)
    active = np.arange(len(values))
    while len(active):
        candidate = nearest[active]
        active = active[(candidate >= 0) & (values[candidate] >= values[active])]
        nearest[active] = nearest[nearest[active]]
    return nearest
