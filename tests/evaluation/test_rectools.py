"""Our metrics beside those of RecTools, on the same recommendations."""

from __future__ import annotations

import numpy as np
import pytest

from incatalog.data.catalog import Catalog, Item
from incatalog.data.interactions import Holdout
from incatalog.evaluation.reader import Named
from incatalog.evaluation.recommend import score
from incatalog.metrics import coverage

USERS, ITEMS, K = 80, 200, 10

# What RecTools 0.19.0 gave for `world`; the test at the end asks it again where it is installed.
RECTOOLS = {
    "HR@1": 0.0375, "HR@5": 0.175, "HR@10": 0.2875,
    "Recall@1": 0.0375, "Recall@5": 0.175, "Recall@10": 0.2875,
    "MRR@1": 0.0375, "MRR@5": 0.07999999999999999, "MRR@10": 0.09491071428571428,
    "NDCG@1": 0.0375, "NDCG@5": 0.10322839192381963, "NDCG@10": 0.13947938101360116,
    "Novelty@10": 3.7762260920705493, "Coverage@10": 0.795,
}  # fmt: skip


class World:
    """Random lists of ten items, held-out items, and the training histories behind them."""

    def __init__(self) -> None:
        random = np.random.default_rng(11)
        popular = 1 / np.arange(1, ITEMS + 1)
        popular /= popular.sum()

        def draw(size: int) -> list[int]:
            return list(map(int, random.choice(ITEMS, size=size, replace=False, p=popular)))

        self.histories = [draw(6) for _ in range(USERS)]
        self.lists = [draw(K) for _ in range(USERS)]
        self.targets = [draw(1)[0] for _ in range(USERS)]


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def ours(world: World) -> dict[str, float]:
    catalog = Catalog.from_items([Item(f"i{row}", f"T{row}") for row in range(ITEMS)])
    counts = np.zeros(ITEMS, dtype=np.int64)
    for history in world.histories:
        counts[history] += 1
    answers = [tuple(Named(f"T{row}", row) for row in rows) for rows in world.lists]
    holdouts = [
        Holdout(np.array(history), target)
        for history, target in zip(world.histories, world.targets, strict=True)
    ]
    scores = score(answers, holdouts, catalog, K, counts, USERS)
    names = [f"{name}@{k}" for name in ("HR", "Recall", "MRR", "NDCG") for k in (1, 5, 10)]
    found = {name: float(scores[name].mean()) for name in (*names, "Novelty@10")}
    return found | {"Coverage@10": coverage(world.lists, ITEMS, K)}


def test_metrics_are_those_that_rectools_gave(world: World) -> None:
    assert ours(world) == pytest.approx(RECTOOLS, rel=1e-12)


def test_metrics_are_those_that_rectools_gives(world: World) -> None:
    metrics = pytest.importorskip("rectools.metrics", reason="pip install rectools")
    import pandas as pd

    def table(lists: list[list[int]]) -> pd.DataFrame:
        rows = [(user, item, rank) for user, items in enumerate(lists)
                for rank, item in enumerate(items, start=1)]  # fmt: skip
        return pd.DataFrame(rows, columns=["user_id", "item_id", "rank"])

    asked = {}
    for k in (1, 5, 10):
        asked |= {
            f"HR@{k}": metrics.HitRate(k),
            f"Recall@{k}": metrics.Recall(k),
            f"MRR@{k}": metrics.MRR(k),
            f"NDCG@{k}": metrics.NDCG(k, divide_by_achievable=True),
        }
    asked |= {
        "Novelty@10": metrics.MeanInvUserFreq(K),
        "Coverage@10": metrics.CatalogCoverage(K, normalize=True),
    }
    found = metrics.calc_metrics(
        asked,
        table(world.lists),
        interactions=table([[target] for target in world.targets]),
        prev_interactions=table(world.histories),
        catalog=list(range(ITEMS)),
    )
    assert found == pytest.approx(ours(world), rel=1e-12)
    assert found == pytest.approx(RECTOOLS, rel=1e-12)
