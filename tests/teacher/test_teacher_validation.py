from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories, leave_one_out
from incatalog.teacher import teacher_validation
from incatalog.teacher.popularity import Popularity
from incatalog.teacher.teacher_validation import Validation, best_temperature, validation_metrics


def test_the_temperature_is_that_of_the_least_loss() -> None:
    generator = torch.Generator().manual_seed(1)
    truth = torch.randn(400, 12, generator=generator)
    targets = torch.multinomial(torch.softmax(truth / 0.7, 1), 1, generator=generator)[:, 0]
    found, loss = best_temperature(truth, targets)
    losses = {
        t: torch.nn.functional.cross_entropy(truth / t, targets).item()
        for t in np.geomspace(0.05, 20, 400)
    }
    best = min(losses, key=losses.__getitem__)
    assert loss <= losses[best] + 1e-6
    assert found == pytest.approx(best, rel=0.03)
    assert found == pytest.approx(0.7, rel=0.2)


def test_scores_in_other_units_have_another_temperature() -> None:
    generator = torch.Generator().manual_seed(2)
    scores = torch.randn(300, 9, generator=generator)
    targets = torch.multinomial(torch.softmax(scores, 1), 1, generator=generator)[:, 0]
    one, hundred = (best_temperature(scores * scale, targets)[0] for scale in (1.0, 100.0))
    assert hundred == pytest.approx(100 * one, rel=0.02)


def test_figures_are_those_of_the_whole_validation(catalog: Catalog) -> None:
    lists = [[0, 1, 2, 3], [3, 2, 1, 0], [5, 6, 7, 2]]
    split = leave_one_out(Histories.from_lists("abc", lists))
    teacher = Popularity(np.arange(24)[::-1].copy(), catalog)
    seen = Validation.of(split, 24, exclude_seen=True, seed=0)
    # Row r stands at place r + 1, less those of the history before it: 1, 2, 6.
    assert seen.ndcg(teacher) == pytest.approx((1 + 1 / math.log2(3) + 1 / math.log2(7)) / 3)
    found = validation_metrics(teacher, split, exclude_seen=True)
    assert found["NDCG@10"] == pytest.approx(seen.ndcg(teacher))
    assert found["HR@5"] == pytest.approx(2 / 3)


def test_of_many_users_some_are_drawn(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher_validation, "_CELLS", 24 * 10)
    lists = [[user % 24, 1, user % 23, 3] for user in range(50)]
    split = leave_one_out(Histories.from_lists([f"u{user}" for user in range(50)], lists))
    one, other = (Validation.of(split, 24, exclude_seen=False, seed=s) for s in (1, 2))
    again = Validation.of(split, 24, exclude_seen=False, seed=1)
    assert len(one) == 10
    assert one.targets.tolist() == again.targets.tolist() != other.targets.tolist()


def test_the_temperature_is_given_to_the_teacher(catalog: Catalog) -> None:
    split = leave_one_out(Histories.from_lists("ab", [[0, 1, 2, 3], [3, 2, 0, 1]]))
    teacher = Popularity(np.arange(24)[::-1].copy(), catalog)
    validation = Validation.of(split, 24, exclude_seen=False, seed=0)
    loss = validation.fit_temperature(teacher)
    logs = teacher.log_probabilities(validation.histories)
    assert loss == pytest.approx(-logs[[0, 1], validation.targets].mean(), rel=1e-5)
    assert teacher.temperature < 1  # Both are among the most popular.
