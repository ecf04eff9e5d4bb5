"""`incatalog chat` as people start it: under a pseudo-terminal, and in a pipe."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from incatalog.cli import main

pytestmark = pytest.mark.long

_COMMAND = [sys.executable, "-m", "incatalog.cli", "chat"]
_PATIENCE = 120.0


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        own, its = pty.openpty()
        self._process = subprocess.Popen(
            arguments, stdin=its, stdout=its, stderr=its, close_fds=True, start_new_session=True,
            preexec_fn=_take_terminal, env=os.environ | {"TERM": "xterm-256color"},
        )  # fmt: skip
        os.close(its)
        self._own, self.shown = own, ""

    def wait_for(self, text: str) -> str:
        """What was shown up to a text, from where the last such call ended."""
        until = time.monotonic() + _PATIENCE
        while not (found := re.search(text, self.shown)):
            if time.monotonic() > until or not self._read(1.0):
                raise AssertionError(f"{text!r} is not in {self.shown!r}")
        before, self.shown = self.shown[: found.end()], self.shown[found.end() :]
        return before

    def type(self, text: str) -> None:
        os.write(self._own, text.encode())

    def interrupt(self) -> None:
        """Types Ctrl-C at a prompt that is read.

        Python loses a signal between the prompt's appearance and the wait for a key.
        """
        until, quiet = time.monotonic() + _PATIENCE, 0
        while quiet < 3:
            assert time.monotonic() < until, "the command does not wait for a key"
            state = psutil.Process(self._process.pid).status()
            quiet = quiet + 1 if state == psutil.STATUS_SLEEPING else 0
            time.sleep(0.05)
        self.type("\x03")

    def ended(self) -> int:
        while self._read(0.5):
            pass
        code = self._process.wait(timeout=_PATIENCE)
        os.close(self._own)
        return code

    def _read(self, seconds: float) -> bool:
        """Reads what is there; false when the command has ended."""
        ready, _, _ = select.select([self._own], [], [], seconds)
        if not ready:
            return self._process.poll() is None
        try:
            found = os.read(self._own, 1 << 16)
        except OSError:
            return False
        self.shown += found.decode("utf-8", "replace")
        return bool(found)


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_a_conversation_in_a_terminal(model: Path) -> None:
    terminal = Terminal(*_COMMAND, "--model", str(model), "--device", "cpu", "--max-tokens", "900")
    start = terminal.wait_for("> ")
    assert "cgen model on cpu, about films" in start
    assert "/help lists the commands" in start
    terminal.type("/history add night train\n")
    assert "added Night Train (1959) [i9]" in terminal.wait_for(r"\[i9\]")
    terminal.wait_for("> ")
    # It would go on for long; the items come marked and in colour, and Ctrl-C stops it.
    terminal.type("Which films do you like?\n")
    answer = terminal.wait_for(r"\[3 · i\d+\]")
    assert re.search(r"\x1b\[[0-9;]*36m", answer)
    terminal.type("\x03")
    assert "stopped" in terminal.wait_for("stopped")
    terminal.wait_for("> ")
    terminal.type("/why 2\n")
    assert "Price: " in terminal.wait_for("score: ")
    terminal.wait_for("> ")
    # What was said before it was stopped has been said, and at the prompt Ctrl-C leaves twice.
    terminal.interrupt()
    assert "Ctrl-C again leaves" in terminal.wait_for("leaves.*\n")
    terminal.wait_for("> ")
    terminal.interrupt()
    assert terminal.ended() == 0
    assert "Traceback" not in terminal.shown


def test_a_conversation_in_a_pipe(model: Path) -> None:
    done = subprocess.run(
        [*_COMMAND, "--model", str(model), "--device", "cpu", "--max-tokens", "60",
         "--history", "night train"],
        input="Films?\n/nonsense\n/history\n/quit\nnever read\n",
        capture_output=True, text=True, timeout=_PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stdout.startswith("added Night Train (1959) [i9]\n")
    assert done.stdout.endswith("1. Night Train (1959) [i9]\n")
    assert re.search(r"\[1 · i\d+\]", done.stdout)
    assert "\x1b" not in done.stdout + done.stderr
    assert "> " not in done.stdout
    assert done.stderr.splitlines() == [
        "cgen model on cpu, about films",
        "error: /nonsense: no such command; see /help",
    ]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], "--model, --url: expected one of them"),
        (["--model", "m", "--url", "http://h"], "--model, --url: expected one of them"),
        (["--model", "smollm2"], "--model smollm2: a chat model that was never trained has no"),
        (["--model", "nowhere"], "--model: no such folder: nowhere; expected"),
        (["--model", "smollm2", "--domain", "x"], "--domain x: expected NAME=FOLDER"),
        (["--model", "smollm2", "--domain", "x=nowhere"], "--domain x: no such folder: nowhere"),
        (["--url", "http://127.0.0.1:9"], "http://127.0.0.1:9: no answer ("),
        (["--url", "http://h", "--guide", "g"], "--guide: is the service's own business"),
    ],
)
def test_flags_that_cannot_work_are_one_line(
    flags: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["chat", *flags]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error: {expected}")
    assert said.err.count("\n") == 1
