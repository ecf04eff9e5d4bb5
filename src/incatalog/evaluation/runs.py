"""Finished evaluation runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from incatalog.errors import ConfigError, DataError
from incatalog.evaluation.finished import read_finished, read_users

CONVERSATIONS = "conversations.jsonl"


@dataclass(frozen=True, eq=False)
class ScoredRun:
    """A finished run of `incatalog evaluate recommend`.

    Attributes:
        folder: Its folder.
        name: Its name in tables.
        k: Items of an answer.
        users: One row a user, with all metrics.
    """

    folder: Path
    name: str
    k: int
    users: pl.DataFrame


def load_run(folder: str | Path) -> ScoredRun:
    """Reads a finished run of `incatalog evaluate recommend`.

    Raises:
        ArtifactError: The folder holds none.
    """
    folder = Path(folder)
    _, summary = read_finished(folder, ("evaluate recommend",))
    users = read_users(folder / USERS)
    return ScoredRun(folder, str(summary["method"]), int(summary["k"]), users)


def check_same_users(one: ScoredRun, two: ScoredRun) -> None:
    """Checks that two runs asked the same users for the same targets.

    Raises:
        DataError: They did not; says how they differ.
    """
    first, second = (dict(run.users.select("user_id", "target").rows()) for run in (one, two))
    place = f"{one.folder} and {two.folder}"
    if first.keys() != second.keys():
        only = len(first.keys() - second.keys()), len(second.keys() - first.keys())
        raise DataError(
            f"{place}: scored on other users ({only[0]} only in the first, {only[1]} only in the "
            "second); repeat one with the --data, --users and --seed of the other"
        )
    moved = [user for user in first if first[user] != second[user]]
    if moved:
        raise DataError(
            f"{place}: {len(moved)} users have another target (user {moved[0]!r}: "
            f"{first[moved[0]]!r} and {second[moved[0]]!r}); repeat one with the --data and "
            "--split of the other"
        )


def named_runs(runs: Sequence[ScoredRun]) -> list[ScoredRun]:
    """Runs under names of their own: where methods repeat, the folder's name tells them apart."""
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        names = [run.folder.name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run.folder) for run in runs]
    if len(set(names)) < len(names):
        raise ConfigError(f"--runs: the same run twice: {json.dumps(names)}")
    pairs = zip(runs, names, strict=True)
    return [ScoredRun(run.folder, name, run.k, run.users) for run, name in pairs]


_STAGES = ("evaluate recommend", "evaluate chat")


@dataclass(frozen=True)
class ReportedRun:
    """A finished run that goes into a report.

    Attributes:
        folder: Its folder.
        name: Its name on the page.
        manifest: Its manifest.
        summary: Its summary.
    """

    folder: Path
    name: str
    manifest: Mapping[str, Any]
    summary: Mapping[str, Any]


def load_reported(folder: str | Path) -> ReportedRun:
    """Reads a run that a report can be about.

    Raises:
        ArtifactError: The folder holds none.
    """
    folder = Path(folder)
    manifest, summary = read_finished(folder, _STAGES)
    return ReportedRun(folder, str(summary["method"]), manifest, summary)


def named(runs: Sequence[ReportedRun]) -> list[ReportedRun]:
    """Runs under names of their own: where methods of one stage repeat, their folders'."""
    found = []
    for run in runs:
        alike = [
            other
            for other in runs
            if other.name == run.name and other.manifest["stage"] == run.manifest["stage"]
        ]
        short = len({other.folder.name for other in alike}) == len(alike)
        folder = run.folder.name if short else str(run.folder)
        found.append(replace(run, name=f"{run.name} ({folder})") if len(alike) > 1 else run)
    return found


SUMMARY = "summary.json"


USERS = "users.parquet"
