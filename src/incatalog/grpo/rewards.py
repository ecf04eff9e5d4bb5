"""Rewards of sampled answers: plain functions over lists of item rows, one number an answer.

Answers come as the rows of the items they name, in order, and never as text; what counts as right
are rows too. Answers to the same prompt stand together as a *group* of fixed size.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from incatalog.config import RewardName
from incatalog.data.catalog import Catalog
from incatalog.errors import ConfigError
from incatalog.metrics import Answers, RowSets, discount, first_hits, gain
from incatalog.teacher.teacher import Teacher

REWARDS: tuple[str, ...] = get_args(RewardName)


def rule(items: Answers, relevant: RowSets) -> list[float]:
    """1 for an answer that names a right item, else 0."""
    pairs = zip(items, relevant, strict=True)
    return [float(not set(right).isdisjoint(answer)) for answer, right in pairs]


def ndcg(items: Answers, relevant: RowSets) -> list[float]:
    """NDCG of each answer at its own length; 0 for an empty one."""
    return [
        gain(first_hits(answer, right), min(len(answer), len(set(right))))
        for answer, right in zip(items, relevant, strict=True)
    ]


def ranking_aware(
    items: Answers, relevant: RowSets, logprobs: Sequence[float], group: int
) -> list[float]:
    """Penalties for wrong answers, higher for those that the model finds likelier (MiniOneRec).

    Among the different answers of a group, likeliest first, a wrong one at place ``r`` loses
    ``1 / log2(r + 1)``, divided by the sum of that over as many places as the group has answers.
    A right one loses nothing, nor does any answer of a group in which none is right. (arXiv
    2510.24431, ranking-aware reward.)
    """
    if group < 1 or len(items) % group:
        raise ConfigError(f"group: {len(items)} answers do not make groups of {group}")
    total = sum(map(discount, range(1, group + 1)))
    right = rule(items, relevant)
    rewards: list[float] = []
    for start in range(0, len(items), group):
        part = range(start, start + group)
        if not any(right[number] for number in part):
            rewards += [0.0] * group
            continue
        places: dict[tuple[int, ...], int] = {}
        for number in sorted(part, key=lambda number: -logprobs[number]):
            places.setdefault(tuple(items[number]), len(places) + 1)
        rewards += [
            0.0 if right[number] else -discount(places[tuple(items[number])]) / total
            for number in part
        ]
    return rewards


def teacher_gain(ranks: Sequence[Sequence[int]]) -> list[float]:
    """Mean of ``1 / log2(rank + 1)`` over the items of an answer."""
    return [
        sum(discount(rank) for rank in answer if rank > 0) / len(answer) if answer else 0.0
        for answer in ranks
    ]


def diversity(items: Answers, categories: Sequence[Collection[str]]) -> list[float]:
    """Mean distance of the categories of an answer's pairs of items; 0 for a single item."""
    return [
        float(np.mean([_distance(categories[a], categories[b]) for a, b in pairs]))
        if (pairs := list(itertools.combinations(answer, 2)))
        else 0.0
        for answer in items
    ]


def well_formed(items: Answers, wanted: int) -> list[float]:
    """1 for an answer that names as many different items as asked for, else 0."""
    return [float(len(answer) == len(set(answer)) == wanted) for answer in items]


@dataclass(frozen=True)
class Batch:
    """Answers to be rewarded, those of a group side by side."""

    items: Answers  # Item rows of each answer
    logprobs: Sequence[float]  # Log-probability of each answer under the model that gave it
    relevant: RowSets  # Rows that are right for each answer's prompt
    histories: Answers  # Item rows before them, oldest first
    group: int  # Answers to one prompt
    wanted: int  # Items an answer was asked for


def reward_functions(
    names: Sequence[str], catalog: Catalog, teacher: Teacher | None
) -> Mapping[str, Callable[[Batch], list[float]]]:
    """The rewards of some names, bound to what they are measured by."""
    categories = [item.categories for item in catalog.items]

    def by_teacher(batch: Batch) -> list[float]:
        assert teacher is not None
        ranks = teacher.ranking(batch.histories, batch.items)
        return teacher_gain([answer.tolist() for answer in ranks])

    known: dict[str, Callable[[Batch], list[float]]] = {
        "rule": lambda batch: rule(batch.items, batch.relevant),
        "ndcg": lambda batch: ndcg(batch.items, batch.relevant),
        "ranking-aware": lambda batch: ranking_aware(
            batch.items, batch.relevant, batch.logprobs, batch.group
        ),
        "teacher": by_teacher,
        "diversity": lambda batch: diversity(batch.items, categories),
        "format": lambda batch: well_formed(batch.items, batch.wanted),
    }
    return {name: known[name] for name in names}


def _distance(one: Collection[str], other: Collection[str]) -> float:
    """1 - overlap / union; two items without category are alike."""
    union = set(one) | set(other)
    return 1.0 - len(set(one) & set(other)) / len(union) if union else 0.0
