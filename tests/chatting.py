"""`incatalog serve` as a process, for tests to talk to."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HOSTILE = '<img src=x onerror="document.title=1">&amp;<b>Bold</b>'


class Server:
    """`incatalog serve` as users start it."""

    def __init__(
        self,
        log: Path,
        *flags: str | Path,
        files: int | None = None,
        python: str = sys.executable,
        **environment: str,
    ) -> None:
        self._log = log.open("w+")
        limit = () if files is None else ("prlimit", f"--nofile={files}:{files}")
        command = ("-m", "incatalog.cli", "serve", "--port", "0")
        self._process = subprocess.Popen(
            [*limit, python, *command, *map(str, flags)],
            stderr=self._log,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        )
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text())):
            if self._process.poll() is not None:
                raise AssertionError(log.read_text())
            time.sleep(0.02)
        self.port = int(found[1])
        self.pid = self._process.pid
        self._path = log

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def said(self) -> str:
        return self._path.read_text()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.kill()

    def terminate(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def wait(self, patience: float = 60) -> int:
        code = self._process.wait(timeout=patience)
        self._log.close()
        return code

    def kill(self) -> None:
        self._process.kill()
        self.wait()


def without_scores(items: Any) -> Any:
    """Items without what depends on the company they were computed in, by a last digit."""
    return [{name: one for name, one in item.items() if name != "score"} for item in items]
