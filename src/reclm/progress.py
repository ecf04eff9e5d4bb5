"""How far a long job has come, in a terminal and in logs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Batch = TypeVar("Batch", bound=Sized)

_SECONDS_BETWEEN_LINES = 5.0


def with_progress(
    batches: Iterable[Batch], total: int, what: str, console: Console | None = None
) -> Iterator[Batch]:
    """Hands on batches and shows how many of `total` items are done.

    A live bar in a terminal; elsewhere (logs, pipes) a line every few seconds. Both say how much
    time is left at the pace so far.
    """
    console = console or Console(stderr=True)
    bar = Progress(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    task = bar.add_task("", total=total)
    done, started = 0, time.monotonic()
    said = started
    with bar:
        for batch in batches:
            yield batch
            done += len(batch)
            bar.update(task, completed=done)
            quiet = time.monotonic() - said < _SECONDS_BETWEEN_LINES
            if not console.is_terminal and not quiet and done < total:
                said = time.monotonic()
                left = (said - started) / done * (total - done)
                console.print(f"{what}: {done} of {total}, {_clock(left)} left", soft_wrap=True)


def _clock(seconds: float) -> str:
    """A time span as hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
