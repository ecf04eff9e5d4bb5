"""Sequential item-kNN: items that followed one another closely in training histories.

Counts: c[i, j] grows by decay^(gap - 1) for each item j that stands `gap` places behind i in a
training history, up to `window` places, and by `backward` times as much for i behind j. Similarity:
W[i, j] = c[i, j] / (sum of row i)^row_power / popularity[j]^power. Score of j: the sum over the
newest items i of a history of recency^age W[i, j].
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
from jaxtyping import Bool, Float64
from scipy import sparse

from incatalog.data.catalog import Catalog
from incatalog.teacher.counted import (
    Block,
    CountedTeacher,
    Counts,
    Lists,
    counts_without,
    newest_weights,
)
from incatalog.teacher.row_lists import Rows, ragged

# What is left of a row's sum when all of it was subtracted, by rounding.
_NOTHING = 1e-9


@dataclass(frozen=True)
class KnnOptions:
    """How pairs are counted, and how a history is scored."""

    window: int = 10
    decay: float = 0.8
    backward: float = 0.5
    power: float = 0.0
    newest: int = 10
    recency: float = 0.8
    row_power: float = 0.5


class ItemKnn(CountedTeacher):
    """Sequential item-kNN; `similarity` is W.

    An item that stands beside none of the newest items of a history in any training scores 0.
    """

    kind: ClassVar[str] = "knn"

    def __init__(
        self,
        catalog: Catalog,
        counts: Counts,
        pairs: sparse.csr_array,
        options: KnnOptions,
        temperature: float = 1.0,
    ) -> None:
        """Takes trainings of each item, and the counts of pairs; see `pair_counts`."""
        super().__init__(catalog, counts, temperature)
        self.pairs, self._options = pairs, options
        self._row_sums: Counts = np.asarray(pairs.sum(axis=1)).reshape(-1)
        self._by_row = _inverse_powers(self._row_sums, options.row_power)
        self._by_column = self._by_popularity(self.counts)

    @classmethod
    def from_histories(
        cls, histories: Iterable[np.ndarray], catalog: Catalog, options: KnnOptions | None = None
    ) -> ItemKnn:
        """Counts the pairs of histories; pass only the training part of each."""
        options, lists = options or KnnOptions(), list(histories)
        counts = np.bincount(
            ragged("history", lists, len(lists), len(catalog)).flat, minlength=len(catalog)
        ).astype(np.float64)
        return cls(catalog, counts, pair_counts(lists, len(catalog), options), options)

    @cached_property
    def similarity(self) -> sparse.csr_array:
        """W: how much each item speaks for each other one, [items, items]."""
        by_row = np.repeat(self._by_row, np.diff(self.pairs.indptr))
        by_column = self._by_column[self.pairs.indices]
        parts = (self.pairs.data * by_row * by_column, self.pairs.indices, self.pairs.indptr)
        return sparse.csr_array(parts, shape=self.pairs.shape)

    @property
    def window(self) -> int:
        """Newest items of a history that are scored."""
        return self._options.newest

    def tensors(self) -> dict[str, np.ndarray]:
        """Counts of items and of pairs."""
        pairs = {name: getattr(self.pairs, name) for name in ("data", "indices", "indptr")}
        return {"counts": self.counts, **pairs}

    def options(self) -> dict[str, Any]:
        """How pairs were counted, and how a history is scored."""
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
        parts = (tensors["data"], tensors["indices"], tensors["indptr"])
        pairs = sparse.csr_array(parts, shape=(len(catalog), len(catalog)))
        return cls(catalog, tensors["counts"], pairs, KnnOptions(**options), temperature)

    def _after(self, histories: Lists, left_out: Lists | None) -> Block:
        lines, items, weights = newest_weights(
            histories, self._options.newest, self._options.recency
        )
        shape = (len(histories), self.num_items)
        if left_out is None:
            weights = weights * self._by_row[items]
            asked = sparse.csr_array((weights, (lines, items)), shape=shape)
            scores: np.ndarray = (asked @ self.pairs).toarray()
            scores *= self._by_column
            return scores
        speak = np.zeros(shape, dtype=bool)
        speak[lines, items] = True
        own = list(_own_pairs(left_out, self._options, speak))
        row_sums = np.repeat(self._row_sums[None], len(histories), axis=0)
        for line, first, _, weight in own:
            np.subtract.at(row_sums, (line, first), weight)
        left = row_sums[lines, items]
        left[left <= _NOTHING * np.maximum(self._row_sums[items], 1)] = 0.0
        by_row = _inverse_powers(left, self._options.row_power)
        asked = sparse.csr_array((weights * by_row, (lines, items)), shape=shape)
        scores, speaking = (asked @ self.pairs).toarray(), asked.toarray()
        for line, first, second, weight in own:
            np.subtract.at(scores, (line, second), speaking[line, first] * weight)
        # What was counted in this history alone leaves a rounding error.
        scores[np.abs(scores) < _NOTHING] = 0.0
        scores *= self._by_popularity(counts_without(self.counts, left_out))
        return scores

    def _by_popularity(self, counts: Float64[np.ndarray, "*batch items"]) -> np.ndarray:
        # An item without training has no pairs, so its factor does not matter.
        found: np.ndarray = np.maximum(counts, 1.0) ** -self._options.power
        return found


def pair_counts(
    histories: Iterable[np.ndarray], num_items: int, options: KnnOptions
) -> sparse.csr_array:
    """Counts of ordered pairs in histories: c of this module's head.

    Its memory grows with the number of different pairs, at most interactions times twice the
    window.
    """
    lists = list(histories)
    rows = ragged("history", lists, len(lists), num_items)
    owners = np.repeat(np.arange(len(lists)), np.diff(rows.offsets))
    forward = sparse.csr_array((num_items, num_items), dtype=np.float64)
    for gap in range(1, options.window + 1):
        same = owners[gap:] == owners[:-gap]
        if not same.any():
            break
        pairs = (rows.flat[:-gap][same], rows.flat[gap:][same])
        weights = np.full(len(pairs[0]), options.decay ** (gap - 1))
        forward = forward + sparse.csr_array((weights, pairs), shape=forward.shape)
    both = sparse.csr_array(forward + options.backward * forward.T)
    both.sort_indices()
    return both


def _own_pairs(
    left_out: Lists, options: KnnOptions, speak: Bool[np.ndarray, "batch items"]
) -> Iterator[tuple[Rows, Rows, Rows, float]]:
    """The pairs of each history whose first item speaks, by gap and direction.

    Of each: line, first item, second item, weight.
    """
    flat = np.concatenate([np.empty(0, np.int64), *left_out]).astype(np.int64)
    owners = np.repeat(np.arange(len(left_out)), [len(rows) for rows in left_out])
    asked = speak[owners, flat]
    for gap in range(1, options.window + 1):
        same = owners[gap:] == owners[:-gap]
        if not same.any():
            break
        older, newer, line = flat[:-gap], flat[gap:], owners[gap:]
        weight = options.decay ** (gap - 1)
        forward, backward = same & asked[:-gap], same & asked[gap:]
        yield line[forward], older[forward], newer[forward], weight
        yield line[backward], newer[backward], older[backward], options.backward * weight


def _inverse_powers(
    sums: Float64[np.ndarray, " rows"], power: float
) -> Float64[np.ndarray, " rows"]:
    """Sums to the power of -power; 0 for a row without pairs."""
    found: np.ndarray = np.where(sums > 0, np.where(sums > 0, sums, 1.0) ** -power, 0.0)
    return found
