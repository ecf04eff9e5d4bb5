"""Places in a trie, and how to walk from one to the next."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import fields
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from incatalog.errors import TrieError
from incatalog.trie.build import CLOSE, TrieArrays

_Tokens = Int32[np.ndarray, " choices"]


class Cursor(NamedTuple):
    """A place in the trie: a prefix that at least one item has."""

    lo: int  # first sorted position below
    hi: int  # end of the sorted positions below
    depth: int  # number of tokens of the prefix
    node: int  # the next node at or below this place, ``-1`` if there is no choice left
    chain: int  # first entry in the trie's ``tail`` of the tokens without a choice that lead there
    chain_end: int  # end of these entries; behind them is the node or the close of the span


class Children(NamedTuple):
    """What may follow a prefix."""

    tokens: Int32[np.ndarray, " children"]  # next tokens, ascending
    lo: Int32[np.ndarray, " children"]  # first sorted position below each
    hi: Int32[np.ndarray, " children"]  # end of the sorted positions below each
    closes: tuple[int, int]  # sorted positions of the items that end here; may be empty


class TrieWalk:
    """The arrays of a trie, walked from place to place."""

    def __init__(self, arrays: TrieArrays) -> None:
        for field in fields(arrays):
            getattr(arrays, field.name).flags.writeable = False
        self.arrays = arrays
        # Scalar reads of a memory view are several times faster than those of an array.
        self._node_lo = arrays.node_lo.data
        self._node_edges = arrays.node_edges.data
        self._edge_token = arrays.edge_token.data
        self._bounds = arrays.bounds.data
        self._tail_start = arrays.tail_start.data
        self._tail = arrays.tail.data

    @property
    def num_live(self) -> int:
        """Number of sorted positions that something leads to; they come first."""
        return int(self.arrays.live[1])

    def root(self) -> Cursor:
        """The place of the empty prefix."""
        edge = len(self._edge_token)
        return self._enter(edge, 0, self.num_live, 0, chain=self._tail_start[edge], node=0)

    def _enter(self, edge: int, lo: int, hi: int, depth: int, *, chain: int, node: int) -> Cursor:
        """The place on ``edge`` before its tail; ``node`` is the next one in preorder."""
        if hi - lo <= 1 or node == len(self._node_lo) or self._node_lo[node] != lo:
            node = -1
        return Cursor(lo, hi, depth, node, chain, self._tail_start[edge + 1])

    def children(self, cursor: Cursor) -> Children:
        """What may follow the prefix."""
        lo, hi, _, node, chain, chain_end = cursor
        if chain < chain_end:
            here = np.array([lo, hi], dtype=np.int32)
            return Children(self.arrays.tail[chain : chain + 1], here[:1], here[1:], (hi, hi))
        if node < 0:
            none = self.arrays.tail[:0]
            return Children(none, none, none, (lo, hi))
        tokens, bounds = self.choices(node)
        if tokens[-1] == CLOSE:
            return Children(tokens[:-1], bounds[:-2], bounds[1:-1], (int(bounds[-2]), hi))
        return Children(tokens, bounds[:-1], bounds[1:], (hi, hi))

    def step(self, cursor: Cursor, token: int) -> Cursor:
        """The place one token further."""
        lo, hi, depth, node, chain, chain_end = cursor
        if chain < chain_end:
            if self._tail[chain] == token:
                return Cursor(lo, hi, depth + 1, node, chain + 1, chain_end)
        elif node >= 0 and token >= 0:
            first, end = self._node_edges[node], self._node_edges[node + 1]
            tokens_end = end - (self._edge_token[end - 1] == CLOSE)
            edge = bisect_left(self._edge_token, token, first, tokens_end)
            if edge < tokens_end and self._edge_token[edge] == token:
                return self._follow(edge, node, depth)
        raise TrieError(f"token {token} at depth {depth}: no item continues with it")

    def choose(self, cursor: Cursor, choice: int) -> Cursor:
        """The place behind one of the cursor's :meth:`choices`, which must not be the close."""
        depth = cursor.depth + cursor.chain_end - cursor.chain
        return self._follow(self._node_edges[cursor.node] + choice, cursor.node, depth)

    def _follow(self, edge: int, node: int, depth: int) -> Cursor:
        """The place behind the own token of an edge of ``node``."""
        lo, hi = self._bounds[edge + node], self._bounds[edge + node + 1]
        following = node + 1 if edge == self._node_edges[node] else bisect_left(self._node_lo, lo)
        chain = self._tail_start[edge]
        return self._enter(edge, lo, hi, depth + 1, chain=chain, node=following)

    def choices(self, node: int) -> tuple[_Tokens, Int32[np.ndarray, " choices+1"]]:
        """The tokens of a node, :data:`CLOSE` last where the span may close, and their bounds.

        The items behind choice ``i`` are those at sorted positions ``bounds[i]`` up to
        ``bounds[i + 1]``.
        """
        first, end = self._node_edges[node], self._node_edges[node + 1]
        bounds = self.arrays.bounds[first + node : end + node + 1]
        return self.arrays.edge_token[first:end], bounds

    def node_tokens(self, node: int) -> _Tokens:
        """The tokens of a node, ascending, :data:`CLOSE` last where the span may close."""
        return self.choices(node)[0]

    def leaf(self, position: int) -> tuple[list[int], int, int]:
        """The token row at a sorted position, and the range of the positions with that row."""
        cursor = self.root()
        run: list[int] = []
        while True:
            run += self._tail[cursor.chain : cursor.chain_end].tolist()
            if cursor.node < 0:
                return run, cursor.lo, cursor.hi
            tokens, bounds = self.choices(cursor.node)
            choice = int(bounds.searchsorted(position, side="right")) - 1
            if tokens[choice] == CLOSE:
                return run, int(bounds[choice]), int(bounds[choice + 1])
            run.append(int(tokens[choice]))
            cursor = self.choose(cursor, choice)
