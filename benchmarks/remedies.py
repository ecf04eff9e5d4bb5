"""Why the three methods lose to their teacher on MovieLens-100K and Office, and what helps.

Every remedy is tried with one seed and judged on the validation items. The best of each method is
then trained with all seeds, and scored on the test items beside the method as it was.

python -m benchmarks.remedies [--domains movielens office] [--seeds 3] [--jobs 1]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from benchmarks.report import markdown, publish
from benchmarks.study import DOMAINS, Domain, Study, cells, difference, side_by_side
from benchmarks.weaknesses import LAST_TRAINED, TEST, VALID, ask_model, ask_teacher, measured

from incatalog.artifacts import read_json
from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories, LeaveOneOut, leave_one_out

_METHODS = ("cgen", "token", "ret")
_METRIC = "NDCG@10"
_SHOWN = ("HR@10", _METRIC)
_ITEMS = (LAST_TRAINED, VALID, TEST)
_SPLITS = ("valid", "test")
_TEACHER = "sasrec"
_CUT_BY = ("target", "history")


@dataclass(frozen=True)
class Remedy:
    """What is done against a weakness.

    Attributes:
        method: The method it is for.
        name: Its name in the table; empty for the method as it was.
        flags: What is added to the method's recipe.
    """

    method: str
    name: str = ""
    flags: tuple[str, ...] = ()

    @property
    def run(self) -> str:
        """Name of its run folder."""
        return "-".join([self.method, *self.name.replace(",", "").split()])


_FIFTY = ("--max-history", "50")
_VECTORS = ("--train-item-vectors",)
# With dropout, and as the validation items say it was best.
_BEST = (
    *("--tiny-dropout", "0.1", "--keep-best", "--exclude-seen"),
    *("--validate-every", "5", "--checkpoint-every", "0"),
)
_THINNED = ("--history-dropout", "0.2")
REMEDIES = {
    "movielens": (
        Remedy("cgen", "history of 50", (*_FIFTY, "--epochs", "10")),
        Remedy("cgen", "longer, dropout, best", (*_BEST, "--epochs", "80")),
        Remedy("cgen", "thinned history", _THINNED),
        Remedy("token", "history of 50", (*_FIFTY, "--epochs", "10")),
        Remedy("token", "longer, dropout, best", (*_BEST, "--epochs", "70")),
        Remedy("token", "thinned history", _THINNED),
        Remedy("ret", "trained vectors, history of 50", (*_VECTORS, *_FIFTY, "--epochs", "10")),
        Remedy("ret", "longer, dropout, best", (*_BEST, "--epochs", "30")),
        Remedy("ret", "trained vectors", _VECTORS),
    ),
    "office": (
        Remedy("cgen", "half the epochs", ("--epochs", "7")),
        Remedy("cgen", "thinned history", _THINNED),
        Remedy("token", "half the epochs", ("--epochs", "10")),
        Remedy("token", "thinned history", _THINNED),
        Remedy("ret", "half the epochs", ("--epochs", "4")),
        Remedy("ret", "trained vectors", _VECTORS),
    ),
}


@dataclass(frozen=True)
class Trials:
    """The remedies of one domain.

    Attributes:
        study: Where its runs lie.
        domain: The domain.
        remedies: What is tried: every method as it was, and its remedies.
        seeds: Trainings of the best remedies.
    """

    study: Study
    domain: Domain
    remedies: tuple[Remedy, ...]
    seeds: tuple[int, ...]

    @property
    def methods(self) -> list[str]:
        """The methods of which something is tried."""
        return list(dict.fromkeys(remedy.method for remedy in self.remedies))


# Without the teacher's items behind it, which train the later places of a list.
_NEXT_ITEM = ("--list-length", "1")
# SASRec trained without what it has and the methods have not.
_WEAKENED = {
    "trained on windows of 10 items": ("--max-length", "10"),
    "trained without dropout": ("--dropout", "0"),
}


def main() -> None:
    """Trains what is not trained yet, and writes ``results/remedies.md``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/study"), help="Folder of all runs.")
    parser.add_argument(
        "--domains",
        nargs="+",
        choices=sorted(DOMAINS),
        default=[name for name, domain in DOMAINS.items() if domain.trained],
    )
    parser.add_argument("--methods", nargs="+", choices=_METHODS, default=list(_METHODS))
    parser.add_argument("--seeds", type=int, default=3, help="Trainings of the best remedies.")
    parser.add_argument("--jobs", type=int, default=1, help="Trainings at a time.")
    parser.add_argument("--threads", type=int, default=1, help="Threads of each training.")
    parser.add_argument(
        "--finished", action="store_true", help="Leave out what is not trained yet; one seed."
    )
    options = parser.parse_args()
    study = Study(options.out.resolve(), options.threads)
    seeds = (0,) if options.finished else tuple(range(options.seeds))
    sections = []
    for name in options.domains:
        domain = DOMAINS[name]
        remedies = tuple(one for one in tried(domain) if one.method in options.methods)
        trials = Trials(study, domain, remedies, seeds)
        if options.finished:
            done = [one for one in remedies if trained(trials, one.method, one.run)]
            trials = replace(trials, remedies=tuple(done))
        else:
            train(trials, options.jobs)
        sections.append(f"## {name}\n\n{section(trials, only_finished=options.finished)}")
    publish("remedies", "What helps the methods against their teacher", "\n\n".join(sections))


def train(trials: Trials, jobs: int) -> None:
    """All runs of a domain."""
    study, domain = trials.study, trials.domain
    study.texts(domain)
    for seed in trials.seeds:
        study.teacher(domain, seed)
        if "token" in trials.methods:
            study.codes(domain, seed)
    alone = partial(study.model, domain, seed=0, extra=_NEXT_ITEM)
    side_by_side(
        jobs,
        [
            *(partial(chain, trials, one, 0) for one in trials.remedies),
            *(partial(alone, method, name=f"{method}-next-item") for method in trials.methods),
        ],
    )
    best = [chosen(trials, method) for method in trials.methods]
    side_by_side(
        jobs,
        [partial(chain, trials, one, seed) for seed in trials.seeds for one in with_plain(best)],
    )


def section(trials: Trials, *, only_finished: bool) -> str:
    """The tables of a domain."""
    best = [chosen(trials, method) for method in trials.methods]
    data = trials.study.data(trials.domain)
    catalog = Catalog.load(data, trials.domain.name)
    split = leave_one_out(Histories.load(data, catalog))
    parts = {
        "What was tried": f"{screening(trials)}{not_tried(trials)}",
        "The best of each method": result(trials, best),
        "Trained on the next item alone": next_item(trials, split, only_finished=only_finished),
        "SASRec without what it has": weakened(trials, split, catalog, only_finished=only_finished),
        "Learned by heart": by_heart(trials, split, catalog),
        "Asked otherwise": asked_otherwise(trials, split),
        "Where they lose": diagnosis(trials, best),
    }
    return "\n\n".join(f"### {title}\n\n{part}" for title, part in parts.items())


def chain(trials: Trials, remedy: Remedy, seed: int) -> None:
    """The runs of a remedy with one seed."""
    for split in _SPLITS if seed == 0 else ("test",):
        scored(trials, remedy, seed, split)


def tried(domain: Domain) -> list[Remedy]:
    """Every method as it was, and all its remedies."""
    found: list[Remedy] = []
    for method in _METHODS:
        own = [one for one in REMEDIES[domain.name] if one.method == method]
        found += [Remedy(method), *own]
    return found


def trained(trials: Trials, *runs: str) -> bool:
    """Whether runs with the first seed have come to their end."""
    folder = trials.study.of(trials.domain, 0)
    costs = [folder / f"{run}.cost.json" for run in runs]
    return all(cost.exists() and read_json(cost).get("finished") for cost in costs)


def scored(trials: Trials, remedy: Remedy, seed: int, split: str) -> pl.DataFrame:
    """The metrics of each user, after the training of a remedy."""
    model = trials.study.model(
        trials.domain, remedy.method, seed, name=remedy.run, extra=remedy.flags
    )
    return trials.study.scores(
        trials.domain, model, seed, name=f"{remedy.run}-{split}", extra=["--split", split]
    )


def teacher_scores(
    trials: Trials, seed: int, split: str, name: str = "teacher", extra: Sequence[str] = ()
) -> pl.DataFrame:
    """The metrics of each user, of the teacher or of one fitted otherwise."""
    model = trials.study.teacher(trials.domain, seed, name=name, extra=extra)
    return trials.study.scores(
        trials.domain, model, seed, name=f"{name}-{split}", extra=["--split", split]
    )


def chosen(trials: Trials, method: str) -> Remedy:
    """The remedy of a method with the best validation items, or none."""
    own = [remedy for remedy in trials.remedies if remedy.method == method]
    return max(own, key=lambda one: scored(trials, one, 0, "valid")[_METRIC].mean())


def next_item(trials: Trials, split: LeaveOneOut, *, only_finished: bool) -> str:
    """The methods without lists, in as many epochs, asked for one item and ranked as ever."""
    rows = []
    for method in trials.methods:
        name = f"{method}-next-item"
        if only_finished and not trained(trials, name):
            continue
        model = trials.study.model(trials.domain, method, 0, name=name, extra=_NEXT_ITEM)
        alone = [measured(ask_model(model, listed=1), split, TEST)]
        plain = [scored(trials, Remedy(method), 0, "test")]
        minutes = f"{trials.study.minutes(trials.domain, name, [0]):.1f}"
        rows.append([method, *cells(alone, _SHOWN), difference(alone, plain, _METRIC), minutes])
    header = ("method", "HR@10", "NDCG@10", "less the method as it was", "minutes")
    return f"{markdown(header, rows)}\n\nOne seed, test items; `{' '.join(_NEXT_ITEM)}`."


def weakened(trials: Trials, split: LeaveOneOut, catalog: Catalog, *, only_finished: bool) -> str:
    """The teacher with something taken away."""
    plain = [teacher_scores(trials, 0, "test")]
    asked = ask_teacher(trials.study.teacher(trials.domain, 0), catalog, newest=10)
    runs = {
        "as it is": plain,
        "asked with the newest 10 items": [measured(asked, split, TEST)],
    }
    for weakness, flags in _WEAKENED.items():
        name = "-".join(["teacher", *weakness.split()])
        if trained(trials, name) or not only_finished:
            runs[weakness] = [teacher_scores(trials, 0, "test", name, flags)]
    rows = [
        [name, *cells(run, _SHOWN), "" if run is plain else difference(run, plain, _METRIC)]
        for name, run in runs.items()
    ]
    header = ("SASRec", "HR@10", "NDCG@10", "less SASRec as it is")
    return f"{markdown(header, rows)}\n\nOne seed, test items."


def by_heart(trials: Trials, split: LeaveOneOut, catalog: Catalog) -> str:
    """How much better models rank what they were trained on than what they were not."""
    asks = {_TEACHER: ask_teacher(trials.study.teacher(trials.domain, 0), catalog)}
    asks |= {
        method: ask_model(trials.study.model(trials.domain, method, 0)) for method in trials.methods
    }
    rows = [
        [name, *(cells([measured(ask, split, item)], [_METRIC])[0] for item in _ITEMS)]
        for name, ask in asks.items()
    ]
    return f"{markdown(('NDCG@10', *_ITEMS), rows)}\n\nOne seed, recipes as they are."


def asked_otherwise(trials: Trials, split: LeaveOneOut) -> str:
    """What another length of the prompt would change, and another order of the likeliest items."""
    rows = []
    for method in trials.methods:
        model = trials.study.model(trials.domain, method, 0)
        plain = [scored(trials, Remedy(method), 0, "test")]
        others = {}
        for shown in (5, 20):
            extra = ("--split", "test", "--max-history", shown)
            name = f"{method}-{shown}-shown-test"
            others[f"{shown} items shown"] = [
                trials.study.scores(trials.domain, model, 0, name=name, extra=extra)
            ]
        if method == "cgen":
            asked = ask_model(model, per_token=True)
            others["ranked per token of the title"] = [measured(asked, split, TEST)]
        rows.append([method, "as it is", *cells(plain, _SHOWN), ""])
        for name, runs in others.items():
            rows.append([method, name, *cells(runs, _SHOWN), difference(runs, plain, _METRIC)])
    header = ("method", "asked", "HR@10", "NDCG@10", "less the method as it was")
    return f"{markdown(header, rows)}\n\nOne seed, test items; nothing is trained anew."


def screening(trials: Trials) -> str:
    """All that was tried, with one seed."""
    header = (
        "method", "remedy", "flags", "validation NDCG@10", "test HR@10", "test NDCG@10",
        "less the method as it was", "less SASRec", "minutes",
    )  # fmt: skip
    rows: list[list[object]] = [table_row(trials, None, [0])]
    rows += [table_row(trials, remedy, [0]) for remedy in trials.remedies]
    return (
        f"{markdown(header, rows)}\n\nOne seed. Differences are of the test NDCG@10, user by user; "
        "in brackets 95 % of the bootstrap over users. Minutes on one processor core, validations "
        "included."
    )


def not_tried(trials: Trials) -> str:
    """What of the study is not trained yet."""
    every = tried(trials.domain)
    left = [f"{one.method} {one.name or 'as it is'}" for one in every if one not in trials.remedies]
    return f"\n\nNot trained yet: {'; '.join(left)}." if left else ""


def table_row(trials: Trials, remedy: Remedy | None, seeds: Sequence[int]) -> list[object]:
    """A line of a table; of the teacher, if there is no remedy."""
    teacher = [teacher_scores(trials, seed, "test") for seed in seeds]
    if remedy is None:
        valid = teacher_scores(trials, 0, "valid")[_METRIC].mean()
        minutes = trials.study.minutes(trials.domain, "teacher", seeds)
        measured = cells(teacher, _SHOWN)
        return [_TEACHER, "", "", f"{valid:.4f}", *measured, "", "", f"{minutes:.1f}"]
    runs = [scored(trials, remedy, seed, "test") for seed in seeds]
    plain = [scored(trials, Remedy(remedy.method), seed, "test") for seed in seeds]
    valid = scored(trials, remedy, 0, "valid")[_METRIC].mean()
    return [
        remedy.method,
        remedy.name,
        f"`{' '.join(remedy.flags)}`" if remedy.flags else "",
        f"{valid:.4f}",
        *cells(runs, _SHOWN),
        difference(runs, plain, _METRIC) if remedy.name else "",
        difference(runs, teacher, _METRIC),
        f"{trials.study.minutes(trials.domain, remedy.run, seeds):.1f}",
    ]


def result(trials: Trials, best: Sequence[Remedy]) -> str:
    """The methods as they were and with their best remedy, with all seeds."""
    header = (
        "method", "remedy", "HR@10", "NDCG@10", "less the method as it was", "less SASRec",
        "minutes",
    )  # fmt: skip
    rows = []
    for remedy in [None, *with_plain(best)]:
        method, name, _, _, *rest = table_row(trials, remedy, trials.seeds)
        rows.append([method, name, *rest])
    return (
        f"{markdown(header, rows)}\n\nSeeds: {len(trials.seeds)}. Test items. Chosen by the "
        "validation items of the first seed. Each user counts with the mean of the seeds."
    )


def diagnosis(trials: Trials, best: Sequence[Remedy]) -> str:
    """Where the methods lose: to whom, on which items, and how like their teacher they are."""
    header = (
        "method", "remedy", *(f"NDCG@10, {' '.join(kind)}" for kind in segments(trials, "teacher")),
        "of the teacher's ten items",
    )  # fmt: skip
    rows: list[list[object]] = []
    teacher = teacher_scores(trials, 0, "test").sort("user_id")["items"].to_list()
    for remedy in [None, *with_plain(best)]:
        if remedy is None:
            rows.append([_TEACHER, "", *segments(trials, "teacher").values(), ""])
            continue
        own = scored(trials, remedy, 0, "test").sort("user_id")["items"].to_list()
        shared = np.mean(
            [len({*some} & {*others}) for some, others in zip(own, teacher, strict=True)]
        )
        found = segments(trials, remedy.run).values()
        rows.append([remedy.method, remedy.name, *found, f"{shared:.1f}"])
    return f"{markdown(header, rows)}\n\nTest items, first seed."


def with_plain(best: Sequence[Remedy]) -> list[Remedy]:
    """Each method as it was and with its remedy."""
    found = [one for remedy in best for one in (Remedy(remedy.method), remedy)]
    return list(dict.fromkeys(found))


def segments(trials: Trials, name: str) -> dict[tuple[str, str], str]:
    """NDCG of some kinds of users."""
    folder = trials.study.of(trials.domain, 0) / "evaluation" / f"{name}-test"
    return {
        (row["by"], row["segment"]): f"{row['metrics'][_METRIC]['value']:.4f}"
        for row in read_json(folder / "summary.json")["segments"]
        if row["by"] in _CUT_BY
    }


if __name__ == "__main__":
    main()
