"""Finding items of a catalog by what is typed."""

from __future__ import annotations

import unicodedata

from reclm.data.catalog import Catalog


class TitleSearch:
    """Items whose titles hold all words of a query, however they are accented or capitalised.

    Args:
        catalog: The items.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._rows = [row for row in range(len(catalog)) if row not in catalog.vacant]
        self._titles = [folded(catalog.items[row].title) for row in self._rows]

    def rows(self, query: str) -> list[int]:
        """Rows of the items that match: those that begin with the query first, then by row."""
        words = folded(query).split()
        whole = " ".join(words)
        found = [
            (not title.startswith(whole), f" {whole}" not in f" {title}", row)
            for row, title in zip(self._rows, self._titles, strict=True)
            if all(word in title for word in words)
        ]
        return [row for *_, row in sorted(found)]


def folded(text: str) -> str:
    """Text without accents and capitals."""
    letters = unicodedata.normalize("NFKD", text)
    return "".join(letter for letter in letters if not unicodedata.combining(letter)).casefold()
