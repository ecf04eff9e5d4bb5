"""Metrics of recommendation lists, over item rows, one value a user.

An answer is what a recommender named, in order. An entry of zero or more is a row of the catalog;
a negative entry stands for something named that is not in the catalog, and equal negative entries
of one answer for the same thing named twice. Such entries take up their place: nothing is
repaired or removed before it is scored. A relevant item counts once, where it is named first.

Hit rate, NDCG, MRR and recall of an answer to a user with the relevant items R, rel(i) being 1 if
entry i is the first to name an item of R and else 0:

    hit rate@k = max of rel(i), i <= k
    recall@k   = sum of rel(i), i <= k, / |R|
    MRR@k      = max of rel(i) / i, i <= k
    NDCG@k     = sum of rel(i) / log2(i + 1), i <= k,
                 / sum of 1 / log2(i + 1), i <= min(k, |R|)       (Järvelin and Kekäläinen, 2002)
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from incatalog.errors import ConfigError, DataError

Answers = Sequence[Sequence[int]]
RowSets = Sequence[Collection[int]]
Users = Float64[np.ndarray, " users"]

RESAMPLES_AT_ONCE = 1 << 22  # Entries, one for each resample and user.
PROBABILITY_EDGES = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_OUTSIDE = (1 - 0.95) / 2


class Interval(NamedTuple):
    """A mean with its confidence interval."""

    value: float
    low: float
    high: float


def discount(place: float) -> float:
    """What a hit at a place, from 1, adds to the gain of an answer."""
    return 1.0 / math.log2(place + 1)


def first_hits(answer: Sequence[int], relevant: Collection[int]) -> list[int]:
    """Places, from 1, of the entries that are the first to name a relevant item."""
    return [
        place
        for place, entry in enumerate(answer, start=1)
        if entry >= 0 and entry in relevant and entry not in answer[: place - 1]
    ]


def gain(hits: Iterable[int], possible: int) -> float:
    """NDCG of an answer with hits at these places, of `possible` ones; 0 if there are none."""
    best = sum(map(discount, range(1, possible + 1)))
    return sum(map(discount, hits)) / best if best else 0.0


def hit_rate(answers: Answers, relevant: RowSets, k: int) -> Users:
    """Whether one of the first k entries is relevant."""
    return np.array([bool(hits) for hits in _hits(answers, relevant, k)], dtype=np.float64)


def recall(answers: Answers, relevant: RowSets, k: int) -> Users:
    """Share of the relevant items among the first k entries."""
    found = [len(hits) for hits in _hits(answers, relevant, k)]
    return np.asarray(found / _numbers(relevant), dtype=np.float64)


def mrr(answers: Answers, relevant: RowSets, k: int) -> Users:
    """One over the place of the first relevant entry, 0 if none of the first k is relevant."""
    found = [1 / hits[0] if hits else 0 for hits in _hits(answers, relevant, k)]
    return np.array(found, dtype=np.float64)


def ndcg(answers: Answers, relevant: RowSets, k: int) -> Users:
    """Discounted gain of the first k entries over that of the best answer there is."""
    possible = np.minimum(_numbers(relevant), k).tolist()
    return np.array(list(map(gain, _hits(answers, relevant, k), possible)), dtype=np.float64)


def of_ranks(ranks: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Hits of the one relevant item among the first k, and its gains; a rank is at least 1."""
    hits = (ranks >= 1) & (ranks <= k)
    gains = np.zeros(ranks.shape)
    gains[hits] = list(map(discount, ranks[hits].tolist()))
    return hits, gains


def out_of_domain(answers: Answers, k: int) -> Users:
    """Share of the first k entries that are not in the catalog; NaN for an empty answer."""
    return _means([[entry < 0 for entry in answer[:k]] for answer in answers])


def repeats(answers: Answers, k: int) -> Users:
    """Share of the first k entries that were named before; NaN for an empty answer."""
    return _means([[e in answer[:i] for i, e in enumerate(answer[:k])] for answer in answers])


def in_sets(answers: Answers, sets: RowSets, k: int) -> Users:
    """Share of the first k entries that are in each user's set of rows; NaN for an empty answer."""
    pairs = zip(answers, sets, strict=True)
    return _means([[entry in rows for entry in answer[:k]] for answer, rows in pairs])


def right_count(answers: Answers, k: int) -> Users:
    """Whether the whole answer has as many entries as asked for."""
    return np.array([len(answer) == k for answer in answers], dtype=np.float64)


def novelty(
    answers: Answers, users_with_item: Int64[np.ndarray, " items"], users: int, k: int
) -> Users:
    """Mean inverse user frequency of the first k entries, in bits; NaN if none is in the catalog.

    ``-log2(users who have the item in training / users)``, items that no one has counted as if one
    had them (Castells, Vargas and Wang, 2011; RecTools' ``MeanInvUserFreq``).
    """
    bits = -np.log2(np.maximum(users_with_item, 1) / users)
    return _means([[bits[entry] for entry in answer[:k] if entry >= 0] for answer in answers])


def intra_list_similarity(answers: Answers, categories: Sequence[Iterable[str]], k: int) -> Users:
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
    probabilities: Sequence[float], hits: Sequence[bool], edges: Sequence[float] = PROBABILITY_EDGES
) -> dict[str, Any]:
    """How well probabilities fit: the share of hits among entries of like probability.

    The expected calibration error (``ECE``) is the mean over entries of the difference between the
    mean probability of its bin and the bin's share of hits (Naeini, Cooper and Hauskrecht, 2015).
    ``bins`` are those that are not empty; a bin holds its upper edge. Rounded to 6 places.
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
        place = {"low": edges[number], "high": edges[number + 1], "entries": int(inside.sum())}
        bins.append({**place, "probability": round(probability, 6), "hits": round(hit, 6)})
    return {"ECE": round(float(error), 6), "bins": bins}


def bootstrap_intervals(
    values: Float64[np.ndarray, "users metrics"], resamples: int, seed: int
) -> list[Interval]:
    """Means of several metrics with 95 % percentile intervals of the bootstrap over users.

    All metrics share the resamples (Efron and Tibshirani, 1993, chapter 13). A user for whom a
    metric is NaN does not count for it; a metric that is defined for no user has a NaN interval.
    """
    users = len(values)
    if not users:
        raise DataError("no users to score; expected at least one")
    defined = ~np.isnan(values)
    summable = np.where(defined, values, 0.0)
    random = np.random.default_rng(seed)
    means = []
    with np.errstate(invalid="ignore"):
        for rows in parts(resamples, users):
            drawn = (random.integers(users, size=users) for _ in range(rows))
            counts = [np.bincount(own, minlength=users) for own in drawn]
            weights = np.array(counts, dtype=np.float64)
            means.append((weights @ summable) / (weights @ defined))
        middle = summable.sum(axis=0) / defined.sum(axis=0)
    intervals = []
    for value, column in zip(middle, np.concatenate(means).T, strict=True):
        # A resample may miss every user that a rarely defined metric is defined for.
        known = column[~np.isnan(column)]
        low, high = np.quantile(known, [_OUTSIDE, 1 - _OUTSIDE]) if len(known) else (np.nan, np.nan)
        intervals.append(Interval(float(value), float(low), float(high)))
    return intervals


def parts(resamples: int, users: int) -> Iterator[int]:
    """Cuts resamples into parts whose weights or draws fit into memory together."""
    step = max(1, RESAMPLES_AT_ONCE // users)
    return (min(step, resamples - start) for start in range(0, resamples, step))


def named_intervals(
    scores: Mapping[str, Users], resamples: int, seed: int
) -> dict[str, dict[str, float]]:
    """Interval of each metric by its name; one that is defined for no user is left out."""
    values = np.stack(list(scores.values()), axis=1)
    found = zip(scores, bootstrap_intervals(values, resamples, seed), strict=True)
    return {name: one._asdict() for name, one in found if not np.isnan(one.value)}


def _hits(answers: Answers, relevant: RowSets, k: int) -> list[list[int]]:
    if k < 1:
        raise ConfigError(f"k: expected at least 1, got {k}")
    pairs = zip(answers, relevant, strict=True)
    return [first_hits(answer[:k], rows) for answer, rows in pairs]


def _numbers(relevant: RowSets) -> np.ndarray:
    numbers = np.array([len(set(rows)) for rows in relevant], dtype=np.int64)
    if not numbers.all():
        raise DataError(f"user {int(np.argmin(numbers))}: no relevant item; expected at least one")
    return numbers


def _means(values: Sequence[Sequence[float]]) -> Users:
    return np.array([np.mean(v) if len(v) else np.nan for v in values], dtype=np.float64)
