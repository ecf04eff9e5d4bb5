from __future__ import annotations

import numpy as np

from incatalog.data.catalog import Catalog, Item
from incatalog.data.interactions import Holdout
from incatalog.evaluation.segments import segment_results, user_groups


def test_users_are_grouped_by_target_history_and_category() -> None:
    names = [("x",), ("x", "y"), (), ("y",), ()]
    catalog = Catalog.from_items(
        [Item(str(row), f"T{row}", categories=found) for row, found in enumerate(names)]
    )
    holdouts = [
        Holdout(np.zeros(length, dtype=np.int32), target)
        for length, target in [(1, 0), (5, 1), (6, 4), (51, 0)]
    ]
    # Of five items one is the head: row 0, which has as many users as row 4 and stands before it.
    groups = user_groups(holdouts, catalog, np.array([9, 1, 1, 1, 9]))
    assert {key: members.tolist() for key, members in groups.items()} == {
        ("target", "head"): [True, False, False, True],
        ("target", "tail"): [False, True, True, False],
        ("history", "1–5"): [True, True, False, False],
        ("history", "6–10"): [False, False, True, False],
        ("history", "over 50"): [False, False, False, True],
        ("category", "x"): [True, True, False, True],
        ("category", "y"): [False, True, False, False],
    }
    rows = segment_results(groups, {"HR@1": np.array([1.0, 0, 1, 0])}, 50, 0)
    assert [(row["segment"], row["users"], row["metrics"]["HR@1"]["value"]) for row in rows] == [
        ("head", 2, 0.5),
        ("tail", 2, 0.5),
        ("1–5", 2, 0.5),
        ("6–10", 1, 1.0),
        ("over 50", 1, 0.0),
        ("x", 3, 1 / 3),
        ("y", 1, 0.0),
    ]
