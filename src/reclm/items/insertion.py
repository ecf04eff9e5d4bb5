"""Adding an item to a built trie: its arrays are copied with a gap at the right places.

Building sorts all rows; here the new row is led down the tree, which says where it stands, and at
most one node and two edges are new. What remains is copying memory.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Int32

from reclm.items.construction import CLOSE, TrieArrays


@dataclass
class _Descent:
    """How far a row follows the trie.

    Attributes:
        edge: Edge it has entered last.
        lo: First sorted position below that edge.
        hi: End of the positions below it.
        depth: Tokens of the row up to the tail of the edge.
        node: Node the edge leads to, -1 if it is the end of items.
        same: Tokens of the edge's tail that the row has too.
        path: Nodes on the way, each with the edge that was taken there.
    """

    edge: int
    lo: int
    hi: int
    depth: int
    node: int
    same: int = 0
    path: list[tuple[int, int]] = field(default_factory=list)


def insert_row(arrays: TrieArrays, row: Int32[np.ndarray, " tokens"], domain: int) -> TrieArrays:
    """The trie with one more item; its item row is the next free one.

    Args:
        arrays: The trie.
        row: Tokens of the item, at least one.
        domain: Number of the domain it belongs to.
    """
    descent = _descend(arrays, row, domain)
    at = descent.depth + descent.same
    tail = arrays.tail_start[descent.edge + 1] - arrays.tail_start[descent.edge]
    if descent.same < tail or (descent.node < 0 and at < len(row)):
        return _split_edge(arrays, row, domain, descent)
    if descent.node >= 0:
        return _add_edge(arrays, row, domain, descent)
    # Items with the same tokens are there already.
    return _make_place(arrays, domain, descent.hi, descent.path)


def _descend(arrays: TrieArrays, row: Int32[np.ndarray, " tokens"], domain: int) -> _Descent:
    """Follows the trie as far as the row does."""
    node_lo = arrays.node_lo.data
    lo, hi = arrays.domain_bounds[domain : domain + 2].tolist()
    node = bisect_left(node_lo, lo)
    here = _Descent(len(arrays.edge_token) + domain, lo, hi, 0, _below(node_lo, node, lo, hi))
    while True:
        tail = arrays.tail[arrays.tail_start[here.edge] : arrays.tail_start[here.edge + 1]]
        rest = row[here.depth : here.depth + len(tail)]
        differs = np.flatnonzero(tail[: len(rest)] != rest)
        here.same = int(differs[0]) if len(differs) else len(rest)
        if here.same < len(tail) or here.node < 0:
            return here
        at = here.depth + here.same
        choice, known = _choice(arrays, here.node, int(row[at]) if at < len(row) else CLOSE)
        if not known:
            return here
        edge = int(arrays.node_edges[here.node]) + choice
        lo, hi = arrays.bounds[edge + here.node : edge + here.node + 2].tolist()
        path = [*here.path, (here.node, edge)]
        if arrays.edge_token[edge] == CLOSE:
            return _Descent(edge, lo, hi, at, -1, 0, path)
        following = here.node + 1 if choice == 0 else bisect_left(node_lo, lo)
        node = _below(node_lo, following, lo, hi)
        here = _Descent(edge, lo, hi, at + 1, node, 0, path)


def _below(node_lo: memoryview[int], node: int, lo: int, hi: int) -> int:
    """The next node in preorder if it lies in a range, else -1."""
    return node if hi - lo > 1 and node < len(node_lo) and node_lo[node] == lo else -1


def _choice(arrays: TrieArrays, node: int, token: int) -> tuple[int, bool]:
    """Where a token stands, or would stand, among the choices of a node; and whether it does."""
    first, end = arrays.node_edges[node : node + 2].tolist()
    closes = arrays.edge_token[end - 1] == CLOSE
    if token == CLOSE:
        return end - first - int(closes), bool(closes)
    tokens = arrays.edge_token[first : end - int(closes)]
    place = int(tokens.searchsorted(token))
    return place, place < len(tokens) and tokens[place] == token


def _make_place(
    arrays: TrieArrays, domain: int, position: int, path: list[tuple[int, int]]
) -> TrieArrays:
    """Inserts the next item row at a sorted position.

    Args:
        arrays: The trie.
        domain: Domain of the item.
        position: Its sorted position.
        path: Nodes above it, each with the edge it stands behind; an edge may be one that is to be
            inserted there.
    """
    last = path[-1][0] if path else -1
    # Nodes that begin here but are not above the item come behind those that are.
    behind = max(bisect_left(arrays.node_lo.data, position), last + 1)
    node_lo = arrays.node_lo.copy()
    node_lo[behind:] += 1
    bounds = arrays.bounds.copy()
    bounds[arrays.node_edges[behind] + behind :] += 1
    for node, edge in path:
        bounds[edge + node + 1 : arrays.node_edges[node + 1] + node + 1] += 1
    domain_bounds = arrays.domain_bounds.copy()
    domain_bounds[domain + 1 :] += 1
    order = np.insert(arrays.order, position, len(arrays.order))
    return replace(arrays, order=order, node_lo=node_lo, bounds=bounds, domain_bounds=domain_bounds)


def _add_edge(
    arrays: TrieArrays, row: Int32[np.ndarray, " tokens"], domain: int, descent: _Descent
) -> TrieArrays:
    """Gives a node one more choice."""
    node, at = descent.node, descent.depth + descent.same
    token = int(row[at]) if at < len(row) else CLOSE
    edge = int(arrays.node_edges[node]) + _choice(arrays, node, token)[0]
    position = int(arrays.bounds[edge + node])
    wider = _make_place(arrays, domain, position, [*descent.path, (node, edge - 1)])
    # The bound in front of the new edge was moved on; what is new is the edge's own begin.
    bounds = np.insert(wider.bounds, edge + node, position)
    node_edges = arrays.node_edges.copy()
    node_edges[node + 1 :] += 1
    tail, tail_start = _insert_tails(arrays, edge, [row[at + 1 :]])
    return replace(
        wider,
        bounds=bounds,
        node_edges=node_edges,
        edge_token=np.insert(arrays.edge_token, edge, token),
        tail=tail,
        tail_start=tail_start,
    )


def _split_edge(
    arrays: TrieArrays, row: Int32[np.ndarray, " tokens"], domain: int, descent: _Descent
) -> TrieArrays:
    """Puts a node into an edge: what was behind it is one choice, the new item the other."""
    edge, lo, hi = descent.edge, descent.lo, descent.hi
    at = descent.depth + descent.same
    start, end = arrays.tail_start[edge : edge + 2].tolist()
    cut = start + descent.same
    old = int(arrays.tail[cut]) if cut < end else CLOSE
    new = int(row[at]) if at < len(row) else CLOSE
    first = new != CLOSE and (old == CLOSE or new < old)
    position = lo if first else hi
    # In preorder right before the node the edge led to, or behind all that begin here.
    node = descent.node if descent.node >= 0 else bisect_right(arrays.node_lo.data, lo)
    wider = _make_place(arrays, domain, position, descent.path)

    edges = int(arrays.node_edges[node])
    tails = [arrays.tail[cut + 1 : end], row[at + 1 :]]
    tokens, middle = [old, new], hi
    if first:
        tails, tokens, middle = tails[::-1], tokens[::-1], lo + 1
    shortened = replace(
        arrays,
        tail=np.delete(arrays.tail, slice(cut, end)),
        tail_start=arrays.tail_start
        - np.where(np.arange(len(arrays.tail_start)) > edge, end - cut, 0).astype(np.int32),
    )
    tail, tail_start = _insert_tails(shortened, edges, tails)
    node_edges = np.insert(arrays.node_edges, node, edges)
    node_edges[node + 1 :] += 2
    return replace(
        wider,
        node_lo=np.insert(wider.node_lo, node, lo),
        node_depth=np.insert(arrays.node_depth, node, at),
        node_edges=node_edges,
        edge_token=np.insert(arrays.edge_token, edges, tokens),
        bounds=np.insert(wider.bounds, edges + node, [lo, middle, hi + 1]),
        tail=tail,
        tail_start=tail_start,
    )


def _insert_tails(
    arrays: TrieArrays, edge: int, tails: list[Int32[np.ndarray, " n"]]
) -> tuple[Int32[np.ndarray, " tail"], Int32[np.ndarray, " edges"]]:
    """The tails of all edges, with those of new ones in front of an edge; and where they start."""
    start = int(arrays.tail_start[edge])
    new = np.concatenate(tails).astype(np.int32)
    tail = np.concatenate([arrays.tail[:start], new, arrays.tail[start:]])
    lengths = np.cumsum([len(one) for one in tails], dtype=np.int32)
    begins = start + np.append(np.int32(0), lengths[:-1])
    behind = arrays.tail_start[edge:] + np.int32(len(new))
    return tail, np.concatenate([arrays.tail_start[:edge], begins, behind]).astype(np.int32)
