"""A folder of prepared data: its files are written together or not at all."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from incatalog.artifacts import MANIFEST, atomic_folder, open_run, read_json
from incatalog.data.catalog import CATEGORIES, METAS, Catalog
from incatalog.data.fields import Place
from incatalog.data.interactions import MIN_INTERACTIONS, SEQUENCES, Histories, k_core
from incatalog.data.settings import AmazonSettings, MovieLensSettings, TableSettings
from incatalog.data.times import Times
from incatalog.errors import ArtifactError, ConfigError, DataError

_MOST_NAMED = 20
_FILES = {METAS, CATEGORIES, SEQUENCES, MANIFEST}


class Interactions:
    """What users did, gathered row by row of a file.

    ``times`` orders the rows of a user; None keeps the order of the file.
    """

    def __init__(self, times: Times | None) -> None:
        self._user_codes: dict[str, int] = {}
        self._users, self._items = array("i"), array("i")
        self._times = times

    @property
    def user_ids(self) -> list[str]:
        """Name of each user code."""
        return list(self._user_codes)

    def knows(self, user: object) -> bool:
        """Whether an earlier row names this user."""
        return isinstance(user, str) and user in self._user_codes

    def user(self, user_id: str) -> int:
        """The code of a user, who counts as one from now on."""
        return self._user_codes.setdefault(user_id, len(self._user_codes))

    def add(self, place: Place, user_id: str, item: int, time: Any) -> None:
        """Adds a row; the item is a code."""
        if self._times is not None:
            self._times.add(place, time)
        self._users.append(self.user(user_id))
        self._items.append(item)

    def frame(self, **columns: array[float]) -> pl.DataFrame:
        """Columns ``user``, ``item`` (codes), ``time`` and ``columns``, by user and time.

        Rows with equal times stand as in the file.
        """
        users, items = np.asarray(self._users), np.asarray(self._items)
        times = np.zeros(len(users), np.int64) if self._times is None else self._times.order()
        others = {name: np.asarray(values) for name, values in columns.items()}
        frame = pl.DataFrame({"user": users, "item": items, "time": times, **others})
        return frame.sort("user", "time", maintain_order=True)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A result, not yet written."""

    catalog: Catalog
    histories: Histories
    skipped: Mapping[str, int]  # How many were left out, by reason.
    unused: Mapping[Path, Sequence[str]] = field(default_factory=dict)  # Columns, by file.


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


def _stage(out: Path) -> Any:
    try:
        manifest = read_json(out / MANIFEST)
    except DataError:
        return None
    return manifest.get("stage") if isinstance(manifest, dict) else None


def check_min_interactions(flag: str, value: int) -> None:
    """Refuses a limit under which users could not be split."""
    if value < MIN_INTERACTIONS:
        raise ConfigError(
            f"{flag} {value}: expected at least {MIN_INTERACTIONS}, "
            "one item each to train, to validate and to test with"
        )


def check_k_core(k: int) -> None:
    """Refuses a negative ``--k-core``."""
    if k < 0:
        raise ConfigError(f"--k-core {k}: expected 0 (off) or more")


def keep_active(frame: pl.DataFrame, least: int, core: int = 0) -> pl.DataFrame:
    """Leaves out users with fewer than ``least`` interactions; with ``core``, all but the core."""
    if core:
        return k_core(frame, core, user_k=max(core, least))
    return frame.filter(pl.len().over("user") >= least)


def require_users(path: Path, users: int, hint: str) -> None:
    """Refuses a result without users; ``hint`` names the flags to change."""
    if not users:
        raise DataError.at(path, f"no user is left after filtering; {hint}")


def renumber(frame: pl.DataFrame) -> tuple[pl.DataFrame, list[int]]:
    """The frame with the items that occur numbered from 0, and the old code of each, ascending."""
    codes = frame["item"].unique().sort().to_list()
    return frame.with_columns(item=pl.col("item").rank("dense") - 1), codes


def group_histories(frame: pl.DataFrame, user_ids: Sequence[str]) -> Histories:
    """The items of each user, in the order of the frame."""
    grouped = frame.group_by("user", maintain_order=True).agg(pl.col("item"))
    names = [user_ids[user] for user in grouped["user"].to_list()]
    return Histories.from_lists(names, [items.to_numpy() for items in grouped["item"]])


def write_prepared(
    prepared: Prepared,
    stage: str,
    settings: AmazonSettings | MovieLensSettings | TableSettings,
    inputs: Mapping[str, Path],
) -> Path:
    """Writes all files and a manifest in one stroke, and prints a summary."""
    out = Path(settings.out)
    check_out(out)
    counts = {
        "users": len(prepared.histories),
        "items": len(prepared.catalog),
        "interactions": len(prepared.histories.rows),
        "categories": len(prepared.catalog.categories),
    }
    skipped = {reason: count for reason, count in prepared.skipped.items() if count}
    with atomic_folder(out) as partial:
        run = open_run(partial, stage, settings, inputs=inputs)
        prepared.catalog.save(partial)
        prepared.histories.save(partial, prepared.catalog)
        run.finish(**counts, skipped=skipped)
    _print_summary(out, counts, skipped)
    _print_unused(prepared.unused)
    return out


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
