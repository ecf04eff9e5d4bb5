"""What one answer may say next inside its item spans: a small mutable matcher over a trie."""

from __future__ import annotations

from bisect import bisect_left, insort

import numpy as np
from jaxtyping import Bool, Int32

from incatalog.constraint.excluded import ExcludedItems, rows_left_free
from incatalog.errors import NoItemLeftError, TrieError
from incatalog.trie.build import CLOSE
from incatalog.trie.cursor import Cursor
from incatalog.trie.trie import ItemTrie


class SpanConstraint:
    """Where one answer stands: outside of item spans, or at a place in the trie.

    Between spans it says whether another may open; inside, which tokens may follow. Every place
    it can reach still leads to an item that is allowed, so a span that was opened can be closed.

    Attributes:
        trie: The items.
        eoi_token_id: The token that closes a span.
        excluded: Items this answer may not name.
        unique: An item is named at most once, whatever its spelling; items that share a title are
            spent together.
    """

    __slots__ = (
        "_cursor",
        "_emitted",
        "_root",
        "_spent",
        "_wanted",
        "eoi_token_id",
        "excluded",
        "trie",
        "unique",
    )

    def __init__(
        self,
        trie: ItemTrie,
        eoi_token_id: int,
        *,
        excluded: ExcludedItems | None = None,
        unique: bool = True,
        domain: str | None = None,
    ) -> None:
        """Starts outside of any span, with nothing named yet.

        Raises:
            TrieError: The closing token occurs in an item's own tokens, the excluded items are
                those of another trie, or the trie does not have the domain.
        """
        if trie.contains_token(eoi_token_id):
            raise TrieError(
                f"eoi_token_id {eoi_token_id}: occurs inside an item's tokens, so that the end of "
                "a span could not be told; build the trie from rows without control tokens"
            )
        if excluded is not None and excluded.trie is not trie:
            raise TrieError("excluded: holds items of another trie; build it for this one")
        self.trie = trie
        self.eoi_token_id = eoi_token_id
        self.excluded = excluded
        self.unique = unique
        self._root = trie.root(domain)
        self._cursor: Cursor | None = None
        self._emitted: tuple[int, ...] = ()
        # Sorted positions this answer has used up, beyond the excluded ones.
        self._spent: list[int] = []
        # Sorted position of the item the open span is to name; None lets the tokens decide.
        self._wanted: int | None = None

    @property
    def inside(self) -> bool:
        """Whether a span is open."""
        return self._cursor is not None

    @property
    def emitted(self) -> tuple[int, ...]:
        """Item rows named so far, in order."""
        return self._emitted

    def can_begin(self) -> bool:
        """Whether a span may be opened now: none is open and an item is left."""
        return self._cursor is None and self._free(self._root.lo, self._root.hi) > 0

    def free_rows(self) -> Bool[np.ndarray, " items"]:
        """Which item rows may still be named."""
        free = rows_left_free(self.trie, self.excluded, self._root)
        free[self.trie.order[self._spent]] = False
        return free

    def begin(self, row: int | None = None) -> None:
        """Opens a span.

        Args:
            row: The item it is to name, one of :meth:`free_rows`; then every token of its title
                is forced.

        Raises:
            NoItemLeftError: Every item is excluded or has been named.
            TrieError: A span is open already, or the item may not be named.
        """
        if self._cursor is not None:
            raise TrieError("a span is open already; close it before the next one")
        if not self._free(self._root.lo, self._root.hi):
            total = len(np.unique(self.trie.order[self._root.lo : self._root.hi]))
            raise NoItemLeftError(
                f"no item left to recommend: all {total} are excluded or have been named "
                f"({len(self._emitted)} named); exclude fewer items or ask for fewer"
            )
        if row is not None:
            position = self.trie.title_position(row)
            outside = not self._root.lo <= position < self._root.hi
            if outside or not self._free(position, position + 1):
                raise TrieError(f"item row {row}: is excluded or has been named already")
            self._wanted = position
        self._cursor = self._root

    def allowed(self) -> Int32[np.ndarray, " allowed"]:
        """The tokens that may follow inside the open span, ascending; never none.

        The closing token is among them where the span may close.

        Raises:
            TrieError: No span is open.
        """
        cursor = self._open_cursor()
        if cursor.chain < cursor.chain_end:
            return self.trie.arrays.tail[cursor.chain : cursor.chain + 1]
        if cursor.node < 0:
            return np.array([self.eoi_token_id], dtype=np.int32)
        tokens = self._free_choices(cursor)
        if tokens[-1] != CLOSE:
            return tokens
        if len(tokens) == 1 or tokens[-2] < self.eoi_token_id:
            closing = tokens.copy()
            closing[-1] = self.eoi_token_id
            return closing
        at = int(np.searchsorted(tokens[:-1], self.eoi_token_id))
        return np.insert(tokens[:-1], at, self.eoi_token_id)

    def forced(self) -> list[int]:
        """The tokens that follow without another choice, up to the next decision or the close.

        Includes the closing token. Empty outside a span and where a decision is next.
        """
        cursor = self._cursor
        if cursor is not None and self._wanted is not None:
            return [*self.trie.rest(cursor, self._wanted), self.eoi_token_id]
        run: list[int] = []
        while cursor is not None:
            run += self.trie.arrays.tail[cursor.chain : cursor.chain_end].tolist()
            if cursor.node < 0:
                run.append(self.eoi_token_id)
                break
            tokens = self._free_choices(cursor)
            if len(tokens) > 1:
                break
            token = int(tokens[0])
            if token == CLOSE:
                run.append(self.eoi_token_id)
                break
            run.append(token)
            skipped = cursor.chain_end - cursor.chain
            at_node = cursor._replace(depth=cursor.depth + skipped, chain=cursor.chain_end)
            cursor = self.trie.step(at_node, token)
        return run

    def accept(self, token: int) -> int | None:
        """Moves one token further inside the open span.

        Args:
            token: One of :meth:`allowed`.

        Returns:
            The item row the span names if ``token`` closes it, else ``None``. Of several items
            with the same tokens, the first that is allowed.

        Raises:
            TrieError: No span is open, or the token is not allowed; the state is unchanged.
        """
        cursor = self._open_cursor()
        if token == self.eoi_token_id:
            lo, hi = self.trie.closing_range(cursor)
            if lo == hi:
                raise TrieError(f"token {token} at depth {cursor.depth}: no item ends here")
            if self._free(lo, hi):
                return self._close(lo, hi)
        else:
            following = self.trie.step(cursor, token)
            same_items = following.hi - following.lo == cursor.hi - cursor.lo
            if same_items or self._free(following.lo, following.hi):
                self._cursor = following
                return None
        raise TrieError(f"token {token} at depth {cursor.depth}: leads only to excluded items")

    def fork(self) -> SpanConstraint:
        """An independent copy in the same state."""
        copy = object.__new__(SpanConstraint)
        copy.trie = self.trie
        copy.eoi_token_id = self.eoi_token_id
        copy.excluded = self.excluded
        copy.unique = self.unique
        copy._root = self._root
        copy._cursor = self._cursor
        copy._emitted = self._emitted
        copy._spent = self._spent.copy()
        copy._wanted = self._wanted
        return copy

    def _open_cursor(self) -> Cursor:
        if self._cursor is None:
            raise TrieError("no span is open; call begin first")
        return self._cursor

    def _free(self, lo: int, hi: int) -> int:
        """Number of items in ``[lo, hi)`` that may still be named."""
        free = hi - lo
        if self.excluded is not None:
            free -= self.excluded.count(lo, hi)
        if self._spent:
            free -= bisect_left(self._spent, hi) - bisect_left(self._spent, lo)
        return free

    def _free_choices(self, cursor: Cursor) -> Int32[np.ndarray, " choices"]:
        """The choices of the cursor's node that lead to an allowed item, ``CLOSE`` last."""
        tokens, bounds = self.trie.choices(cursor.node)
        blocked = None
        if self.excluded is not None and self.excluded.count(cursor.lo, cursor.hi):
            blocked = self.excluded.count_before(bounds)
        first, end = bisect_left(self._spent, cursor.lo), bisect_left(self._spent, cursor.hi)
        if first < end:
            spent = np.array(self._spent[first:end], dtype=np.int32).searchsorted(bounds)
            blocked = spent if blocked is None else blocked + spent
        if blocked is None:
            return tokens
        free = bounds - blocked
        choices: np.ndarray = tokens[free[1:] > free[:-1]]
        return choices

    def _close(self, lo: int, hi: int) -> int:
        """Ends the span at the items ``[lo, hi)`` and names the wanted one, or else the first."""
        free = [position for position in range(lo, hi) if self._free(position, position + 1)]
        row = int(self.trie.order[free[0] if self._wanted is None else self._wanted])
        self._wanted = None
        if self.unique:
            for position in self.trie.with_other_spellings(free):
                insort(self._spent, int(position))
        self._emitted = (*self._emitted, row)
        self._cursor = None
        return row
