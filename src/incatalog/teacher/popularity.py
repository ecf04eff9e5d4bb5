"""Popularity: the recommender that knows nothing of the history."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from incatalog.data.catalog import Catalog
from incatalog.teacher.counted import (
    Block,
    CountedTeacher,
    Lists,
    counts_without,
    training_counts,
)


class Popularity(CountedTeacher):
    """Ranks items by how often they occur in the training histories.

    The score of an item is the logarithm of its number of trainings and one more. Items with one
    count are ordered by row. An empty history is answered like any other.
    """

    kind: ClassVar[str] = "popularity"

    def __init__(
        self, counts: np.ndarray | Sequence[float], catalog: Catalog, temperature: float = 1.0
    ) -> None:
        super().__init__(catalog, counts, temperature)

    @classmethod
    def from_histories(cls, histories: Iterable[np.ndarray], catalog: Catalog) -> Popularity:
        """Counts the rows of histories; pass only the training part of each."""
        return cls(training_counts(histories, len(catalog)), catalog)

    def tensors(self) -> dict[str, np.ndarray]:
        """Its counts."""
        return {"counts": self.counts}

    def options(self) -> dict[str, Any]:
        """None."""
        return {}

    @classmethod
    def restored(
        cls,
        catalog: Catalog,
        tensors: dict[str, np.ndarray],
        options: dict[str, Any],  # noqa: ARG003
        temperature: float,
    ) -> Self:
        """The teacher of what a run folder holds."""
        return cls(tensors["counts"], catalog, temperature)

    def score_block(self, histories: Lists, left_out: Lists | None = None) -> Tensor:
        """Scores of a block; see `ScoringTeacher.score_block`."""
        return torch.from_numpy(self._after(histories, left_out))

    def _after(self, histories: Lists, left_out: Lists | None) -> Block:
        # In float64, as counts that are nearly equal would not differ in float32.
        scores: np.ndarray = np.repeat(np.log1p(self.counts)[None], len(histories), axis=0)
        if left_out is not None:
            scores = np.log1p(counts_without(self.counts, left_out))
        return scores
