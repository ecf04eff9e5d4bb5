"""The likeliest items after a history, and what is left for all others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

from incatalog.errors import TeacherError
from incatalog.teacher.row_lists import RowLists
from incatalog.teacher.teacher import Teacher

MAX_SCORES = 1 << 22
"""Scores that exist together, or stand in one answer: 16 MB."""


@dataclass(frozen=True, eq=False)
class LikelyItems:
    """Items of one history, likeliest first; of equally likely ones the lower row comes first.

    Items that cannot follow (probability zero) are left out.
    """

    rows: Int64[np.ndarray, " best"]
    log_probabilities: Float32[np.ndarray, " best"]  # natural logarithms
    rest: float  # logarithm of what all other items have together; minus infinity for nothing

    def __len__(self) -> int:
        return len(self.rows)


def likely_items(
    teacher: Teacher, histories: RowLists, best: Sequence[int]
) -> Iterator[LikelyItems]:
    """The likeliest items after each history, `best` of them; memory is bounded."""
    size = max(1, MAX_SCORES // teacher.num_items)
    for start in range(0, len(histories), size):
        block = slice(start, start + size)
        found = teacher.log_probabilities(histories[block])
        wrong = np.flatnonzero(~np.isfinite(found.max(axis=1)))
        if wrong.size:
            place = start + int(wrong[0])
            why = f"history {place}: the teacher's scores are not numbers; fit it again"
            raise TeacherError(why)
        for line, count in zip(found, best[block], strict=True):
            yield _likely(line, count)


def _likely(line: Float32[np.ndarray, " items"], count: int) -> LikelyItems:
    chosen = np.arange(len(line))
    if count < len(line):
        least = np.partition(line, len(line) - count)[len(line) - count]
        surely, perhaps = np.flatnonzero(line > least), np.flatnonzero(line == least)
        chosen = np.concatenate([surely, perhaps[: count - len(surely)]])
    chosen = chosen[np.isfinite(line[chosen])]
    chosen = chosen[np.lexsort((chosen, -line[chosen]))]
    left = np.delete(line, chosen).astype(np.float64)
    with np.errstate(divide="ignore"):
        rest = float(np.log(np.exp(left).sum()))
    return LikelyItems(chosen, line[chosen], rest)
