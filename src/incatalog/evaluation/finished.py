"""What finished evaluations have left in their run folders, for those who read several."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import polars as pl

from incatalog.artifacts import MANIFEST, read_json
from incatalog.checksums import verify_checksums
from incatalog.errors import ArtifactError, DataError

_AGAIN = "restore it, or evaluate again"


def read_finished(folder: Path, stages: Collection[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Manifest and summary of a run that is finished.

    Args:
        folder: A folder that the flag ``--runs`` names.
        stages: Commands whose runs will do.

    Raises:
        ArtifactError: The folder holds no such run, or a damaged one.
    """
    wanted = " or ".join(f"`incatalog {stage}`" for stage in stages)
    expected = f"expected a finished run of {wanted}"
    if not (folder / MANIFEST).exists():
        raise ArtifactError(f"--runs {folder}: holds no {MANIFEST}; {expected}")
    manifest = _object(folder / MANIFEST)
    if manifest.get("stage") not in stages:
        raise ArtifactError(
            f"--runs {folder}: holds `incatalog {manifest.get('stage')}`; {expected}"
        )
    if manifest.get("status") != "finished":
        raise ArtifactError(f"--runs {folder}: is not finished; repeat its command first")
    verify_checksums(folder, ("summary.json", "users.parquet", "conversations.jsonl"))
    summary = _object(folder / "summary.json")
    if "method" not in summary:
        raise ArtifactError(f"{folder / 'summary.json'}: names no method; {_AGAIN}")
    return manifest, summary


def read_users(path: Path) -> pl.DataFrame:
    """A table with a row for each user.

    Raises:
        ArtifactError: It is missing or damaged.
    """
    try:
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ArtifactError(f"{path}: cannot be read ({reason}); {_AGAIN}") from error


def read_lines(path: Path, count: int) -> list[Any]:
    """The first records of a file of JSON lines; fewer only if it has fewer.

    Raises:
        ArtifactError: It is missing, empty or damaged; names the line.
    """
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
