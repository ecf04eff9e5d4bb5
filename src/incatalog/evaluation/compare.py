"""Whether two runs really differ: paired tests on the same users."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product
from typing import Any

import numpy as np
from jaxtyping import Float64
from rich.console import Console

from incatalog import metrics
from incatalog.artifacts import open_run, write_json
from incatalog.errors import ConfigError
from incatalog.evaluation.finished import (
    RECOMMEND,
    USERS,
    FinishedRun,
    check_same_users,
    named_runs,
)
from incatalog.evaluation.headline import deciding_metric, headline
from incatalog.evaluation.result_tables import comparison_table
from incatalog.evaluation.settings import EvaluateCompareSettings

COMPARISON = "comparison.json"

_EXACT_UP_TO = 14
# Sums of the same numbers in another order differ in their last bits.
_SAME = 1e-12


def evaluate_compare(settings: EvaluateCompareSettings) -> dict[str, Any]:
    """Compares each two runs user by user, prints what is found, and writes ``comparison.json``.

    For every metric the mean difference over users comes with its 95 % bootstrap interval, and
    with the two-sided p-value of the paired permutation test (the sign of each user's difference
    is flipped at random). ``p_holm`` is that value corrected for the number of pairs (Holm, 1979).
    Users for whom a metric is not defined in one of the two runs do not count for it.

    Three sentences follow, as on top of a report: what was compared, who wins by NDCG (or the first
    that was compared of hit rate, MRR and recall), and what the language model adds.

    Returns:
        The contents of ``comparison.json``: ``runs``, ``pairs`` with their differences, and the
        sentences as ``headline``, if there is a metric to win by.

    Raises:
        ConfigError: There are fewer than two runs, or a metric that a run does not have.
        ArtifactError: A folder holds no finished run of `incatalog evaluate recommend`.
        DataError: Two runs were not scored on the same users and targets.
    """
    if len(settings.runs) < 2:
        raise ConfigError(f"--runs: expected two or more runs, got {len(settings.runs)}")
    runs = named_runs([FinishedRun.load(folder, RECOMMEND) for folder in settings.runs])
    check_same_users(runs)
    k = min(run.k for run in runs)
    names = settings.metrics or (f"HR@{k}", f"NDCG@{k}")
    for name, run in product(names, runs):
        known = [column for column in run.users.columns if "@" in column]
        if name not in known:
            has = ", ".join(known)
            raise ConfigError(f"--metrics {name}: {run.folder} has no such metric; has {has}")
    opened = None
    if settings.out is not None:
        inputs = {f"run {number}": run.folder / USERS for number, run in enumerate(runs)}
        opened = open_run(settings.out, "evaluate compare", settings, inputs=inputs)
    result = compare_runs(runs, names, settings.resamples, settings.seed)
    sentences: tuple[str, ...] = ()
    if (deciding := deciding_metric(names)) is not None:
        sentences = found = headline(runs, result["pairs"], deciding)
        result["headline"] = found._asdict()
    if opened is not None and not opened.finished:
        write_json(opened.folder / COMPARISON, result)
        opened.finish()
    console = Console()
    console.print(comparison_table(result))
    for sentence in sentences:
        console.print(sentence, highlight=False, markup=False)
    return result


def compare_runs(
    runs: Sequence[FinishedRun], names: Sequence[str], resamples: int, seed: int
) -> dict[str, Any]:
    """The contents of ``comparison.json``, for runs whose users were checked."""
    pairs: list[dict[str, Any]] = []
    for one, two in combinations(runs, 2):
        # Rows are paired by user, as their order may differ.
        order = one.users.select("user_id").join(two.users, on="user_id", maintain_order="left")
        columns = [order[name].to_numpy() - one.users[name].to_numpy() for name in names]
        intervals = metrics.bootstrap_intervals(np.stack(columns, axis=1), resamples, seed)
        for name, column, interval in zip(names, columns, intervals, strict=True):
            defined = column[~np.isnan(column)]
            p = permutation_p(defined, resamples, seed) if len(defined) else None
            pair = {"metric": name, "first": one.name, "second": two.name, "users": len(defined)}
            pairs.append({**pair, "difference": interval._asdict(), "p": p})
    for name in names:
        of_metric = [pair for pair in pairs if pair["metric"] == name and pair["p"] is not None]
        for pair, corrected in zip(of_metric, holm([p["p"] for p in of_metric]), strict=True):
            pair["p_holm"] = corrected
    described = [{"name": run.name, "folder": str(run.folder)} for run in runs]
    return {"runs": described, "users": len(runs[0].users), "pairs": pairs}


def permutation_p(differences: Float64[np.ndarray, " users"], resamples: int, seed: int) -> float:
    """Two-sided p-value of the paired permutation test on the mean difference.

    If at most 14 users differ, all sign flips are tried; else ``resamples`` random ones, and the
    observed signs count as one of them, so that p is never 0 (Phipson and Smyth, 2010).
    """
    different = differences[differences != 0]
    observed = abs(different.sum()) * (1 - _SAME)
    users = len(different)
    if users <= _EXACT_UP_TO:
        signs = 1 - 2 * ((np.arange(1 << users)[:, None] >> np.arange(users)) & 1)
        return float(np.mean(np.abs(signs @ different) >= observed))
    random = np.random.default_rng(seed)
    extreme = 0
    for rows in metrics.parts(resamples, users):
        flips = 1.0 - 2.0 * random.integers(2, size=(rows, users), dtype=np.int8)
        extreme += int(np.sum(np.abs(flips @ different) >= observed))
    return (1 + extreme) / (1 + resamples)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number by Holm's step-down procedure."""
    order = np.argsort(p_values, kind="stable")
    stepped = np.take(p_values, order) * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.maximum.accumulate(np.minimum(1.0, stepped))
    found: list[float] = corrected.tolist()
    return found
