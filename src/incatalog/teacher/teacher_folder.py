"""The run folder of a teacher that counts: `teacher.json` and `teacher.safetensors`."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from incatalog.artifacts import atomic_folder, atomic_path, read_json, versions, write_json
from incatalog.checksums import verify_checksums
from incatalog.data.catalog import Catalog
from incatalog.errors import DataError, TeacherError, first_line
from incatalog.fitting import UNREADABLE
from incatalog.teacher.counted import CountedTeacher
from incatalog.teacher.sasrec import TEACHER_FILE, WEIGHTS_FILE

PARTS = "parts"  # Folder of a blend that holds a folder for each of its parts.
_DIGEST = "description"


def save_teacher(folder: str | Path, teacher: CountedTeacher, catalog: Catalog) -> None:
    """Writes numbers, then the description that makes the folder a teacher.

    The file of numbers names the description's checksum, so that its own stands for the answers.
    """
    folder = Path(folder)
    answers = {
        "kind": teacher.kind,
        "options": teacher.options(),
        "temperature": teacher.temperature,
        "catalog_fingerprint": catalog.items_fingerprint,
    }
    tensors = {name: np.ascontiguousarray(values) for name, values in teacher.tensors().items()}
    with atomic_path(folder / WEIGHTS_FILE) as partial:
        save_file(tensors, partial, metadata={_DIGEST: _digest(answers)})
    write_json(folder / TEACHER_FILE, answers | {"versions": versions()})


def read_description(folder: str | Path) -> dict[str, Any]:
    """Reads and checks `teacher.json`: kind, temperature and the catalog are there."""
    folder = Path(folder)
    if not (folder / TEACHER_FILE).exists():
        expected = "expected the run folder of a finished `incatalog teacher fit`"
        raise TeacherError(f"{folder}: holds no {TEACHER_FILE}; {expected}")
    verify_checksums(folder, (TEACHER_FILE,))
    try:
        found = read_json(folder / TEACHER_FILE)
        found = {"temperature": 1.0} | found  # Earlier versions fitted none.
        found["temperature"] = float(found["temperature"])
        return {"kind": str(found["kind"]), **found}
    except DataError as error:
        raise TeacherError(str(error)) from error
    except UNREADABLE as error:
        raise damaged(folder, error) from error


def read_tensors(folder: str | Path, description: dict[str, Any]) -> dict[str, np.ndarray]:
    """Reads the numbers of a teacher, and makes sure that they belong to its description."""
    folder = Path(folder)
    verify_checksums(folder, (WEIGHTS_FILE,))
    try:
        with safe_open(folder / WEIGHTS_FILE, framework="np") as file:
            written = (file.metadata() or {}).get(_DIGEST)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except UNREADABLE as error:
        raise damaged(folder, error) from error
    names = ("kind", "options", "temperature", "catalog_fingerprint")
    if written != _digest({name: description.get(name) for name in names}):
        raise TeacherError(
            f"{folder / TEACHER_FILE}: is not the description that was written with "
            f"{WEIGHTS_FILE}; restore both, or fit the teacher again"
        )
    for name, values in tensors.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise TeacherError(f"{folder / WEIGHTS_FILE}: {name} is not finite; fit it again")
    return tensors


def numbers_checksum(folder: str | Path) -> str:
    """SHA-256 of a teacher's numbers, which stands for its answers."""
    with (Path(folder) / WEIGHTS_FILE).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def teacher_paths(folder: str | Path) -> list[Path]:
    """The files that a teacher's answers depend on, by their paths in its folder.

    A copy of these alone is a complete teacher.
    """
    folder = Path(folder)
    own = [Path(TEACHER_FILE), Path(WEIGHTS_FILE)]
    parts = sorted(path for path in (folder / PARTS).glob("*") if (path / TEACHER_FILE).exists())
    return own + [path.relative_to(folder) / name for path in parts for name in teacher_paths(path)]


def copy_teacher(source: str | Path, target: str | Path) -> None:
    """Copies what a teacher's answers depend on, as a whole or not at all."""
    source = Path(source)
    with atomic_folder(target) as partial:
        for path in teacher_paths(source):
            (partial / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / path, partial / path)


def damaged(folder: Path, error: Exception) -> TeacherError:
    """Says that a teacher cannot be read, and why."""
    reason = f"{type(error).__name__}: {first_line(error)}"
    return TeacherError(f"{folder}: damaged teacher ({reason}); fit it again")


def _digest(answers: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(answers, sort_keys=True).encode()).hexdigest()
