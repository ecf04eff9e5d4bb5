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
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reclm.checksums import FILES, file_checksums
from reclm.errors import ArtifactError, DataError
from reclm.reading import parse_json, read_text

MANIFEST = "manifest.json"
_RECORDED_PACKAGES = (
    "reclm",
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
    """Yields a temporary path beside ``path`` that replaces it when the block succeeds.

    Whatever happens inside, ``path`` is either untouched or complete.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        umask = os.umask(0)
        os.umask(umask)
        partial.chmod(0o666 & ~umask)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yields a temporary folder that becomes ``path`` (replacing it) when the block succeeds."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(
        tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
    )
    try:
        yield partial
        partial.chmod(0o755)
        if target.exists():
            replaced = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
            target.replace(replaced / "old")
            try:
                partial.replace(target)
            except OSError:
                (replaced / "old").replace(target)
                raise
            finally:
                shutil.rmtree(replaced)
        else:
            partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_json(path: str | Path, value: Any) -> None:
    """Writes ``value`` as indented UTF-8 JSON, atomically."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """Reads a JSON file.

    Raises:
        DataError: The file cannot be read or is not UTF-8 JSON; names file and line.
    """
    return parse_json(path, read_text(path))


def fingerprint(paths: Iterable[str | Path]) -> str:
    """SHA-256 over names and contents of files, in the order given.

    A folder stands for its files, by their paths inside it; where it lies does not matter.

    Raises:
        DataError: A file or folder is missing.
    """
    digest = hashlib.sha256()
    for path in map(Path, paths):
        if not path.exists():
            raise DataError.at(path, "no such file or folder")
        folder = path if path.is_dir() else path.parent
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
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
    """A run folder that one stage writes into.

    Attributes:
        folder: The folder named by ``--out``.
        resumed: An interrupted run with the same configuration and data is being continued.
        finished: An earlier run with the same configuration and data is complete; nothing to do.
    """

    folder: Path
    resumed: bool
    finished: bool

    def finish(self, **results: Any) -> None:
        """Marks the run complete and records ``results`` and checksums in its manifest."""
        manifest = read_json(self.folder / MANIFEST)
        done = {"status": "finished", "results": results, FILES: file_checksums(self.folder)}
        write_json(self.folder / MANIFEST, manifest | done)


def open_run(
    folder: str | Path,
    stage: str,
    config: Any,
    *,
    inputs: Mapping[str, str | Path] | None = None,
    identities: Mapping[str, str] | None = None,
    free_fields: Iterable[str] = (),
) -> Run:
    """Opens a run folder, fresh or to be resumed.

    Args:
        folder: Where the run lives.
        stage: Name of the command, for example ``"teacher fit"``.
        config: The frozen dataclass of the stage.
        inputs: Input files or folders by name; their contents are hashed into the manifest.
        identities: Hashes by name of inputs that are no files, such as a served teacher.
        free_fields: Configuration fields that may differ between a run and its resumption because
            they cannot change the result (``out`` is always one).

    Raises:
        ArtifactError: The folder holds something else: another stage, other settings, other data.
    """
    folder = Path(folder)
    settings = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    data = {name: fingerprint([path]) for name, path in (inputs or {}).items()}
    data |= identities or {}
    wanted = {
        "stage": stage,
        "config": settings,
        "data": data,
        "seed": settings.get("seed"),
        "versions": versions(),
        "status": "running",
    }
    if not (folder / MANIFEST).exists():
        if folder.exists() and not folder.is_dir():
            raise ArtifactError(f"--out {folder}: is a file; expected an empty or new folder")
        # A run killed while its manifest was being written leaves only the unfinished one.
        unfinished = f".{MANIFEST}."
        if folder.exists() and any(not p.name.startswith(unfinished) for p in folder.iterdir()):
            raise ArtifactError(
                f"--out {folder}: holds files but no {MANIFEST}; expected an empty or new folder"
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / MANIFEST, wanted)
        return Run(folder, resumed=False, finished=False)

    try:
        found = read_json(folder / MANIFEST)
    except DataError as error:
        raise ArtifactError(f"--out: {error}; name another folder") from error
    if not isinstance(found, dict):
        raise ArtifactError(f"--out {folder}: its {MANIFEST} is not a run's; name another folder")
    if found.get("stage") != stage:
        raise ArtifactError(
            f"--out {folder}: holds a run of `reclm {found.get('stage')}`; "
            f"expected an empty folder or a run of `reclm {stage}`"
        )
    free = {"out", *free_fields}
    old = {k: v for k, v in found.get("config", {}).items() if k not in free}
    new = {k: v for k, v in settings.items() if k not in free}
    changed = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
    changed += [f"contents of {k}" for k in data if found.get("data", {}).get(k) != data[k]]
    if changed:
        raise ArtifactError(
            f"--out {folder}: holds a run with other settings ({', '.join(changed)}); "
            "repeat its command to resume it, or name another folder"
        )
    return Run(folder, resumed=True, finished=found.get("status") == "finished")
