"""Items that may not be named."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int32

from incatalog.errors import TrieError
from incatalog.trie.cursor import Cursor
from incatalog.trie.trie import ItemTrie

_DENSE_SHARE = 64


@dataclass(frozen=True, eq=False)
class ExcludedItems:
    """Items that may not be named, in the form a constraint asks about: ranges of positions.

    Built once and shared by all answers it holds for. Rules for the whole catalog (a category,
    what is out of stock) become one prefix sum; few items (a user's history) stay a short list,
    and may stand on top of a rule for the catalog.

    Attributes:
        trie: The trie whose items are meant.
        before: Number of excluded positions before each position, or ``None`` if there is no
            rule for the whole catalog.
        listed: Excluded positions beyond those of ``before``, ascending.
    """

    trie: ItemTrie
    before: Int32[np.ndarray, " positions+1"] | None
    listed: Int32[np.ndarray, " listed"]

    @classmethod
    def build(
        cls,
        trie: ItemTrie,
        rows: Collection[int] | Bool[np.ndarray, " items"],
        base: ExcludedItems | None = None,
    ) -> ExcludedItems:
        """Excludes items.

        Args:
            trie: The trie whose items are meant.
            rows: Item rows, or a mask over all item rows that is true where one is excluded.
            base: Items that are excluded too; what it holds is shared, not copied.

        Raises:
            TrieError: A row does not exist, the mask has another length than the catalog, or
                ``base`` belongs to another trie.
        """
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
        before = None
        if base is not None:
            before = base.before
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

    def count(self, lo: int, hi: int) -> int:
        """Number of excluded positions in ``[lo, hi)``."""
        listed, before = self._listed, self._before
        found = bisect_left(listed, hi) - bisect_left(listed, lo)
        return found if before is None else found + before[hi] - before[lo]

    @cached_property
    def rows(self) -> Bool[np.ndarray, " items"]:
        """Which item rows are excluded."""
        excluded = np.zeros(self.trie.num_items, dtype=np.bool_)
        if self.before is not None:
            excluded[self.trie.order] = np.diff(self.before) > 0
        excluded[self.trie.order[self.listed]] = True
        excluded.flags.writeable = False
        return excluded

    @cached_property
    def _listed(self) -> memoryview[int]:
        return self.listed.data

    @cached_property
    def _before(self) -> memoryview[int] | None:
        return None if self.before is None else self.before.data


def free_rows(
    trie: ItemTrie, excluded: ExcludedItems | None = None, domain: str | None = None
) -> Bool[np.ndarray, " items"]:
    """Which item rows of a domain are not excluded.

    Raises:
        TrieError: There is no such domain, or several and none was named.
    """
    return rows_left_free(trie, excluded, trie.root(domain))


def rows_left_free(trie: ItemTrie, excluded: ExcludedItems | None, root: Cursor) -> np.ndarray:
    """Which rows below ``root`` are not excluded."""
    free = np.zeros(trie.num_items, dtype=np.bool_)
    free[trie.order[root.lo : root.hi]] = True
    if excluded is not None:
        free &= ~excluded.rows
    return free
