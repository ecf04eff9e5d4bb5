"""How results are shown: progress while users are scored, and the metrics in a table."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

Batch = TypeVar("Batch", bound=Sequence[object])

_SECONDS_BETWEEN_LINES = 5.0


def metric_table(summary: Mapping[str, Any]) -> Table:
    """All metrics of one summary, a row each metric and a column each cutoff."""
    cutoffs = sorted({int(name.split("@")[1]) for name in summary["metrics"]})
    names = list(dict.fromkeys(name.split("@")[0] for name in summary["metrics"]))
    title = f"{summary['users']} users, 95 % intervals"
    table = Table(summary["method"], title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for cutoff in cutoffs:
        table.add_column(f"@{cutoff}", justify="right")
    for name in names:
        found = [summary["metrics"].get(f"{name}@{cutoff}") for cutoff in cutoffs]
        table.add_row(name, *(_cell(interval) if interval else "" for interval in found))
    return table


def with_progress(
    batches: Iterable[Batch], total: int, what: str, console: Console | None = None
) -> Iterator[Batch]:
    """Hands on batches and shows how many of `total` items are done.

    A live bar in a terminal; elsewhere (logs, pipes) a line every few seconds.
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
    done, said = 0, time.monotonic()
    with bar:
        for batch in batches:
            yield batch
            done += len(batch)
            bar.update(task, completed=done)
            quiet = time.monotonic() - said < _SECONDS_BETWEEN_LINES
            if not console.is_terminal and not quiet and done < total:
                said = time.monotonic()
                console.print(f"{what}: {done} of {total}", soft_wrap=True)


def _cell(interval: Mapping[str, float]) -> str:
    return f"{interval['value']:.3f} [dim]({interval['low']:.3f}–{interval['high']:.3f})[/dim]"
