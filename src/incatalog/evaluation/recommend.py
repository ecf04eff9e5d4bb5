"""Scores recommendations on held-out items: every method by the same code on the same users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float64, Int64

from incatalog import metrics
from incatalog.artifacts import atomic_path, open_run, read_json, write_json
from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories, Holdout, LeaveOneOut, leave_one_out
from incatalog.data.prepared import prepared_files
from incatalog.errors import ConfigError
from incatalog.evaluation.batchlog import BatchLog, Shards, in_batches
from incatalog.evaluation.cutoff import check_cutoff
from incatalog.evaluation.methods import (
    existing_vectors,
    identities,
    is_language_model,
    load_method,
    model_files,
)
from incatalog.evaluation.reader import Named, entries
from incatalog.evaluation.runs import SUMMARY, USERS
from incatalog.evaluation.segments import segment_results, user_groups
from incatalog.evaluation.settings import EvaluateRecommendSettings
from incatalog.evaluation.tables import metric_table

_CUTOFFS = (1, 5, 10)


def evaluate_recommend(settings: EvaluateRecommendSettings) -> Path:
    """Scores a model, a teacher or popularity on the held-out item of each user.

    Writes ``summary.json`` (method, users, k, and each metric with its 95 % bootstrap interval)
    and ``users.parquet`` (one row a user: the target, what was named, and all metrics) into
    ``settings.out``. A language model is asked with the newest ``max_history`` items, by default as
    many as it was trained with; a teacher sees as much of the history as it was made for. Seen
    items are all of the history, shown or not.

    Metrics, with k for the length of the answer:

    - ``HR``, ``NDCG``, ``MRR``, ``Recall`` at 1, 5, 10 and k: see `incatalog.metrics`.
    - ``RightCount@k``: share of answers that name exactly k things.
    - ``OOD@k``: share of what an answer names that is not in the catalog.
    - ``Repeats@k``: share that was named before in the same answer.
    - ``InHistory@k``: share that is in the user's history.
    - ``TargetCategory@k``: share that has a category in common with the target.
    - ``Novelty@k``, ``Similarity@k``: see `incatalog.evaluation.beyond`.

    Where an answer leaves a metric undefined (it names nothing, the target has no category), its
    user does not count; a metric that is left with no user is not in the summary.

    Beside them stand the ``coverage`` of the catalog; ``segments``: hit rate and NDCG by kind of
    user (see `incatalog.evaluation.segments`); and for models that rank (``--decode beam``) the
    ``calibration`` of the probabilities they give items.

    Finished batches are kept, so that an interrupted run goes on where it was; under ``accelerate
    launch`` the processes share the batches. The files written are the same to the byte.

    Returns:
        ``settings.out``.

    Raises:
        ConfigError: A setting cannot work.
        ArtifactError: ``settings.out`` holds something else.
        DataError: The data is broken, or a user has fewer than three items.
        TeacherError: The teacher was fitted on another catalog.
        BackboneError: The model is incomplete or damaged.
    """
    _check(settings)
    shards = Shards.current(settings.device)
    inputs = {**prepared_files(settings.data), **model_files(settings.model)}
    if settings.vectors:
        inputs["vectors"] = existing_vectors(settings.vectors)
    if not shards.is_main:
        shards.wait()
    catalog = Catalog.load(settings.data)
    check_cutoff(settings.k, catalog)
    run = open_run(
        settings.out,
        "evaluate recommend",
        settings,
        inputs=inputs,
        identities=identities(settings),
        free_fields=("batch_size", "verify"),
    )
    if shards.is_main:
        shards.wait()
    console = shards.console()
    if run.finished:
        console.print(f"{settings.out}: already evaluated", soft_wrap=True)
        console.print(metric_table(read_json(settings.out / SUMMARY)))
        return settings.out

    split = leave_one_out(Histories.load(settings.data, catalog))
    method = load_method(settings, catalog, split, shards.device(settings.device))
    users = sample_users(len(split), settings.users, settings.seed)
    held_out = split.test if settings.split == "test" else split.valid
    holdouts = [held_out(user) for user in users]

    def answer(positions: Sequence[int]) -> list[tuple[Named, ...]]:
        return method.answer([holdouts[position] for position in positions])

    log = BatchLog(settings.out, shards)
    what = f"evaluate {method.name}"
    found = in_batches(len(users), settings.batch_size, answer, log, what, shards)
    if not shards.is_main:
        return settings.out
    answers = [tuple(Named(*one) for one in named) for named in found]

    in_training = users_with_item(split, len(catalog))
    scores = score(answers, holdouts, catalog, settings.k, in_training, len(split))
    summary = summarise(method.name, scores, settings)
    summary |= overall(answers, holdouts, catalog, scores, in_training, settings)
    table = _user_table([split.user_ids[user] for user in users], holdouts, answers, catalog)
    with atomic_path(settings.out / USERS) as partial:
        table.with_columns(**{name: pl.Series(v) for name, v in scores.items()}).write_parquet(
            partial
        )
    write_json(settings.out / SUMMARY, summary)
    run.finish(**{name: interval["value"] for name, interval in summary["metrics"].items()})
    log.remove()
    console.print(metric_table(summary))
    return settings.out


def users_with_item(split: LeaveOneOut, items: int) -> Int64[np.ndarray, " items"]:
    """How many users have each item in their training history."""
    counts = np.zeros(items, dtype=np.int64)
    for user in range(len(split)):
        counts[np.unique(split.train(user))] += 1
    return counts


def score(
    answers: Sequence[Sequence[Named]],
    holdouts: Sequence[Holdout],
    catalog: Catalog,
    k: int,
    in_training: Int64[np.ndarray, " items"],
    training_users: int,
) -> dict[str, Float64[np.ndarray, " users"]]:
    """All metrics of `evaluate_recommend`, one value a user; NaN where one is not defined.

    Args:
        answers: What each user's answer names.
        holdouts: History and target of each user.
        catalog: The catalog that rows refer to.
        k: Things asked for.
        in_training: Users who have each item in their training history.
        training_users: Users in training.
    """
    named = [entries(answer) for answer in answers]
    targets = [{holdout.target} for holdout in holdouts]
    scores: dict[str, np.ndarray] = {}
    cutoffs = sorted({*(cutoff for cutoff in _CUTOFFS if cutoff < k), k})
    ranked = {
        "HR": metrics.hit_rate,
        "NDCG": metrics.ndcg,
        "MRR": metrics.mrr,
        "Recall": metrics.recall,
    }
    for name, metric in ranked.items():
        for cutoff in cutoffs:
            scores[f"{name}@{cutoff}"] = metric(named, targets, cutoff)
    scores[f"OOD@{k}"] = metrics.out_of_domain(named, k)
    scores[f"Repeats@{k}"] = metrics.repeats(named, k)
    histories = [set(holdout.history.tolist()) for holdout in holdouts]
    scores[f"InHistory@{k}"] = metrics.in_sets(named, histories, k)
    scores[f"RightCount@{k}"] = metrics.right_count(named, k)
    members = {name: set(catalog.category_rows(name).tolist()) for name in catalog.categories}
    alike = [
        set().union(*(members[name] for name in catalog.item(holdout.target).categories))
        for holdout in holdouts
    ]
    defined = np.array([bool(rows) for rows in alike])
    scores[f"TargetCategory@{k}"] = np.where(defined, metrics.in_sets(named, alike, k), np.nan)
    scores[f"Novelty@{k}"] = metrics.novelty(named, in_training, training_users, k)
    categories = [item.categories for item in catalog.items]
    scores[f"Similarity@{k}"] = metrics.intra_list_similarity(named, categories, k)
    return scores


def overall(
    answers: Sequence[Sequence[Named]],
    holdouts: Sequence[Holdout],
    catalog: Catalog,
    scores: Mapping[str, Float64[np.ndarray, " users"]],
    in_training: Int64[np.ndarray, " items"],
    settings: EvaluateRecommendSettings,
) -> dict[str, Any]:
    """What the summary says beyond means over all users; see `evaluate_recommend`."""
    k = settings.k
    groups = user_groups(holdouts, catalog, in_training)
    names = (f"HR@{k}", f"NDCG@{k}")
    found: dict[str, Any] = {
        "coverage": metrics.coverage([entries(answer) for answer in answers], len(catalog), k),
        "segments": segment_results(groups, scores, names, settings.bootstrap, settings.seed),
    }
    given = [
        (one.probability, one.row == holdout.target)
        for answer, holdout in zip(answers, holdouts, strict=True)
        for one in answer
        if one.probability is not None
    ]
    if given:
        probabilities, hits = zip(*given, strict=True)
        found["calibration"] = metrics.calibration(probabilities, hits)
    return found


def summarise(
    method: str,
    scores: Mapping[str, Float64[np.ndarray, " users"]],
    settings: EvaluateRecommendSettings,
) -> dict[str, Any]:
    """The contents of ``summary.json``; a metric that is defined for no user is left out."""
    values = np.stack(list(scores.values()), axis=1)
    intervals = metrics.bootstrap_intervals(values, settings.bootstrap, settings.seed)
    found = zip(scores, intervals, strict=True)
    return {
        "method": method,
        "users": len(values),
        "k": settings.k,
        "metrics": {name: i._asdict() for name, i in found if not np.isnan(i.value)},
    }


def sample_users(count: int, wanted: int, seed: int) -> list[int]:
    """Which users to score, ascending: all if `wanted` is 0 or more than there are."""
    if not 0 < wanted < count:
        return list(range(count))
    drawn = np.random.default_rng(seed).choice(count, size=wanted, replace=False)
    return sorted(drawn.tolist())


def _check(settings: EvaluateRecommendSettings) -> None:
    if settings.decode == "unconstrained":
        if settings.exclude_seen:
            raise ConfigError(
                "--exclude-seen: nothing can be excluded with --decode unconstrained; "
                "leave one of them out"
            )
        if not is_language_model(settings.model):
            raise ConfigError(
                f"--decode unconstrained: {settings.model} is no language model; leave it out"
            )


def _user_table(
    user_ids: Sequence[str],
    holdouts: Sequence[Holdout],
    answers: Sequence[Sequence[Named]],
    catalog: Catalog,
) -> pl.DataFrame:
    """One row a user; `items` holds null where `named` is not in the catalog."""

    def id_of(row: int | None) -> str | None:
        return None if row is None else catalog.item(row).item_id

    return pl.DataFrame(
        {
            "user_id": list(user_ids),
            "history_length": [len(holdout.history) for holdout in holdouts],
            "target": [id_of(holdout.target) for holdout in holdouts],
            "items": [[id_of(one.row) for one in answer] for answer in answers],
            "named": [[one.text for one in answer] for answer in answers],
            "probability": [[one.probability for one in answer] for answer in answers],
        },
        schema={
            "user_id": pl.String,
            "history_length": pl.Int64,
            "target": pl.String,
            "items": pl.List(pl.String),
            "named": pl.List(pl.String),
            "probability": pl.List(pl.Float64),
        },
    )
