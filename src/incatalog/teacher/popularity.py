"""Popularity: the recommender that knows nothing of the history."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from incatalog.data.catalog import Catalog
from incatalog.errors import TeacherError
from incatalog.teacher.row_lists import Rows, ragged
from incatalog.teacher.selection import ScoringTeacher


class Popularity(ScoringTeacher):
    """Ranks items by how often they occur in the training histories.

    Items with one count are ordered by row. An empty history is answered like any other.
    """

    def __init__(self, counts: Int64[np.ndarray, " items"], catalog: Catalog) -> None:
        super().__init__(catalog)
        found, items = len(counts), len(catalog)
        if found != items:
            raise TeacherError(f"counts: found {found}; expected {items}, one for each item")
        self._counts = torch.from_numpy(np.asarray(counts, dtype=np.float64))

    @classmethod
    def from_histories(cls, histories: Iterable[np.ndarray], catalog: Catalog) -> Popularity:
        """Counts the rows of histories; pass only the training part of each."""
        lists = list(histories)
        rows = ragged("history", lists, len(lists), len(catalog)).flat
        return cls(np.bincount(rows, minlength=len(catalog)), catalog)

    def _score(self, histories: Sequence[Rows]) -> Float[Tensor, "batch items"]:
        return self._counts.repeat(len(histories), 1)
