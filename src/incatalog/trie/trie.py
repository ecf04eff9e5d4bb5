"""The prefix tree of all items: immutable arrays, read by decoding and by the losses."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int32, Int64, Integer

from incatalog.errors import TrieError
from incatalog.trie.branching import Decisions, find_decisions
from incatalog.trie.build import TokenRows, TrieArrays, build_arrays, flatten_rows
from incatalog.trie.changes import NewItems, add_items, remove_items
from incatalog.trie.cursor import TrieWalk
from incatalog.trie.edges import EdgeNodes
from incatalog.trie.files import load_arrays, save_arrays
from incatalog.trie.spellings import Spellings, check_spellings

_KIND = "item trie"
_SPELLING_ITEM = "spelling_item"
_FIELDS = tuple(field.name for field in fields(TrieArrays))
_Positions = Integer[np.ndarray, " positions"]
Numbers = Int32[np.ndarray, " decisions"]


class ItemTrie(TrieWalk):
    """The prefix tree of the items' token rows, without the tokens that open and close a span.

    Items are sorted by their token rows, an item behind those it is a prefix of. What is below
    a prefix is then a contiguous range of *sorted positions*, and a rule about items a set of
    them. Only prefixes with at least two continuations are nodes; "the span closes here" counts
    as one (:data:`CLOSE`). Items with equal rows share a leaf.

    An item may have several spellings, each with a sorted position of its own. They come and go
    together, so that a rule about items is still a set of positions.

    Attributes:
        arrays: The arrays, of spellings; see :class:`~incatalog.trie.build.TrieArrays`.
        spellings: Which item each spelling is of; None where each item has one and its row.
    """

    def __init__(self, arrays: TrieArrays, spellings: Spellings | None = None) -> None:
        super().__init__(arrays)
        self.spellings = spellings
        self._contained: dict[int, bool] = {}

    def __reduce__(self) -> tuple[type[ItemTrie], tuple[TrieArrays, Spellings | None]]:
        """Memory views do not travel to worker processes; they are made again there."""
        return ItemTrie, (self.arrays, self.spellings)

    @classmethod
    def build(
        cls,
        token_rows: TokenRows,
        items: Sequence[int] | Integer[np.ndarray, " spellings"] | None = None,
    ) -> ItemTrie:
        """Builds the trie by sorting.

        Args:
            token_rows: Token ids of each item row: nested sequences, a matrix ``[items, length]``,
                or the pair (all rows one after the other, ``[items + 1]`` offsets).
            items: Item row of each token row, where items have several spellings; the first of an
                item is its title. None takes each token row for an item.

        Raises:
            TrieError: There is no item, a row is empty, a token is not a token id, an item row is
                left out, or an item is spelled the same twice.
        """
        flat, offsets = flatten_rows(token_rows)
        spellings = None if items is None else Spellings.of(items, len(offsets) - 1)
        if spellings is not None:
            check_spellings(spellings, flat, offsets)
        return cls(build_arrays(flat, offsets), spellings)

    @property
    def num_items(self) -> int:
        """Number of item rows, vacant ones included."""
        return self.num_positions if self.spellings is None else self.spellings.num_items

    @property
    def num_positions(self) -> int:
        """Number of spellings and so of sorted positions, vacant ones included."""
        return len(self.arrays.order)

    @cached_property
    def vacant_rows(self) -> Int32[np.ndarray, " vacant"]:
        """Rows of items that were removed, ascending; nothing leads to them."""
        vacant = self.arrays.order[self.num_live :]
        if self.spellings is None:
            return vacant
        return np.flatnonzero(np.isin(self.spellings.title, vacant)).astype(np.int32)

    @property
    def num_nodes(self) -> int:
        """Number of prefixes with at least two continuations."""
        return len(self.arrays.node_lo)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self._stored().values())

    @cached_property
    def order(self) -> Int32[np.ndarray, " positions"]:
        """Item row at each sorted position."""
        if self.spellings is None:
            return self.arrays.order
        order: np.ndarray = self.spellings.item[self.arrays.order]
        order.flags.writeable = False
        return order

    @cached_property
    def position(self) -> Int32[np.ndarray, " spellings"]:
        """Sorted position of each spelling; of each item row where items have one each."""
        position = np.empty_like(self.arrays.order)
        position[self.arrays.order] = np.arange(self.num_positions, dtype=np.int32)
        position.flags.writeable = False
        return position

    @cached_property
    def live_rows(self) -> Bool[np.ndarray, " items"]:
        """Which item rows are not vacant."""
        rows = np.zeros(self.num_items, dtype=np.bool_)
        rows[self.order[: self.num_live]] = True
        rows.flags.writeable = False
        return rows

    @cached_property
    def alone(self) -> Bool[np.ndarray, " positions"] | None:
        """At which sorted positions the item has no other; None if that is so at all."""
        return None if self.spellings is None else self.spellings.alone[self.arrays.order]

    @cached_property
    def edge_nodes(self) -> EdgeNodes:
        """The node each edge leads to."""
        found = EdgeNodes.build(self.arrays)
        for array in found:
            array.flags.writeable = False
        return found

    @cached_property
    def most_choices(self) -> int:
        """Choices of a node at most."""
        return int(np.diff(self.arrays.node_edges).max(initial=0))

    @cached_property
    def longest_row(self) -> int:
        """Number of tokens that no item has more of."""
        tails = np.diff(self.arrays.tail_start)
        return int(self.arrays.node_depth.max(initial=0) + tails.max(initial=0)) + 1

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything the trie holds."""
        digest = hashlib.sha256()
        for name, array in self._stored().items():
            digest.update(f"{name}:{len(array)}:".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    @cached_property
    def largest_token(self) -> int:
        """The largest token id of any item."""
        parts = (self.arrays.tail, self.arrays.edge_token)
        return max((int(part.max()) for part in parts if len(part)), default=0)

    def contains_token(self, token: int) -> bool:
        """Whether any item's row contains ``token``."""
        if token not in self._contained:
            arrays = self.arrays
            found = bool((arrays.tail == token).any() or (arrays.edge_token == token).any())
            self._contained[token] = found and token >= 0
        return self._contained[token]

    def next_tokens(
        self, prefix: Sequence[int], excluded: Collection[int] = ()
    ) -> list[int | None]:
        """The token ids that may follow ``prefix`` inside a span.

        Args:
            prefix: Tokens since the span was opened.
            excluded: Item rows that must not be reached.

        Returns:
            Token ids, ascending; ``None`` comes last where the span may close. Empty only if
            everything below the prefix is excluded.

        Raises:
            TrieError: No item starts with ``prefix``, or an excluded row does not exist.
        """
        cursor = self.root()
        for depth, token in enumerate(prefix):
            try:
                cursor = self.step(cursor, int(token))
            except TrieError as error:
                raise TrieError(
                    f"prefix {list(prefix)}: no item starts with its first {depth + 1} tokens"
                ) from error
        blocked = np.sort(self.positions(excluded))
        tokens, lo, hi, closes = self.children(cursor)
        edges = np.append(lo, closes[0]), np.append(hi, closes[1])
        before = [blocked.searchsorted(edge) for edge in edges]
        free = before[1] - before[0] < edges[1] - edges[0]
        allowed: list[int | None] = [*tokens[free[:-1]].tolist()]
        return [*allowed, None] if free[-1] else allowed

    def positions(self, rows: Collection[int]) -> Int32[np.ndarray, " positions"]:
        """Sorted positions of all spellings of items, each item once.

        Raises:
            TrieError: A row does not exist.
        """
        wanted = np.unique(np.fromiter(rows, dtype=np.int64, count=len(rows)))
        self._check_rows(wanted)
        if self.spellings is not None:
            wanted = self.spellings.of_items(wanted)
        positions: np.ndarray = self.position[wanted]
        return positions

    def title_position(self, row: int) -> int:
        """Sorted position of an item's title.

        Raises:
            TrieError: The row does not exist.
        """
        self._check_rows(np.array([row], dtype=np.int64))
        return int(self.position[row if self.spellings is None else self.spellings.title[row]])

    def with_other_spellings(self, positions: _Positions) -> _Positions:
        """Some positions, and those of the other spellings of the items there."""
        if self.spellings is None:
            return positions
        found = self.positions(self.order[positions])
        return found[found < self.num_live]

    def decisions(self, row: int) -> tuple[Numbers, Numbers, Numbers]:
        """The nodes on the way to a spelling: their depth, their number, its choice there.

        Raises:
            TrieError: The row does not exist.
        """
        found = self.decisions_of([row])
        return found.depth, found.node, found.choice

    def decisions_of(self, rows: Sequence[int] | Integer[np.ndarray, " rows"]) -> Decisions:
        """The nodes on the way to each of several spellings (a row may come more than once).

        Args:
            rows: Spelling rows, as in the token rows the trie was built from; item rows where
                items have one spelling each.

        Raises:
            TrieError: A row does not exist.
        """
        wanted = np.asarray(rows, dtype=np.int64).reshape(-1)
        self._check_rows(wanted, self.num_positions)
        _check_not_removed(wanted, self.arrays.order[self.num_live :])
        return find_decisions(self.arrays, self.position[wanted])

    def _check_rows(self, rows: Int64[np.ndarray, " rows"], count: int | None = None) -> None:
        count = self.num_items if count is None else count
        outside = rows[(rows < 0) | (rows >= count)]
        if len(outside):
            raise TrieError(f"item row {outside[0]}: not in the trie; expected 0 to {count - 1}")

    def with_items(self, token_rows: TokenRows, rows: Sequence[int] | None = None) -> ItemTrie:
        """The trie with more items; this one, and what runs on it, stays as it is.

        Args:
            token_rows: Token ids of each new item, as for :meth:`build`; it has no other spelling.
            rows: Item row of each, among :attr:`vacant_rows` or next after all others; by default
                the next ones in order.

        Raises:
            TrieError: What is given is not a catalog, or a row is taken.
        """
        flat, offsets = flatten_rows(token_rows)
        count = len(offsets) - 1
        chosen = range(self.num_items, self.num_items + count) if rows is None else rows
        if len(chosen) != count:
            raise TrieError(
                f"items: found {count} token rows, {len(chosen)} rows; expected as many of each"
            )
        taken = np.fromiter(chosen, np.int64, count)
        new = np.sort(taken[~np.isin(taken, self.vacant_rows)])
        if len(np.unique(taken)) < count or (new != self.num_items + np.arange(len(new))).any():
            raise TrieError(
                f"rows: found {taken.tolist()}; expected each once, a vacant row or the next from "
                f"{self.num_items} on"
            )
        spellings = self.spellings
        if spellings is not None:
            spellings, taken = spellings.with_items(taken)
        return ItemTrie(add_items(self.arrays, NewItems(flat, offsets, taken)), spellings)

    def without_items(self, rows: Collection[int]) -> ItemTrie:
        """The trie without some items; this one, and what runs on it, stays as it is.

        All other items keep their rows. An item goes with all its spellings.

        Raises:
            TrieError: There is no such item, or it was removed before.
        """
        wanted = np.unique(np.fromiter(rows, dtype=np.int64, count=len(rows)))
        self._check_rows(wanted)
        _check_not_removed(wanted, self.vacant_rows)
        if not len(wanted):
            return self
        if self.spellings is not None:
            wanted = self.spellings.of_items(wanted)
            # What an item left behind that had its row before.
            wanted = wanted[self.position[wanted] < self.num_live]
        return ItemTrie(remove_items(self.arrays, wanted), self.spellings)

    def _stored(self) -> dict[str, np.ndarray]:
        """Everything the trie holds, by the names of its files."""
        arrays = {_file_of(name): getattr(self.arrays, name) for name in _FIELDS}
        return arrays if self.spellings is None else arrays | {_SPELLING_ITEM: self.spellings.item}

    def save(self, folder: str | Path) -> None:
        """Writes the trie as npy files and a header; ``folder`` is replaced as a whole."""
        save_arrays(folder, _KIND, self._stored(), {"domains": [""]})

    @classmethod
    def load(cls, folder: str | Path) -> ItemTrie:
        """Reads a saved trie; its arrays are memory-mapped.

        Raises:
            TrieError: A file is missing, damaged, or not that of a trie.
        """
        names = tuple(map(_file_of, _FIELDS))
        arrays, header = load_arrays(folder, _KIND, names, TrieError, optional=(_SPELLING_ITEM,))
        if len(header["domains"]) != 1:
            raise TrieError(f"{folder}: holds several catalogs; expected one; build a trie of each")
        item = arrays.get(_SPELLING_ITEM)
        found = TrieArrays(**{name: arrays[_file_of(name)] for name in _FIELDS})
        return cls(found, None if item is None else Spellings(item))


def _file_of(field: str) -> str:
    """The file of an array; a trie could once hold several catalogs, one behind the other."""
    return "domain_bounds" if field == "live" else field


def _check_not_removed(rows: _Positions, vacant: _Positions) -> None:
    removed = rows[np.isin(rows, vacant)] if len(vacant) else rows[:0]
    if len(removed):
        raise TrieError(f"item row {removed[0]}: was removed from the trie")
