"""Why the three methods lose to their teacher on MovieLens-100K, and what helps.

Every remedy is tried with one seed and judged on the validation items. The best of each method is
then trained with all seeds, and scored on the test items beside the method as it was.

python -m benchmarks.remedies [--seeds 3] [--jobs 1]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from benchmarks.report import markdown, publish
from benchmarks.study import DOMAINS, Study, cells, difference, side_by_side
from benchmarks.weaknesses import LAST_TRAINED, TEST, VALID, ask_model, ask_teacher, measured

from reclm.artifacts import read_json
from reclm.data.catalog import Catalog
from reclm.data.interactions import Histories, LeaveOneOut, leave_one_out

_DOMAIN = DOMAINS["movielens"]
_METHODS = ("cgen", "token", "ret")
_METRIC = "NDCG@10"
_SHOWN = ("HR@10", _METRIC)
_ITEMS = (LAST_TRAINED, VALID, TEST)
_SPLITS = ("valid", "test")
_TEACHER = "sasrec"
_SEGMENTS = (("target", "head"), ("target", "tail"), ("history", "21–50"), ("history", "over 50"))


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
REMEDIES = (
    Remedy("cgen", "history of 50", (*_FIFTY, "--epochs", "10")),
    Remedy("cgen", "longer, dropout, best", (*_BEST, "--epochs", "80")),
    Remedy("cgen", "thinned history", ("--history-dropout", "0.2")),
    Remedy("token", "history of 50", (*_FIFTY, "--epochs", "10")),
    Remedy("token", "longer, dropout, best", (*_BEST, "--epochs", "70")),
    Remedy("token", "thinned history", ("--history-dropout", "0.2")),
    Remedy("ret", "trained vectors, history of 50", (*_VECTORS, *_FIFTY, "--epochs", "10")),
    Remedy("ret", "longer, dropout, best", (*_BEST, "--epochs", "30")),
    Remedy("ret", "trained vectors", _VECTORS),
)


# SASRec trained without what it has and the methods have not.
_WEAKENED = {
    "trained on windows of 10 items": ("--max-length", "10"),
    "trained without dropout": ("--dropout", "0"),
}


def main() -> None:
    """Trains what is not trained yet, and writes ``results/remedies.md``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/study"), help="Folder of all runs.")
    parser.add_argument("--methods", nargs="+", choices=_METHODS, default=list(_METHODS))
    parser.add_argument("--seeds", type=int, default=3, help="Trainings of the best remedies.")
    parser.add_argument("--jobs", type=int, default=1, help="Trainings at a time.")
    parser.add_argument("--threads", type=int, default=1, help="Threads of each training.")
    parser.add_argument(
        "--finished", action="store_true", help="Leave out what is not trained yet; one seed."
    )
    options = parser.parse_args()
    study = Study(options.out.resolve(), options.threads)
    seeds = [0] if options.finished else list(range(options.seeds))
    remedies = [remedy for remedy in tried() if remedy.method in options.methods]
    if options.finished:
        remedies = [
            remedy
            for remedy in remedies
            if trained(study, remedy.run) and trained(study, remedy.method)
        ]
    methods = list(dict.fromkeys(remedy.method for remedy in remedies))
    study.vectors(_DOMAIN)
    for seed in seeds:
        study.teacher(_DOMAIN, seed)
        if "token" in methods:
            study.codes(_DOMAIN, seed)
    side_by_side(options.jobs, [partial(chain, study, one, 0) for one in remedies])
    best = [chosen(study, remedies, method) for method in methods]
    side_by_side(
        options.jobs,
        [partial(chain, study, one, seed) for seed in seeds for one in with_plain(best)],
    )
    catalog = Catalog.load(study.data(_DOMAIN))
    split = leave_one_out(Histories.load(study.data(_DOMAIN), catalog))
    parts = {
        "What was tried": f"{screening(study, remedies)}{not_tried(remedies)}",
        "The best of each method": result(study, best, seeds),
        "SASRec without what it has": weakened(
            study, split, catalog, only_finished=options.finished
        ),
        "Learned by heart": by_heart(study, split, catalog, methods),
        "Decoding": decoding(study, split),
        "Where they lose": diagnosis(study, best),
    }
    body = "\n\n".join(f"## {title}\n\n{part}" for title, part in parts.items())
    publish("remedies", "What helps the methods against their teacher", body)


def chain(study: Study, remedy: Remedy, seed: int) -> None:
    """The runs of a remedy with one seed."""
    for split in _SPLITS if seed == 0 else ("test",):
        scored(study, remedy, seed, split)


def tried() -> list[Remedy]:
    """Every method as it was, and all its remedies."""
    found: list[Remedy] = []
    for method in _METHODS:
        found += [Remedy(method), *(one for one in REMEDIES if one.method == method)]
    return found


def trained(study: Study, run: str) -> bool:
    """Whether a run with the first seed has come to its end."""
    cost = study.of(_DOMAIN, 0) / f"{run}.cost.json"
    return cost.exists() and bool(read_json(cost).get("finished"))


def scored(study: Study, remedy: Remedy, seed: int, split: str) -> pl.DataFrame:
    """The metrics of each user, after the training of a remedy."""
    model = study.model(_DOMAIN, remedy.method, seed, name=remedy.run, extra=remedy.flags)
    return study.scores(
        _DOMAIN, model, seed, name=f"{remedy.run}-{split}", extra=["--split", split]
    )


def teacher_scores(
    study: Study, seed: int, split: str, name: str = "teacher", extra: Sequence[str] = ()
) -> pl.DataFrame:
    """The metrics of each user, of the teacher or of one fitted otherwise."""
    model = study.teacher(_DOMAIN, seed, name=name, extra=extra)
    return study.scores(_DOMAIN, model, seed, name=f"{name}-{split}", extra=["--split", split])


def chosen(study: Study, remedies: Sequence[Remedy], method: str) -> Remedy:
    """The remedy of a method with the best validation items, or none."""
    own = [remedy for remedy in remedies if remedy.method == method]
    return max(own, key=lambda one: scored(study, one, 0, "valid")[_METRIC].mean())


def weakened(study: Study, split: LeaveOneOut, catalog: Catalog, *, only_finished: bool) -> str:
    """The teacher with something taken away."""
    plain = [teacher_scores(study, 0, "test")]
    asked = ask_teacher(study.teacher(_DOMAIN, 0), catalog, newest=10)
    runs = {
        "as it is": plain,
        "asked with the newest 10 items": [measured(asked, split, TEST)],
    }
    for weakness, flags in _WEAKENED.items():
        name = "-".join(["teacher", *weakness.split()])
        if trained(study, name) or not only_finished:
            runs[weakness] = [teacher_scores(study, 0, "test", name, flags)]
    rows = [
        [name, *cells(run, _SHOWN), "" if run is plain else difference(run, plain, _METRIC)]
        for name, run in runs.items()
    ]
    header = ("SASRec", "HR@10", "NDCG@10", "less SASRec as it is")
    return f"{markdown(header, rows)}\n\nOne seed, test items."


def by_heart(study: Study, split: LeaveOneOut, catalog: Catalog, methods: Sequence[str]) -> str:
    """How much better models rank what they were trained on than what they were not."""
    asks = {_TEACHER: ask_teacher(study.teacher(_DOMAIN, 0), catalog)}
    asks |= {method: ask_model(study.model(_DOMAIN, method, 0)) for method in methods}
    rows = [
        [name, *(cells([measured(ask, split, item)], [_METRIC])[0] for item in _ITEMS)]
        for name, ask in asks.items()
    ]
    return f"{markdown(('NDCG@10', *_ITEMS), rows)}\n\nOne seed, recipes as they are."


def decoding(study: Study, split: LeaveOneOut) -> str:
    """What another order of the likeliest items would change, and another length of the prompt."""
    model = study.model(_DOMAIN, "cgen", 0)
    plain = [scored(study, Remedy("cgen"), 0, "test")]
    rows = [["by the probability of the title, exact", *cells(plain, _SHOWN), ""]]
    others = {"per token of the title": [measured(ask_model(model, per_token=True), split, TEST)]}
    for shown in (5, 20):
        extra = ("--split", "test", "--max-history", shown)
        others[f"exact, {shown} items shown"] = [
            study.scores(_DOMAIN, model, 0, name=f"cgen-{shown}-shown-test", extra=extra)
        ]
    for name, runs in others.items():
        rows.append([name, *cells(runs, _SHOWN), difference(runs, plain, _METRIC)])
    header = ("cgen, ranked", "HR@10", "NDCG@10", "less exact ranking with 10 shown")
    return f"{markdown(header, rows)}\n\nOne seed, test items; nothing is trained anew."


def screening(study: Study, remedies: Sequence[Remedy]) -> str:
    """All that was tried, with one seed."""
    header = (
        "method", "remedy", "flags", "validation NDCG@10", "test HR@10", "test NDCG@10",
        "less the method as it was", "less SASRec", "minutes",
    )  # fmt: skip
    rows: list[list[object]] = [table_row(study, None, [0])]
    rows += [table_row(study, remedy, [0]) for remedy in remedies]
    return (
        f"{markdown(header, rows)}\n\nOne seed. Differences are of the test NDCG@10, user by user; "
        "in brackets 95 % of the bootstrap over users. Minutes on one processor core, validations "
        "included."
    )


def not_tried(remedies: Sequence[Remedy]) -> str:
    """What of the study is not trained yet."""
    left = [f"{one.method} {one.name or 'as it is'}" for one in tried() if one not in remedies]
    return f"\n\nNot trained yet: {'; '.join(left)}." if left else ""


def table_row(study: Study, remedy: Remedy | None, seeds: Sequence[int]) -> list[object]:
    """A line of a table; of the teacher, if there is no remedy."""
    teacher = [teacher_scores(study, seed, "test") for seed in seeds]
    if remedy is None:
        valid = teacher_scores(study, 0, "valid")[_METRIC].mean()
        minutes = study.minutes(_DOMAIN, "teacher", seeds)
        measured = cells(teacher, _SHOWN)
        return [_TEACHER, "", "", f"{valid:.4f}", *measured, "", "", f"{minutes:.1f}"]
    runs = [scored(study, remedy, seed, "test") for seed in seeds]
    plain = [scored(study, Remedy(remedy.method), seed, "test") for seed in seeds]
    valid = scored(study, remedy, 0, "valid")[_METRIC].mean()
    return [
        remedy.method,
        remedy.name,
        f"`{' '.join(remedy.flags)}`" if remedy.flags else "",
        f"{valid:.4f}",
        *cells(runs, _SHOWN),
        difference(runs, plain, _METRIC) if remedy.name else "",
        difference(runs, teacher, _METRIC),
        f"{study.minutes(_DOMAIN, remedy.run, seeds):.1f}",
    ]


def result(study: Study, best: Sequence[Remedy], seeds: Sequence[int]) -> str:
    """The methods as they were and with their best remedy, with all seeds."""
    header = (
        "method", "remedy", "HR@10", "NDCG@10", "less the method as it was", "less SASRec",
        "minutes",
    )  # fmt: skip
    rows = []
    for remedy in [None, *with_plain(best)]:
        method, name, _, _, *rest = table_row(study, remedy, seeds)
        rows.append([method, name, *rest])
    return (
        f"{markdown(header, rows)}\n\nSeeds: {len(seeds)}. Test items. Chosen by the validation "
        "items of the first seed. Each user counts with the mean of the seeds."
    )


def diagnosis(study: Study, best: Sequence[Remedy]) -> str:
    """Where the methods lose: to whom, on which items, and how like their teacher they are."""
    header = (
        "method", "remedy", *(f"NDCG@10, {by} {segment}" for by, segment in _SEGMENTS),
        "of the teacher's ten items",
    )  # fmt: skip
    rows: list[list[object]] = []
    teacher = teacher_scores(study, 0, "test").sort("user_id")["items"].to_list()
    for remedy in [None, *with_plain(best)]:
        if remedy is None:
            rows.append([_TEACHER, "", *segments(study, "teacher"), ""])
            continue
        own = scored(study, remedy, 0, "test").sort("user_id")["items"].to_list()
        shared = np.mean(
            [len({*some} & {*others}) for some, others in zip(own, teacher, strict=True)]
        )
        rows.append([remedy.method, remedy.name, *segments(study, remedy.run), f"{shared:.1f}"])
    return f"{markdown(header, rows)}\n\nTest items, first seed."


def with_plain(best: Sequence[Remedy]) -> list[Remedy]:
    """Each method as it was and with its remedy."""
    found = [one for remedy in best for one in (Remedy(remedy.method), remedy)]
    return list(dict.fromkeys(found))


def segments(study: Study, name: str) -> list[str]:
    """NDCG of some kinds of users."""
    summary = read_json(study.of(_DOMAIN, 0) / "evaluation" / f"{name}-test" / "summary.json")
    found = {
        (row["by"], row["segment"]): row["metrics"][_METRIC]["value"] for row in summary["segments"]
    }
    return [f"{found[segment]:.4f}" for segment in _SEGMENTS]


if __name__ == "__main__":
    main()
