"""Items that a teacher knows beside those it does not: which of them are described alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from incatalog.data.catalog import Catalog, Item
from incatalog.data.cleaning import plain_text

if TYPE_CHECKING:
    from scipy import sparse
    from sklearn.feature_extraction.text import TfidfVectorizer

# How many known items speak for a new one; measured, see docs/guide.md.
NEAREST = 5
_MOST_LETTERS = 2000
_AT_A_TIME = 256
# A category is told from a word of its name by what stands in front of it.
_CATEGORY = "category: "


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The words and categories of known items, by which others are compared with them."""

    vectorizer: TfidfVectorizer
    known: sparse.csr_array  # [items, words], rows of unit length

    @classmethod
    def of(cls, catalog: Catalog) -> Neighbours:
        """Reads titles, descriptions, categories and texts among the attributes."""
        from scipy import sparse
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(analyzer=_words, sublinear_tf=True, dtype=np.float64)
        return cls(vectorizer, sparse.csr_array(vectorizer.fit_transform(catalog.items)))

    def shares(self, items: Sequence[Item]) -> sparse.csr_array:
        """How much each known item says about some others.

        Returns:
            ``[others, items]``: for each the nearest known items by the cosine of their words,
            which share 1 among them by it; nothing where no word is common.
        """
        from scipy import sparse

        parts = []
        for start in range(0, len(items), _AT_A_TIME):
            asked = self.vectorizer.transform(items[start : start + _AT_A_TIME])
            alike = (sparse.csr_array(asked) @ self.known.T).toarray()
            most = min(NEAREST, alike.shape[1])
            # Of equally near items the first ones, so that the answer does not depend on chance.
            nearest = np.argsort(-alike, axis=1, kind="stable")[:, :most]
            values = np.take_along_axis(alike, nearest, axis=1)
            totals = values.sum(axis=1, keepdims=True)
            values = np.divide(values, totals, out=np.zeros_like(values), where=totals > 0)
            rows = np.repeat(np.arange(len(alike)), most)
            shape = alike.shape
            part = sparse.csr_array((values.ravel(), (rows, nearest.ravel())), shape=shape)
            part.eliminate_zeros()
            parts.append(part)
        if not parts:
            return sparse.csr_array((0, self.known.shape[0]))
        found: Any = sparse.vstack(parts, format="csr")
        return sparse.csr_array(found)


def _words(item: Item) -> list[str]:
    """The words of an item, and its categories as a whole."""
    texts = [item.title, item.description[:_MOST_LETTERS], *item.categories]
    for value in item.attributes.values():
        texts += [value] if isinstance(value, str) else value if isinstance(value, tuple) else ()
    words = plain_text(" ".join(texts)).casefold().split()
    kept = [stripped for word in words if len(stripped := word.strip("()[]{}.,:;!?\"'&-/")) > 1]
    return kept + [_CATEGORY + name for name in item.categories]
