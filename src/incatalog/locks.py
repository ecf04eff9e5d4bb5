"""One process at a time in a run folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import weakref
from pathlib import Path

from incatalog.errors import ArtifactError

LOCK_FILE = ".lock"
# The locks of this process: a stage that failed may be repeated while the traceback of its first
# try still holds that run.
_HELD: weakref.WeakValueDictionary[Path, FolderLock] = weakref.WeakValueDictionary()


class FolderLock:
    """The right to write into a folder, until `release` or the end of its last reference.

    The kernel releases it when the process dies. Processes that are forked meanwhile do not hold
    it, so that none of them keeps a killed run locked.
    """

    def __init__(self, folder: Path) -> None:
        """Takes the lock; use `lock_folder`, which knows the locks of this process."""
        self._path = folder / LOCK_FILE
        self._process = os.getpid()
        self._file = _locked(self._path)

    def release(self) -> None:
        """Gives the folder back."""
        if self._file >= 0 and os.getpid() == self._process:
            # While it is still locked, or the new file of another process would be removed.
            self._path.unlink(missing_ok=True)
        self.forget()

    def forget(self) -> None:
        """Closes the file without removing it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __del__(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            self.release()


def lock_folder(folder: Path) -> FolderLock | None:
    """Takes a folder for this process, until the lock is released or nobody refers to it.

    Of the processes of one distributed run only the first takes it.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and os.environ.get("RANK", "0") != "0":
        return None
    place = folder.resolve()
    held = _HELD.get(place)
    if held is None or held._file < 0:
        held = _HELD[place] = FolderLock(folder)
    return held


def _locked(path: Path) -> int:
    while True:
        file, kept = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last holder may have removed the file after we opened it and before we locked it.
            if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
                os.truncate(file, 0)
                os.write(file, str(os.getpid()).encode())
                kept = True
                return file
        except BlockingIOError as error:
            holder = os.read(file, 20).decode(errors="replace").strip()
            by = f"process {holder}" if holder.isdigit() else "another process"
            hint = "wait until it is done, or name another folder"
            raise ArtifactError(f"--out {path.parent}: {by} is writing into it; {hint}") from error
        except OSError as error:
            hint = "put the run on a file system that has locks and room"
            raise ArtifactError(f"{path}: cannot be locked ({error.strerror}); {hint}") from error
        finally:
            if not kept:
                os.close(file)


def _forget_all() -> None:
    for lock in list(_HELD.values()):
        lock.forget()


os.register_at_fork(after_in_child=_forget_all)
