"""How results are shown: the metrics in a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table


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


def _cell(interval: Mapping[str, float]) -> str:
    return f"{interval['value']:.3f} [dim]({interval['low']:.3f}–{interval['high']:.3f})[/dim]"
