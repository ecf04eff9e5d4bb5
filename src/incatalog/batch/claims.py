"""Claims: which of many processes, on any host, does a piece of work in a folder they share."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
from pathlib import Path
from typing import Any

from incatalog.storage import writing

FOLDER = ".claims"
_CLOCK = ".clock"
# Signs of life in the time after which a process counts as dead.
_SIGNS = 5


class Claims:
    """The claims of a folder, as one process sees them.

    A claim is a file that nobody can make twice. Its holder touches it again and again; where that
    ends for the time of its lease, or its holder is known to be dead, another process takes over.
    All times are those of the file system, so the clocks of hosts need not agree. A holder that was
    only slow may go on beside its successor: work has to be such that doing it twice is no harm.
    """

    def __init__(self, folder: Path, lease: float) -> None:
        """Uses the claims below a run folder; ``lease`` is for the claims of this process."""
        self.folder, self.lease = folder / FOLDER, lease
        self.token = secrets.token_hex(8)  # tells this holder from all others

    def take(self, name: str) -> Claim | None:
        """Claims a piece of work; None where another process has it."""
        path = self.folder / name
        with writing(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            for _ in range(2):
                try:
                    return Claim(path, self.token, self.lease)
                except FileNotFoundError:
                    # All work is done, and another process has removed the folder.
                    return None
                except FileExistsError:
                    if not self._set_aside(path):
                        return None
        return None

    def clear(self) -> None:
        """Removes what is left of claims, once all work is done."""
        with contextlib.suppress(OSError):
            for path in self.folder.iterdir():
                path.unlink(missing_ok=True)
            self.folder.rmdir()

    def _set_aside(self, path: Path) -> bool:
        """Removes the claim of a dead holder; whether it is gone."""
        try:
            seen, holder = path.stat(), _holder(path)
            if not self._is_over(seen, holder):
                return False
            aside = path.with_name(f".{path.name}.{self.token}.expired")
            path.rename(aside)
        except FileNotFoundError:
            return True
        if aside.stat().st_ino != seen.st_ino or aside.stat().st_mtime_ns != seen.st_mtime_ns:
            # Its holder has touched it since, or another process was faster and holds it now.
            if not path.exists():
                aside.rename(path)
            aside.unlink(missing_ok=True)
            return False
        aside.unlink()
        return True

    def _is_over(self, seen: os.stat_result, holder: dict[str, Any]) -> bool:
        home = _home()
        if home and holder.get("home") == home:
            number = holder.get("process")
            if not isinstance(number, int) or _started(number) != holder.get("started"):
                return True
        lease = holder.get("lease")
        patience = float(lease) if isinstance(lease, int | float) else self.lease
        return self._now() - seen.st_mtime > patience

    def _now(self) -> float:
        """The time as the file system has it."""
        clock = self.folder / _CLOCK
        clock.touch()
        return clock.stat().st_mtime


class Claim:
    """A piece of work that this process does, until `release`."""

    def __init__(self, path: Path, token: str, lease: float) -> None:
        """Makes the file; FileExistsError where there is one."""
        self._path = path
        self._file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
        process = os.getpid()
        holder = {"token": token, "lease": lease, "home": _home(), "process": process}
        holder["started"] = _started(process)
        try:
            os.write(self._file, json.dumps(holder).encode())
        except OSError:
            os.close(self._file)
            path.unlink(missing_ok=True)
            raise
        self._over = threading.Event()
        self._living = threading.Thread(target=self._live, args=(lease / _SIGNS,), daemon=True)
        self._living.start()

    @property
    def is_held(self) -> bool:
        """Whether it is not released, and no other process has taken over."""
        if self._file < 0:
            return False
        try:
            return os.path.samestat(os.fstat(self._file), self._path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Gives the work back, done or not."""
        self._over.set()
        self._living.join()
        if self.is_held:
            self._path.unlink(missing_ok=True)
        os.close(self._file)
        self._file = -1

    def _live(self, seconds: float) -> None:
        while not self._over.wait(seconds):
            with contextlib.suppress(OSError):
                # This file, and not one of the same name that a successor has made.
                os.utime(self._file)


def _holder(path: Path) -> dict[str, Any]:
    """What a claim says of its holder; nothing of one that is being written."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _home() -> str:
    """What processes have in common that see each other's numbers; empty where nothing tells."""
    try:
        booted = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{booted} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(process: int) -> str | None:
    """When a process of this machine began, in ticks; None where it is dead."""
    try:
        told = Path(f"/proc/{process}/stat").read_text("utf-8", "replace")
    except OSError:
        return None
    # Behind the name, which may hold anything: the state first, the start as the twentieth.
    state, *rest = told.rpartition(")")[2].split()
    return None if state in "ZX" else rest[18]
