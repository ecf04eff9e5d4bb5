"""A folder of prepared data: the three intermediate files, together or not at all."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
from jaxtyping import Int64
from rich.console import Console
from rich.table import Table

from incatalog.artifacts import MANIFEST, atomic_folder, open_run, read_json
from incatalog.data.catalog import CATEGORIES, METAS, Catalog
from incatalog.data.interactions import MIN_INTERACTIONS, SEQUENCES, Histories
from incatalog.errors import ArtifactError, ConfigError, DataError

_MOST_NAMED = 20
_FILES = {METAS, CATEGORIES, SEQUENCES, MANIFEST}


class PrepareConfig(Protocol):
    """What every configuration of ``incatalog data`` names."""

    @property
    def out(self) -> Path:
        """Folder for the result."""
        ...


@dataclass(frozen=True, eq=False)
class Prepared:
    """A result, not yet written."""

    catalog: Catalog
    histories: Histories
    skipped: Mapping[str, int]
    unused: Mapping[Path, Sequence[str]] = field(default_factory=dict)


def prepared_files(folder: Path) -> dict[str, str | Path]:
    """The files of prepared data, as inputs of a run; what else lies in the folder is none."""
    for name in (METAS, SEQUENCES):
        if not (folder / name).is_file():
            raise DataError.at(folder / name, "no such file; expected a folder of prepared data")
    names = (METAS, CATEGORIES, SEQUENCES)
    return {name: folder / name for name in names if (folder / name).is_file()}


def check_out(out: Path) -> None:
    """Refuses an output folder that holds anything but earlier prepared data."""
    if not out.exists():
        return
    if not out.is_dir():
        raise ArtifactError(f"--out {out}: is a file; expected a new or empty folder")
    names = {path.name for path in out.iterdir()}
    if not names:
        return
    other = sorted(names - _FILES)
    if other:
        raise ArtifactError(
            f"--out {out}: holds {other[0]}; "
            "expected a new or empty folder, or one with data prepared earlier"
        )
    if MANIFEST not in names or not str(_stage(out)).startswith("data "):
        raise ArtifactError(
            f"--out {out}: holds data that `incatalog data` did not write; name another folder"
        )


def check_min_interactions(flag: str, value: int) -> None:
    """Refuses a limit under which users could not be split."""
    if value < MIN_INTERACTIONS:
        raise ConfigError(
            f"{flag} {value}: expected at least {MIN_INTERACTIONS}, "
            "one item each to train, to validate and to test with"
        )


def group_histories(
    frame: pl.DataFrame, user_ids: Mapping[int, str] | list[str]
) -> tuple[list[str], list[Int64[np.ndarray, " length"]]]:
    """Collects the items of each user."""
    grouped = frame.group_by("user", maintain_order=True).agg(pl.col("item"))
    names = [user_ids[user] for user in grouped["user"].to_list()]
    return names, [items.to_numpy() for items in grouped["item"]]


def drop_short(frame: pl.DataFrame, length: int) -> pl.DataFrame:
    """Leaves out users with fewer than ``length`` interactions."""
    return frame.filter(pl.len().over("user") >= length)


def write_prepared(
    prepared: Prepared, stage: str, config: PrepareConfig, inputs: Mapping[str, Path]
) -> Path:
    """Writes all files and a manifest in one stroke, and prints a summary."""
    out = Path(config.out)
    check_out(out)
    counts = {
        "users": len(prepared.histories),
        "items": len(prepared.catalog),
        "interactions": len(prepared.histories.rows),
        "categories": len(prepared.catalog.categories),
    }
    skipped = {reason: count for reason, count in prepared.skipped.items() if count}
    with atomic_folder(out) as partial:
        run = open_run(partial, stage, config, inputs=inputs)
        prepared.catalog.save(partial)
        prepared.histories.save(partial, prepared.catalog)
        run.finish(**counts, skipped=skipped)
    _print_summary(out, counts, skipped)
    _print_unused(prepared.unused)
    return out


def require_users(path: Path, users: int, hint: str) -> None:
    """Refuses a result without users."""
    if not users:
        raise DataError.at(path, f"no user is left after filtering; {hint}")


def _stage(out: Path) -> Any:
    try:
        manifest = read_json(out / MANIFEST)
    except DataError:
        return None
    return manifest.get("stage") if isinstance(manifest, dict) else None


def _print_unused(unused: Mapping[Path, Sequence[str]]) -> None:
    """Names, in one line, what the files hold and nothing reads."""
    parts = []
    for path, columns in unused.items():
        shown = [name or "(no name)" for name in columns[:_MOST_NAMED]]
        more = len(columns) - len(shown)
        shown += [f"{more} more"] if more else []
        parts += [f"{', '.join(shown)} of {path.name}"] if shown else []
    if parts:
        line = " ".join(f"notice: columns not used: {'; '.join(parts)}".split())
        sys.stderr.write(f"{line}\n")


def _print_summary(out: Path, counts: Mapping[str, int], skipped: Mapping[str, int]) -> None:
    table = Table()
    table.add_column("prepared data")
    table.add_column("count", justify="right")
    for name, count in counts.items():
        table.add_row(name, f"{count:,}")
    for reason, count in skipped.items():
        table.add_row(f"skipped: {reason}", f"{count:,}", style="yellow")
    console = Console()
    console.print(table)
    console.print(f"written to {out}", highlight=False, soft_wrap=True)
