"""Which item each token row spells: a title and its aliases are one item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int32, Int64, Integer

from incatalog.errors import TrieError
from incatalog.trie.build import Offsets, Tokens, spread

_Rows = Int64[np.ndarray, " rows"]


@dataclass(frozen=True, eq=False)
class Spellings:
    """The items of spellings, which are numbered as their token rows are.

    An item keeps its spellings when it is removed, so that another one may take its row. The
    first of them is its title.
    """

    item: Int32[np.ndarray, " spellings"]  # the item row of each

    def __post_init__(self) -> None:
        self.item.flags.writeable = False

    @classmethod
    def of(cls, items: Sequence[int] | Integer[np.ndarray, " n"], count: int) -> Spellings | None:
        """The spellings, or None where each item has one and they come in order."""
        item = np.asarray(items, dtype=np.int64).reshape(-1)
        if len(item) != count:
            raise TrieError(
                f"items: found {len(item)} item rows; expected one for each of {count} token rows"
            )
        present = np.unique(item)
        missing = np.flatnonzero(present != np.arange(len(present)))
        if len(missing):
            raise TrieError(
                f"items: found item rows {present[0]} to {present[-1]}, none of them {missing[0]}; "
                "expected at least one spelling of every item from 0 on"
            )
        if len(present) == count and (item == np.arange(count)).all():
            return None
        return cls(item.astype(np.int32))

    def __len__(self) -> int:
        return len(self.item)

    @cached_property
    def num_items(self) -> int:
        """Number of item rows."""
        return int(self.item.max()) + 1

    @cached_property
    def title(self) -> Int64[np.ndarray, " items"]:
        """The first spelling of each item row."""
        return np.unique(self.item, return_index=True)[1].astype(np.int64)

    @cached_property
    def most(self) -> int:
        """Spellings of an item at most."""
        return int(self._counts.max())

    @cached_property
    def alone(self) -> Bool[np.ndarray, " spellings"]:
        """Which spellings are the only one of their item."""
        alone: np.ndarray = self._counts[self.item] == 1
        return alone

    def of_items(self, rows: Int64[np.ndarray, " rows"]) -> Int64[np.ndarray, " spellings"]:
        """All spellings of some items, one item's after another's."""
        of, within = spread(self._counts[rows])
        found: np.ndarray = self._by_item[self._starts[rows][of] + within]
        return found

    def with_items(self, rows: _Rows) -> tuple[Spellings, _Rows]:
        """The spellings with more items, whose rows are vacant or new, and which one each has."""
        before = self.num_items
        new = np.sort(rows[rows >= before])
        spelled = len(self) + rows - before
        known = rows < before
        spelled[known] = self.title[rows[known]]
        return Spellings(np.concatenate([self.item, new.astype(np.int32)])), spelled

    @cached_property
    def _counts(self) -> Int64[np.ndarray, " items"]:
        return np.bincount(self.item)

    @cached_property
    def _by_item(self) -> Int64[np.ndarray, " spellings"]:
        return np.argsort(self.item, kind="stable")

    @cached_property
    def _starts(self) -> Int64[np.ndarray, " items"]:
        starts: np.ndarray = np.cumsum(self._counts) - self._counts
        return starts


def check_spellings(spellings: Spellings, flat: Tokens, offsets: Offsets) -> None:
    """Makes sure that no item is spelled in one way twice."""
    seen: set[tuple[int, bytes]] = set()
    for row in np.flatnonzero(~spellings.alone).tolist():
        item = int(spellings.item[row])
        spelled = item, flat[offsets[row] : offsets[row + 1]].tobytes()
        if spelled in seen:
            raise TrieError(
                f"token row {row}: item row {item} is spelled so already; expected each spelling "
                "of an item once"
            )
        seen.add(spelled)
