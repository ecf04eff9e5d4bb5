"""Errors about files that cannot be written, and permissions of files that libraries write."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from incatalog.errors import IncatalogError, StorageError

_FULL = "free space there, then repeat the command"
_CLOSED = "allow it, or name another folder"
_NEXT_STEPS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "raise the limit of file sizes (ulimit -f), then repeat the command",
    errno.EIO: "check the disk, then repeat the command",
    errno.EROFS: _CLOSED,
    errno.EACCES: _CLOSED,
    errno.EPERM: _CLOSED,
}
# Libraries have words of their own: Rust's give the number; PyTorch, NumPy and SQLite no reason.
_NUMBER = re.compile(r"os error (\d+)\b")
_TOLD = {os.strerror(number): number for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)}
_TOLD["database or disk is full"] = errno.ENOSPC
_UNTOLD = re.compile(
    r"PytorchStreamWriter failed writing|unexpected pos \d+ vs \d+|\d+ requested and \d+ written"
    r"|disk I/O error"
)


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turns an error about lacking room or permission into one line about ``path``."""
    try:
        yield
    except IncatalogError:
        raise
    except Exception as error:
        found = storage_fault(error, Path(path))
        if found is None:
            raise
        raise StorageError(found) from error


def storage_fault(error: BaseException, path: Path | None = None) -> str | None:
    """What a failed write says of the file; None for an error about something else."""
    seen: BaseException | None = error
    while seen is not None:
        if told := _reason(seen):
            place = _place(getattr(seen, "filename", None), path)
            reason = f"cannot be written ({told[0]}); {told[1]}"
            if place is not None:
                return f"{place}: {reason}"
            if path is None:
                return reason
        seen = seen.__cause__ or seen.__context__
    return None


def follow_umask(folder: str | Path, pattern: str = "*") -> None:
    """Gives our files below a folder that match a pattern the permissions of a new file there.

    Libraries write through temporary files, which only their owner may read.
    """
    folder = Path(folder)
    # A new file shows the umask, which cannot be read without changing it for all threads.
    probe = partial_name(folder / "mode")
    probe.touch(exist_ok=False)
    try:
        new = stat.S_IMODE(probe.stat().st_mode)
    finally:
        probe.unlink()
    for path in folder.rglob(pattern):
        found = path.lstat()
        mode = stat.S_IMODE(found.st_mode)
        own = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
        if own and mode | new != mode:
            path.chmod(mode | new)


def partial_name(target: Path) -> Path:
    """A name beside ``target`` that nobody else uses, for a file that is not complete yet."""
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")


def _reason(error: BaseException) -> tuple[str, str] | None:
    """Why a file could not be written, and the next step; None for another error."""
    number = error.errno if isinstance(error, OSError) else None
    text = str(error)
    if number is None and (told := _NUMBER.search(text)):
        number = int(told[1])
    if number is None:
        number = next((number for words, number in _TOLD.items() if words in text), None)
    if number in _NEXT_STEPS:
        return os.strerror(number), _NEXT_STEPS[number]
    if number is None and _UNTOLD.search(text):
        return "no room, or a limit of file sizes", "see to it, then repeat the command"
    return None


def _place(named: object, path: Path | None) -> Path | None:
    """What to name: the error's file or the one being written; None if the two are unrelated."""
    if not isinstance(named, (str, os.PathLike)):
        return path
    file, target = Path(named).absolute(), (path or Path(named)).absolute()
    if file.is_relative_to(target):
        return Path(named)
    beside = file.is_relative_to(target.parent) and file.relative_to(target.parent).parts[:1]
    unfinished = beside and beside[0].startswith(f".{target.name}.")
    missing = not target.exists() and target.is_relative_to(file)
    return path if unfinished or missing else None
