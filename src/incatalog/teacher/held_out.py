"""HR@10 and NDCG@10 on held-out items: of any teacher, and of popularity beside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Holdout, LeaveOneOut
from incatalog.metrics import of_ranks
from incatalog.teacher.popularity import Popularity
from incatalog.teacher.selection import ScoringTeacher

_K = 10
PerUser = Float64[np.ndarray, " users"]


def sample_users(count: int, wanted: int, seed: int) -> list[int]:
    """Which users are looked at, ascending: all if `wanted` is 0 or more than there are."""
    if not 0 < wanted < count:
        return list(range(count))
    drawn = np.random.default_rng(seed).choice(count, size=wanted, replace=False)
    return sorted(drawn.tolist())


def popularity_of(split: LeaveOneOut, catalog: Catalog) -> Popularity:
    """Popularity as the training items of all users count it."""
    return Popularity.from_histories(map(split.train, range(len(split))), catalog)


def found_among_ten(
    teacher: ScoringTeacher, asked: Sequence[Holdout], *, exclude_seen: bool
) -> tuple[PerUser, PerUser]:
    """Hits and gains of each user among ten items.

    Args:
        teacher: What names the items.
        asked: The users' histories, each with the item that came next.
        exclude_seen: Whether items of the history are left out.
    """
    histories, targets = [one.history for one in asked], [[one.target] for one in asked]
    ranks = np.concatenate(teacher.ranking(histories, targets, exclude_seen=exclude_seen))
    hits, gains = of_ranks(ranks, _K)
    return hits.astype(np.float64), gains
