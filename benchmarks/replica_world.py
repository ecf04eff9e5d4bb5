"""Services that are killed and started anew on one state, and the Postgres that they share.

They are forks of a process that has imported everything once: a service that is killed every few
seconds would otherwise spend its life importing.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STEADY, TITLES = 40, 24
_START_S = 300.0
_NOBODY = "nobody"


class Nursery:
    """A process that starts services, as told by one line each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.replica_world"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        self._read()

    def start(self, arguments: list[str], log: Path) -> int:
        """Starts a command; its process id."""
        with self._lock:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps([arguments, str(log)]) + "\n")
            self._process.stdin.flush()
            return self._read()

    def close(self) -> None:
        """Ends the process, not what it has started."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _read(self) -> int:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process that starts services has ended")
        return int(line)


class Replica:
    """One of the services; it may be killed and started again."""

    def __init__(self, nursery: Nursery, log: Path, *flags: str) -> None:
        self._nursery, self._log, self._flags = nursery, log, flags
        self._starts = 0
        self.port = self.pid = 0
        self.start()

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        self._starts += 1
        self._path = self._log.with_name(f"{self._log.name}-{self._starts}")
        self._path.touch()
        self.pid = self._nursery.start(["serve", "--port", "0", *self._flags], self._path)
        end = time.monotonic() + _START_S
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", self.said)):
            if time.monotonic() > end or not alive(self.pid):
                raise RuntimeError(f"the service did not start: {self.said[-2000:]}")
            time.sleep(0.02)
        self.port = int(found[1])

    def kill(self) -> None:
        """`kill -9`, and waits until it is gone."""
        self.port = 0
        os.kill(self.pid, signal.SIGKILL)
        while alive(self.pid):
            time.sleep(0.005)

    @property
    def said(self) -> str:
        """What it has written since its start."""
        return self._path.read_text(errors="replace")


class Postgres:
    """A Postgres of Debian's package, in a folder of its own; not as root, which it refuses."""

    def __init__(self) -> None:
        self._programs = _programs()
        self._user: dict[str, Any] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="incatalog-postgres-"))
        if os.getuid() == 0:
            self._user = {"user": _NOBODY, "group": "nogroup", "extra_groups": []}
            shutil.chown(self.folder, _NOBODY)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        data = str(self.folder / "data")
        made = ["initdb", "-D", data, "-U", "shop", "-A", "trust", "-E", "UTF8", "--no-sync"]
        self._run(*made, "--locale=C").communicate()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """What `--state` names."""
        return f"postgresql://shop@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Starts the server, and waits until it answers."""
        listens = ["-h", "127.0.0.1", "-p", str(self.port), "-k", str(self.folder)]
        self._process = self._run("postgres", "-D", str(self.folder / "data"), *listens)
        end = time.monotonic() + 60
        while self._run("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)).wait():
            if time.monotonic() > end or self._process.poll() is not None:
                raise RuntimeError(f"Postgres did not start in {self.folder}")
            time.sleep(0.1)

    def kill(self) -> None:
        """Ends it without a word to anyone: its processes end when their father is gone."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Has all its processes stand still during the block."""
        assert self._process is not None
        pids = [self._process.pid, *_children(self._process.pid)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def close(self) -> None:
        """Ends it and deletes what it has kept."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *flags: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [self._programs / program, *flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
            **self._user,
        )


def postgres_lacks() -> str:
    """What is not installed of what a Postgres and its clients need; empty if nothing."""
    if importlib.util.find_spec("psycopg") is None:
        return "no psycopg: pip install 'psycopg[binary]'"
    try:
        _programs()
    except FileNotFoundError as error:
        return str(error)
    return ""


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        raise FileNotFoundError("no Postgres: apt-get install postgresql")
    return found[-1].parent


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8")
    return [int(one) for one in listed.split()]


def title(item: str, revision: int) -> str:
    """What an item is called after so many changes."""
    return f"Tale of {item} part {revision}"


def make_model(folder: Path) -> None:
    """A tiny model of random weights with a small catalog."""
    from incatalog import Catalog, Item
    from incatalog.model.backbone import create_tiny
    from incatalog.model.saved import save_model
    from incatalog.model.spec import ModelSpec
    from incatalog.model.tiny import TinyConfig

    items = [Item(f"steady-{n}", title(f"steady-{n}", 0)) for n in range(STEADY)]
    spelled = [title(f"{n}-{n}", n) for n in range(TITLES)]
    backbone = create_tiny([*(item.title for item in items), *spelled], TinyConfig(seed=0))
    folder.mkdir()
    save_model(folder, backbone, ModelSpec(base="tiny", list_form="plain"))
    Catalog.from_items(items).save(folder)


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """A server as long as the block."""
    server = Postgres()
    try:
        yield server
    finally:
        server.close()


def _nurse() -> None:
    """Starts a fork of this process for each line."""
    import incatalog.serving.chats
    import incatalog.serving.server
    import incatalog.serving.service  # noqa: F401
    from incatalog.cli import main

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print(0, flush=True)
    while line := sys.stdin.readline():
        arguments, log = json.loads(line)
        if child := os.fork():
            print(child, flush=True)
            continue
        code = 1
        try:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            nothing = os.open(os.devnull, os.O_RDWR)
            written = os.open(log, os.O_WRONLY | os.O_APPEND)
            for number, stream in enumerate((nothing, written, written)):
                os.dup2(stream, number)
            code = main(arguments)
        finally:
            os._exit(code)


if __name__ == "__main__":
    _nurse()
