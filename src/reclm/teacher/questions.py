"""What one request asks of a teacher, and how many requests are answered in one go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Int64

from reclm.teacher.client import Teacher

Rows = Int64[np.ndarray, " rows"]
Answer = list[np.ndarray]
"""One array for each history: best rows, ranks (from 1; -1 for filtered out), or all scores."""


@dataclass(frozen=True, eq=False)
class Question:
    """One request in rows of the catalog, checked; every list has one entry for each history.

    Attributes:
        kind: What is asked for: the best items, ranks of candidates, or all scores.
        histories: Rows of each history, oldest first.
        k: Items to answer; only for `inference`.
        candidates: The only rows that may be answered, None for all; for `ranking` those to rank.
        excluded: Rows never to answer, with those of the history where they are left out.
        categories: `"+C"`, `"-C"` or None.
        immediately: Do not wait for others to join.
    """

    kind: Literal["inference", "ranking", "scores"]
    histories: list[Rows]
    k: int = 0
    candidates: list[Rows | None] = field(default_factory=list)
    excluded: list[Rows] = field(default_factory=list)
    categories: list[str | None] = field(default_factory=list)
    immediately: bool = False

    @property
    def rows(self) -> int:
        """Histories asked about."""
        return len(self.histories)


def answer_together(teacher: Teacher, questions: Sequence[Question]) -> list[Answer]:
    """Answers several questions with one call of the teacher for each kind among them.

    Returns:
        For each question one array for each of its histories.
    """
    answers: list[Answer] = [[] for _ in questions]
    for kind in dict.fromkeys(question.kind for question in questions):
        places = [place for place, one in enumerate(questions) if one.kind == kind]
        alike = [questions[place] for place in places]
        found = iter(_ask(teacher, kind, alike))
        for place, question in zip(places, alike, strict=True):
            answers[place] = [next(found) for _ in question.histories]
            if kind == "inference":
                answers[place] = [_best(rows, question.k) for rows in answers[place]]
    return answers


def _ask(teacher: Teacher, kind: str, questions: Sequence[Question]) -> list[np.ndarray]:
    histories = [rows for question in questions for rows in question.histories]
    if kind == "scores":
        return list(teacher.scores(histories))
    candidates = [rows for question in questions for rows in question.candidates]
    excluded = [rows for question in questions for rows in question.excluded]
    categories = [one for question in questions for one in question.categories]
    if kind == "ranking":
        asked = [rows for rows in candidates if rows is not None]
        return teacher.ranking(histories, asked, excluded=excluded, categories=categories)
    return list(
        teacher.top_k(
            histories,
            # The best of a longer list are those of a shorter one.
            max(question.k for question in questions),
            candidates=candidates,
            excluded=excluded,
            categories=categories,
            exclude_seen=False,
        )
    )


def _best(rows: Rows, k: int) -> Rows:
    best = rows[:k]
    return best[best >= 0]
