"""How accurate are the three methods beside the best recommenders that are no language models?

Popularity, words, item-kNN, EASE, SASRec and their blend; then each method as a ranking of its
first place and as the list that a chat writes, alone and guided by the blend. Everything from raw
data to the table; hours on a laptop, and goes on where it was stopped. The tables of domains that
are not asked for stay as they are.

python -m benchmarks.accuracy [--seeds 3] [--jobs 2]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from benchmarks.report import markdown, publish, publish_part
from benchmarks.study import (
    COUNTING,
    DOMAINS,
    METRICS,
    Domain,
    Study,
    cells,
    difference,
    side_by_side,
)

from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories, leave_one_out

_TRAINED = ("cgen", "token", "ret")
# How a trained model is asked: what its row's name ends with, and the flags.
_ASKED = {
    "": ("--decode", "beam", "--guide", "off"),
    ", list": ("--decode", "list", "--guide", "off"),
    ", guided": ("--decode", "beam"),
    ", guided, list": ("--decode", "list"),
}
# An item with fewer trainings is cold.
_COLD = 5
Tables = dict[str, list[pl.DataFrame]]


def main() -> None:
    """Trains what is not trained yet, and writes ``results/accuracy.md``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/study"), help="Folder of all runs.")
    parser.add_argument("--domains", nargs="+", choices=sorted(DOMAINS), default=list(DOMAINS))
    parser.add_argument("--methods", nargs="*", choices=_TRAINED, default=list(_TRAINED))
    parser.add_argument("--seeds", type=int, default=3, help="Trainings of each method.")
    parser.add_argument("--jobs", type=int, default=2, help="Trainings at a time.")
    parser.add_argument("--threads", type=int, default=1, help="Threads of each training.")
    options = parser.parse_args()
    study = Study(options.out.resolve(), options.threads)
    domains = [DOMAINS[name] for name in options.domains]
    seeds = {domain: range(min(options.seeds, domain.seeds)) for domain in domains}
    methods = {domain: options.methods if domain.trained else [] for domain in domains}
    for domain in domains:
        for kind in COUNTING:
            study.counting(domain, kind)
    side_by_side(
        options.jobs,
        [
            partial(chain, study, domain, seed, methods[domain])
            for domain in domains
            for seed in seeds[domain]
        ],
    )
    publish(
        "accuracy", "Accuracy of the three methods beside the best recommenders at hand", _ABOUT
    )
    for domain in domains:
        body = section(study, domain, list(seeds[domain]), methods[domain])
        publish_part("accuracy", "accuracy", domain.name, body)


def chain(study: Study, domain: Domain, seed: int, methods: Sequence[str]) -> Tables:
    """All runs of one seed; the metrics of each user by row of the table."""
    tables = {"popularity": study.scores(domain, "popularity", seed)}
    for kind in COUNTING:
        tables[kind] = study.scores(domain, study.counting(domain, kind), seed)
    tables["sasrec"] = study.scores(domain, study.teacher(domain, seed), seed, name="sasrec")
    blend = study.blend(domain, seed)
    tables["blend"] = study.scores(domain, blend, seed)
    for method in methods:
        model = study.model(domain, method, seed)
        # The guide comes last, as it changes the model's folder.
        for asked, flags in _ASKED.items():
            if "guided" in asked:
                study.guide(domain, model, blend, seed)
            name = f"{method}{asked.replace(', ', '-')}"
            tables[f"{method}{asked}"] = study.scores(domain, model, seed, name=name, extra=flags)
    return {name: [table] for name, table in tables.items()}


def section(study: Study, domain: Domain, seeds: list[int], methods: Sequence[str]) -> str:
    """The table of a domain."""
    tables: Tables = {}
    for seed in seeds:
        for name, found in chain(study, domain, seed, methods).items():
            tables.setdefault(name, []).extend(found)
    others = ("popularity", *COUNTING, "sasrec", "blend")
    best = max(others, key=lambda name: np.mean([t["NDCG@10"].mean() for t in tables[name]]))
    cold = cold_users(study, domain)
    rows = []
    for name, runs in tables.items():
        against = "" if name == best else difference(runs, tables[best], "NDCG@10")
        rows.append([name, *cells(runs), against, f"{_mean(runs, cold):.4f}"])
    header = ("method", *METRICS, f"NDCG@10 less that of {best}", "NDCG@10, cold")
    users = len(tables["popularity"][0])
    text = (
        f"{users} users, {len(seeds)} seeds.\n\n{markdown(header, rows)}\n\n"
        f"{len(cold)} users whose held-out item is cold: fewer than {_COLD} trainings. "
    )
    if methods:
        minutes = [f"{m} {study.minutes(domain, m, seeds):.1f}" for m in ("teacher", *methods)]
        shares = [f"{method} {_shares(study, domain, method, seeds)}" for method in methods]
        text += (
            f"Minutes of one processor core: {', '.join(minutes)}. Weights of the blend, for "
            f"rankings and for lists, fitted on validation items: {'; '.join(shares)}."
        )
    return text


_ABOUT = (
    "Held-out last item of every user, seen items excluded. Methods rank all items at the first "
    "place; `list` is what a chat writes, each item the best at its place and the first. In "
    "brackets 95 % "
    "of the bootstrap over users, each of whom counts with the mean of the seeds; `seeds` gives "
    "the least and the greatest mean of a seed. The language models' minutes come on top of those "
    "of the teacher, which extends their lists."
)


def cold_users(study: Study, domain: Domain) -> set[str]:
    """Users whose held-out item has few trainings."""
    folder = study.data(domain)
    split = leave_one_out(Histories.load(folder, Catalog.load(folder)))
    trained = np.concatenate([split.train(user) for user in range(len(split))])
    counts = np.bincount(trained, minlength=len(Catalog.load(folder)))
    targets = [split.test(user).target for user in range(len(split))]
    return {
        user for user, target in zip(split.user_ids, targets, strict=True) if counts[target] < _COLD
    }


def _mean(runs: Sequence[pl.DataFrame], users: set[str]) -> float:
    found = [run.filter(pl.col("user_id").is_in(users))["NDCG@10"].to_numpy() for run in runs]
    return float(np.concatenate(found).mean()) if users else float("nan")


def _shares(study: Study, domain: Domain, method: str, seeds: Sequence[int]) -> str:
    guides = [study.of(domain, seed) / method / "guide.json" for seed in seeds]
    fitted = [json.loads(path.read_text()) for path in guides]
    return ", ".join(f"{one['ranking']:.2f} and {one['list']:.2f}" for one in fitted)


if __name__ == "__main__":
    main()
