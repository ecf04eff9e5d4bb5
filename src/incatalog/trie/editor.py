"""A trie's arrays with items put in and taken out in place.

A change touches one edge and at most one node; the rest of the arrays only moves aside.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import fields
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from incatalog.trie.build import CLOSE, TrieArrays

_Path = Sequence[tuple[int, int]]
"""Nodes, with the choice taken at each."""
_Run = Sequence[int]


class _Buffer:
    """A one-dimensional array with room to grow, whose middle can be replaced."""

    def __init__(self, values: Int32[np.ndarray, " size"], room: int) -> None:
        self.size = len(values)
        self.values = np.empty(self.size + room, dtype=np.int32)
        self.values[: self.size] = values
        # The same memory; it moves without a copy, and reads single numbers fast.
        self.view = self.values.data

    def __getitem__(self, at: int) -> int:
        return self.view[at]

    def replace(self, start: int, end: int, numbers: Sequence[int]) -> None:
        stop = start + len(numbers)
        size = self.size + stop - end
        if stop != end:
            self.view[stop:size] = self.view[end : self.size]
        self.size = size
        self.values[start:stop] = numbers

    def insert(self, at: int, *numbers: int) -> None:
        self.replace(at, at, numbers)

    def delete(self, at: int, count: int = 1) -> None:
        self.replace(at, at + count, ())

    def add(self, start: int, number: int, end: int | None = None) -> None:
        self.values[start : self.size if end is None else end] += np.int32(number)


class _Place(NamedTuple):
    """A place in the trie: behind an edge."""

    edge: int
    lo: int  # first sorted position below
    hi: int  # end of these
    node: int  # where the edge's tail leads to, -1 if the items end there


class TrieEditor:
    """A copy of a trie's arrays that items are added to and removed from.

    At most ``items`` are added; ``tokens`` are those of all of these, and one for each item that
    will be removed.
    """

    def __init__(self, arrays: TrieArrays, *, items: int, tokens: int) -> None:
        self._order = _Buffer(arrays.order, items)
        self._node_lo = _Buffer(arrays.node_lo, items)
        self._node_depth = _Buffer(arrays.node_depth, items)
        self._node_edges = _Buffer(arrays.node_edges, items)
        self._edge_token = _Buffer(arrays.edge_token, 2 * items)
        self._bounds = _Buffer(arrays.bounds, 3 * items)
        self._tail_start = _Buffer(arrays.tail_start, 2 * items)
        self._tail = _Buffer(arrays.tail, tokens)
        # Number of items; the rows behind them in the order are vacant.
        self._live = int(arrays.live[1])

    def arrays(self) -> TrieArrays:
        """The arrays as they are now; the editor must not be used any more."""
        found = {"live": np.array([0, self._live], dtype=np.int32)}
        for field in fields(TrieArrays):
            if field.name not in found:
                buffer: _Buffer = getattr(self, f"_{field.name}")
                found[field.name] = buffer.values[: buffer.size]
        return TrieArrays(**found)

    def add(self, row: int, tokens: Sequence[int]) -> None:
        """Adds an item at a vacant row, or at the next one after all that exist."""
        place, path, depth = self._root(), list[tuple[int, int]](), 0
        if place.lo == place.hi:
            at = self._tail_start[place.edge]
            self._shift(path, 0, 1)
            self._set_tail(place.edge, at, at, tokens)
            return self._name(row, place.lo)
        while True:
            start, end = self._tail_start[place.edge], self._tail_start[place.edge + 1]
            cut = start
            while cut < end and depth < len(tokens) and self._tail[cut] == tokens[depth]:
                cut, depth = cut + 1, depth + 1
            token = tokens[depth] if depth < len(tokens) else CLOSE
            if cut < end or (place.node < 0 and token != CLOSE):
                rest = tokens[depth + 1 :]
                return self._name(row, self._split(place, cut, path, depth, token, rest))
            if place.node < 0:
                equal = self._order.view[place.lo : place.hi]
                following = bisect_right(self._node_lo.view, place.lo, 0, self._nodes)
                self._shift(path, following, 1)
                return self._name(row, place.lo + bisect_left(equal, row))
            choice, exists = self._find(place.node, token)
            path.append((place.node, choice))
            if not exists:
                return self._name(row, self._branch(path, token, tokens[depth + 1 :]))
            place = self._follow(place.node, choice)
            depth += token != CLOSE

    def remove(self, row: int) -> None:
        """Removes an item; its row becomes vacant."""
        live = self._live
        position = int(np.argmax(self._order.values[:live] == row))
        place, path = self._root(), list[tuple[int, int]]()
        while place.node >= 0:
            first, end = self._edges(place.node)
            begin = first + place.node
            above = bisect_right(self._bounds.view, position, begin, end + place.node + 1)
            path.append((place.node, above - 1 - begin))
            place = self._follow(*path[-1])
        self._shift(path, bisect_right(self._node_lo.view, position, 0, self._nodes), -1)
        if place.hi - place.lo == 1:
            if path:
                self._prune(path)
            else:
                bounds = self._tail_start[place.edge], self._tail_start[place.edge + 1]
                self._set_tail(place.edge, *bounds, ())
        order = self._order.view
        vacant = bisect_left(order, row, live, self._order.size)
        order[position : vacant - 1] = order[position + 1 : vacant]
        order[vacant - 1] = row

    @property
    def _nodes(self) -> int:
        return self._node_lo.size

    def _edges(self, node: int) -> tuple[int, int]:
        return self._node_edges[node], self._node_edges[node + 1]

    def _root(self) -> _Place:
        return self._place(self._edge_token.size, 0, self._live, 0)

    def _follow(self, node: int, choice: int) -> _Place:
        edge = self._node_edges[node] + choice
        lo, hi = self._bounds[edge + node], self._bounds[edge + node + 1]
        following = bisect_left(self._node_lo.view, lo, 0, self._nodes) if choice else node + 1
        return self._place(edge, lo, hi, following)

    def _place(self, edge: int, lo: int, hi: int, following: int) -> _Place:
        leads = hi - lo > 1 and following < self._nodes and self._node_lo[following] == lo
        return _Place(edge, lo, hi, following if leads else -1)

    def _find(self, node: int, token: int) -> tuple[int, bool]:
        """Which choice of a node a token is or would be, and whether it is."""
        first, end = self._edges(node)
        closes = self._edge_token[end - 1] == CLOSE
        if token == CLOSE:
            return end - closes - first, closes
        edge = bisect_left(self._edge_token.view, token, first, end - closes)
        return edge - first, edge < end - closes and self._edge_token[edge] == token

    def _name(self, row: int, position: int) -> None:
        """Puts a row at a sorted position that room was made for."""
        order, live = self._order.view, self._live - 1
        if row == self._order.size:
            self._order.insert(position, row)
            return
        vacant = bisect_left(order, row, live, self._order.size)
        order[position + 1 : vacant + 1] = order[position:vacant]
        order[position] = row

    def _shift(self, path: _Path, first: int, by: int) -> None:
        """Moves what lies behind an item: later choices on its path, all nodes from ``first``."""
        for node, choice in path:
            begin, end = self._edges(node)
            self._bounds.add(begin + node + choice + 1, by, end + node + 1)
        self._bounds.add(self._node_edges[first] + first, by)
        self._node_lo.add(first, by)
        self._live += by

    def _set_tail(self, edge: int, start: int, end: int, tokens: Sequence[int]) -> None:
        """Replaces a part of an edge's tail."""
        self._tail.replace(start, end, tokens)
        self._tail_start.add(edge + 1, len(tokens) - (end - start))

    def _insert_edge(self, edge: int, token: int, tail: Sequence[int]) -> None:
        self._edge_token.insert(edge, token)
        self._tail_start.insert(edge, self._tail_start[edge])
        start = self._tail_start[edge]
        self._set_tail(edge, start, start, tail)

    def _delete_edge(self, edge: int) -> None:
        self._set_tail(edge, self._tail_start[edge], self._tail_start[edge + 1], ())
        self._edge_token.delete(edge)
        self._tail_start.delete(edge)

    def _branch(self, path: _Path, token: int, rest: _Run) -> int:
        """Gives the last node of a path the choice the path ends with; returns its position."""
        node, choice = path[-1]
        edge = self._node_edges[node] + choice
        position = self._bounds[edge + node]
        following = bisect_left(self._node_lo.view, position, 0, self._nodes)
        self._shift(path, max(node + 1, following), 1)
        self._bounds.insert(edge + node + 1, position + 1)
        self._node_edges.add(node + 1, 1)
        self._insert_edge(edge, token, rest)
        return position

    def _split(
        self, place: _Place, cut: int, path: _Path, depth: int, token: int, rest: _Run
    ) -> int:
        """Makes a node at ``cut`` in the tail of an edge, where a new item parts from the others.

        ``token`` and ``rest`` follow in the new item, whose position is returned; ``path`` are the
        nodes and choices that lead to the edge.
        """
        edge, lo, hi, node = place
        end = self._tail_start[edge + 1]
        own, *own_rest = self._tail.view[cut:end].tolist() or [CLOSE]
        new = node if node >= 0 else bisect_right(self._node_lo.view, lo, 0, self._nodes)
        is_first = token != CLOSE and (own == CLOSE or token < own)
        position = lo if is_first else hi
        following = bisect_left(self._node_lo.view, position, 0, self._nodes)
        self._shift(path, max(new, following), 1)
        self._set_tail(edge, cut, end, ())
        first = self._node_edges[new]
        self._node_lo.insert(new, lo)
        self._node_depth.insert(new, depth)
        self._node_edges.insert(new, first)
        self._node_edges.add(new + 1, 2)
        self._bounds.insert(first + new, lo, lo + 1 if is_first else hi, hi + 1)
        self._insert_edge(first, own, own_rest)
        self._insert_edge(first + (not is_first), token, rest)
        return position

    def _prune(self, path: _Path) -> None:
        """Takes away the choice a path ends with, and its node where that leaves none."""
        node, choice = path[-1]
        first = self._node_edges[node]
        self._bounds.delete(first + choice + node + 1)
        self._delete_edge(first + choice)
        self._node_edges.add(node + 1, -1)
        if self._node_edges[node + 1] - first > 1:
            return
        token, start, end = self._edge_token[first], *self._tail_start.view[first : first + 2]
        run = [] if token == CLOSE else [token, *self._tail.view[start:end].tolist()]
        self._delete_edge(first)
        self._bounds.delete(first + node, 2)
        self._node_lo.delete(node)
        self._node_depth.delete(node)
        self._node_edges.delete(node)
        self._node_edges.add(node, -1)
        edge = self._edge_token.size
        if len(path) > 1:
            edge = self._node_edges[path[-2][0]] + path[-2][1]
        end = self._tail_start[edge + 1]
        self._set_tail(edge, end, end, run)
