"""What a teacher expects at each place of a sample: the soft targets of its item spans.

Before a span of the history the teacher is shown the items that the prompt shows before it; for the
whole answer it is shown the history of the prompt. The items of a list answer one question: they
are no history of each other, and a guide weighs them all by its scores after the history. What
stands before a span, in history or answer, is expected there no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int32

from incatalog.data.interactions import LeaveOneOut
from incatalog.errors import TeacherError
from incatalog.recent import RecentlyUsed
from incatalog.teacher.teacher import Teacher
from incatalog.training.soft_targets import SpanTargets

# Scores that a teacher is asked for at a time; more would take memory and save nothing.
_MOST_SCORES = 1 << 23
# Expectations that are kept for the next epochs, of about a kilobyte each.
_KEPT = 1 << 15


@dataclass(frozen=True, eq=False)
class Expected:
    """Which items a teacher expects after a history, sparse; none of those in it."""

    best: Int32[np.ndarray, " best"]  # Item rows, the likeliest first
    share: Float32[np.ndarray, " best"]
    seen: Int32[np.ndarray, " seen"]  # Items of the history
    rest: float  # Of each other item

    @property
    def nothing(self) -> bool:
        """Whether no item is left to expect."""
        return not len(self.best)

    def draw(self, rng: np.random.Generator, num_items: int) -> int:
        """An item, as likely as it is expected."""
        until = np.cumsum(self.share, dtype=np.float64)
        wanted = rng.random()
        place = int(np.searchsorted(until, wanted, side="right"))
        if place < len(self.best):
            return int(self.best[place])
        if not self.rest:
            return int(self.best[-1])
        listed = set(self.best.tolist()) | set(self.seen.tolist())
        while (row := int(rng.integers(num_items))) in listed:
            pass
        return row


class Asked(NamedTuple):
    """A user, and the items that the teacher is shown of their history."""

    user: int
    history: tuple[int, ...]


class Distiller:
    """Asks a teacher what it expects, once for a batch, and makes soft targets of it.

    A history is asked about with the user's own training items left out of what was counted: who
    knows the answers of the training by heart teaches nothing else than they do. A teacher's answer
    depends on its question alone, so answers are kept.
    """

    def __init__(
        self,
        teacher: Teacher,
        split: LeaveOneOut,
        *,
        share: float,
        temperature: float,
        best: int,
    ) -> None:
        """Takes how much of a target is the teacher's, how flat, and how many items it lists."""
        self._teacher, self._split = teacher, split
        self.share, self._temperature = share, temperature
        self._best = min(best, teacher.num_items)
        self._kept: RecentlyUsed[Asked, Expected] = RecentlyUsed(_KEPT)

    def expected(self, questions: Sequence[Asked]) -> dict[Asked, Expected]:
        """What the teacher expects after some histories, none of them empty."""
        return self._kept.get_all(questions, self._asked)

    def first(self, target: int, expected: Expected, rng: np.random.Generator) -> int:
        """What an answer names first: the target, or in its place what the teacher draws."""
        if expected.nothing or rng.random() >= self.share:
            return target
        return expected.draw(rng, self._teacher.num_items)

    def history_targets(self, expected: Sequence[Expected | None]) -> list[SpanTargets]:
        """What could stand in each span of a history; nothing is known before the first item."""
        return [
            SpanTargets.written(1)
            if one is None or one.nothing
            else _targets(one, np.array([1 - self.share]))
            for one in expected
        ]

    def answer_targets(self, answer: Sequence[int], target: int, expected: Expected) -> SpanTargets:
        """What could stand in each span of an answer.

        Its first item was drawn from the target with the rest of the share, else from the teacher:
        there the distribution is that mixture, at whichever decisions the drawn item leads through.
        So the expected sum over its decisions is the cross entropy of the model's distribution over
        items against the mixture.
        """
        count = len(answer)
        if expected.nothing:
            return SpanTargets.written(count)
        hard = np.full(count, 1 - self.share)
        hard[0] = 0.0
        named = np.array([*answer, target], dtype=np.int32)
        soft = _targets(expected, hard, named)
        rows = soft.rows.reshape(count, -1)
        share, place = soft.share.reshape(count, -1), (rows[0] == named[:, None]).argmax(1)
        share[0] *= self.share
        share[0, place[-1]] += 1 - self.share
        soft.rest[0] *= self.share
        for number, gone in enumerate(place[:-1].tolist(), start=1):
            share[number:, gone] = 0.0
        return soft

    def _asked(self, questions: Sequence[Asked]) -> list[Expected]:
        size = max(1, _MOST_SCORES // self._teacher.num_items)
        parts = (questions[start : start + size] for start in range(0, len(questions), size))
        return [one for part in parts for one in self._answers(part)]

    def _answers(self, questions: Sequence[Asked]) -> list[Expected]:
        found = self._teacher.log_probabilities(
            [question.history for question in questions],
            left_out=[self._split.train(question.user) for question in questions],
        )
        shape = len(questions), self._teacher.num_items
        if found.shape != shape:
            raise TeacherError(
                f"teacher: found log-probabilities of shape {found.shape}; expected {shape}, "
                "histories by items of the catalog"
            )
        odd = np.isnan(found) | np.isposinf(found)
        if odd.any():
            line, item = np.argwhere(odd)[0].tolist()
            raise TeacherError(
                f"teacher: found the log-probability {found[line, item]} for item row {item} "
                f"after the history {list(questions[line].history)}; expected a number, or minus "
                "infinity; fit the teacher anew"
            )
        seen = [np.unique(np.array(one.history, dtype=np.int32)) for one in questions]
        return self._sparse(found / np.float32(self._temperature), seen)

    def _sparse(
        self,
        logits: Float32[np.ndarray, "batch items"],
        seen: Sequence[Int32[np.ndarray, " seen"]],
    ) -> list[Expected]:
        """The best items of each line and the rest, without what was seen."""
        for line, rows in zip(logits, seen, strict=True):
            line[rows] = -np.inf
        highest = logits.max(1, keepdims=True)
        weights = np.exp(logits - np.where(np.isfinite(highest), highest, 0.0))
        total = weights.sum(1, dtype=np.float64)
        items = logits.shape[1]
        best = np.broadcast_to(np.arange(items), logits.shape)
        if self._best < items:
            best = np.argpartition(logits, items - self._best, axis=1)[:, items - self._best :]
        # Of two items with one probability the one with the lower row comes first.
        best = np.sort(best, axis=1)
        order = np.argsort(-np.take_along_axis(logits, best, axis=1), axis=1, kind="stable")
        best = np.take_along_axis(best, order, axis=1)
        counts = np.isfinite(np.take_along_axis(logits, best, axis=1)).sum(1)
        listed = np.take_along_axis(weights, best, axis=1)
        found = []
        for line in range(len(seen)):
            rows, share = best[line, : counts[line]], listed[line, : counts[line]]
            others = items - len(rows) - len(seen[line])
            left = float(total[line] - share.sum(dtype=np.float64))
            whole = float(total[line]) or 1.0
            rest = max(left, 0.0) / (whole * others) if others else 0.0
            share = (share / whole).astype(np.float32)
            found.append(Expected(rows.astype(np.int32), share, seen[line], rest))
        return found


def _targets(
    expected: Expected,
    hard: Float64[np.ndarray, " spans"],
    named: Int32[np.ndarray, " named"] | None = None,
) -> SpanTargets:
    """What is expected, for some spans alike; items that are named are listed too."""
    rows = np.concatenate([expected.best, expected.seen])
    share = np.concatenate([expected.share, np.zeros(len(expected.seen), dtype=np.float32)])
    if named is not None:
        others = np.setdiff1d(named, rows)
        rows = np.concatenate([rows, others])
        share = np.concatenate([share, np.full(len(others), expected.rest, dtype=np.float32)])
    count = len(hard)
    return SpanTargets(
        hard,
        np.full(count, expected.rest),
        np.arange(count + 1) * len(rows),
        np.tile(rows, count),
        np.tile(share, count),
    )
