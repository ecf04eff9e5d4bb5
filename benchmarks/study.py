"""What the studies share: domains, and runs of `incatalog` in processes whose cost is kept.

A run that is finished is not repeated, and one that was stopped goes on where it was, so that a
study may be interrupted at any time and started again by the same command.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from benchmarks.report import shared_data

from incatalog.data.movielens import recbole_movielens
from incatalog.metrics import Interval, bootstrap_intervals

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
METRICS = ("HR@10", "NDCG@10", "OOD@10")
COUNTING = ("words", "knn", "ease")
_RESAMPLES = 1000
# The command that belongs to this interpreter, whatever the search path finds first.
_INCATALOG = Path(sys.executable).with_name("incatalog")


@dataclass(frozen=True)
class Domain:
    """Data that a study is made on.

    Attributes:
        name: Its name in tables, and of its folder of recipes.
        teacher_epochs: Epochs of its teacher at most.
        wording: Text that a sentence encoder reads of its items; empty where words are counted.
        taught: Teachers beside SASRec whose vectors of items stand beside the text's.
        trained: Whether language models are trained on it; else only what counts is compared.
        seeds: Seeds at most.
        sasrec_lists: Methods that learn to write SASRec's lists; others learn the blend's.
    """

    name: str
    teacher_epochs: int
    wording: str
    taught: tuple[str, ...] = ("knn",)
    trained: bool = True
    seeds: int = 3
    sasrec_lists: tuple[str, ...] = ()


DOMAINS = {
    "movielens": Domain("movielens", teacher_epochs=60, wording="tc", sasrec_lists=("cgen", "ret")),
    # Its titles and descriptions say more by their words than by their sense.
    "office": Domain("office", teacher_epochs=25, wording="", taught=("words", "knn")),
    "games": Domain("games", teacher_epochs=10, wording="t", trained=False, seeds=1),
}


@dataclass(frozen=True)
class Study:
    """Where the runs of a study lie, and what each may use.

    Attributes:
        folder: Folder of all its runs.
        threads: Threads of each run.
    """

    folder: Path
    threads: int

    def incatalog(self, out: Path, *command: object) -> Path:
        """Runs ``incatalog COMMAND --out OUT``, unless that has been done, and returns ``out``."""
        return self.run(out, *command, "--out", out)

    def run(self, out: Path, *command: object) -> Path:
        """Runs ``incatalog COMMAND``, unless that has been done; keeps its cost beside ``out``."""
        words = [*map(str, command)]
        cost = out.with_name(f"{out.name}.cost.json")
        known = (
            json.loads(cost.read_text()) if cost.exists() else {"seconds": 0.0, "command": words}
        )
        if known["command"] != words:
            sys.exit(f"{out}: was made by other settings: {' '.join(known['command'])}")
        if known.get("finished"):
            return out
        out.parent.mkdir(parents=True, exist_ok=True)
        threads = str(self.threads)
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"}
        with out.with_name(f"{out.name}.log").open("ab") as log:
            process = subprocess.Popen(
                [str(_INCATALOG), *words],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
            )
            # Time on the processor; other work would add to the time on the wall.
            _, status, used = os.wait4(process.pid, 0)
        known["seconds"] += used.ru_utime + used.ru_stime
        known["finished"] = status == 0
        cost.write_text(json.dumps(known))
        if status:
            sys.exit(f"incatalog {' '.join(words)}: failed; see {log.name}")
        print(f"{known['seconds'] / 60:6.1f} min  {out}", flush=True)
        return out

    def data(self, domain: Domain) -> Path:
        """The prepared data of a domain."""
        if domain.name != "movielens":
            return shared_data() / domain.name
        out = self.folder / domain.name / "data"
        return self.incatalog(out, "data", "movielens", "--source", recbole_movielens())

    def texts(self, domain: Domain) -> Path:
        """Vectors of the texts of a domain's items, which codes are made of."""
        out = self.folder / domain.name / "vectors"
        command = ("items", "embed", "--data", self.data(domain), "--dataset", domain.name)
        if domain.wording:
            self.incatalog(out, *command, "--wording", domain.wording)
            return out / f"{domain.name}.emb-minilm-{domain.wording}.npy"
        words = ("--teacher", self.counting(domain, "words"), "--svd-dim", 256)
        self.incatalog(out, *command, "--source", "teacher", *words)
        return out / f"{domain.name}.emb-teacher.npy"

    def vectors(self, domain: Domain, seed: int) -> Path:
        """Vectors of a domain's items from texts and from who took what, which are retrieved."""
        out = self.of(domain, seed) / "vectors"
        taught = [self.counting(domain, kind) for kind in domain.taught]
        command: list[object] = ["items", "embed", "--data", self.data(domain)]
        command += ["--dataset", domain.name, "--teacher", self.teacher(domain, seed), *taught]
        if domain.wording:
            self.incatalog(out, *command, "--source", "both", "--wording", domain.wording)
            return out / f"{domain.name}.emb-minilm-{domain.wording}-teacher.npy"
        self.incatalog(out, *command, "--source", "teacher", "--svd-dim", 128)
        return out / f"{domain.name}.emb-teacher.npy"

    def teacher(
        self, domain: Domain, seed: int, *, name: str = "teacher", extra: Sequence[object] = ()
    ) -> Path:
        """A teacher of a domain."""
        return self.incatalog(
            self.of(domain, seed) / name,
            *("teacher", "fit", "--data", self.data(domain), "--exclude-seen"),
            *("--epochs", domain.teacher_epochs, "--seed", seed, *extra),
        )

    def counting(self, domain: Domain, kind: str) -> Path:
        """A teacher that counts or compares words; no seed changes it."""
        return self.incatalog(
            self.of(domain, 0) / kind,
            *("teacher", "fit", "--kind", kind, "--data", self.data(domain), "--exclude-seen"),
        )

    def blend(self, domain: Domain, seed: int) -> Path:
        """SASRec and those counting teachers that help it on the validation items."""
        parts = ("--sasrec", self.teacher(domain, seed), "--seed", seed)
        return self.incatalog(
            self.of(domain, seed) / "blend",
            *("teacher", "fit", "--kind", "blend", *parts, "--data", self.data(domain)),
            "--exclude-seen",
        )

    def guide(self, domain: Domain, model: Path, teacher: Path, seed: int) -> None:
        """Fits how much a teacher counts beside a model, and keeps it in the model's folder."""
        self.run(
            model.with_name(f"{model.name}.guide"),
            *("guide", "fit", "--model", model, "--teacher", teacher, "--data", self.data(domain)),
            *("--exclude-seen", "--seed", seed),
        )

    def codes(self, domain: Domain, seed: int) -> Path:
        """The codes of a domain's items."""
        folder, vectors = self.of(domain, seed), self.texts(domain)
        quantizer = self.incatalog(
            folder / "quantizer",
            *("items", "quantize", "--vectors", vectors, "--method", "rqkmeans"),
            *("--codebooks", 256, 256, 256, 256, "--seed", seed),
        )
        return self.incatalog(
            folder / "codes",
            *("items", "assign", "--data", self.data(domain), "--dataset", domain.name),
            *("--model", quantizer, "--vectors", vectors, "--seed", seed),
        )

    def model(
        self,
        domain: Domain,
        method: str,
        seed: int,
        *,
        name: str = "",
        extra: Sequence[object] = (),
        teacher: bool = True,
    ) -> Path:
        """A recommender of a domain, trained by its recipe and ``extra`` settings."""
        command: list[object] = [
            "train",
            "sft",
            "--config",
            RECIPES / domain.name / f"{method}.yaml",
        ]
        command += ["--data", self.data(domain), "--seed", seed]
        if teacher:
            sasrec = method in domain.sasrec_lists
            lists = self.teacher(domain, seed) if sasrec else self.blend(domain, seed)
            command += ["--teacher", lists]
        if method == "token":
            command += ["--index", self.codes(domain, seed)]
        if method == "ret":
            command += ["--vectors", self.vectors(domain, seed)]
        command += mixed_precision()
        return self.incatalog(self.of(domain, seed) / (name or method), *command, *extra)

    def scores(
        self,
        domain: Domain,
        model: Path | str,
        seed: int,
        *,
        name: str = "",
        extra: Sequence[object] = (),
    ) -> pl.DataFrame:
        """The metrics of a model for each user, seen items excluded."""
        name = name or Path(model).name
        out = self.incatalog(
            self.of(domain, seed) / "evaluation" / name,
            *("evaluate", "recommend", "--model", model, "--data", self.data(domain)),
            *("--exclude-seen", "--seed", seed, *extra),
        )
        return pl.read_parquet(out / "users.parquet")

    def minutes(self, domain: Domain, name: str, seeds: Sequence[int]) -> float:
        """Minutes on the processor that a run took, in the mean over its seeds."""
        costs = [self.of(domain, seed) / f"{name}.cost.json" for seed in seeds]
        return float(np.mean([json.loads(cost.read_text())["seconds"] for cost in costs])) / 60

    def of(self, domain: Domain, seed: int) -> Path:
        """The folder of the runs with one seed."""
        return self.folder / domain.name / f"seed-{seed}"


def mixed_precision() -> list[str]:
    """Trains in bfloat16 where the processor multiplies it: twice as fast, else slower."""
    return ["--bf16"] if torch.cpu._is_avx512_bf16_supported() else []


def over_seeds(tables: Sequence[pl.DataFrame], metric: str) -> tuple[Interval, list[float]]:
    """The mean of a metric over users and seeds with its interval, and that of each seed.

    The interval is the bootstrap's over users, of whom each counts with the mean of the seeds.
    """
    joined = np.stack([table.sort("user_id")[metric].to_numpy() for table in tables], axis=1)
    interval = bootstrap_intervals(joined.mean(axis=1, keepdims=True), _RESAMPLES, 0)[0]
    return interval, [float(value) for value in joined.mean(axis=0)]


def cells(tables: Sequence[pl.DataFrame], metrics: Iterable[str] = METRICS) -> list[str]:
    """Cells of a table of results: each metric with its interval and the range of the seeds."""
    written = []
    for metric in metrics:
        interval, seeds = over_seeds(tables, metric)
        if interval.high == interval.low == 0:
            written.append("0")
            continue
        text = f"{interval.value:.4f} ({interval.low:.4f}–{interval.high:.4f})"
        if len(seeds) > 1:
            text += f", seeds {min(seeds):.4f}–{max(seeds):.4f}"
        written.append(text)
    return written


def difference(tables: Sequence[pl.DataFrame], base: Sequence[pl.DataFrame], metric: str) -> str:
    """Mean difference of a metric between two lists of runs with its interval, user by user."""
    stacks = [
        np.stack([table.sort("user_id")[metric].to_numpy() for table in runs], axis=1).mean(axis=1)
        for runs in (tables, base)
    ]
    paired = (stacks[0] - stacks[1])[:, None]
    interval = bootstrap_intervals(paired, _RESAMPLES, 0)[0]
    return f"{interval.value:+.4f} ({interval.low:+.4f} to {interval.high:+.4f})"


def side_by_side(jobs: int, chains: Sequence[Callable[[], object]]) -> None:
    """Runs chains of runs, so many at a time."""
    with ThreadPoolExecutor(jobs) as pool:
        for done in [pool.submit(chain) for chain in chains]:
            done.result()
