"""How results are shown: progress while users are scored, and one line a method in a table."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

Batch = TypeVar("Batch", bound=Sequence[object])

_SECONDS_BETWEEN_LINES = 5.0


def comparison_table(
    summaries: Iterable[Mapping[str, Any]], metrics: Sequence[str], title: str = ""
) -> Table:
    """One row a summary, one column a metric, with its 95 % interval in each cell.

    Args:
        summaries: Contents of ``summary.json`` files.
        metrics: Names of the metrics to show; one that a summary lacks shows as a dash.
        title: Title of the table.
    """
    table = Table("method", title=title or None)
    for metric in metrics:
        table.add_column(metric, justify="right")
    for summary in summaries:
        found = summary["metrics"]
        cells = [_cell(found[metric]) if metric in found else "-" for metric in metrics]
        table.add_row(summary["method"], *cells)
    return table


def metric_table(summary: Mapping[str, Any]) -> Table:
    """All metrics of one summary, a row each metric and a column each cutoff."""
    cutoffs = sorted({int(name.split("@")[1]) for name in summary["metrics"]})
    names = list(dict.fromkeys(name.split("@")[0] for name in summary["metrics"]))
    table = Table(summary["method"], title=f"{summary['users']} users, 95 % intervals")
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
