"""The prefix tree of all items: immutable arrays, read by decoding and by the losses."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Int64, Integer

from reclm.errors import TrieError
from reclm.items.arrays import load_arrays, save_arrays
from reclm.items.construction import CLOSE, TrieArrays, build_arrays

__all__ = ["CLOSE", "Children", "Cursor", "Decisions", "ItemTrie"]

_KIND = "item trie"
_LARGEST_TOKEN = 2**31 - 3

TokenRows = (
    Sequence[Sequence[int]]
    | Integer[np.ndarray, "items length"]
    | tuple[Integer[np.ndarray, " tokens"], Integer[np.ndarray, " items+1"]]
)


class Cursor(NamedTuple):
    """A place in the trie: a prefix that at least one item has.

    Attributes:
        lo: First sorted position below.
        hi: End of the sorted positions below.
        depth: Number of tokens of the prefix.
        node: The next node at or below this place, ``-1`` if there is no choice left.
        chain: First entry in the trie's ``tail`` of the tokens without a choice that lead there.
        chain_end: End of these entries; behind them is the node or the close of the span.
    """

    lo: int
    hi: int
    depth: int
    node: int
    chain: int
    chain_end: int


class Children(NamedTuple):
    """What may follow a prefix.

    Attributes:
        tokens: Next tokens, ascending.
        lo: First sorted position below each.
        hi: End of the sorted positions below each.
        closes: Range of the sorted positions of the items that end here; empty if none does.
    """

    tokens: Int32[np.ndarray, " children"]
    lo: Int32[np.ndarray, " children"]
    hi: Int32[np.ndarray, " children"]
    closes: tuple[int, int]


class Decisions(NamedTuple):
    """The nodes on the way to some items, closing decisions included; one item's after another's.

    Attributes:
        offsets: Where each item's decisions start; one more entry marks the end.
        depth: Number of tokens of the item before the decision.
        node: The node.
        choice: Index of the item's choice among ``node_tokens(node)``.
    """

    offsets: Int64[np.ndarray, " rows+1"]
    depth: Int32[np.ndarray, " decisions"]
    node: Int32[np.ndarray, " decisions"]
    choice: Int32[np.ndarray, " decisions"]


class ItemTrie:
    """The prefix tree of the items' token rows, without the tokens that open and close a span.

    Items are sorted by their token rows, an item behind those it is a prefix of. What is below
    a prefix is then a contiguous range of *sorted positions*, and a rule about items a set of
    them. Only prefixes with at least two continuations are nodes; "the span closes here" counts
    as one (:data:`CLOSE`). Items with equal rows share a leaf.

    Several catalogs ("domains") stand side by side, each with a root of its own.

    Attributes:
        arrays: The arrays; see :class:`~reclm.items.construction.TrieArrays`.
        domains: Names of the domains; one empty name if the items were not told apart.
    """

    def __init__(self, arrays: TrieArrays, domains: tuple[str, ...]) -> None:
        for field in fields(arrays):
            getattr(arrays, field.name).flags.writeable = False
        self.arrays = arrays
        self.domains = domains
        # Scalar reads of a memory view are several times faster than those of an array.
        self._node_lo = memoryview(arrays.node_lo)
        self._node_depth = memoryview(arrays.node_depth)
        self._node_edges = memoryview(arrays.node_edges)
        self._edge_token = memoryview(arrays.edge_token)
        self._bounds = memoryview(arrays.bounds)
        self._tail_start = memoryview(arrays.tail_start)
        self._tail = memoryview(arrays.tail)
        self._domain_bounds = memoryview(arrays.domain_bounds)
        self._contained: dict[int, bool] = {}

    @classmethod
    def build(cls, token_rows: TokenRows, domains: Sequence[str] | None = None) -> ItemTrie:
        """Builds the trie by sorting.

        Args:
            token_rows: Token ids of each item row: nested sequences, a matrix ``[items, length]``,
                or the pair (all rows one after the other, ``[items + 1]`` offsets).
            domains: Name of the domain of each item row.

        Raises:
            TrieError: There is no item, a row is empty, or a token is not a token id.
        """
        flat, offsets = _flatten(token_rows)
        names: tuple[str, ...] = ("",)
        domain = np.zeros(len(offsets) - 1, dtype=np.int32)
        if domains is not None:
            if len(domains) != len(domain):
                raise TrieError(
                    f"domains: found {len(domains)} names; expected one for each of the "
                    f"{len(domain)} items"
                )
            names = tuple(dict.fromkeys(domains))
            number = {name: index for index, name in enumerate(names)}
            domain = np.fromiter((number[name] for name in domains), np.int32, len(domain))
        return cls(build_arrays(flat, offsets, domain), names)

    @property
    def num_items(self) -> int:
        """Number of items."""
        return len(self.arrays.order)

    @property
    def num_nodes(self) -> int:
        """Number of prefixes with at least two continuations."""
        return len(self.arrays.node_lo)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(getattr(self.arrays, field.name).nbytes for field in fields(self.arrays))

    @property
    def order(self) -> Int32[np.ndarray, " items"]:
        """Item row at each sorted position."""
        return self.arrays.order

    @cached_property
    def position(self) -> Int32[np.ndarray, " items"]:
        """Sorted position of each item row."""
        position = np.empty_like(self.order)
        position[self.order] = np.arange(self.num_items, dtype=np.int32)
        position.flags.writeable = False
        return position

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything the trie holds."""
        digest = hashlib.sha256(repr(self.domains).encode())
        for field in fields(self.arrays):
            array = getattr(self.arrays, field.name)
            digest.update(f"{field.name}:{len(array)}:".encode())
            digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()

    def contains_token(self, token: int) -> bool:
        """Whether any item's row contains ``token``."""
        if token not in self._contained:
            arrays = self.arrays
            found = bool((arrays.tail == token).any() or (arrays.edge_token == token).any())
            self._contained[token] = found and token >= 0
        return self._contained[token]

    def root(self, domain: str | None = None) -> Cursor:
        """The place of the empty prefix.

        Raises:
            TrieError: There is no such domain, or several and none was named.
        """
        if domain is None and len(self.domains) == 1:
            number = 0
        elif domain in self.domains:
            number = self.domains.index(domain)
        else:
            raise TrieError(f"domain: found {domain!r}; expected one of {list(self.domains)}")
        edge = len(self.arrays.edge_token) + number
        lo = self._domain_bounds[number]
        return self._enter(
            edge,
            lo=lo,
            hi=self._domain_bounds[number + 1],
            depth=0,
            chain=self._tail_start[edge],
            node=bisect_left(self._node_lo, lo),
        )

    def _enter(self, edge: int, lo: int, hi: int, depth: int, chain: int, node: int) -> Cursor:
        """The place on ``edge`` before its tail; ``node`` is the next one in preorder."""
        if hi - lo == 1 or node == len(self._node_lo) or self._node_lo[node] != lo:
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

    def closing_range(self, cursor: Cursor) -> tuple[int, int]:
        """Range of the sorted positions of the items that end here; empty if none does."""
        lo, hi, _, node, chain, chain_end = cursor
        if chain < chain_end:
            return hi, hi
        if node < 0:
            return lo, hi
        end = self._node_edges[node + 1]
        return (self._bounds[end + node - 1] if self._edge_token[end - 1] == CLOSE else hi), hi

    def step(self, cursor: Cursor, token: int) -> Cursor:
        """The place one token further.

        Raises:
            TrieError: No item continues with ``token``.
        """
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

    def _follow(self, edge: int, node: int, depth: int) -> Cursor:
        """The place behind the own token of an edge of ``node``."""
        at = edge + node
        lo = self._bounds[at]
        following = node + 1 if edge == self._node_edges[node] else bisect_left(self._node_lo, lo)
        return self._enter(
            edge,
            lo=lo,
            hi=self._bounds[at + 1],
            depth=depth + 1,
            chain=self._tail_start[edge],
            node=following,
        )

    def choices(
        self, node: int
    ) -> tuple[Int32[np.ndarray, " choices"], Int32[np.ndarray, " choices+1"]]:
        """The tokens of a node, :data:`CLOSE` last where the span may close, and their bounds.

        The items behind choice ``i`` are those at sorted positions ``bounds[i]`` up to
        ``bounds[i + 1]``.
        """
        first, end = self._node_edges[node], self._node_edges[node + 1]
        return (
            self.arrays.edge_token[first:end],
            self.arrays.bounds[first + node : end + node + 1],
        )

    def node_tokens(self, node: int) -> Int32[np.ndarray, " choices"]:
        """The tokens of a node, ascending, :data:`CLOSE` last where the span may close."""
        return self.choices(node)[0]

    def next_tokens(
        self, prefix: Sequence[int], excluded: Collection[int] = (), domain: str | None = None
    ) -> list[int | None]:
        """The token ids that may follow ``prefix`` inside a span.

        Args:
            prefix: Tokens since the span was opened.
            excluded: Item rows that must not be reached.
            domain: The domain the span is in.

        Returns:
            Token ids, ascending; ``None`` comes last where the span may close. Empty only if
            everything below the prefix is excluded.

        Raises:
            TrieError: No item starts with ``prefix``, or an excluded row does not exist.
        """
        cursor = self.root(domain)
        for depth, token in enumerate(prefix):
            try:
                cursor = self.step(cursor, int(token))
            except TrieError as error:
                raise TrieError(
                    f"prefix {list(prefix)}: no item starts with its first {depth + 1} tokens"
                ) from error
        blocked = np.sort(self.positions(excluded))

        def free(lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
            return np.searchsorted(blocked, hi) - np.searchsorted(blocked, lo) < hi - lo

        tokens, lo, hi, closes = self.children(cursor)
        allowed: list[int | None] = list(tokens[free(lo, hi)].tolist())
        if free(*(np.array(closes).reshape(2, 1)))[0]:
            allowed.append(None)
        return allowed

    def positions(self, rows: Collection[int]) -> Int32[np.ndarray, " rows"]:
        """Sorted positions of item rows, each row once.

        Raises:
            TrieError: A row does not exist.
        """
        wanted = np.unique(np.fromiter(rows, dtype=np.int64, count=len(rows)))
        outside = wanted[(wanted < 0) | (wanted >= self.num_items)]
        if len(outside):
            raise TrieError(
                f"item row {outside[0]}: not in the trie; expected 0 to {self.num_items - 1}"
            )
        return self.position[wanted]

    def decisions(
        self, row: int
    ) -> tuple[
        Int32[np.ndarray, " decisions"],
        Int32[np.ndarray, " decisions"],
        Int32[np.ndarray, " decisions"],
    ]:
        """The nodes on the way to one item: their depth, their number, the item's choice there.

        Raises:
            TrieError: The row does not exist.
        """
        found = self.decisions_of([row])
        return found.depth, found.node, found.choice

    def decisions_of(self, rows: Sequence[int] | Integer[np.ndarray, " rows"]) -> Decisions:
        """The nodes on the way to each of several items (a row may come more than once).

        Raises:
            TrieError: A row does not exist.
        """
        wanted = np.asarray(rows, dtype=np.int64).reshape(-1)
        outside = wanted[(wanted < 0) | (wanted >= self.num_items)]
        if len(outside):
            raise TrieError(
                f"item row {outside[0]}: not in the trie; expected 0 to {self.num_items - 1}"
            )
        position = self.position[wanted]
        bounds_at = self.arrays.node_edges[:-1] + np.arange(self.num_nodes, dtype=np.int32)
        number = np.searchsorted(self.arrays.domain_bounds, position, side="right") - 1
        lo = self.arrays.domain_bounds[number]
        hi = self.arrays.domain_bounds[number + 1]
        node = np.searchsorted(self.arrays.node_lo, lo)
        item = np.arange(len(wanted))
        found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        while len(item):
            inside = (hi - lo > 1) & (node < self.num_nodes)
            inside[inside] = self.arrays.node_lo[node[inside]] == lo[inside]
            item, node = item[inside], node[inside]
            if not len(item):
                break
            at = position[item]
            first = bounds_at[node].astype(np.int64)
            count = self.arrays.node_edges[node + 1] - self.arrays.node_edges[node]
            choice = _last_not_above(self.arrays.bounds, first, first + count, at) - first
            found.append((item, node, choice))
            lo = self.arrays.bounds[first + choice]
            hi = self.arrays.bounds[first + choice + 1]
            node = np.where(choice == 0, node + 1, np.searchsorted(self.arrays.node_lo, lo))
        return _in_item_order(found, len(wanted), self.arrays.node_depth)

    def save(self, folder: str | Path) -> None:
        """Writes the trie as npy files and a header; ``folder`` is replaced as a whole."""
        arrays = {field.name: getattr(self.arrays, field.name) for field in fields(self.arrays)}
        save_arrays(folder, _KIND, arrays, {"domains": list(self.domains)})

    @classmethod
    def load(cls, folder: str | Path) -> ItemTrie:
        """Reads a saved trie; its arrays are memory-mapped.

        Raises:
            TrieError: A file is missing, damaged, or not that of a trie.
        """
        names = tuple(field.name for field in fields(TrieArrays))
        arrays, header = load_arrays(folder, _KIND, names, TrieError)
        return cls(TrieArrays(**arrays), tuple(header["domains"]))


def _flatten(
    token_rows: TokenRows,
) -> tuple[Int32[np.ndarray, " tokens"], Int64[np.ndarray, " items+1"]]:
    """Token rows of any accepted form as one array and the offsets of the rows, validated."""
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
        lengths = np.fromiter(map(len, token_rows), dtype=np.int64, count=len(token_rows))
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        flat = np.empty(offsets[-1], dtype=np.int64)
        for row, start in zip(token_rows, offsets[:-1].tolist(), strict=True):
            flat[start : start + len(row)] = row
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


def _in_item_order(
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]], num_rows: int, node_depth: np.ndarray
) -> Decisions:
    """Decisions found level by level, put item by item."""
    if not found:
        none = np.zeros(0, dtype=np.int32)
        return Decisions(np.zeros(num_rows + 1, dtype=np.int64), none, none, none)
    item, node, choice = (np.concatenate(part) for part in zip(*found, strict=True))
    by_item = np.argsort(item, kind="stable")
    item, node, choice = item[by_item], node[by_item], choice[by_item]
    offsets = np.concatenate(([0], np.cumsum(np.bincount(item, minlength=num_rows))))
    return Decisions(offsets, node_depth[node], node.astype(np.int32), choice.astype(np.int32))
