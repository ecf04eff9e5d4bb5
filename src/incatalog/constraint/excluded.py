"""Items that may not be named."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int32

from incatalog.errors import TrieError
from incatalog.trie.trie import ItemTrie

Rows = Collection[int] | Bool[np.ndarray, " items"]
# A longer list than this share of the catalog becomes a prefix sum.
_DENSE_SHARE = 64


@dataclass(frozen=True, eq=False)
class ExcludedItems:
    """Items that may not be named, as ranges of sorted positions.

    Built once and shared by all answers it holds for. Rules for the whole catalog (a category,
    what is out of stock) become one prefix sum; few items (a user's history) stay a short list,
    and may stand on top of a rule for the catalog.
    """

    trie: ItemTrie
    # Number of excluded positions before each position; None without a rule for the catalog.
    before: Int32[np.ndarray, " positions+1"] | None
    listed: Int32[np.ndarray, " listed"]  # excluded positions beyond these, ascending

    @classmethod
    def build(cls, trie: ItemTrie, rows: Rows, base: ExcludedItems | None = None) -> ExcludedItems:
        """Excludes item rows, or those at which a mask is true, and the items of ``base`` too."""
        if base is not None and base.trie is not trie:
            raise TrieError("base: holds excluded items of another trie; build it for this one")
        if isinstance(rows, np.ndarray) and rows.dtype == np.bool_:
            if rows.shape != (trie.num_items,):
                raise TrieError(
                    f"excluded: found a mask of shape {rows.shape}; expected ({trie.num_items},)"
                )
            listed = np.flatnonzero(rows[trie.order]).astype(np.int32)
        else:
            listed = np.sort(trie.positions(rows))
        before = None if base is None else base.before
        if base is not None:
            if before is not None:
                listed = listed[before[listed + 1] == before[listed]]
            listed = np.union1d(base.listed, listed).astype(np.int32)
        if len(listed) * _DENSE_SHARE > trie.num_positions:
            steps = np.zeros(trie.num_positions + 1, dtype=np.int32)
            steps[listed + 1] = 1
            total = np.cumsum(steps, dtype=np.int32)
            before = total if before is None else total + before
            listed = listed[:0]
        return cls(trie, before, listed)

    def count_before(self, positions: Int32[np.ndarray, " n"]) -> Int32[np.ndarray, " n"]:
        """Number of excluded positions before each of ``positions``."""
        counts = self.listed.searchsorted(positions).astype(np.int32)
        return counts if self.before is None else self.before[positions] + counts

    def holds(self, position: int) -> bool:
        """Whether the item at a position is excluded."""
        at = self.listed.searchsorted(position)
        ruled = self.before is not None and self.before[position] < self.before[position + 1]
        return bool(ruled or (at < len(self.listed) and self.listed[at] == position))

    @cached_property
    def rows(self) -> Bool[np.ndarray, " items"]:
        """Which item rows are excluded."""
        excluded = np.zeros(self.trie.num_items, dtype=np.bool_)
        if self.before is not None:
            excluded[self.trie.order] = np.diff(self.before) > 0
        excluded[self.trie.order[self.listed]] = True
        excluded.flags.writeable = False
        return excluded


def check_trie(trie: ItemTrie, excluded: ExcludedItems | None) -> None:
    """Makes sure that excluded items are those of a trie."""
    if excluded is not None and excluded.trie is not trie:
        raise TrieError("excluded: holds items of another trie; build it for this one")


def free_rows(trie: ItemTrie, excluded: ExcludedItems | None = None) -> Bool[np.ndarray, " items"]:
    """Which item rows are neither vacant nor excluded."""
    if excluded is None:
        return trie.live_rows.copy()
    free: np.ndarray = trie.live_rows & ~excluded.rows
    return free
