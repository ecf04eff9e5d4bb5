"""Scores a model in training on held-out items, by the code that ranks for users."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import PartialState

from incatalog.data.interactions import LeaveOneOut
from incatalog.metrics import hit_rate, ndcg
from incatalog.recommender.recommender import Recommender

CUTOFF = 10
# Key of the random stream that draws users and prompts.
PROMPTS = 0
NDCG = f"NDCG@{CUTOFF}"
HR = f"HR@{CUTOFF}"

_BATCH = 64


@dataclass(frozen=True)
class Prompt:
    """What a model in training is asked: a history, and what is right to recommend after it."""

    history: tuple[int, ...]  # Item rows, oldest first; all of them
    relevant: tuple[int, ...]  # Item rows


def validation_users(split: LeaveOneOut, count: int, seed: int) -> list[int]:
    """The users whose validation items say which checkpoint is best, ascending."""
    drawn = np.random.default_rng([seed, PROMPTS]).permutation(len(split))[:count]
    return sorted(drawn.tolist())


def validation_prompts(split: LeaveOneOut, count: int, seed: int) -> list[Prompt]:
    """The validation items of some users, the same in every validation."""
    holdouts = [split.valid(user) for user in validation_users(split, count, seed)]
    return [Prompt(tuple(one.history.tolist()), (int(one.target),)) for one in holdouts]


def ranking_validation(
    recommender: Recommender, prompts: Sequence[Prompt], *, exclude_seen: bool
) -> Callable[[], dict[str, float]]:
    """Ranks held-out items as `incatalog evaluate recommend --split valid` does."""
    processes = PartialState()
    own = prompts[processes.process_index :: processes.num_processes]
    length, slots = recommender.spec.list_length, []
    for prompt in own:
        excluded = recommender.excluded(history=prompt.history, exclude_seen=exclude_seen)
        slots.append(recommender.slot(prompt.history, length, excluded))

    def validate() -> dict[str, float]:
        items = [
            ranked.rows.tolist()
            for start in range(0, len(slots), _BATCH)
            for ranked in recommender.beam.top_items(slots[start : start + _BATCH], CUTOFF)
        ]
        right = [prompt.relevant for prompt in own]
        sums = [float(score(items, right, CUTOFF).sum()) for score in (ndcg, hit_rate)]
        totals = torch.tensor([*sums, len(items)], device=processes.device)
        if processes.num_processes > 1:
            torch.distributed.all_reduce(totals)
        gain, hit, count = totals.tolist()
        return {NDCG: gain / count, HR: hit / count}

    return validate
