"""Scores recommendations on held-out items: every method by the same code on the same users."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from jaxtyping import Float64
from rich.console import Console

from reclm.artifacts import MANIFEST, atomic_path, open_run, read_json, write_json
from reclm.config import EvaluateRecommendConfig
from reclm.data.catalog import Catalog
from reclm.data.interactions import Histories, Holdout, LeaveOneOut, leave_one_out
from reclm.data.prepared import prepared_files
from reclm.errors import ConfigError
from reclm.evaluation import metrics
from reclm.evaluation.answers import AnswerReader, Named, entries
from reclm.evaluation.report import metric_table
from reclm.items.semantic_ids import INDEX, ITEM2ID, load_semantic_ids
from reclm.items.vectors import load_vectors
from reclm.progress import with_progress
from reclm.teacher.location import is_url, open_teacher

if TYPE_CHECKING:
    from reclm.recommender import Recommender
    from reclm.teacher.client import Teacher

POPULARITY = "popularity"
SUMMARY = "summary.json"
USERS = "users.parquet"

_CUTOFFS = (1, 5, 10)

Answering = Callable[[Sequence[Holdout]], list[tuple[Named, ...]]]
"""Answers a batch of users, who are known by their histories; targets are not looked at."""


@dataclass(frozen=True, eq=False)
class Method:
    """Something that recommends.

    Attributes:
        name: Its name in the summary.
        answer: Asks it.
    """

    name: str
    answer: Answering


def evaluate_recommend(config: EvaluateRecommendConfig) -> Path:
    """Scores a model, a teacher or popularity on the held-out item of each user.

    Writes ``summary.json`` (method, users, k, and each metric with its 95 % bootstrap interval)
    and ``users.parquet`` (one row a user: the target, what was named, and all metrics) into
    ``config.out``. A language model is asked with the newest ``max_history`` items; a teacher sees
    as much of the history as it was made for. Seen items are all of the history, shown or not.

    Metrics, with k for the length of the answer:

    - ``HR``, ``NDCG``, ``MRR``, ``Recall`` at 1, 5, 10 and k: see `reclm.evaluation.metrics`.
    - ``RightCount@k``: share of answers that name exactly k things.
    - ``OOD@k``: share of what an answer names that is not in the catalog.
    - ``Repeats@k``: share that was named before in the same answer.
    - ``InHistory@k``: share that is in the user's history.
    - ``TargetCategory@k``: share that has a category in common with the target.

    The last four leave out users whose answer names nothing, the last one also those whose target
    has no category; a metric that is left with no user is not in the summary.

    Returns:
        ``config.out``.

    Raises:
        ConfigError: A setting cannot work.
        ArtifactError: ``config.out`` holds something else.
        DataError: The data is broken, or a user has fewer than three items.
        TeacherError: The teacher was fitted on another catalog.
        BackboneError: The model is incomplete or damaged.
    """
    _check(config)
    inputs = {**prepared_files(config.data), **model_files(config.model)}
    if config.vectors:
        inputs["vectors"] = existing_vectors(config.vectors)
    run = open_run(
        config.out,
        "evaluate recommend",
        config,
        inputs=inputs,
        identities=_identities(config),
        free_fields=("batch_size",),
    )
    console = Console(stderr=True)
    if run.finished:
        console.print(f"{config.out}: already evaluated", soft_wrap=True)
        console.print(metric_table(read_json(config.out / SUMMARY)))
        return config.out

    catalog = Catalog.load(config.data)
    split = leave_one_out(Histories.load(config.data, catalog))
    method = _method(config, catalog, split)
    users = sample_users(len(split), config.users, config.seed)
    held_out = split.test if config.split == "test" else split.valid
    holdouts = [held_out(user) for user in users]

    answers: list[tuple[Named, ...]] = []
    shown = batches(holdouts, config.batch_size)
    for batch in with_progress(shown, len(holdouts), f"evaluate {method.name}", console):
        answers += method.answer(batch)

    scores = score(answers, holdouts, catalog, config.k)
    summary = summarise(method.name, scores, config)
    table = _user_table([split.user_ids[user] for user in users], holdouts, answers, catalog)
    with atomic_path(config.out / USERS) as partial:
        table.with_columns(**{name: pl.Series(v) for name, v in scores.items()}).write_parquet(
            partial
        )
    write_json(config.out / SUMMARY, summary)
    run.finish(**{name: interval["value"] for name, interval in summary["metrics"].items()})
    console.print(metric_table(summary))
    return config.out


def score(
    answers: Sequence[Sequence[Named]], holdouts: Sequence[Holdout], catalog: Catalog, k: int
) -> dict[str, Float64[np.ndarray, " users"]]:
    """All metrics of `evaluate_recommend`, one value a user; NaN where one is not defined.

    Args:
        answers: What each user's answer names.
        holdouts: History and target of each user.
        catalog: The catalog that rows refer to.
        k: Things asked for.
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
    return scores


def summarise(
    method: str,
    scores: Mapping[str, Float64[np.ndarray, " users"]],
    config: EvaluateRecommendConfig,
) -> dict[str, Any]:
    """The contents of ``summary.json``; a metric that is defined for no user is left out."""
    values = np.stack(list(scores.values()), axis=1)
    intervals = metrics.bootstrap_intervals(values, config.bootstrap, config.seed)
    found = zip(scores, intervals, strict=True)
    return {
        "method": method,
        "users": len(values),
        "k": config.k,
        "metrics": {name: i._asdict() for name, i in found if not np.isnan(i.value)},
    }


def sample_users(count: int, wanted: int, seed: int) -> list[int]:
    """Which users to score, ascending: all if `wanted` is 0 or more than there are."""
    if not 0 < wanted < count:
        return list(range(count))
    drawn = np.random.default_rng(seed).choice(count, size=wanted, replace=False)
    return sorted(drawn.tolist())


def _check(config: EvaluateRecommendConfig) -> None:
    for field in ("k", "max_history", "batch_size", "bootstrap"):
        value = getattr(config, field)
        if value < 1:
            flag = "--" + field.replace("_", "-")
            raise ConfigError(f"{flag}: expected at least 1, got {value}")
    if config.users < 0:
        raise ConfigError(f"--users: expected 0 or more, got {config.users}")
    if config.decode == "unconstrained":
        if config.exclude_seen:
            raise ConfigError(
                "--exclude-seen: nothing can be excluded with --decode unconstrained; "
                "leave one of them out"
            )
        if not _is_language_model(config.model):
            raise ConfigError(
                f"--decode unconstrained: {config.model} is no language model; leave it out"
            )


def existing_vectors(path: str) -> Path:
    """The file a flag names.

    Raises:
        ConfigError: There is no such file.
    """
    if not Path(path).is_file():
        raise ConfigError(
            f"--vectors {path}: no such file; make item vectors with `reclm items embed`"
        )
    return Path(path)


def _is_language_model(model: str) -> bool:
    return model != POPULARITY and (Path(model) / "reclm.json").exists()


def _is_teacher(model: str) -> bool:
    manifest = Path(model) / MANIFEST
    return manifest.exists() and str(read_json(manifest).get("stage")).startswith("teacher ")


def model_files(model: str) -> dict[str, Path]:
    """The files of a model that its answers depend on."""
    if model == POPULARITY or is_url(model):
        return {}
    folder = Path(model)
    if not folder.is_dir():
        raise ConfigError(
            f"--model {model}: no such folder; expected a trained model, a teacher run, the URL "
            f"of a served teacher, or the word {POPULARITY}"
        )
    if not _is_language_model(model) and not _is_teacher(model):
        raise ConfigError(
            f"--model {model}: neither a trained model (reclm.json) nor a run of "
            "`reclm teacher fit` or `import-unirec`"
        )
    patterns = ("*.safetensors", "reclm.json", "teacher.json", f"*{INDEX}", f"*{ITEM2ID}")
    files = [file for pattern in patterns for file in folder.glob(pattern)]
    return {f"model/{file.name}": file for file in sorted(files)}


def _identities(config: EvaluateRecommendConfig) -> Mapping[str, str]:
    """What stands for the contents of a teacher that is served."""
    if not is_url(config.model):
        return {}
    from reclm.teacher.http import HttpTeacher

    return {"model": HttpTeacher(config.model, Catalog.load(config.data)).fingerprint}


def _method(config: EvaluateRecommendConfig, catalog: Catalog, split: LeaveOneOut) -> Method:
    """Loads what is to be scored."""
    if config.model == POPULARITY:
        from reclm.teacher.popularity import Popularity

        popularity = Popularity.from_histories(map(split.train, range(len(split))), catalog)
        return Method(POPULARITY, _ask_teacher(popularity, catalog, config))
    if _is_language_model(config.model):
        recommender = load_recommender(
            config.model, catalog, config.device, config.index or config.data, config.vectors
        )
        return Method(recommender.spec.method, _ask_model(recommender, config))
    teacher = open_teacher(config.model, catalog, config.device)
    return Method("sasrec", _ask_teacher(teacher, catalog, config))


def load_recommender(
    model: str | Path, catalog: Catalog, device: str, index: str | Path, vectors: str
) -> Recommender:
    """Loads a language model, for the catalog to be scored on.

    Args:
        model: Folder of the model.
        catalog: The catalog; if it is not the model's own, the next two say how the model writes or
            finds its items.
        device: Device to run on.
        index: Folder of index files, for a model that writes codes.
        vectors: File of item vectors, for a model that retrieves; empty for none.

    Raises:
        ConfigError: Vectors are given and of no use.
        SemanticIdError: Index files are needed, and missing or damaged.
        VectorError: Vectors are needed, and missing or do not fit.
    """
    from reclm.recommender import Recommender

    recommender = Recommender.from_pretrained(model, device=device)
    own = recommender.catalog.fingerprint == catalog.fingerprint
    if vectors and (own or recommender.backbone.head is None):
        raise ConfigError(
            f"--vectors {vectors}: {model} "
            + ("has those of this catalog" if own else "does not retrieve")
            + "; leave it out"
        )
    if own:
        return recommender
    semantic_ids = None
    if recommender.spec.item_form == "codes":
        semantic_ids = load_semantic_ids(index, catalog)
    return recommender.with_catalog(
        catalog, semantic_ids, load_vectors(vectors, len(catalog)) if vectors else None
    )


def _ask_teacher(teacher: Teacher, catalog: Catalog, config: EvaluateRecommendConfig) -> Answering:
    def answer(holdouts: Sequence[Holdout]) -> list[tuple[Named, ...]]:
        found = teacher.top_k(
            [holdout.history.tolist() for holdout in holdouts],
            min(config.k, len(catalog)),
            exclude_seen=config.exclude_seen,
        )
        return [
            tuple(Named(catalog.item(row).title, row) for row in rows.tolist() if row >= 0)
            for rows in found
        ]

    return answer


def _ask_model(recommender: Recommender, config: EvaluateRecommendConfig) -> Answering:
    titles = [item.title_t or item.title for item in recommender.catalog.items]
    reader = AnswerReader(
        recommender.catalog,
        titles,
        recommender.item_tokens,
        recommender.backbone.tokenizer,
        recommender.spec.list_form,
    )
    grounded = config.decode == "list"

    def write(holdouts: Sequence[Holdout]) -> list[tuple[Named, ...]]:
        requests = []
        for holdout in holdouts:
            history = holdout.history.tolist()
            excluded = recommender.excluded(history=history, exclude_seen=config.exclude_seen)
            request = recommender.list_request(
                history, config.k, excluded, grounded=grounded, max_history=config.max_history
            )
            # Left to itself the model also decides how many items are enough.
            requests.append(request if grounded else replace(request, max_items=None))
        return [
            reader.read(done.token_ids, truncated=done.finish_reason == "length")
            for done in recommender.engine.complete(requests)
        ]

    def rank(holdouts: Sequence[Holdout]) -> list[tuple[Named, ...]]:
        slots = []
        for holdout in holdouts:
            history = holdout.history.tolist()
            excluded = recommender.excluded(history=history, exclude_seen=config.exclude_seen)
            slots.append(
                recommender.slot(history, config.k, excluded, max_history=config.max_history)
            )
        return [
            tuple(Named(titles[row], row) for row in found.rows.tolist())
            for found in recommender.beam.top_items(slots, config.k)
        ]

    return rank if config.decode == "beam" else write


def batches(holdouts: Sequence[Holdout], size: int) -> Iterator[Sequence[Holdout]]:
    """Users in batches of at most ``size``."""
    for start in range(0, len(holdouts), size):
        yield holdouts[start : start + size]


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
        },
        schema={
            "user_id": pl.String,
            "history_length": pl.Int64,
            "target": pl.String,
            "items": pl.List(pl.String),
            "named": pl.List(pl.String),
        },
    )
