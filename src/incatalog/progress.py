"""How far a long job has come, in a terminal and in logs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

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


class FitReport:
    """A live progress bar in a terminal; elsewhere (logs, pipes) a line every few seconds."""

    def __init__(self, epochs: int, *, done: int = 0, console: Console | None = None) -> None:
        """Prepares the report of a run that has `done` of at most `epochs` epochs behind it."""
        self._console = console or Console(stderr=True)
        self._epochs = epochs
        self._said = float("-inf")
        self._progress = Progress(
            TextColumn("teacher"),
            BarColumn(),
            TextColumn(f"epoch {{task.fields[epoch]}} of {epochs}"),
            TextColumn("{task.fields[result]}"),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task("", epoch=done + 1, result="")
        if done:
            self._console.print(f"teacher: resuming after epoch {done}")

    def __enter__(self) -> FitReport:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def epoch_begins(self, batches: int) -> None:
        """Starts the bar of an epoch anew."""
        self._progress.update(self._task, total=batches, completed=0)

    def batch_done(self) -> None:
        """Moves the bar by a batch."""
        self._progress.advance(self._task)

    def epoch_done(self, entry: dict[str, float], best: dict[str, float] | None) -> None:
        """Shows the results of an epoch beside the best so far."""
        epoch = int(entry["epoch"])
        result = f"loss {entry['loss']:.3f}"
        if best is not None:
            result += (
                f"  valid NDCG@10 {entry.get('NDCG@10', float('nan')):.4f} "
                f"(best {best['NDCG@10']:.4f}, HR@10 {best['HR@10']:.4f}, "
                f"epoch {int(best['epoch'])})"
            )
        self._progress.update(self._task, epoch=min(epoch + 1, self._epochs), result=result)
        quiet = time.monotonic() - self._said < _SECONDS_BETWEEN_LINES
        if not self._console.is_terminal and not quiet:
            self._said = time.monotonic()
            self._console.print(f"teacher: epoch {epoch}  {result}", soft_wrap=True)
