"""A folder of prepared data: its files are written together or not at all."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from incatalog.artifacts import MANIFEST, atomic_folder, open_run, read_json
from incatalog.checksums import FILES
from incatalog.data.catalog import CATEGORIES, METAS, Catalog
from incatalog.data.interactions import MIN_INTERACTIONS, SEQUENCES, Histories
from incatalog.data.naming import CATALOG_FILE
from incatalog.data.settings import (
    MiniOneRecSettings,
    MovieLensSettings,
    ReviewSettings,
    TableSettings,
)
from incatalog.errors import ArtifactError, ConfigError, DataError
from incatalog.storage import follow_umask, partial_name, writing

PrepareSettings = ReviewSettings | MiniOneRecSettings | MovieLensSettings | TableSettings
_MOST_NAMED = 20
# The manifest is written last.
_FILES = (METAS, CATEGORIES, SEQUENCES, CATALOG_FILE, MANIFEST)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A result, not yet written."""

    catalog: Catalog
    histories: Histories
    skipped: Mapping[str, int]  # How many were left out, by reason.
    unused: Mapping[Path, Collection[str]] = field(default_factory=dict)  # Columns, by file.
    told: Collection[str] = ()  # Lines about what was read; notices among them.


def catalog_files(folder: Path) -> dict[str, str | Path]:
    """The files of a catalog, as inputs of a run."""
    return {name: folder / name for name in (METAS, CATEGORIES) if (folder / name).is_file()}


def prepared_files(folder: Path) -> dict[str, str | Path]:
    """The files of prepared data, as inputs of a run; what else lies in the folder is none."""
    for name in (METAS, SEQUENCES):
        if not (folder / name).is_file():
            raise DataError.at(folder / name, "no such file; expected a folder of prepared data")
    names = (METAS, CATEGORIES, SEQUENCES)
    return {name: folder / name for name in names if (folder / name).is_file()}


def _check_out(out: Path, inputs: Iterable[Path]) -> None:
    """Refuses an output folder where anything but earlier prepared data would be overwritten."""
    if out.exists() and not out.is_dir():
        raise ArtifactError(f"--out {out}: is a file; expected a folder, new or not")
    taken = [name for name in _FILES if (out / name).exists()]
    manifest = None
    with contextlib.suppress(DataError):
        manifest = read_json(out / MANIFEST)
    manifest = manifest if isinstance(manifest, dict) else {}
    ours = str(manifest.get("stage")).startswith("data ")
    if taken and not (ours and set(manifest.get(FILES, ())) <= set(_FILES)):
        foreign = f"{', '.join(taken)}, which `incatalog data` did not write"
        raise ArtifactError(f"--out {out}: would overwrite {foreign}; name another folder")
    for path in inputs:
        if path.name in taken and path.resolve().parent == out.resolve():
            raise ArtifactError(f"--out {out}: would overwrite {path}, which is read; name another")


def check_flags(
    out: Path, flag: str, least: int, core: int = 0, *, inputs: Iterable[Path] = ()
) -> None:
    """Refuses a negative core, a limit under which users could not be split, and a wrong folder."""
    expected = f"at least {MIN_INTERACTIONS}, one item each to train, to validate and to test with"
    if least < MIN_INTERACTIONS:
        raise ConfigError(f"{flag} {least}: expected {expected}")
    if core < 0:
        raise ConfigError(f"--k-core {core}: expected 0 (off) or more")
    _check_out(out, inputs)


@contextlib.contextmanager
def _written_together(out: Path) -> Iterator[Path]:
    """Yields a temporary folder for the files of ``out``; they appear when the block succeeds.

    Other files of ``out`` stay. Beside such, each file is replaced at one stroke, but all of them
    are not: whoever is killed between two strokes repeats the command.
    """
    if not (out.is_dir() and any(path.name not in _FILES for path in out.iterdir())):
        with atomic_folder(out) as partial:
            yield partial
        return
    partial = partial_name(out / "data")
    with writing(out):
        partial.mkdir()
        try:
            yield partial
            follow_umask(partial)
            for name in _FILES:
                if (partial / name).exists():
                    (partial / name).replace(out / name)
                else:
                    (out / name).unlink(missing_ok=True)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def write_prepared(
    prepared: Prepared, stage: str, settings: PrepareSettings, inputs: Mapping[str, Path]
) -> Path:
    """Writes all files and a manifest in one stroke, and prints a summary."""
    out = Path(settings.out)
    _check_out(out, inputs.values())
    counts = {
        "users": len(prepared.histories),
        "items": len(prepared.catalog),
        "interactions": len(prepared.histories.rows),
        "categories": len(prepared.catalog.categories),
    }
    skipped = {reason: count for reason, count in prepared.skipped.items() if count}
    with _written_together(out) as partial:
        run = open_run(partial, stage, settings, inputs=inputs)
        prepared.catalog.save(partial)
        prepared.histories.save(partial, prepared.catalog)
        run.finish(**counts, skipped=skipped)
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
    for line in prepared.told:
        if line.startswith("notice: "):
            sys.stderr.write(f"{line}\n")
        else:
            console.print(line, highlight=False, soft_wrap=True, markup=False)
    _print_unused(prepared.unused)
    return out


def _print_unused(unused: Mapping[Path, Collection[str]]) -> None:
    """Names, in one line, what the files hold and nothing reads."""
    parts = []
    for path, columns in unused.items():
        shown = [name or "(no name)" for name in itertools.islice(columns, _MOST_NAMED)]
        more = len(columns) - len(shown)
        shown += [f"{more} more"] if more else []
        parts += [f"{', '.join(shown)} of {path.name}"] if shown else []
    if parts:
        line = " ".join(f"notice: columns not used: {'; '.join(parts)}".split())
        sys.stderr.write(f"{line}\n")
