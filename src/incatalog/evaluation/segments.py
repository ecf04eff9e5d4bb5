"""Results by kind of user: popularity of the target, length of the history, category."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Holdout
from incatalog.metrics import Users, named_intervals

HEAD_SHARE = 0.2
HISTORY_EDGES = (0, 5, 10, 20, 50)
MAX_CATEGORIES = 20


def user_groups(
    holdouts: Sequence[Holdout], catalog: Catalog, users_with_item: Int64[np.ndarray, " items"]
) -> dict[tuple[str, str], Bool[np.ndarray, " users"]]:
    """Who belongs to which segment, by (way to cut, segment); empty segments are left out.

    Three ways to cut: the target is of the `head`, the fifth of the items that most users have in
    training (of equal ones the lower rows), or of the `tail`; how many items the history has;
    categories of the target, the 20 with most users, of which a user may be in several.
    """
    targets = np.array([holdout.target for holdout in holdouts], dtype=np.int64)
    lengths = np.array([len(holdout.history) for holdout in holdouts], dtype=np.int64)
    head = np.zeros(len(catalog), dtype=np.bool_)
    most_popular = np.argsort(-users_with_item, kind="stable")
    head[most_popular[: int(np.ceil(HEAD_SHARE * len(catalog)))]] = True
    groups = {("target", "head"): head[targets], ("target", "tail"): ~head[targets]}
    for low, high in zip(HISTORY_EDGES, (*HISTORY_EDGES[1:], None), strict=True):
        name = f"{low + 1}–{high}" if high else f"over {low}"
        groups["history", name] = (lengths > low) & (lengths <= (high or lengths.max()))
    of = {name: np.isin(targets, catalog.category_rows(name)) for name in catalog.categories}
    largest = sorted(of, key=lambda name: (-int(of[name].sum()), name))[:MAX_CATEGORIES]
    groups |= {("category", name): of[name] for name in largest}
    return {key: members for key, members in groups.items() if members.any()}


def segment_results(
    groups: Mapping[tuple[str, str], Bool[np.ndarray, " users"]],
    scores: Mapping[str, Users],
    resamples: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Some metrics of each segment, with 95 % bootstrap intervals over its users."""
    rows = []
    for (by, segment), members in groups.items():
        own = {name: values[members] for name, values in scores.items()}
        found = named_intervals(own, resamples, seed)
        rows.append({"by": by, "segment": segment, "users": int(members.sum()), "metrics": found})
    return rows
