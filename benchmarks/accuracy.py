"""How accurate the three methods are beside their teacher: MovieLens-100K and Office Products.

Everything from raw data to the table; hours on a laptop, and goes on where it was stopped.

python -m benchmarks.accuracy [--seeds 3] [--jobs 2]
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from benchmarks.report import markdown, publish
from benchmarks.study import DOMAINS, METRICS, Domain, Study, cells, difference, side_by_side

_TRAINED = ("cgen", "token", "ret")


def main() -> None:
    """Trains what is not trained yet, and writes ``results/accuracy.md``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/study"), help="Folder of all runs.")
    parser.add_argument("--domains", nargs="+", choices=sorted(DOMAINS), default=list(DOMAINS))
    parser.add_argument("--seeds", type=int, default=3, help="Trainings of each method.")
    parser.add_argument("--jobs", type=int, default=2, help="Trainings at a time.")
    parser.add_argument("--threads", type=int, default=1, help="Threads of each training.")
    options = parser.parse_args()
    study = Study(options.out.resolve(), options.threads)
    domains, seeds = [DOMAINS[name] for name in options.domains], range(options.seeds)
    for domain in domains:
        study.vectors(domain)
    side_by_side(
        options.jobs, [partial(chain, study, domain, seed) for domain in domains for seed in seeds]
    )
    publish(
        "accuracy",
        "Accuracy of the three methods beside their teacher",
        "\n\n".join(section(study, domain, list(seeds)) for domain in domains),
    )


def chain(study: Study, domain: Domain, seed: int) -> None:
    """All runs of one seed."""
    study.scores(domain, "popularity", seed)
    study.scores(domain, study.teacher(domain, seed), seed, name="sasrec")
    for method in _TRAINED:
        study.scores(domain, study.model(domain, method, seed), seed)


def section(study: Study, domain: Domain, seeds: list[int]) -> str:
    """The table of a domain."""
    tables = {
        "popularity": [study.scores(domain, "popularity", seeds[0])],
        "sasrec": [
            study.scores(domain, study.teacher(domain, seed), seed, name="sasrec") for seed in seeds
        ],
    }
    minutes = {"popularity": "", "sasrec": f"{study.minutes(domain, 'teacher', seeds):.1f}"}
    for method in _TRAINED:
        tables[method] = [
            study.scores(domain, study.model(domain, method, seed), seed) for seed in seeds
        ]
        minutes[method] = f"{study.minutes(domain, method, seeds):.1f}"
    rows = []
    for name, runs in tables.items():
        against = difference(runs, tables["sasrec"], "NDCG@10") if name in _TRAINED else ""
        rows.append([name, *cells(runs), against, minutes[name]])
    header = ("method", *METRICS, "NDCG@10 less SASRec's", "minutes of training")
    users = len(tables["popularity"][0])
    return (
        f"## {domain.name}: {users} users, {len(seeds)} seeds\n\n{markdown(header, rows)}\n\n"
        "Held-out last item of every user, seen items excluded. In brackets 95 % of the bootstrap "
        "over users, each of whom counts with the mean of the seeds; `seeds` gives the least and "
        "the greatest mean of a seed. Minutes on one processor core, in the mean over the seeds; "
        "the language models' come on top of the teacher's, which extends their lists."
    )


if __name__ == "__main__":
    main()
