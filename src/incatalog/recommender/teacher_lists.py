"""What a teacher recommends by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool

from incatalog.data.catalog import Catalog
from incatalog.recommender.answer import Recommendation, recommendations
from incatalog.recommender.guide import LogWeights
from incatalog.teacher.row_lists import RowLists

if TYPE_CHECKING:
    from incatalog.teacher.teacher import Teacher

_ROWS_AT_ONCE = 64


def teacher_lists(
    teacher: Teacher,
    catalog: Catalog,
    histories: RowLists,
    k: int,
    allowed: Bool[np.ndarray, " items"],
    *,
    exclude_seen: bool = True,
    log_factors: Sequence[LogWeights | None] | None = None,
) -> list[list[Recommendation]]:
    """The best items after each history, with the teacher's probabilities.

    Args:
        teacher: A teacher of the catalog.
        catalog: Its items.
        histories: Rows of each history, oldest first.
        k: Items for each at most.
        allowed: Which items may be recommended, by row.
        exclude_seen: Never recommend items of the history.
        log_factors: Logarithms of factors of the items after each history, which count beside the
            teacher; minus infinity excludes.

    Raises:
        TeacherError: A history cannot be scored, as one without items by a network.
    """
    found = []
    for start in range(0, len(histories), _ROWS_AT_ONCE):
        block: Sequence[Sequence[int]] = [list(one) for one in histories[start:][:_ROWS_AT_ONCE]]
        scores = teacher.log_probabilities(block)
        for place, (history, line) in enumerate(zip(block, scores, strict=True), start):
            own = np.where(allowed, line, -np.inf)
            if log_factors is not None and (factors := log_factors[place]) is not None:
                own += factors
            if exclude_seen:
                own[history] = -np.inf
            best = np.argsort(-own, kind="stable")[:k]
            best = best[np.isfinite(own[best])]
            found.append(recommendations(catalog, best.tolist(), own[best].tolist()))
    return found
