"""Scores recommendations on held-out items: every method by the same code on the same users."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Int64

from incatalog import metrics
from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Holdout
from incatalog.errors import ConfigError
from incatalog.evaluation.finished import RECOMMEND, USERS
from incatalog.evaluation.methods import (
    check_asked,
    guide_files,
    is_language_model,
    load_method,
    with_decode,
)
from incatalog.evaluation.plain_text import is_plain_model, writes_plain_text
from incatalog.evaluation.reader import Named, entries, id_of
from incatalog.evaluation.result_tables import metric_table
from incatalog.evaluation.run import EvaluationRun
from incatalog.evaluation.segments import segment_results, user_groups
from incatalog.evaluation.settings import EvaluateRecommendSettings
from incatalog.model.hub import with_model_here
from incatalog.recommender.settings import ABOUT_LISTS, OFF, OWN

_CUTOFFS = (1, 5, 10)
_RANKED = (metrics.hit_rate, metrics.ndcg, metrics.mrr, metrics.recall)


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
    - ``Novelty@k``, ``Similarity@k``: see `incatalog.metrics`.

    Where an answer leaves a metric undefined (it names nothing, the target has no category), its
    user does not count; a metric that is left with no user is not in the summary.

    A model that names items in plain text, trained without control tokens (``plain titles``) or
    never trained (``untrained``), is read by `incatalog.evaluation.plain_text.TitleReader`;
    ``decode`` is then ``free text``.

    A language model with a guide (``--guide``) is called ``cgen, guided``, or as its method is, and
    ``guide_weight`` says how much the guide counted. The teacher sees the whole history.

    Beside them stand the ``coverage`` of the catalog; ``segments``: hit rate and NDCG by kind of
    user (see `incatalog.evaluation.segments`); and for models that rank (``--decode beam``) the
    ``calibration`` of the probabilities they give items.

    Returns:
        ``settings.out``.

    Raises:
        ConfigError: A setting cannot work.
        ArtifactError: ``settings.out`` holds something else.
        DataError: The data is broken, or a user has fewer than three items.
        TeacherError: The teacher was fitted on another catalog.
        BackboneError: The model is incomplete or damaged.
    """
    settings = with_decode(with_model_here(settings))
    free, plain = settings.decode == "unconstrained", is_plain_model(settings.model)
    text = free and (plain or writes_plain_text(settings.model))
    if text and settings.exclude_seen:
        raise ConfigError(
            f"--exclude-seen: nothing can be excluded from plain text, which {settings.model} "
            "writes; leave it out"
        )
    if free and settings.exclude_seen:
        raise ConfigError(
            "--exclude-seen: nothing can be excluded with --decode unconstrained; "
            "leave one of them out"
        )
    if free and not (plain or is_language_model(settings.model)):
        raise ConfigError(
            f"--decode unconstrained: {settings.model} is no language model; leave it out"
        )
    if settings.max_new_tokens is not None and not free:
        raise ConfigError(
            f"--max-new-tokens {settings.max_new_tokens}: is about unconstrained answers, which "
            f"{settings.model} does not give; leave it out"
        )
    check_asked(settings)
    listed = settings.decode in ("list", "greedy")
    settings.refuse_first(
        [(settings.first_share is not None and not listed, "first_share", ABOUT_LISTS)]
    )
    _check_guide(settings)
    run = EvaluationRun(
        RECOMMEND,
        settings,
        lambda summary: [metric_table(summary)],
        guide_files(settings),
        {"guide": settings.guide},
    )
    if run.finished:
        return settings.out
    scored = load_method(settings, run.catalog, run.split, run.device)
    found = run.in_batches(run.holdouts, scored.answer, f"evaluate {scored.name}")
    if not run.shards.is_main:
        return settings.out
    answers = [tuple(Named(*one) for one in named) for named in found]
    catalog, holdouts, counts = run.catalog, run.holdouts, run.users_with_item
    scores = score(answers, holdouts, catalog, settings.k, counts, len(run.split))
    guided = {} if scored.guide_weight is None else {"guide_weight": scored.guide_weight}
    asked = {} if scored.decode is None else {"decode": scored.decode}
    results: dict[str, Any] = asked | guided | {"metrics": run.intervals(scores)}
    rows = [entries(answer) for answer in answers]
    results["coverage"] = metrics.coverage(rows, len(catalog), settings.k)
    groups = user_groups(holdouts, catalog, counts)
    shown = {name: scores[name] for name in (f"HR@{settings.k}", f"NDCG@{settings.k}")}
    results["segments"] = segment_results(groups, shown, settings.bootstrap, settings.seed)
    if given := [
        (one.probability, one.row == holdout.target)
        for answer, holdout in zip(answers, holdouts, strict=True)
        for one in answer
        # What a guide counts in is no probability.
        if one.probability is not None and scored.guide_weight is None
    ]:
        results["calibration"] = metrics.calibration(*zip(*given, strict=True))
    # `items` holds null where `named` is not in the catalog.
    columns = {
        "user_id": run.user_ids,
        "history_length": [len(holdout.history) for holdout in holdouts],
        "target": [id_of(catalog, holdout.target) for holdout in holdouts],
        "items": [[id_of(catalog, one.row) for one in answer] for answer in answers],
        "named": [[one.text for one in answer] for answer in answers],
        "probability": [[one.probability for one in answer] for answer in answers],
    }
    texts, numbers = pl.List(pl.String), pl.List(pl.Float64)
    types = {"items": texts, "named": texts, "probability": numbers}
    run.write_table(USERS, pl.DataFrame({**columns, **scores}, schema_overrides=types))
    return run.finish(scored.name, results, results["metrics"])


def _check_guide(settings: EvaluateRecommendSettings) -> None:
    """Refuses a guide of what cannot be guided."""
    named = settings.guide not in (OWN, OFF) or settings.guide_weight is not None
    if not named:
        return
    language = is_language_model(settings.model) or is_plain_model(settings.model)
    for cannot, why in (
        (not language, f"{settings.model} is no language model"),
        (settings.decode == "unconstrained", "nothing can be guided with --decode unconstrained"),
    ):
        if cannot:
            flag = "--guide-weight" if settings.guide in (OWN, OFF) else "--guide"
            raise ConfigError(f"{flag}: {why}; leave it out")


def score(
    answers: Sequence[Sequence[Named]],
    holdouts: Sequence[Holdout],
    catalog: Catalog,
    k: int,
    users_with_item: Int64[np.ndarray, " items"],
    training_users: int,
) -> dict[str, metrics.Users]:
    """All metrics of `evaluate_recommend`, one value a user; NaN where one is not defined."""
    named = [entries(answer) for answer in answers]
    targets = [{holdout.target} for holdout in holdouts]
    cutoffs = sorted({*(cutoff for cutoff in _CUTOFFS if cutoff < k), k})
    ranked = {
        f"{name}@{cutoff}": metric(named, targets, cutoff)
        for name, metric in zip(("HR", "NDCG", "MRR", "Recall"), _RANKED, strict=True)
        for cutoff in cutoffs
    }
    histories = [set(holdout.history.tolist()) for holdout in holdouts]
    categories = [item.categories for item in catalog.items]
    members = {name: set(catalog.category_rows(name).tolist()) for name in catalog.categories}
    own = [[members[name] for name in categories[holdout.target]] for holdout in holdouts]
    alike = metrics.in_sets(named, [set().union(*sets) for sets in own], k)
    others = {
        "OOD": metrics.out_of_domain(named, k),
        "Repeats": metrics.repeats(named, k),
        "InHistory": metrics.in_sets(named, histories, k),
        "RightCount": metrics.right_count(named, k),
        "TargetCategory": np.where(list(map(bool, own)), alike, np.nan),
        "Novelty": metrics.novelty(named, users_with_item, training_users, k),
        "Similarity": metrics.intra_list_similarity(named, categories, k),
    }
    return ranked | {f"{name}@{k}": values for name, values in others.items()}
