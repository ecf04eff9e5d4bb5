"""Results as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

_right = partial(Column, justify="right")


def metric_table(summary: Mapping[str, Any]) -> Table:
    """All metrics of one summary, a row each metric and a column each cutoff."""
    cutoffs = sorted({int(name.split("@")[1]) for name in summary["metrics"]})
    names = list(dict.fromkeys(name.split("@")[0] for name in summary["metrics"]))
    title = f"{summary['users']} users, 95 % intervals"
    right = [_right(f"@{cutoff}") for cutoff in cutoffs]
    padding = (0, 1, 0, 0)
    table = Table(summary["method"], *right, title=title, box=SIMPLE_HEAD, padding=padding)
    for name in names:
        found = [summary["metrics"].get(f"{name}@{cutoff}") for cutoff in cutoffs]
        table.add_row(name, *(_cell(interval) if interval else "" for interval in found))
    return table


def _cell(interval: Mapping[str, float]) -> str:
    return f"{interval['value']:.3f} [dim]({interval['low']:.3f}–{interval['high']:.3f})[/dim]"


def range_text(interval: Any, what: str = "") -> str:
    """A value and its interval for a sentence: ``0.016 (0.005 to 0.026)``."""
    value, low, high = (number(getattr(interval, name)) for name in ("value", "low", "high"))
    return f"{value} ({what}{low} to {high})"


def number(value: float, sign: str = "") -> str:
    """Three decimals, with a real minus, and no sign before a zero."""
    text = f"{value:{sign}.3f}"
    return text[1:] if float(text) == 0 and text[0] in "+-" else text.replace("-", "−")


def chat_tables(summary: Mapping[str, Any]) -> list[Table]:
    """The metrics, and what else was found out in the conversations."""
    table = Table("rounds", "", box=SIMPLE_HEAD, title=f"{summary['users']} conversations")
    labels = {
        "ExactlyK": f"round 1: exactly {summary['k']} items",
        "NoControl": "round 2: no control token",
        "Accuracy": "round 2: right number",
        "Numbered": "round 2: some number",
    }
    for name, label in labels.items():
        if name in summary["rounds"]:
            table.add_row(label, _cell(summary["rounds"][name]))
    free = summary["free_text"]
    inside = f"{free['exact']} exact, {free['fuzzy']} alike"
    outside = f"{free['training']} of the training catalog, {free['unknown']} unknown"
    table.add_row("round 1: titles outside spans", f"{free['titles']} ({inside}, {outside})")
    for name, found in summary["perplexity"].items():
        table.add_row(f"perplexity {name}", _cell(found))
    return [metric_table(summary), table]


def comparison_table(result: Mapping[str, Any]) -> Table:
    """A row each metric and pair."""
    title = f"{result['users']} users, second minus first, 95 % intervals"
    right = [_right(name, no_wrap=True) for name in ("difference", "p", "p (Holm)")]
    table = Table("metric", "first", "second", *right, title=title, box=SIMPLE_HEAD)
    for pair in sorted(result["pairs"], key=lambda pair: str(pair["metric"])):
        found = pair["difference"]
        difference = (
            f"{found['value']:+.3f} [dim]({found['low']:+.3f} … {found['high']:+.3f})[/dim]"
        )
        tests = ("–" if pair.get(key) is None else f"{pair[key]:.4f}" for key in ("p", "p_holm"))
        table.add_row(pair["metric"], pair["first"], pair["second"], difference, *tests)
    return table


def general_table(summary: Mapping[str, Any]) -> Table:
    """A row each task and metric."""
    right = (_right("before"), _right("after"))
    table = Table("task", "metric", *right, title="General ability", box=SIMPLE_HEAD)
    for row in summary["tasks"]:
        table.add_row(row["task"], row["metric"], _number(row.get("before")), _number(row["after"]))
    return table


def _number(found: Mapping[str, float | None] | None) -> str:
    if found is None:
        return "–"
    error = found["error"]
    return f"{found['value']:.4f}" + ("" if error is None else f" [dim]± {error:.4f}[/dim]")


def metric_names(cutoff: int) -> tuple[str, str]:
    """Names of the two metrics at a cutoff."""
    return f"Recall@{cutoff}", f"NDCG@{cutoff}"


def places_table(summary: Mapping[str, Any]) -> Table:
    """A row each place."""
    names = metric_names(summary["cutoff"])
    title = f"{summary['users']} users, 95 % intervals"
    right = [_right(name, no_wrap=True) for name in (*names, "similarity to place 1")]
    table = Table("place", *right, title=title, box=SIMPLE_HEAD)
    for row in summary["places"]:
        alike = summary["similarity"][0][row["place"] - 1]
        table.add_row(str(row["place"]), *(_cell(row[name]) for name in names), f"{alike:.3f}")
    return table
