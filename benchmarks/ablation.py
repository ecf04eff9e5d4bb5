"""What does each part of the published method buy? Its ablations, with paired intervals.

One tiny backbone, trained by a share of its recipe's epochs: cgen in full, without the constraint,
the scope mask, the control tokens, the turns of general conversations; the two other methods; a
chat model that was never trained; and the catalog of another domain. It goes on where it was
stopped.

python -m benchmarks.ablation [--domains movielens] [--seeds 3] [--rows full no-scope]
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml
from benchmarks.chat import conversations
from benchmarks.report import markdown, publish, shared_data
from benchmarks.study import DOMAINS, RECIPES, Domain, Study, side_by_side

from incatalog.metrics import Interval, bootstrap_intervals

_METRICS = ("HR@10", "NDCG@10", "OOD@10", "RightCount@10")
_ROUNDS = ("HR@10", "OOD@10", "ExactlyK", "NoControl")
_RESAMPLES = 2000
# Each domain's catalog is new to the models of the other.
_OTHER = {"movielens": "office", "office": "movielens"}
FULL = "full"
_GREEDY, _FREE = ("--decode", "greedy"), ("--decode", "unconstrained")
# A wider catalog's titles are long, and what is not held to them may never end.
_BOUND = ("--max-new-tokens", 512)


@dataclass(frozen=True)
class Training:
    """A model of the study: its method, what it changes of the recipe, and whether turns are in."""

    method: str
    changes: tuple[object, ...] = ()
    turns: bool = True


@dataclass(frozen=True)
class Row:
    """A row of the table: a model, how it is asked, and the row it is compared with."""

    what: str
    training: str
    asked: tuple[object, ...] = _GREEDY
    against: str = FULL


_SHOWN = ("--history-form", "title", "--no-loss-on-history")
TRAININGS = {
    FULL: Training("cgen"),
    "no-scope": Training("cgen", ("--scope", "off")),
    "shown-titles": Training("cgen", _SHOWN),
    "no-control": Training("cgen", (*_SHOWN, "--answer-form", "title")),
    "no-turns": Training("cgen", turns=False),
    "token": Training("token"),
    "ret": Training("ret"),
}
ROWS = {
    FULL: Row("cgen, in full", FULL),
    "searched": Row("whole items searched (`--decode list`)", FULL, ("--decode", "list")),
    "no-constraint": Row("without the constraint", FULL, (*_FREE, *_BOUND)),
    "no-scope": Row("without the scope mask", "no-scope"),
    "no-scope-no-constraint": Row(
        "without scope mask and constraint", "no-scope", (*_FREE, *_BOUND), "no-constraint"
    ),
    "shown-titles": Row("history as plain titles, without loss on it", "shown-titles"),
    "no-control": Row(
        "the same, without control tokens", "no-control", (*_FREE, *_BOUND), "shown-titles"
    ),
    "no-turns": Row("without turns of general conversations", "no-turns"),
    "token": Row("token, in full", "token"),
    "ret": Row("ret, in full", "ret"),
}
BASELINES = ("popularity", "sasrec", "untrained")
TALKS, CROSS = "talks", "cross-domain"
_ALL = (*ROWS, *BASELINES, TALKS, CROSS)
Tables = list[pl.DataFrame]


def main() -> None:
    """Trains what is not trained yet, and writes ``results/ablation.md``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/study"), help="Folder of all runs.")
    parser.add_argument("--domains", nargs="+", choices=sorted(_OTHER), default=list(_OTHER))
    parser.add_argument("--rows", nargs="+", choices=_ALL, default=list(_ALL))
    parser.add_argument("--seeds", type=int, default=1, help="Trainings of each model.")
    parser.add_argument("--share", type=float, default=0.4, help="Share of the recipes' epochs.")
    parser.add_argument("--steps", type=int, default=0, help="Steps at most; 0 for no limit.")
    parser.add_argument("--users", type=int, default=0, help="Users of a row; 0 for all.")
    parser.add_argument("--other-users", type=int, default=300, help="Users of the other domain.")
    parser.add_argument("--talks", type=int, default=100, help="Conversations of three rounds.")
    parser.add_argument("--untrained-users", type=int, default=32, help="Users of SmolLM2.")
    parser.add_argument("--jobs", type=int, default=1, help="Domains and seeds at a time.")
    parser.add_argument("--threads", type=int, default=1, help="Threads of each run.")
    options = parser.parse_args()
    study = Study(options.out.resolve(), options.threads)
    study.folder.mkdir(parents=True, exist_ok=True)
    turns, _ = conversations(study)
    found = [Ablation(study, DOMAINS[name], turns, options) for name in options.domains]
    side_by_side(options.jobs, [partial(one.run, seed) for one in found for seed in one.seeds])
    body = "\n\n".join(one.section() for one in found)
    publish("ablation", "What each part of the published method buys", f"{body}\n\n{_ABOUT}")


@dataclass(frozen=True)
class Ablation:
    """The ablations on one domain."""

    study: Study
    domain: Domain
    turns: Path
    options: argparse.Namespace

    @property
    def seeds(self) -> range:
        """Of the trainings."""
        return range(self.options.seeds)

    @cached_property
    def other(self) -> Domain:
        """The domain whose catalog is new."""
        return DOMAINS[_OTHER[self.domain.name]]

    def wants(self, row: str) -> bool:
        """Whether a row is asked for."""
        return row in self.options.rows

    def run(self, seed: int) -> dict[str, pl.DataFrame]:
        """All runs of one seed; the metrics of each user by row."""
        return {
            **self.rows(seed),
            **{f"{CROSS} {name}": table for name, table in self.crossed(seed).items()},
            **{f"{TALKS} {name}": table for name, table in self.talked(seed).items()},
        }

    def model(self, name: str, seed: int) -> Path:
        """A model of the study."""
        training = TRAININGS[name]
        recipe = RECIPES / self.domain.name / f"{training.method}.yaml"
        epochs = yaml.safe_load(recipe.read_text(encoding="utf-8"))["epochs"]
        extra: list[object] = ["--epochs", max(1, round(self.options.share * epochs))]
        extra += ["--max-steps", self.options.steps, *training.changes]
        if training.turns:
            extra += ["--chat", self.turns, "--multi-round-ratio", 0.1]
        return self.study.model(
            self.domain, training.method, seed, name=f"ablation-{name}", extra=extra
        )

    def rows(self, seed: int) -> dict[str, pl.DataFrame]:
        """The rows of the first table."""
        found: dict[str, pl.DataFrame] = {}
        everyone = ("--users", self.options.users)
        for name, row in ROWS.items():
            if self.wants(name):
                guide = () if row.asked[:2] == _FREE else ("--guide", "off")
                asked = (*row.asked, *guide, *everyone)
                found[name] = self.scores(self.model(row.training, seed), seed, name, asked)
        others: Mapping[str, tuple[Callable[[], Path | str], tuple[object, ...]]] = {
            "popularity": (lambda: "popularity", everyone),
            "sasrec": (lambda: self.study.teacher(self.domain, seed), everyone),
            "untrained": (
                lambda: "smollm2",
                ("--users", self.options.untrained_users, "--max-new-tokens", 256),
            ),
        }
        for name, (load, asked) in others.items():
            if self.wants(name):
                found[name] = self.scores(load(), seed, name, asked)
        return found

    def crossed(self, seed: int) -> dict[str, pl.DataFrame]:
        """The full model asked for items of the other domain, with and without the constraint."""
        if not self.wants(CROSS):
            return {}
        some = ("--users", self.options.other_users)
        model = self.model(FULL, seed)
        asked: Mapping[str, tuple[Path | str, tuple[object, ...]]] = {
            "popularity": ("popularity", ()),
            "in full": (model, (*_GREEDY, "--guide", "off")),
            "without the constraint": (model, (*_FREE, *_BOUND)),
        }
        return {
            name: self.scores(one, seed, f"other-{name.replace(' ', '-')}", (*how, *some), True)
            for name, (one, how) in asked.items()
        }

    def talked(self, seed: int) -> dict[str, pl.DataFrame]:
        """Conversations of three rounds, by models with and without general turns."""
        if not self.wants(TALKS):
            return {}
        found, questions = {}, shared_data() / "gsm8k"
        for name in (FULL, "no-turns"):
            out = self.study.incatalog(
                self.study.of(self.domain, seed) / "ablation" / f"talks-{name}",
                *("evaluate", "chat", "--model", self.model(name, seed)),
                *("--data", self.study.data(self.domain), "--seed", seed),
                *("--questions", questions / "test.jsonl", "--examples", questions / "train.jsonl"),
                *("--users", self.options.talks, "--max-new-tokens", 64, "--batch-size", 50),
            )
            found[name] = pl.read_parquet(out / "users.parquet")
        return found

    def scores(
        self,
        model: Path | str,
        seed: int,
        name: str,
        extra: Sequence[object],
        other: bool = False,
    ) -> pl.DataFrame:
        """The metrics of each user; items of the history stay allowed, as published."""
        own = self.study.of(self.domain, seed) / "ablation" / name
        data = self.study.data(self.other if other else self.domain)
        out = self.study.incatalog(
            own,
            *("evaluate", "recommend", "--model", model, "--data", data, "--seed", seed, *extra),
        )
        return pl.read_parquet(out / "users.parquet")

    def section(self) -> str:
        """The tables of the domain, and what they say of the paper's claims."""
        runs = [self.run(seed) for seed in self.seeds]
        tables = {name: [run[name] for run in runs] for name in runs[0]}
        users = max((len(own[0]) for own in tables.values()), default=0)
        share = f"{self.options.share:g} of the recipes' epochs"
        parts = [f"## {self.domain.name}: {users} users, {len(runs)} seeds, {share}"]
        header = ("", *_METRICS, "NDCG@10 less that of", "", "minutes")
        lines = []
        for name in (*ROWS, *BASELINES):
            if name in tables:
                lines.append(self._line(name, tables))
        parts += [markdown(header, lines)] if lines else []
        if talks := {n.removeprefix(f"{TALKS} "): t for n, t in tables.items() if TALKS in n}:
            parts += [self._talks(talks)]
        if other := {n.removeprefix(f"{CROSS} "): t for n, t in tables.items() if CROSS in n}:
            parts += [self._crossing(other)]
        claims = [f"* {claim.text}: **{claim.verdict(tables)}**" for claim in CLAIMS]
        return "\n\n".join([*parts, "What was published, and what these figures say:",
                            "\n".join(claims)])  # fmt: skip

    def _line(self, name: str, tables: Mapping[str, Tables]) -> list[str]:
        row = ROWS.get(name)
        against = FULL if row is None else row.against
        paired, base = "", ""
        if name != against and against in tables:
            paired = signed(difference(tables[name], tables[against], "NDCG@10"))
            base = "full" if against == FULL else ROWS[against].what
        what = row.what if row is not None else _BASELINES_ARE[name]
        minutes = ""
        if row is not None:
            trained = f"ablation-{row.training}"
            minutes = f"{self.study.minutes(self.domain, trained, self.seeds):.1f}"
        return [what, *(cell(tables[name], metric) for metric in _METRICS), base, paired, minutes]

    def _talks(self, talks: Mapping[str, Tables]) -> str:
        full, without = talks[FULL], talks["no-turns"]
        lines = [
            ["with general turns", *(cell(full, metric) for metric in _ROUNDS)],
            ["without", *(cell(without, metric) for metric in _ROUNDS)],
            ["without less with",
             *(signed(difference(without, full, metric)) for metric in _ROUNDS)],
        ]  # fmt: skip
        told = (
            f"{len(full[0])} conversations of three rounds (`evaluate chat`): ten items asked for "
            "behind a worked question, and another question behind them; `ExactlyK` is the share "
            "of lists with ten items, `NoControl` that of last answers free of control tokens."
        )
        return f"{told}\n\n{markdown(('cgen', *_ROUNDS), lines)}"

    def _crossing(self, found: Mapping[str, Tables]) -> str:
        lines = []
        for name, own in found.items():
            against = signed(difference(own, found["popularity"], "NDCG@10"))
            paired = "" if name == "popularity" else against
            lines.append([name, *(cell(own, metric) for metric in _METRICS), paired])
        told = (
            f"The full model of {self.domain.name}, asked for items of {self.other.name} by "
            f"{len(next(iter(found.values()))[0])} of its users:"
        )
        return f"{told}\n\n{markdown(('', *_METRICS, 'NDCG@10 less popularity'), lines)}"


_BASELINES_ARE = {
    "popularity": "popularity",
    "sasrec": "SASRec",
    "untrained": "SmolLM2-135M, untrained, plain text",
}


@dataclass(frozen=True)
class Claim:
    """Something the paper or its README says, and the figure that speaks for or against it.

    It is that a metric of `row` is less than that of `base`, or, without a base, that it is 0.
    """

    text: str
    metric: str
    rows: tuple[str, ...]
    base: str = ""

    def verdict(self, tables: Mapping[str, Tables]) -> str:
        """What the figures say; no more than their intervals do."""
        if any(name not in tables for name in (*self.rows, *filter(None, [self.base]))):
            return "not measured here"
        if not self.base:
            wrong = [n for n in self.rows if interval(tables[n], self.metric).high > 0]
            return f"contradicted by {', '.join(wrong)}" if wrong else "agreed"
        found = [difference(tables[name], tables[self.base], self.metric) for name in self.rows]
        told = "; ".join(map(signed, found))
        if all(one.high < 0 for one in found):
            return f"agreed, {told}"
        return f"contradicted, {told}" if any(one.low > 0 for one in found) else f"open, {told}"


CLAIMS = (
    Claim(
        "nothing outside the catalog is recommended, by cgen, token or ret (both abstracts)",
        "OOD@10",
        (FULL, "searched", "no-scope", "no-turns", "token", "ret"),
    ),
    Claim(
        "nor where the catalog is another domain's (README, cross-domain evaluation)",
        "OOD@10",
        (f"{CROSS} in full",),
    ),
    Claim("cgen is more accurate than ret (abstract of version 1)", "NDCG@10", ("ret",), FULL),
    Claim(
        "cgen is more accurate than recommenders of ids, here SASRec (abstract of version 2)",
        "NDCG@10",
        ("sasrec",),
        FULL,
    ),
    Claim(
        "the constraint is what keeps items inside: with it OOD is less",
        "OOD@10",
        (FULL,),
        "no-constraint",
    ),
    Claim(
        "the scope mask makes cgen more accurate (what it is for)", "NDCG@10", ("no-scope",), FULL
    ),
    Claim(
        "control tokens make it more accurate (what they are for, beside the constraint)",
        "NDCG@10",
        ("no-control",),
        "shown-titles",
    ),
    Claim(
        "turns of general conversations keep control tokens out of general answers (README)",
        "NoControl",
        (f"{TALKS} no-turns",),
        f"{TALKS} {FULL}",
    ),
)


def per_user(tables: Tables, metric: str) -> dict[str, float]:
    """The mean of a metric over the seeds by user, where it is defined."""
    column = pl.col(metric).cast(pl.Float64)
    every = pl.concat([table.select("user_id", column) for table in tables])
    known = every.filter(pl.col(metric).is_not_nan() & pl.col(metric).is_not_null())
    return dict(known.group_by("user_id").agg(pl.col(metric).mean()).sort("user_id").iter_rows())


def interval(tables: Tables, metric: str) -> Interval:
    """Mean over users and seeds, with the interval of the bootstrap over users."""
    return _interval(list(per_user(tables, metric).values()))


def difference(tables: Tables, base: Tables, metric: str) -> Interval:
    """Mean difference over the users of both, with its interval."""
    own, other = per_user(tables, metric), per_user(base, metric)
    return _interval([own[user] - other[user] for user in own if user in other])


def _interval(values: Sequence[float]) -> Interval:
    if not values:
        return Interval(float("nan"), float("nan"), float("nan"))
    column: Any = np.array(values)[:, None]
    return bootstrap_intervals(column, _RESAMPLES, 0)[0]


def cell(tables: Tables, metric: str) -> str:
    """A metric with its interval."""
    found = interval(tables, metric)
    if math.isnan(found.value):
        return "–"
    if found.low == found.high:
        return f"{found.value:g}"
    return f"{found.value:.4f} ({found.low:.4f}–{found.high:.4f})"


def signed(found: Interval) -> str:
    """A difference with its interval."""
    if math.isnan(found.value):
        return "–"
    return f"{found.value:+.4f} ({found.low:+.4f} to {found.high:+.4f})"


_ABOUT = """\
Held-out last item of every user; items of the history stay allowed, as published, since nothing
can be excluded from free text. Answers are greedy lists of ten, as published, but for
`searched`. `OOD@10` is counted before any repair, over the answers that name anything;
`RightCount@10` is the share that names exactly ten. In brackets 95 % of the bootstrap over
users, each of whom counts with the mean of the seeds; differences are paired, user by user,
over those that both rows have. Minutes are those of one processor core for the training. All
models are tiny Llamas of one size, trained from scratch by a share of their recipe's epochs, so
figures are below those of accuracy.md; a tenth of the samples has a turn of a general
conversation before or after. "Control tokens" are taken away where the history is shown as
plain titles without loss on it, since spans in the history are control tokens too; both rows
stand in the table. Free text is read line by line, titles compared exactly after case, white
space and quotes are made alike (docs/evaluation.md). The paper is on models of 8 billion
parameters: a tiny model's figures say nothing of theirs in size, and `open` is what intervals
around 0 are called."""


if __name__ == "__main__":
    main()
