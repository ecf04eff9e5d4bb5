"""Are items that a teacher does not know recommended by what they share with those it knows?

Some items are hidden from the data that a teacher is fitted on; then the catalog has them again.
Each time that a user chose one of them is a question: is it among the first ten of the guide after
the history before it? Beside what the guide does (the mean of the probabilities of the items that
are nearest by words and categories) stand the lowest log-probability of all, and the teacher
that was fitted with them.

    python -m benchmarks.new_items --data runs/study/data --out runs/new-items
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from incatalog.cli import main as command
from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories
from incatalog.recommender import neighbours
from incatalog.recommender.guide import Guide
from incatalog.recommender.items import ModelItems
from incatalog.teacher.teacher import load_teacher

SHARE, TOP, NEWEST = 0.05, 10, 5
_COUNTS = (1, 2, 3, 5, 10)


class _Items:
    """A catalog as a guide looks at it."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog, self.grounding = catalog, self


def questions(histories: Histories, hidden: np.ndarray) -> tuple[list[np.ndarray], list[int]]:
    """The newest choices of hidden items, and the histories before them."""
    before, chosen = [], []
    for user in range(len(histories)):
        rows = histories.history(user)
        for place in range(max(1, len(rows) - NEWEST), len(rows)):
            if hidden[rows[place]]:
                before.append(rows[:place][~hidden[rows[:place]]])
                chosen.append(int(rows[place]))
    return before, chosen


def hits(scores: np.ndarray, before: list[np.ndarray], chosen: list[int]) -> np.ndarray:
    """Which questions have their answer among the first, of what was not seen."""
    scores = scores.copy()
    for line, seen in zip(scores, before, strict=True):
        line[seen] = -np.inf
    own = scores[np.arange(len(chosen)), chosen]
    return np.asarray((scores > own[:, None]).sum(axis=1) < TOP)


def without(data: Path, hidden: np.ndarray, out: Path) -> Catalog:
    """Prepared data without some items."""
    catalog = Catalog.load(data)
    histories = Histories.load(data, catalog)
    kept = [item for row, item in enumerate(catalog.items) if not hidden[row]]
    smaller = Catalog.from_items(kept, catalog.name)
    moved = np.cumsum(~hidden) - 1
    lists = [histories.history(user) for user in range(len(histories))]
    lists = [moved[rows[~hidden[rows]]] for rows in lists]
    pairs = [(name, rows) for name, rows in zip(histories.user_ids, lists, strict=True)]
    pairs = [pair for pair in pairs if len(pair[1]) >= 3]
    smaller.save(out)
    Histories.from_lists(*map(list, zip(*pairs, strict=True))).save(out, smaller)
    return Catalog.load(out)


def measured(data: Path, out: Path, kind: str, seed: int) -> dict[str, list[bool]]:
    """Whether each question was answered, each way."""
    catalog = Catalog.load(data)
    hidden = np.random.default_rng(seed).random(len(catalog)) < SHARE
    before, chosen = questions(Histories.load(data, catalog), hidden)
    folder = out / f"{kind}-{seed}"
    smaller = without(data, hidden, folder / "data")
    for source, name in ((folder / "data", "hidden"), (data, "all")):
        if not (out / name / f"{kind}-{seed}").exists():
            flags = ["--data", str(source), "--out", str(out / name / f"{kind}-{seed}")]
            assert command(["teacher", "fit", "--kind", kind, "--exclude-seen", *flags]) == 0
    guide = Guide(load_teacher(out / "hidden" / f"{kind}-{seed}", smaller, "cpu"), smaller)
    items: ModelItems = _Items(catalog)  # type: ignore[assignment]
    found = np.stack([line for line in guide.log_weights(before, items) if line is not None])
    nearest = neighbours.NEAREST
    answers = {f"the guide, {nearest} nearest": hits(found, before, chosen)}
    rows = np.flatnonzero(hidden)
    known = np.flatnonzero(~hidden)
    lowest = found.copy()
    lowest[:, rows] = found[:, known].min(axis=1, keepdims=True)
    answers["lowest"] = hits(lowest, before, chosen)
    for count in _COUNTS:
        neighbours.NEAREST = count
        shares = guide._neighbours.shares([catalog.items[row] for row in rows])
        other = found.copy()
        other[:, rows] = (shares @ found[:, known].T).T
        answers[f"mean of the logarithms of {count}"] = hits(other, before, chosen)
        other[:, rows] = np.log((shares @ np.exp(found[:, known]).T).T + 1e-30)
        answers[f"mean of {count}"] = hits(other, before, chosen)
    neighbours.NEAREST = nearest
    whole = Guide(load_teacher(out / "all" / f"{kind}-{seed}", catalog, "cpu"), catalog)
    seen = np.stack([line for line in whole.log_weights(before, items) if line is not None])
    answers["fitted with them"] = hits(seen, before, chosen)
    return {name: hit.tolist() for name, hit in answers.items()}


def main() -> None:
    """Prints hit rates of hidden items, all seeds together."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kinds", nargs="+", default=["knn", "ease"])
    parser.add_argument("--seeds", type=int, default=3)
    settings = parser.parse_args()
    report = {}
    for kind in settings.kinds:
        every: dict[str, list[bool]] = {}
        for seed in range(settings.seeds):
            for name, hit in measured(settings.data, settings.out, kind, seed).items():
                every.setdefault(name, []).extend(hit)
        report[kind] = {name: round(float(np.mean(hit)), 4) for name, hit in every.items()}
        report[kind]["questions"] = len(every["lowest"])
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
