"""Does GRPO improve the study's model?

Each seed draws its own prompts, answers and validation users. A checkpoint is chosen by the
validation items of half of the users; what is reported are the validation items of the other half,
and once, at the end, the test items of all.

    python -m benchmarks.grpo_training [--study runs/study] [--out runs/grpo-training] [--seeds 3]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from benchmarks.report import markdown, publish

from incatalog.artifacts import read_json
from incatalog.config import EvaluationDecode
from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories, LeaveOneOut, leave_one_out
from incatalog.evaluation.recommend import evaluate_recommend
from incatalog.evaluation.settings import EvaluateRecommendSettings
from incatalog.grpo.rewards import ndcg, teacher_gain
from incatalog.grpo.rollouts import EngineSampler, answer_seeds
from incatalog.grpo.settings import GrpoSettings
from incatalog.grpo.train_grpo import train_grpo
from incatalog.metrics import bootstrap_intervals
from incatalog.recommender.recommender import Recommender
from incatalog.teacher.teacher import Teacher, load_teacher
from incatalog.training.validation import Prompt, validation_users

METRIC = "NDCG@10"
CHOOSING = 471
SAMPLED = 160
LISTS = 4


def main() -> None:
    """Trains with several seeds and scores the models before and after."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", type=Path, default=Path("runs/study"))
    parser.add_argument("--out", type=Path, default=Path("runs/grpo-training"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    study, out = options.study, options.out
    if not (study / "summary.json").is_file():
        sys.exit(f"--study {study}: no finished study there; run `make study` first")
    data = study / "data"
    catalog = Catalog.load(data)
    split = leave_one_out(Histories.load(data, catalog))
    runs = {"before": study / "cgen"}
    for seed in range(options.seeds):
        runs[f"s{seed}"] = train_grpo(_settings(study, out / f"s{seed}", options.steps, seed))
    everyone = list(range(len(split)))
    rows = []
    for title, held_out, decode in (
        ("validation, users that chose nothing", "valid", "beam"),
        ("test, all users", "test", "beam"),
        ("test, all users, `--decode list`", "test", "list"),
    ):
        tables = {
            name: _users(model, data, out / f"{name}-{held_out}-{decode}", held_out, decode)
            for name, model in runs.items()
        }
        for seed in range(options.seeds):
            users = everyone
            if held_out == "valid":
                users = sorted({*everyone} - {*validation_users(split, CHOOSING, seed)})
            before, after = (
                tables[name][METRIC].to_numpy()[users] for name in ("before", f"s{seed}")
            )
            out_of_domain = f"{tables[f's{seed}']['OOD@10'].mean():g}"
            rows.append((title, seed, *_intervals([before, after, after - before]), out_of_domain))
    told = []
    teacher = load_teacher(study / "teacher", catalog, "cpu")
    for seed in range(options.seeds):
        users = sorted({*everyone} - {*validation_users(split, CHOOSING, seed)})[:SAMPLED]
        before, after = (
            _sampled(runs[name], split, teacher, users) for name in ("before", f"s{seed}")
        )
        for reward in before:
            values = [before[reward], after[reward], after[reward] - before[reward]]
            told.append((reward, seed, *_intervals(values)))
    chosen = [
        (
            seed,
            *(f"{found[name]:.4f}" for name in ("ndcg_start", "ndcg_best")),
            found["best_step"],
            f"{found['engine_gap']:.1e}",
        )
        for seed in range(options.seeds)
        for found in [read_json(runs[f"s{seed}"] / "manifest.json")["results"]]
    ]
    body = "\n\n".join(
        [
            f"{METRIC} with 95 % intervals of the bootstrap over users, the difference paired.",
            markdown(("held out", "seed", "before", "after", "difference", "OOD@10"), rows),
            f"What is trained is the mean reward of sampled lists, which a ranking is not. {LISTS} "
            f"lists for {SAMPLED} users whose validation items chose nothing: `ndcg` of the one "
            "validation item, and the gain by the teacher's ranks.",
            markdown(("reward", "seed", "before", "after", "difference"), told),
            "What chose the checkpoints: the validation items of the other users.",
            markdown(("seed", "at the start", "best", "at step", "gap to the engine"), chosen),
        ]
    )
    publish("grpo_training", "Does GRPO improve the study's model (cgen)?", body)


def _settings(study: Path, out: Path, steps: int, seed: int) -> GrpoSettings:
    return GrpoSettings(
        model=study / "cgen",
        data=study / "data",
        out=out,
        tune="full",
        reward=("ndcg", "teacher"),
        teacher=str(study / "teacher"),
        list_length=10,
        next_items=10,
        exclude_seen=True,
        learning_rate=2e-4,
        max_steps=steps,
        checkpoint_every=25,
        validation_users=CHOOSING,
        logging_steps=20,
        seed=seed,
    )


def _intervals(values: Sequence[np.ndarray]) -> list[str]:
    return [
        f"{i.value:.4f} ({i.low:.4f} – {i.high:.4f})"
        for i in bootstrap_intervals(np.stack(values, axis=1), 2000, 0)
    ]


def _sampled(
    model: Path, split: LeaveOneOut, teacher: Teacher, users: Sequence[int]
) -> dict[str, np.ndarray]:
    """Mean reward of each user's sampled lists."""
    sampler = EngineSampler(
        Recommender.from_pretrained(model, "cpu"),
        list_length=10,
        rollout="sample",
        temperature=1.0,
        exclude_seen=True,
        num_generations=LISTS,
    )
    rewards: dict[str, list[float]] = {"ndcg": [], "teacher": []}
    for start in range(0, len(users), 16):
        held_out = [split.valid(user) for user in users[start : start + 16] for _ in range(LISTS)]
        prompts = [Prompt(tuple(h.history.tolist()), (int(h.target),)) for h in held_out]
        seeds = answer_seeds(0, start, 0, len(prompts))
        items = [answer.items for answer in sampler(prompts, seeds, [0] * len(prompts))]
        rewards["ndcg"] += ndcg(items, [prompt.relevant for prompt in prompts])
        ranks = teacher.ranking([prompt.history for prompt in prompts], items)
        rewards["teacher"] += teacher_gain([one.tolist() for one in ranks])
    return {name: np.reshape(found, (-1, LISTS)).mean(axis=1) for name, found in rewards.items()}


def _users(
    model: Path, data: Path, out: Path, held_out: str, decode: EvaluationDecode
) -> pl.DataFrame:
    """Metrics of every user, in their order."""
    evaluate_recommend(
        EvaluateRecommendSettings(
            model=str(model),
            data=data,
            out=out,
            split="valid" if held_out == "valid" else "test",
            exclude_seen=True,
            decode=decode,
        )
    )
    return pl.read_parquet(out / "users.parquet")


if __name__ == "__main__":
    main()
