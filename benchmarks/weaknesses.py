"""What the studies ask trained models and teachers to find out where they are weak."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Holdout, LeaveOneOut
from incatalog.metrics import hit_rate, ndcg
from incatalog.recommender.recommender import Recommender
from incatalog.teacher.teacher import load_teacher

History = Sequence[int]
Ask = Callable[[Sequence[History]], list[list[int]]]
"""The best items that come after each history and are not in it, best first."""

LAST_TRAINED, VALID, TEST = "last trained item", "validation item", "test item"
_BATCH = 64
_CUTOFF = 10
_RERANKED = 100


def held_out(split: LeaveOneOut, which: str) -> list[Holdout]:
    """An item of every user and what came before it; of those that were trained on the last."""
    if which == LAST_TRAINED:
        trained = [split.train(user) for user in range(len(split))]
        return [Holdout(rows[:-1], int(rows[-1])) for rows in trained]
    of_user = split.valid if which == VALID else split.test
    return [of_user(user) for user in range(len(split))]


def ask_model(folder: Path, *, listed: int = _CUTOFF, per_token: bool = False) -> Ask:
    """A trained model.

    Args:
        folder: Its folder.
        listed: Items it is asked for; all are ranked by how likely they are the first of them.
        per_token: Rank its hundred likeliest items by log-probability per token of the item.
    """
    recommender = Recommender.from_pretrained(folder, "cpu")
    lengths = np.diff(recommender.item_tokens.offsets)
    wanted = _RERANKED if per_token else _CUTOFF

    def ask(histories: Sequence[History]) -> list[list[int]]:
        slots = [
            recommender.slot(rows, listed, recommender.excluded(history=rows, exclude_seen=True))
            for rows in histories
        ]
        named = []
        for found in recommender.beam.top_items(slots, wanted):
            rows = found.rows
            if per_token:
                rows = rows[np.argsort(-found.logprobs / lengths[rows], kind="stable")]
            named.append(rows[:_CUTOFF].tolist())
        return named

    return ask


def ask_teacher(folder: Path, catalog: Catalog, newest: int = 0) -> Ask:
    """A fitted teacher; one that is shown the newest items alone, if their number is not 0."""
    teacher = load_teacher(folder, catalog, "cpu")

    def ask(histories: Sequence[History]) -> list[list[int]]:
        shown = [list(rows)[-newest:] for rows in histories]
        found = teacher.top_k(shown, len(catalog), exclude_seen=False).tolist()
        return [
            [row for row in ranked if row not in seen][:_CUTOFF]
            for ranked, seen in zip(found, map(set, histories), strict=True)
        ]

    return ask


def measured(ask: Ask, split: LeaveOneOut, which: str) -> pl.DataFrame:
    """Hit rate and NDCG of each user."""
    holdouts = held_out(split, which)
    named = []
    for start in range(0, len(holdouts), _BATCH):
        named += ask([one.history.tolist() for one in holdouts[start : start + _BATCH]])
    targets = [{one.target} for one in holdouts]
    scores = {"HR@10": hit_rate(named, targets, _CUTOFF), "NDCG@10": ndcg(named, targets, _CUTOFF)}
    return pl.DataFrame({"user_id": list(split.user_ids), **scores})
