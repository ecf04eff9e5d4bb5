"""Run folders: manifests, atomic writes, and the decision between fresh, resumed and finished."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from incatalog.checksums import FILES, check_seal, file_checksums, sealed
from incatalog.errors import ArtifactError, DataError
from incatalog.locks import LOCK_FILE, FolderLock, lock_folder
from incatalog.reading import parse_json, read_text
from incatalog.storage import follow_umask, partial_name, writing

MANIFEST = "manifest.json"
# What is being written: by us, and by safetensors.
_PARTIAL = (".*.partial", ".tmp??????")
_RECORDED_PACKAGES = (
    "incatalog",
    "torch",
    "transformers",
    "sentence-transformers",
    "peft",
    "accelerate",
    "numpy",
    "polars",
)


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path that replaces ``path`` when the block succeeds, and only then."""
    target = Path(path)
    partial = partial_name(target)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.touch(exist_ok=False)
        mode = stat.S_IMODE(partial.stat().st_mode)
        try:
            yield partial
            with partial.open("rb") as written:
                os.fsync(written.fileno())
            # Libraries put a file of their own there, which only its owner may read.
            partial.chmod(mode)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yields a temporary folder that replaces ``path`` when the block succeeds, and only then."""
    target = Path(path)
    partial = partial_name(target)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        try:
            yield partial
            follow_umask(partial)
            if target.exists():
                _exchange(partial, target)
            else:
                partial.replace(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _exchange(partial: Path, target: Path) -> None:
    old = partial_name(target)
    target.replace(old)
    try:
        partial.replace(target)
    except OSError:
        old.replace(target)
        raise
    shutil.rmtree(old)


def write_json(path: str | Path, value: Any) -> None:
    """Writes ``value`` as indented UTF-8 JSON, atomically."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """Reads a JSON file; errors name file and line."""
    return parse_json(path, read_text(path))


def fingerprint(paths: Iterable[str | Path]) -> str:
    """SHA-256 over names and contents of files and of the files in folders, in the order given."""
    digest = hashlib.sha256()
    for path in map(Path, paths):
        if not path.exists():
            raise DataError.at(path, "no such file or folder")
        folder = path if path.is_dir() else path.parent
        files = [path]
        if path.is_dir():
            # What a killed run leaves is none of its contents.
            files = sorted(p for p in path.rglob("*") if p.is_file() and p.name != LOCK_FILE)
        for file in files:
            name = file.relative_to(folder).as_posix()
            digest.update(f"{name}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages a result depends on."""
    found = {"python": platform.python_version()}
    for package in _RECORDED_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


@dataclass(frozen=True)
class Run:
    """A run folder (``--out``) that one stage writes into."""

    folder: Path
    # An interrupted run with the same settings and data is continued, or there is nothing to do.
    resumed: bool
    finished: bool
    # Keeps other processes out until the run is finished or deleted.
    lock: FolderLock | None = field(default=None, repr=False, compare=False)

    def finish(self, **results: Any) -> None:
        """Marks the run complete, records ``results`` and checksums, and lets others in."""
        manifest = read_json(self.folder / MANIFEST)
        done = {"status": "finished", "results": results, FILES: file_checksums(self.folder)}
        write_json(self.folder / MANIFEST, sealed(manifest | done))
        if self.lock is not None:
            self.lock.release()


def open_run(
    folder: str | Path,
    stage: str,
    settings: Any,
    *,
    inputs: Mapping[str, str | Path | None] | None = None,
    identities: Mapping[str, str] | None = None,
    free_fields: Iterable[str] = (),
    processes: int | None = None,
) -> Run:
    """Opens a run folder, new or to be resumed, and keeps other processes out of it.

    Into the manifest go hashes of the ``inputs`` that are given and the ``identities`` of inputs
    that are no files, such as a served teacher. A run is resumed only with the same settings but
    those of ``free_fields``, which cannot change the result, the same inputs, and the same number
    of ``processes`` where that is given.
    """
    folder = Path(folder)
    files = (inputs or {}).items()
    data = {name: fingerprint([path]) for name, path in files if path is not None}
    wanted = _begun(stage, settings, data | dict(identities or {}))
    if processes is not None:
        wanted["processes"] = processes
    found = _manifest(folder)
    lock = None
    if found is None or found.get("status") != "finished":
        if found is not None:
            _check_same(folder, found, wanted, free_fields)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock = lock_folder(folder)
        # Another process may have written it, or finished, before it let us in.
        found = _manifest(folder)
    if lock is not None:
        _remove_partial(folder)
    if found is None:
        write_json(folder / MANIFEST, wanted)
        return Run(folder, resumed=False, finished=False, lock=lock)
    _check_same(folder, found, wanted, free_fields)
    finished = found.get("status") == "finished"
    if finished and lock is not None:
        lock.release()
    return Run(folder, resumed=True, finished=finished, lock=None if finished else lock)


def open_shared_run(
    folder: str | Path,
    stage: str,
    settings: Any,
    *,
    identities: Mapping[str, str],
    free_fields: Iterable[str] = (),
) -> Run:
    """Opens a run folder that any number of processes write into at the same time.

    Whoever comes first writes the manifest; the others go on only with the same settings but those
    of ``free_fields`` and the same ``identities`` of the inputs. That no two of them get in each
    other's way is up to them.
    """
    folder, wanted = Path(folder), _begun(stage, settings, identities)
    try:
        found = _manifest(folder)
    except ArtifactError:
        # Another process may have written it between two looks at the folder.
        if not (folder / MANIFEST).exists():
            raise
        found = _manifest(folder)
    resumed = found is not None
    if found is None:
        _write_first(folder / MANIFEST, wanted)
        found = _manifest(folder) or wanted
    _check_same(folder, found, wanted, free_fields)
    return Run(folder, resumed=resumed, finished=found.get("status") == "finished")


def _begun(stage: str, settings: Any, data: Mapping[str, str]) -> dict[str, Any]:
    """The manifest of a run that begins."""
    given = json.loads(json.dumps(dataclasses.asdict(settings), default=str))
    return {
        "stage": stage,
        "config": given,
        "data": dict(data),
        "seed": given.get("seed"),
        "versions": versions(),
        "status": "running",
    }


def _write_first(path: Path, value: Any) -> None:
    """Writes JSON unless the file is there: of several writers one wins, and none is half read."""
    partial = partial_name(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", "utf-8")
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(partial)
        finally:
            partial.unlink(missing_ok=True)


def _manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a run folder; None for a folder that is new or empty."""
    if not (folder / MANIFEST).exists():
        if folder.exists() and not folder.is_dir():
            raise ArtifactError(f"--out {folder}: is a file; expected an empty or new folder")
        # A run killed while its manifest was being written leaves only the unfinished one.
        own = (f".{MANIFEST}.", LOCK_FILE)
        if folder.exists() and any(not p.name.startswith(own) for p in folder.iterdir()):
            raise ArtifactError(
                f"--out {folder}: holds files but no {MANIFEST}; expected an empty or new folder"
            )
        return None
    try:
        found = read_json(folder / MANIFEST)
    except DataError as error:
        raise ArtifactError(f"--out: {error}; name another folder") from error
    parts = [found, *(found.get(k, {}) for k in ("config", "data") if isinstance(found, dict))]
    if not all(isinstance(part, dict) for part in parts):
        raise ArtifactError(f"--out {folder}: its {MANIFEST} is not a run's; name another folder")
    check_seal(folder / MANIFEST, found)
    return dict(found)


def _check_same(
    folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any], free_fields: Iterable[str]
) -> None:
    """Refuses a run of another stage, with other settings, other data or other processes."""
    if found.get("stage") != wanted["stage"]:
        raise ArtifactError(
            f"--out {folder}: holds a run of `incatalog {found.get('stage')}`; "
            f"expected an empty folder or a run of `incatalog {wanted['stage']}`"
        )
    free = {"out", *free_fields}
    old = {k: v for k, v in found.get("config", {}).items() if k not in free}
    new = {k: v for k, v in wanted["config"].items() if k not in free}
    changed = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
    before, now = found.get("data", {}), wanted["data"]
    changed += [f"contents of {k}" for k in now if k in before and before[k] != now[k]]
    changed += [f"new input {k}" for k in now if k not in before]
    changed += [f"missing input {k}" for k in before if k not in now]
    if changed:
        raise ArtifactError(
            f"--out {folder}: holds a run with other settings ({', '.join(changed)}); "
            "repeat its command to resume it, or name another folder"
        )
    was, are = found.get("processes"), wanted.get("processes")
    if found.get("status") != "finished" and None not in (was, are) and was != are:
        raise ArtifactError(
            f"--out {folder}: was begun by {was} processes and cannot be resumed by {are}, which "
            f"would end with other weights; start {was} (`accelerate launch --num_processes {was}`"
            "), or name another folder"
        )


def _remove_partial(folder: Path) -> None:
    """Removes what killed writers left; nobody else writes here."""
    for pattern in _PARTIAL:
        for path in folder.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
