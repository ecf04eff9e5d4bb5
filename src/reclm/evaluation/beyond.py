"""Metrics beyond accuracy: novelty, similarity within a list, coverage, calibration."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from reclm.errors import ConfigError
from reclm.evaluation.metrics import Answers

PROBABILITY_EDGES = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Edges of the calibration bins: items share the probability, so most have little of it."""


def novelty(
    answers: Answers, users_with_item: Int64[np.ndarray, " items"], users: int, k: int
) -> Float64[np.ndarray, " users"]:
    """Mean inverse user frequency of the first k entries, in bits; NaN if none is in the catalog.

    ``-log2(users who have the item / users)``, items that no one has counted as if one had them
    (Castells, Vargas and Wang, 2011; RecTools' ``MeanInvUserFreq``).

    Args:
        answers: Answers of the users.
        users_with_item: Users who have each item in their training history.
        users: Users in training.
        k: Entries that count.
    """
    bits = -np.log2(np.maximum(users_with_item, 1) / users)
    return _means([[bits[entry] for entry in answer[:k] if entry >= 0] for answer in answers])


def intra_list_similarity(
    answers: Answers, categories: Sequence[Iterable[str]], k: int
) -> Float64[np.ndarray, " users"]:
    """Mean Jaccard similarity of the categories of each two of the first k items.

    Items without a category and what is not in the catalog are left out; NaN where fewer than two
    items are left (Ziegler et al., 2005, with the mean for the sum).
    """
    sets = [frozenset(names) for names in categories]
    values = []
    for answer in answers:
        kept = [sets[entry] for entry in answer[:k] if entry >= 0 and sets[entry]]
        values.append([len(one & two) / len(one | two) for one, two in combinations(kept, 2)])
    return _means(values)


def coverage(answers: Answers, items: int, k: int) -> float:
    """Share of the catalog's items that are among the first k entries of at least one answer."""
    return len({entry for answer in answers for entry in answer[:k] if entry >= 0}) / items


def calibration(
    probabilities: Sequence[float],
    hits: Sequence[bool],
    edges: Sequence[float] = PROBABILITY_EDGES,
) -> dict[str, Any]:
    """How well probabilities fit: the share of hits among entries of like probability.

    The expected calibration error is the mean over entries of the difference between the mean
    probability of its bin and the bin's share of hits (Naeini, Cooper and Hauskrecht, 2015).

    Args:
        probabilities: Probability of each entry.
        hits: Whether it was the item in question.
        edges: Edges of the bins, ascending from 0 to 1; a bin holds its upper edge.

    Returns:
        ``ECE``, and ``bins`` that are not empty, each with ``low``, ``high``, ``entries``,
        ``probability`` and ``hits``, the last two as means. Rounded to 6 places.

    Raises:
        ConfigError: There is nothing to bin, or not one hit or miss a probability.
    """
    if not len(probabilities) or len(probabilities) != len(hits):
        raise ConfigError(
            f"calibration: found {len(probabilities)} probabilities and {len(hits)} outcomes; "
            "expected one outcome each, and at least one"
        )
    values = np.asarray(probabilities, dtype=np.float64)
    outcomes = np.asarray(hits, dtype=np.float64)
    bin_of = np.clip(np.searchsorted(edges, values, side="left") - 1, 0, len(edges) - 2)
    bins = []
    error = 0.0
    for number in np.unique(bin_of).tolist():
        inside = bin_of == number
        probability, hit = float(values[inside].mean()), float(outcomes[inside].mean())
        error += abs(probability - hit) * inside.sum() / len(values)
        bins.append(
            {
                "low": edges[number],
                "high": edges[number + 1],
                "entries": int(inside.sum()),
                "probability": round(probability, 6),
                "hits": round(hit, 6),
            }
        )
    return {"ECE": round(float(error), 6), "bins": bins}


def _means(values: Sequence[Sequence[float]]) -> Float64[np.ndarray, " users"]:
    return np.array([np.mean(v) if len(v) else np.nan for v in values], dtype=np.float64)
