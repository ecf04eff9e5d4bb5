"""SHA-256 of the files of a folder: recorded when it is finished, checked when it is loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from incatalog.errors import ArtifactError

FILES = "files"  # Entry of a record: the checksum of each file, by its path in the folder.
SEAL = "checksum"  # Entry of a record: the checksum of the rest of it.
CHECKSUMS = "checksums.json"  # The record of a folder that is no run.

_MANIFEST = "manifest.json"
_MEND = "restore it or make the folder anew; if the change was meant, take"
# These change after the end of a run; a reader of one checks it by other means.
_LOGS = ("tensorboard", "checkpoints", "checkpoint.safetensors", "shards")
# Written anew when more is known of a model, and by people.
CARD = "README.md"
_UNRECORDED = (".*", *_LOGS, "batches-*.jsonl", "perplexity-*.jsonl", CARD)


def file_checksums(folder: str | Path) -> dict[str, str]:
    """The checksum of every file in a folder that is finished, by its path there.

    The records themselves, hidden files, logs and checkpoints are left out.
    """
    folder = Path(folder)
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        recorded = not any(fnmatch(part, known) for part in name.parts for known in _UNRECORDED)
        if recorded and path.is_file() and path.name not in (_MANIFEST, CHECKSUMS):
            found[name.as_posix()] = _digest(path)
    return found


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of JSON values with a checksum of its own."""
    return {**record, SEAL: _seal(record)}


def check_seal(path: Path, record: Mapping[str, Any]) -> None:
    """Refuses a record that was changed after it was sealed; one without a seal is accepted."""
    if SEAL in record and record[SEAL] != _seal(record):
        found = f'is not as it was written (its "{SEAL}" is another one)'
        raise ArtifactError(f'{path}: {found}; {_MEND} "{SEAL}" out of it')


def verify_checksums(folder: str | Path, names: Collection[str] | None = None) -> None:
    """Refuses a folder whose files were changed after it was finished; None checks all files.

    A folder without a record, as earlier versions and other programs leave it, is accepted.
    """
    records = (Path(folder) / name for name in (_MANIFEST, CHECKSUMS))
    record = next((path for path in records if path.is_file()), None)
    if record is None:
        return
    for name, expected in _recorded(record).items():
        if names is not None and name not in names:
            continue
        path, fault = record.parent / name, ""
        if not path.is_file():
            fault = f"is gone, and was there when {record} was written"
        elif _digest(path) != expected:
            fault = f"is not as it was written (its SHA-256 is not the one in {record})"
        if fault:
            where = f'out of "{FILES}", and "{SEAL}", in {record.name}'
            raise ArtifactError(f'{path}: {fault}; {_MEND} "{name}" {where}')


def _seal(record: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in record.items() if name != SEAL}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _recorded(record: Path) -> dict[str, str]:
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        files = found.get(FILES, {})
        if not all(isinstance(value, str) for value in files.values()):
            raise TypeError
    except (ValueError, RecursionError, TypeError, AttributeError) as error:
        found = "not a readable record of the files beside it"
        hint = "restore it, or delete it to take them as they are"
        raise ArtifactError(f"{record}: {found}; {hint}") from error
    check_seal(record, found)
    return dict(files)


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
