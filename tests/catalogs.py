"""Random tiny catalogs of token rows for the tests of the trie, and the obvious reference."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st


@dataclass(frozen=True)
class TokenCatalog:
    """Token rows, the domain of each, and the rows that a rule excludes."""

    rows: list[list[int]]
    domains: list[str] | None
    excluded: frozenset[int]

    def members(self, domain: str) -> set[int]:
        """Item rows of a domain."""
        return {
            row
            for row in range(len(self.rows))
            if self.domains is None or self.domains[row] == domain
        }

    def prefixes(self, domain: str) -> list[list[int]]:
        """Every prefix of every row of a domain, the empty and the whole ones too."""
        rows = [self.rows[row] for row in sorted(self.members(domain))]
        return [list(p) for p in {tuple(row[:end]) for row in rows for end in range(len(row) + 1)}]

    def continuations(self, among: set[int], prefix: list[int]) -> list[int | None]:
        """Brute force: looks at every row; ``None`` last where an item ends."""
        below = [self.rows[row] for row in among if self.rows[row][: len(prefix)] == prefix]
        tokens = {row[len(prefix)] for row in below if len(row) > len(prefix)}
        return [*sorted(tokens), *([None] if prefix in below else [])]


def _decode(data: bytes) -> TokenCatalog:
    settings, *body = data
    vocabulary = 1 + settings % 4
    rows: list[list[int]] = []
    domains: list[str] = []
    excluded = set()
    row: list[int] = []
    for index, byte in enumerate(body):
        row.append(byte % vocabulary)
        ends = byte >= (64 if settings & 4 else 192)
        if ends or index == len(body) - 1:
            if byte & 16:
                excluded.add(len(rows))
            domains.append("ab"[bool(byte & 32)])
            rows.append(row)
            row = []
    return TokenCatalog(rows, domains if settings & 8 else None, frozenset(excluded))


def token_catalogs() -> st.SearchStrategy[TokenCatalog]:
    """One to four tokens in the vocabulary, so that prefixes are shared and rows come twice.

    A catalog is read off a string of bytes: much faster than nested lists, and still shrinks.
    """
    return st.binary(min_size=2, max_size=48).map(_decode)
