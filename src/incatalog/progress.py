"""How far a long job has come: a bar in a terminal, lines in logs and pipes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Batch = TypeVar("Batch", bound=Sized)

_SECONDS_BETWEEN_LINES = 5.0


class Report(Progress):
    """A job's bar in a terminal; elsewhere a line every few seconds."""

    def __init__(
        self, job: str, total: int, *columns: ProgressColumn, console: Console | None, **fields: Any
    ) -> None:
        """Prepares the bar of a job, with columns behind it that show the fields."""
        console = console or Console(stderr=True)
        columns = (TextColumn(job), BarColumn(), *columns)
        super().__init__(*columns, console=console, disable=not console.is_terminal)
        self._job = job
        self._printed = time.monotonic()
        self._bar = self.add_task("", total=total, **fields)

    def show(self, line: str = "", *, now: bool = False, **fields: Any) -> None:
        """Updates the bar. Without one, prints a line every few seconds, and always if `now`."""
        self.update(self._bar, **fields)
        time_came = time.monotonic() - self._printed >= _SECONDS_BETWEEN_LINES
        if line and not self.console.is_terminal and (now or time_came):
            self._printed = time.monotonic()
            self.console.print(f"{self._job}: {line}", soft_wrap=True, highlight=False)


class FitReport(Report):
    """The report of a training in epochs."""

    def __init__(
        self, job: str, epochs: int, *, done: int = 0, console: Console | None = None
    ) -> None:
        """Reports at most `epochs` epochs; `done` of them were done before an interruption."""
        epoch = TextColumn(f"epoch {{task.fields[epoch]}} of {epochs}")
        # What is left is as long as it takes at most: patience may end it sooner.
        times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        columns = (epoch, TextColumn("{task.fields[result]}"), *times)
        fields = {"completed": done, "epoch": done + 1, "result": ""}
        super().__init__(job, epochs, *columns, console=console, **fields)
        self._epochs, self._done, self._started = epochs, done, time.monotonic()
        self._printed = float("-inf")
        if done:
            self.console.print(f"{job}: resuming after epoch {done}")

    def epoch_done(self, epoch: int, result: str) -> None:
        """Shows the result of an epoch; an empty one leaves the result before it."""
        fields = {"result": result} if result else {}
        last = epoch == self._epochs
        line = f"epoch {epoch}  {result}" if result else ""
        if line and not last:
            left = time_left(self._started, epoch - self._done, self._epochs - self._done)
            line += f"  at most {left} left"
        self.show(line, now=last, completed=epoch, epoch=epoch if last else epoch + 1, **fields)


def with_progress(
    batches: Iterable[Batch], total: int, what: str, console: Console | None = None
) -> Iterator[Batch]:
    """Hands on batches, and reports how many of `total` items are done and how long is left."""
    columns = (MofNCompleteColumn(), TimeRemainingColumn())
    done, started = 0, time.monotonic()
    with Report(what, total, *columns, console=console) as report:
        for batch in batches:
            yield batch
            done += len(batch)
            line = ""
            if 0 < done < total:
                line = f"{done} of {total}, {time_left(started, done, total)} left"
            report.show(line, completed=done)


def time_left(started: float, done: int, total: int) -> str:
    """How long what is left takes if it goes on like what is done since a monotonic time."""
    return _clock((time.monotonic() - started) / done * (total - done))


def _clock(seconds: float) -> str:
    """A time span as hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
