"""What does ranking items by their probability cost and bring beside writing a list?

The study's model, without its guide, answers both ways for the same users, batch by batch in turn.

    python -m benchmarks.ranking [--study runs/study] [--users 0]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import get_args

import numpy as np
from benchmarks.report import markdown, publish

from incatalog.config import Decode
from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories, leave_one_out
from incatalog.metrics import hit_rate, ndcg
from incatalog.recommender.recommender import Recommender

K = 10
BATCH = 64


def main() -> None:
    """Compares both on the held-out items."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", type=Path, default=Path("runs/study"))
    parser.add_argument("--users", type=int, default=0, help="0 takes all")
    options = parser.parse_args()
    if not (options.study / "summary.json").is_file():
        sys.exit(f"--study {options.study}: no finished study there; run `make study` first")
    recommender = Recommender.from_pretrained(options.study / "cgen", guide="off")
    catalog = Catalog.load(options.study / "data")
    split = leave_one_out(Histories.load(options.study / "data", catalog))
    users = np.linspace(0, len(split) - 1, options.users or len(split)).astype(int)
    holdouts = [split.test(int(user)) for user in users]
    histories = [[catalog.item(int(row)).item_id for row in one.history] for one in holdouts]
    answers: dict[Decode, list[list[int]]] = {decode: [] for decode in get_args(Decode)}
    seconds = dict.fromkeys(answers, 0.0)
    for start in range(0, len(users), BATCH):
        for decode, lists in answers.items():
            began = time.perf_counter()
            found = recommender.recommend_batch(histories[start : start + BATCH], K, decode=decode)
            seconds[decode] += time.perf_counter() - began
            lists += [[catalog.row(item.item_id) for item in one] for one in found]
    relevant = [[int(one.target)] for one in holdouts]
    table = [
        (
            f"--decode {decode}",
            f"{hit_rate(lists, relevant, K).mean():.3f}",
            f"{ndcg(lists, relevant, K).mean():.3f}",
            f"{seconds[decode] / seconds['list']:.2f}",
        )
        for decode, lists in answers.items()
    ]
    question = f"Ranking items or writing a list: the study's model, {len(users)} users"
    publish("ranking", question, markdown(("answers", "HR@10", "NDCG@10", "time"), table))


if __name__ == "__main__":
    main()
