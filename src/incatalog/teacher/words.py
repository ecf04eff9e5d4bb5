"""Words: items that are described alike, for those that nobody has interacted with, too.

An item is a vector of unit length: the TF-IDF weights of the words of its text, or a row of vectors
made elsewhere, less their mean. The score of j is the sum over the newest items i of a history of
recency^age times the cosine of i and j; an item says nothing of itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
from jaxtyping import Float, Float32
from scipy import sparse

from incatalog.data.catalog import Catalog, Item
from incatalog.data.cleaning import plain_text
from incatalog.data.vectors import unit_rows
from incatalog.errors import DataError
from incatalog.recent import RecentlyUsed
from incatalog.teacher.counted import Block, CountedTeacher, Counts, Lists, newest_weights

Described: TypeAlias = "sparse.csr_array | np.ndarray"
# Letters of a description that are read; what comes later says little.
_MOST_LETTERS = 2000
# Numbers of likenesses that are kept between questions: 64 MiB. Most ask for the same items.
_MOST_KEPT = 1 << 24


@dataclass(frozen=True)
class WordsOptions:
    """What is read of an item, and how a history is scored."""

    wording: str = "tc"  # t: title, d: description, c: categories; empty: vectors made elsewhere
    newest: int = 10
    recency: float = 0.8


class WordsTeacher(CountedTeacher):
    """Likeness of items by their texts or vectors."""

    kind: ClassVar[str] = "words"

    def __init__(
        self,
        catalog: Catalog,
        counts: Counts,
        described: Described,
        options: WordsOptions,
        temperature: float = 1.0,
    ) -> None:
        """Takes trainings of each item (for histories without items), and its unit vectors."""
        super().__init__(catalog, counts, temperature)
        self.described, self._options = described, options  # unit vectors of the items
        if isinstance(described, np.ndarray):
            self._by_word, squares = described.T, described**2
        else:
            # Products with the transposed in this layout need no search.
            self._by_word, squares = sparse.csr_array(described.T), described.multiply(described)
        self._squares: Counts = np.asarray(squares.sum(axis=1)).reshape(-1)
        self._kept_rows = max(options.newest, _MOST_KEPT // len(catalog))
        self._rows: RecentlyUsed[int, Float32[np.ndarray, " items"]]
        self._rows = RecentlyUsed(self._kept_rows)

    @classmethod
    def from_catalog(
        cls, catalog: Catalog, counts: Counts, options: WordsOptions | None = None
    ) -> WordsTeacher:
        """Reads the texts of a catalog."""
        options = options or WordsOptions()
        return cls(catalog, counts, text_vectors(catalog, options.wording), options)

    @property
    def window(self) -> int:
        """Newest items of a history that are scored."""
        return self._options.newest

    def tensors(self) -> dict[str, np.ndarray]:
        """Counts and vectors."""
        found = self.described
        if isinstance(found, np.ndarray):
            return {"counts": self.counts, "vectors": found}
        parts = {name: getattr(found, name) for name in ("data", "indices", "indptr")}
        return {"counts": self.counts, "words": np.array([found.shape[1]]), **parts}

    def options(self) -> dict[str, Any]:
        """What was read of an item, and how a history is scored."""
        return asdict(self._options)

    @classmethod
    def restored(
        cls,
        catalog: Catalog,
        tensors: dict[str, np.ndarray],
        options: dict[str, Any],
        temperature: float,
    ) -> Self:
        """The teacher of what a run folder holds."""
        described: Described
        if "vectors" in tensors:
            described = tensors["vectors"]
        else:
            parts = (tensors["data"], tensors["indices"], tensors["indptr"])
            described = sparse.csr_array(parts, shape=(len(catalog), int(tensors["words"][0])))
        return cls(catalog, tensors["counts"], described, WordsOptions(**options), temperature)

    def _after(self, histories: Lists, left_out: Lists | None) -> Block:  # noqa: ARG002
        lines, items, weights = newest_weights(
            histories, self._options.newest, self._options.recency
        )
        scores = np.zeros((len(histories), self.num_items))
        bounds = np.searchsorted(lines, np.arange(len(histories) + 1))
        # So many histories at a time as have their rows in memory together.
        several = max(1, self._kept_rows // self._options.newest)
        for start in range(0, len(histories), several):
            block = range(start, min(start + several, len(histories)))
            asked = items[bounds[block[0]] : bounds[block[-1] + 1]].tolist()
            rows = self._rows.get_all(asked, self._likeness)
            for line in block:
                for place in range(bounds[line], bounds[line + 1]):
                    scores[line] += weights[place] * rows[int(items[place])]
        np.subtract.at(scores, (lines, items), weights * self._squares[items])
        return scores

    def _likeness(self, items: Sequence[int]) -> list[Float32[np.ndarray, " items"]]:
        """The cosine of each of some items with all."""
        found: Any = self.described[list(items)] @ self._by_word
        # A row that is kept must not keep the others of its block.
        rows = found.toarray() if sparse.issparse(found) else found
        return [row.astype(np.float32) for row in rows]


def text_vectors(catalog: Catalog, wording: str) -> sparse.csr_array:
    """TF-IDF weights of the words of each item, as rows of unit length.

    Raises:
        DataError: No item has a word.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [_text(item, wording) for item in catalog.items]
    try:
        found = TfidfVectorizer(sublinear_tf=True, dtype=np.float64).fit_transform(texts)
    except ValueError as error:
        raise DataError(
            f"catalog {catalog.name}: no item has a word in its text ({wording}); expected titles "
            "of letters or digits, or item vectors (--vectors)"
        ) from error
    return sparse.csr_array(found)


def given_vectors(
    vectors: Float[np.ndarray, "items hidden"],
) -> Float[np.ndarray, "items hidden"]:
    """Vectors less their mean, as rows of unit length; what all items share says nothing."""
    exact = np.asarray(vectors, dtype=np.float64)
    found: np.ndarray = unit_rows(exact - exact.mean(axis=0))
    return found


def _text(item: Item, wording: str) -> str:
    parts = {
        "t": item.title,
        "d": item.description[:_MOST_LETTERS],
        "c": " ".join(item.categories),
    }
    return plain_text(" ".join(parts[letter] for letter in wording))
