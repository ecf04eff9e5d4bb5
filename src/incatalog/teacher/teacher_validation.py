"""Validation items: how good a teacher is on them, and what its temperature should be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from incatalog.data.interactions import LeaveOneOut
from incatalog.metrics import of_ranks
from incatalog.teacher.selection import ScoringTeacher

Validated = dict[str, float]
VALIDATION_FILE = "validation.json"
CUTOFFS = (1, 5, 10)
# Scores of all items that exist together while a temperature or a weight is looked for.
_CELLS = 1 << 25
# Temperatures are looked for between e^-8 and e^8.
_WIDEST = 8.0
_ROWS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Validation:
    """Some users' histories, each with its validation item."""

    histories: Sequence[np.ndarray]
    targets: Int64[np.ndarray, " users"]
    exclude_seen: bool

    @classmethod
    def of(cls, split: LeaveOneOut, num_items: int, *, exclude_seen: bool, seed: int) -> Validation:
        """All users of a split; of a large one some by chance, so that memory stays bounded."""
        users, most = len(split), max(1, _CELLS // num_items)
        chosen = np.arange(users)
        if users > most:
            chosen = np.sort(np.random.default_rng(seed).permutation(users)[:most])
        held_out = [split.valid(user) for user in chosen.tolist()]
        targets = np.array([one.target for one in held_out], dtype=np.int64)
        return cls([one.history for one in held_out], targets, exclude_seen)

    def __len__(self) -> int:
        return len(self.targets)

    def ndcg(self, teacher: ScoringTeacher) -> float:
        """NDCG@10 of a teacher."""
        asked = [[target] for target in self.targets.tolist()]
        ranks = teacher.ranking(self.histories, asked, exclude_seen=self.exclude_seen)
        return ndcg_of(np.concatenate(ranks))

    def fit_temperature(self, teacher: ScoringTeacher) -> float:
        """Gives a teacher the temperature of least mean -log p, and returns that loss."""
        scores = torch.from_numpy(teacher.scores(self.histories))
        teacher.temperature, loss = best_temperature(scores, torch.from_numpy(self.targets))
        return loss


def ndcg_of(ranks: Int64[np.ndarray, " users"]) -> float:
    """NDCG@10 of the ranks of one item for each user."""
    hits, gains = of_ranks(ranks, 10)
    return float(gains[hits].sum() / len(ranks))


def best_temperature(
    scores: Float32[Tensor, "users items"], targets: Int64[Tensor, " users"]
) -> tuple[float, float]:
    """The temperature of least mean -log p of the targets, and that loss.

    The loss is convex in 1 / temperature, so a bounded search finds the least.
    """
    from scipy.optimize import minimize_scalar

    own = scores.gather(1, targets[:, None])[:, 0].double()
    blocks = torch.split(scores, _ROWS_AT_ONCE)

    def loss(log_temperature: float) -> float:
        temperature = math.exp(log_temperature)
        # In blocks, which bounds the memory of what is divided.
        parts = [torch.logsumexp(part / temperature, 1) for part in blocks]
        return float((torch.cat(parts).double() - own / temperature).mean())

    options: dict[str, Any] = {"bounds": (-_WIDEST, _WIDEST), "options": {"xatol": 1e-3}}
    found = minimize_scalar(loss, method="bounded", **options)
    return math.exp(found.x), float(found.fun)


def validation_metrics(
    teacher: ScoringTeacher, split: LeaveOneOut, *, exclude_seen: bool
) -> Validated:
    """HR and NDCG at 1, 5 and 10 of a teacher on the validation items of all users."""
    held_out = [split.valid(user) for user in range(len(split))]
    histories, targets = [one.history for one in held_out], [[one.target] for one in held_out]
    ranks = np.concatenate(teacher.ranking(histories, targets, exclude_seen=exclude_seen))
    metrics = {}
    for k in CUTOFFS:
        hits, gains = of_ranks(ranks, k)
        metrics[f"HR@{k}"] = float(hits.mean())
        metrics[f"NDCG@{k}"] = float(gains[hits].sum() / len(ranks))
    return metrics


def validation_header(split: LeaveOneOut, exclude_seen: bool, kind: str) -> dict[str, Any]:
    """How `validation.json` begins: what was validated, and how."""
    users = len(split)
    return {"method": kind, "split": "valid", "users": users, "exclude_seen": exclude_seen}
