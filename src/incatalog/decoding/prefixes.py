"""Prompts that begin alike are computed once: a row starts with a copy of another's keys."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from incatalog.decoding.growing import GrowingAnswer
from incatalog.packed.cache import RowCache

_KEPT = 8
# Copying a handful of tokens costs more than computing them beside the others.
_WORTHWHILE = 8


class Prefixes:
    """What the rows of a session begin with, also the rows that ended last.

    An answer that has ended is kept for the next turn of its conversation.
    """

    def __init__(self) -> None:
        self._kept: deque[tuple[Int64[np.ndarray, " fed"], RowCache]] = deque()

    def share(self, answers: Sequence[GrowingAnswer]) -> None:
        """Lets answers that were not fed yet start with a copy of what others have stored."""
        if all(answer.cache.length for answer in answers):
            return
        donors = list(self._kept)
        for answer in answers:
            text = np.array(answer.text)
            if not answer.cache.length:
                alike = [_common(fed, text[:-1]) for fed, _ in donors]
                longest = max(alike, default=0)
                if longest >= _WORTHWHILE:
                    answer.share(donors[alike.index(longest)][1], longest)
                donors.append((text, answer.cache))
            else:
                donors.append((text[: answer.cache.length], answer.cache))

    def keep(self, answer: GrowingAnswer) -> None:
        """Keeps what an ended answer has stored, and lets the oldest of those kept go."""
        self._kept.append((np.array(answer.text)[: answer.cache.length], answer.cache))
        while len(self._kept) > _KEPT:
            _, oldest = self._kept[0]
            oldest.release()
            self._kept.popleft()

    def close(self) -> None:
        """Lets all of them go."""
        for _, cache in self._kept:
            cache.release()
        self._kept.clear()


def _common(one: Int64[np.ndarray, " a"], other: Int64[np.ndarray, " b"]) -> int:
    """Length of the longest common beginning."""
    size = min(len(one), len(other))
    differs = np.flatnonzero(one[:size] != other[:size])
    return int(differs[0]) if len(differs) else size
