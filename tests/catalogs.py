"""Random tiny catalogs of token rows for the tests of the trie, and the obvious reference."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st


@dataclass(frozen=True)
class TokenCatalog:
    """Token rows, and those that a rule excludes."""

    rows: list[list[int]]
    excluded: frozenset[int]

    @property
    def members(self) -> set[int]:
        """All item rows."""
        return set(range(len(self.rows)))

    def prefixes(self) -> list[list[int]]:
        """Every prefix of every row, the empty and the whole ones too."""
        found = {tuple(row[:end]) for row in self.rows for end in range(len(row) + 1)}
        return [list(prefix) for prefix in found]

    def continuations(self, among: set[int], prefix: list[int]) -> list[int | None]:
        """Brute force: looks at every row; ``None`` last where an item ends."""
        below = [self.rows[row] for row in among if self.rows[row][: len(prefix)] == prefix]
        tokens = {row[len(prefix)] for row in below if len(row) > len(prefix)}
        return [*sorted(tokens), *([None] if prefix in below else [])]


def _decode(data: bytes) -> TokenCatalog:
    settings, *body = data
    vocabulary = 1 + settings % 4
    rows: list[list[int]] = []
    excluded = set()
    row: list[int] = []
    for index, byte in enumerate(body):
        row.append(byte % vocabulary)
        ends = byte >= (64 if settings & 4 else 192)
        if ends or index == len(body) - 1:
            if byte & 16:
                excluded.add(len(rows))
            rows.append(row)
            row = []
    return TokenCatalog(rows, frozenset(excluded))


@dataclass(frozen=True)
class SpelledCatalog:
    """Token rows of which several may spell one item, and the items that a rule excludes."""

    rows: list[list[int]]
    items: list[int]
    excluded: frozenset[int]

    @property
    def num_items(self) -> int:
        """Number of items."""
        return max(self.items) + 1

    @property
    def members(self) -> set[int]:
        """All items."""
        return set(self.items)

    def spelled(self, items: set[int]) -> TokenCatalog:
        """The spellings of some items, as a catalog of rows that are items of their own."""
        rows = [r for r, i in zip(self.rows, self.items, strict=True) if i in items]
        return TokenCatalog(rows, frozenset())

    def named(self, items: set[int], spelling: list[int]) -> list[int]:
        """The items among some that are spelled so, in the order of their spellings."""
        pairs = zip(self.rows, self.items, strict=True)
        return [item for row, item in pairs if row == spelling and item in items]


def _share_items(data: bytes) -> SpelledCatalog:
    catalog = _decode(data)
    items: list[int] = []
    spellings: list[list[list[int]]] = []
    for number, row in enumerate(catalog.rows):
        others = [item for item in dict.fromkeys(items) if row not in spellings[item]]
        byte = data[-1 - number % len(data)]
        if others and byte & 3:
            item = others[byte % len(others)]
        else:
            item = len(spellings)
            spellings.append([])
        items.append(item)
        spellings[item].append(row)
    excluded = frozenset(items[row] for row in catalog.excluded)
    return SpelledCatalog(catalog.rows, items, excluded)


def spelled_catalogs() -> st.SearchStrategy[SpelledCatalog]:
    """As `token_catalogs`, most items with several spellings, some of which are another's too."""
    return st.binary(min_size=2, max_size=48).map(_share_items)


def token_catalogs() -> st.SearchStrategy[TokenCatalog]:
    """One to four tokens in the vocabulary, so that prefixes are shared and rows come twice.

    A catalog is read off a string of bytes: much faster than nested lists, and still shrinks.
    """
    return st.binary(min_size=2, max_size=48).map(_decode)
