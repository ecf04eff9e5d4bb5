"""What chance decides about a sample."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64

# Keys of the random streams.
ORDER, DRAWS, CANDIDATES, SHUFFLE, VALIDATION, SPELLINGS, DROPPED = range(7)
# Batches whose samples are put next to others of like length; more would train on shorter samples
# for long stretches without saving much padding.
POOL = 16


class Draws(NamedTuple):
    """What chance decides about the samples of one epoch, before the teacher is asked.

    Attributes:
        target: Index of the target in the user's training items.
        start: Index of the first item of the history, which ends before the target.
        list_length: Items in the answer.
        wording: Wording of each sample.
        exchange: General exchange beside the recommendation; -1 for none.
        before: Whether that exchange comes first.
        conversation: General conversation of each sample behind the recommendation samples.
        aligned: Item row of each alignment sample, which come last.
        alignment: Wording of each alignment sample.
    """

    target: Int64[np.ndarray, " users"]
    start: Int64[np.ndarray, " users"]
    list_length: Int64[np.ndarray, " users"]
    wording: Int64[np.ndarray, " users"]
    exchange: Int64[np.ndarray, " users"]
    before: Bool[np.ndarray, " users"]
    conversation: Int64[np.ndarray, " conversations"]
    aligned: Int64[np.ndarray, " alignments"]
    alignment: Int64[np.ndarray, " alignments"]
