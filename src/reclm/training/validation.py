"""Scores a model in training on held-out items, by the code that ranks for users."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from accelerate import PartialState

from reclm.recommender import Recommender
from reclm.training.rewards import ndcg, rule
from reclm.training.rollouts import Question

CUTOFF = 10
NDCG = f"NDCG@{CUTOFF}"
HR = f"HR@{CUTOFF}"

_BATCH = 64


def ranking_validation(
    recommender: Recommender, questions: Sequence[Question], *, exclude_seen: bool
) -> Callable[[], dict[str, float]]:
    """Scores the ranking of held-out items, as `reclm evaluate recommend --split valid` does.

    Args:
        recommender: Holds the very model that is trained; it is ranked with as it is when asked.
        questions: Histories and what is right; processes share them.
        exclude_seen: Leave items of the history out of the ranking.
    """
    processes = PartialState()
    own = questions[processes.process_index :: processes.num_processes]
    spec = recommender.spec
    slots = [
        recommender.slot(
            question.history,
            spec.list_length,
            recommender.excluded(history=question.history, exclude_seen=exclude_seen),
        )
        for question in own
    ]
    right = [question.relevant for question in own]

    def validate() -> dict[str, float]:
        items = [
            ranked.rows.tolist()
            for start in range(0, len(slots), _BATCH)
            for ranked in recommender.beam.top_items(slots[start : start + _BATCH], CUTOFF)
        ]
        totals = torch.tensor(
            [sum(ndcg(items, right)), sum(rule(items, right)), len(items)],
            device=processes.device,
        )
        if processes.num_processes > 1:
            torch.distributed.all_reduce(totals)
        gain, hits, count = totals.tolist()
        return {NDCG: gain / count, HR: hits / count}

    return validate
