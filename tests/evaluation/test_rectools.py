"""Our metrics beside those of RecTools, on the same recommendations."""

from __future__ import annotations

import json
import os
import subprocess

import numpy as np
import pytest

from incatalog.data.catalog import Catalog, Item
from incatalog.data.interactions import Holdout
from incatalog.evaluation.reader import Named
from incatalog.evaluation.recommend import score
from incatalog.metrics import coverage
from other_python import other_python

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


def rectools_python() -> str:
    """The Python that has RecTools: that of `.venv-rectools`, or of INCATALOG_RECTOOLS."""
    lacking = "no RecTools in .venv-rectools: make test-rectools"
    return str(other_python(".venv-rectools", "INCATALOG_RECTOOLS", lacking))


# Run where RecTools is: reads the world, and writes its metrics.
PROGRAM = """
import json, sys
import pandas as pd
from rectools import metrics

world = json.load(sys.stdin)
k = world["k"]

def table(lists):
    rows = [(user, item, rank) for user, items in enumerate(lists)
            for rank, item in enumerate(items, start=1)]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "rank"])

asked = {}
for at in (1, 5, 10):
    asked[f"HR@{at}"] = metrics.HitRate(at)
    asked[f"Recall@{at}"] = metrics.Recall(at)
    asked[f"MRR@{at}"] = metrics.MRR(at)
    asked[f"NDCG@{at}"] = metrics.NDCG(at, divide_by_achievable=True)
asked["Novelty@10"] = metrics.MeanInvUserFreq(k)
asked["Coverage@10"] = metrics.CatalogCoverage(k, normalize=True)
found = metrics.calc_metrics(
    asked,
    table(world["lists"]),
    interactions=table([[target] for target in world["targets"]]),
    prev_interactions=table(world["histories"]),
    catalog=list(range(world["items"])),
)
json.dump({name: float(value) for name, value in found.items()}, sys.stdout)
"""


def test_metrics_are_those_that_rectools_gives(world: World) -> None:
    python = rectools_python()
    given = vars(world) | {"k": K, "items": ITEMS}
    # Nothing of this environment comes along, whose numpy and pandas are others.
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, "-c", PROGRAM], input=json.dumps(given), capture_output=True, text=True,
        timeout=200, env=variables, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == pytest.approx(ours(world), rel=1e-12)
    assert found == pytest.approx(RECTOOLS, rel=1e-12)
