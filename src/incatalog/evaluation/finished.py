"""Finished evaluation runs, for those who read several."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from incatalog.artifacts import MANIFEST, read_json
from incatalog.checksums import verify_checksums
from incatalog.errors import ArtifactError, ConfigError, DataError

RECOMMEND, CHAT = "evaluate recommend", "evaluate chat"
SUMMARY = "summary.json"
USERS = "users.parquet"
CONVERSATIONS = "conversations.jsonl"
# What the name of a method with a guide ends with.
GUIDED = ", guided"

# How a language model answered, where that was not by ranking items.
_FORMS = {"list": "list", "greedy": "greedy list", "unconstrained": "unconstrained"}
_FREE = ("unconstrained", "free text")
_AGAIN = "restore it, or evaluate again"


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A finished run and the name it is shown under."""

    folder: Path
    name: str
    manifest: Mapping[str, Any]
    summary: Mapping[str, Any]
    stage: str  # The command that made it.
    k: int  # Items of an answer.

    @classmethod
    def load(cls, folder: str | Path, *stages: str) -> FinishedRun:
        """Reads a run of one of these commands."""
        folder = Path(folder)
        manifest, summary = read_finished(folder, stages)
        method, stage = str(summary["method"]), str(manifest["stage"])
        found = cls(folder, method, manifest, summary, stage, int(summary["k"]))
        asked = " ".join(filter(None, ("guided" if found.guided else "", found.form)))
        return replace(found, name=f"{found.method} ({asked})" if asked else found.method)

    @property
    def method(self) -> str:
        """The method, whether it was guided or not."""
        return str(self.summary["method"]).removesuffix(GUIDED)

    @property
    def guided(self) -> bool:
        """Whether a teacher weighed the items of a language model."""
        return "guide_weight" in self.summary

    @property
    def is_language_model(self) -> bool:
        """Whether a language model answered."""
        return "decode" in self.summary or self.stage == CHAT

    @property
    def is_free(self) -> bool:
        """Whether nothing held a language model to the catalog."""
        return self.summary.get("decode") in _FREE

    @property
    def form(self) -> str:
        """How a language model answered; empty for a ranking, and where there is no other way."""
        return _FORMS.get(str(self.summary.get("decode")), "")

    def is_guided_by(self, teacher: FinishedRun) -> bool:
        """Whether the guide is the very teacher that another run scored."""
        own, its = self._inputs("guide"), teacher._inputs("model")
        return self.guided and bool(own) and own == its

    def _inputs(self, role: str) -> dict[str, str]:
        """Hashes of the files of a model or guide, or the identity of a served one."""
        found, folder = dict(self.manifest.get("data", {})), f"{role}/"
        files = {k.removeprefix(folder): v for k, v in found.items() if k.startswith(folder)}
        return files or ({"": found[role]} if role in found else {})

    @cached_property
    def users(self) -> pl.DataFrame:
        """One row a user, with all metrics."""
        return read_users(self.folder / USERS)


def named_runs(runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    """Runs under the names of their methods; where two are alike, under those of their folders."""
    methods = [run.name for run in runs]
    folders = [str(run.folder) for run in runs]
    for names in (methods, [run.folder.name for run in runs], folders):
        if len(set(names)) == len(names):
            return [replace(run, name=name) for run, name in zip(runs, names, strict=True)]
    raise ConfigError(f"--runs: the same run twice: {json.dumps(folders)}")


def check_same_users(runs: Sequence[FinishedRun]) -> None:
    """Refuses runs that did not ask the users of the first one for the same targets."""
    first, *others = (dict(run.users.select("user_id", "target").rows()) for run in runs)
    for other, second in zip(runs[1:], others, strict=True):
        place = f"{runs[0].folder} and {other.folder}"
        if first.keys() != second.keys():
            only = len(first.keys() - second.keys()), len(second.keys() - first.keys())
            raise DataError(
                f"{place}: scored on other users ({only[0]} only in the first, {only[1]} only in "
                "the second); repeat one with the --data, --users and --seed of the other"
            )
        if moved := [user for user in first if first[user] != second[user]]:
            raise DataError(
                f"{place}: {len(moved)} users have another target (user {moved[0]!r}: "
                f"{first[moved[0]]!r} and {second[moved[0]]!r}); repeat one with the --data and "
                "--split of the other"
            )


def read_finished(folder: Path, stages: Collection[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Manifest and summary of a run that `--runs` names, which must be one of these commands'."""
    wanted = " or ".join(f"`incatalog {stage}`" for stage in stages)
    expected = f"expected a finished run of {wanted}"
    if not (folder / MANIFEST).exists():
        raise ArtifactError(f"--runs {folder}: holds no {MANIFEST}; {expected}")
    manifest = _object(folder / MANIFEST)
    stage = manifest.get("stage")
    if stage not in stages:
        raise ArtifactError(f"--runs {folder}: holds `incatalog {stage}`; {expected}")
    if manifest.get("status") != "finished":
        raise ArtifactError(f"--runs {folder}: is not finished; repeat its command first")
    verify_checksums(folder, (SUMMARY, USERS, CONVERSATIONS))
    summary = _object(folder / SUMMARY)
    if "method" not in summary:
        raise ArtifactError(f"{folder / SUMMARY}: names no method; {_AGAIN}")
    return manifest, summary


def read_users(path: Path) -> pl.DataFrame:
    """A table with a row for each user."""
    try:
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ArtifactError(f"{path}: cannot be read ({reason}); {_AGAIN}") from error


def read_lines(path: Path, count: int) -> list[Any]:
    """The first records of a file of JSON lines; fewer only if it has fewer."""
    found: list[Any] = []
    try:
        with path.open("rb") as lines:
            for line, _ in zip(lines, range(count), strict=False):
                found.append(json.loads(line))
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror}); {_AGAIN}") from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}:{len(found) + 1}: damaged line; {_AGAIN}") from error
    if count and not found:
        raise ArtifactError(f"{path}: is empty; {_AGAIN}")
    return found


def _object(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except DataError as error:
        raise ArtifactError(f"{error}; {_AGAIN}") from error
    if not isinstance(found, dict):
        raise ArtifactError(f"{path}: holds no JSON object; {_AGAIN}")
    return found
