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
    """What chance decides about the samples of one epoch, before the teacher is asked."""

    target: Int64[np.ndarray, " users"]  # Index of the target in the user's training items
    start: Int64[np.ndarray, " users"]  # Index of the first item of the history
    list_length: Int64[np.ndarray, " users"]  # Items in the answer
    wording: Int64[np.ndarray, " users"]  # Wording of each sample
    exchange: Int64[np.ndarray, " users"]  # General exchange beside the recommendation; -1 for none
    before: Bool[np.ndarray, " users"]  # Whether that exchange comes first
    conversation: Int64[np.ndarray, " conversations"]  # General ones, behind the users' samples
    aligned: Int64[np.ndarray, " alignments"]  # Item row of each alignment sample, which come last
    alignment: Int64[np.ndarray, " alignments"]  # Wording of each alignment sample
