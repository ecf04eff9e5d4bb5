"""Conversations with a service in a process of its own, as any client has them."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table
from rich.text import Text

from incatalog.errors import IncatalogError

_ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")
_SECONDS_TO_START, _SECONDS_TO_ANSWER, _SECONDS_TO_STOP = 600.0, 300.0, 30.0
_PAUSE = 0.1


class ServiceFailedError(IncatalogError):
    """A service that was started did not answer."""


@dataclass(frozen=True)
class UserTurn:
    """What a user says."""

    text: str
    k: int | None = None  # items to answer with; None leaves it to the service


@dataclass(frozen=True)
class ExampleTalk:
    """What a user of whom a history is known says, turn by turn."""

    about: str  # the user, for people
    turns: tuple[UserTurn, ...]
    history: tuple[str, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)  # other fields of the requests


@contextlib.contextmanager
def service(config: Path) -> Iterator[str]:
    """The address of a service on a free port, as long as the block.

    Args:
        config: The file that `incatalog serve --config` takes.

    Raises:
        ServiceFailedError: It ended, or said nothing in time.
    """
    command = [sys.executable, "-m", "incatalog.cli", "serve", "--config", str(config), "--port=0"]
    # A pipe that nobody reads would stop the service when it is full of its log.
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        process = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL)
        try:
            yield _address(process, log, config)
        finally:
            process.terminate()
            try:
                process.wait(_SECONDS_TO_STOP)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _address(process: subprocess.Popen[bytes], log: Any, config: Path) -> str:
    until = time.monotonic() + _SECONDS_TO_START
    while True:
        code = process.poll()
        log.seek(0)
        said = log.read()
        if found := _ADDRESS.search(said):
            return found[0]
        if code is not None or time.monotonic() > until:
            lines = [line for line in said.splitlines() if line.strip()]
            why = lines[-1] if lines else f"exit code {code}" if code is not None else "no answer"
            raise ServiceFailedError(f"incatalog serve --config {config}: did not start ({why})")
        time.sleep(_PAUSE)


def asked(address: str, body: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request of ``/v1/chat/completions``.

    Raises:
        ServiceFailedError: The service refused it or did not answer.
    """
    url = f"{address}/v1/chat/completions"
    try:
        # No proxy of the environment finds a service of this machine.
        answer = httpx.post(url, json=body, timeout=_SECONDS_TO_ANSWER, trust_env=False)
    except httpx.HTTPError as error:
        raise ServiceFailedError(f"{url}: {error}; start it again") from error
    if answer.status_code != httpx.codes.OK:
        raise ServiceFailedError(f"{url}: status {answer.status_code}: {answer.text[:300]}")
    found: dict[str, Any] = answer.json()
    return found


def held(address: str, model: str, conversation: ExampleTalk) -> list[dict[str, Any]]:
    """The answers to the turns of a conversation, each after those before it."""
    messages: list[dict[str, Any]] = []
    answers = []
    for turn in conversation.turns:
        messages.append({"role": "user", "content": turn.text})
        body = {"model": model, "messages": messages, "history": list(conversation.history)}
        body |= conversation.more | ({} if turn.k is None else {"k": turn.k})
        answer = asked(address, body)
        answers.append(answer)
        told = answer["choices"][0]["message"]["content"]
        spans = [
            {name: item[name] for name in ("id", "start", "end")}
            for item in answer["items"]
            if item.get("start") is not None
        ]
        messages.append({"role": "assistant", "content": told, "items": spans})
    return answers


def print_conversation(
    console: Console, conversation: ExampleTalk, answers: Sequence[dict[str, Any]]
) -> None:
    """Prints a conversation; items of the catalog are marked."""
    console.print(f"\n[dim]{conversation.about}[/dim]", highlight=False)
    said = Table.grid(padding=(0, 2))
    for turn, answer in zip(conversation.turns, answers, strict=True):
        said.add_row(Text("you", "bold"), Text(turn.text))
        told = Text(answer["choices"][0]["message"]["content"])
        for item in answer["items"]:
            if item.get("start") is not None:
                told.stylize("bold cyan", item["start"], item["end"])
        said.add_row(Text("assistant", "bold green"), told)
    console.print(said)
