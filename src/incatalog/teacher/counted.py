"""Teachers that know how often each item was trained on, and what a run folder keeps of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from incatalog.data.catalog import Catalog
from incatalog.errors import TeacherError
from incatalog.teacher.row_lists import Rows, ragged
from incatalog.teacher.selection import ScoringTeacher

Counts = Float64[np.ndarray, " items"]
Lists = Sequence[Rows]
Block = Float[np.ndarray, "batch items"]


class CountedTeacher(ScoringTeacher):
    """A teacher that answers a history without items by the popularity of the training items.

    The probability of an item is then its number of trainings and one more, over the sum of these
    for all items. Scores are computed in float64 and rounded, so that an answer does not depend on
    the questions beside it.
    """

    def __init__(
        self, catalog: Catalog, counts: np.ndarray | Sequence[float], temperature: float = 1.0
    ) -> None:
        """Takes the number of trainings of each item."""
        super().__init__(catalog, temperature)
        found, items = len(counts), len(catalog)
        if found != items:
            raise TeacherError(f"counts: found {found}; expected {items}, one for each item")
        self.counts: Counts = np.asarray(counts, dtype=np.float64)

    @abstractmethod
    def tensors(self) -> dict[str, np.ndarray]:
        """The numbers it needs, by name, for its run folder."""

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """The settings it needs, by name, for its run folder."""

    @classmethod
    @abstractmethod
    def restored(
        cls,
        catalog: Catalog,
        tensors: dict[str, np.ndarray],
        options: dict[str, Any],
        temperature: float,
    ) -> Self:
        """The teacher of what a run folder holds."""

    @abstractmethod
    def _after(self, histories: Lists, left_out: Lists | None) -> Block:
        """Scores after histories none of which is empty."""

    def score_block(self, histories: Lists, left_out: Lists | None = None) -> Tensor:
        """Scores of a block; see `ScoringTeacher.score_block`."""
        scores = torch.empty(len(histories), self.num_items)
        known = [index for index, rows in enumerate(histories) if len(rows)]
        if known:
            own = None if left_out is None else [left_out[index] for index in known]
            found = self._after([histories[index] for index in known], own)
            scores[known] = torch.from_numpy(found.astype(np.float32, copy=False))
        empty = [index for index, rows in enumerate(histories) if not len(rows)]
        if empty:
            own = None if left_out is None else [left_out[index] for index in empty]
            popular = self.temperature * log_popularity(self.counts, len(empty), own)
            scores[empty] = torch.from_numpy(popular.astype(np.float32))
        return scores


def training_counts(histories: Iterable[np.ndarray], num_items: int) -> Counts:
    """How often each item occurs; pass only the training part of each history."""
    lists = list(histories)
    rows = ragged("history", lists, len(lists), num_items).flat
    counts: np.ndarray = np.bincount(rows, minlength=num_items).astype(np.float64)
    return counts


def counts_without(counts: Counts, left_out: Lists) -> Float64[np.ndarray, "batch items"]:
    """Counts less those of a training history, for each such history."""
    result = np.repeat(counts[None], len(left_out), axis=0)
    for line, rows in zip(result, left_out, strict=True):
        np.subtract.at(line, rows, 1.0)
    np.maximum(result, 0.0, out=result)
    return result


def log_popularity(
    counts: Counts, batch: int, left_out: Lists | None = None
) -> Float64[np.ndarray, "batch items"]:
    """Logarithms of the probability of each item before anything is known of a user."""
    known = np.repeat(counts[None], batch, axis=0)
    if left_out is not None:
        known = counts_without(counts, left_out)
    found: np.ndarray = np.log((known + 1) / (known + 1).sum(axis=1, keepdims=True))
    return found


def newest_weights(
    histories: Lists, newest: int, recency: float
) -> tuple[Rows, Rows, Float64[np.ndarray, " places"]]:
    """The newest items of each history: which one, which item, and recency^age as its weight."""
    ends = [rows[-newest:] for rows in histories]
    lengths = [len(rows) for rows in ends]
    lines = np.repeat(np.arange(len(ends)), lengths)
    ages = np.concatenate([np.empty(0, np.int64), *(np.arange(n)[::-1] for n in lengths)])
    items = np.concatenate([np.empty(0, np.int64), *ends]).astype(np.int64)
    return lines, items, np.float64(recency) ** ages
