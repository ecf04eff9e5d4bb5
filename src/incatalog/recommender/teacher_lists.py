"""What a teacher recommends by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool

from incatalog.data.catalog import Catalog
from incatalog.recommender.answer import Recommendation, recommendations
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
) -> list[list[Recommendation]]:
    """The best items after each history, with the teacher's probabilities.

    Args:
        teacher: A teacher of the catalog.
        catalog: Its items.
        histories: Rows of each history, oldest first.
        k: Items for each at most.
        allowed: Which items may be recommended, by row.
        exclude_seen: Never recommend items of the history.

    Raises:
        TeacherError: A history cannot be scored, as one without items by a network.
    """
    found = []
    for start in range(0, len(histories), _ROWS_AT_ONCE):
        block: Sequence[Sequence[int]] = [list(one) for one in histories[start:][:_ROWS_AT_ONCE]]
        scores = teacher.log_probabilities(block)
        for history, line in zip(block, scores, strict=True):
            own = np.where(allowed, line, -np.inf)
            if exclude_seen:
                own[history] = -np.inf
            best = np.argsort(-own, kind="stable")[:k]
            best = best[np.isfinite(own[best])]
            found.append(recommendations(catalog, best.tolist(), own[best].tolist()))
    return found
