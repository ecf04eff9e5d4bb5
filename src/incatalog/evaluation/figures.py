"""Figures of the report, each as one SVG that needs no other file."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

from incatalog.errors import require

_COLOURS = ("#4063d8", "#d8743c", "#389826", "#9558b2", "#7a7a7a", "#cb3c33", "#00868b", "#b8860b")

Rows = Sequence[Mapping[str, Any]]
"""Summaries of runs, each with its ``name``."""


def accuracy_figure(rows: Rows, k: int) -> str:
    """Hit rate and NDCG of each run with their intervals, as a data URI."""
    figure = _figure(7.2, 3.0)
    for axes, metric in zip(figure.subplots(1, 2), (f"HR@{k}", f"NDCG@{k}"), strict=True):
        for place, row in enumerate(rows):
            _bar(axes, place, 0.7, row["metrics"].get(metric), _colour(place))
        axes.set_xticks(range(len(rows)), [row["name"] for row in rows], rotation=30, ha="right")
        axes.set_title(metric)
    return _data_uri(figure)


def segment_figure(rows: Rows, k: int) -> str:
    """Hit rate by popularity of the target and length of the history, as a data URI."""
    figure = _figure(7.2, 3.2)
    metric = f"HR@{k}"
    for axes, by in zip(figure.subplots(1, 2), ("target", "history"), strict=True):
        found = [
            {s["segment"]: s["metrics"].get(metric) for s in row["segments"] if s["by"] == by}
            for row in rows
        ]
        names = list(dict.fromkeys(name for segments in found for name in segments))
        width = 0.8 / len(rows)
        for number, segments in enumerate(found):
            for place, name in enumerate(names):
                at = place + (number - (len(rows) - 1) / 2) * width
                _bar(axes, at, width, segments.get(name), _colour(number))
        axes.set_xticks(range(len(names)), names)
        axes.set_title({"target": "target item", "history": "items in the history"}[by])
        axes.set_ylabel(metric)
    patch = require("matplotlib.patches", extra="evaluate").Patch
    handles = [patch(color=_colour(number), label=row["name"]) for number, row in enumerate(rows)]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(rows), frameon=False)
    return _data_uri(figure)


def calibration_figure(rows: Rows) -> str:
    """Probability of items against how often they were the held-out one, as a data URI."""
    figure = _figure(4.2, 3.6)
    axes = figure.subplots()
    axes.plot([1e-4, 1], [1e-4, 1], color="#bbbbbb", linewidth=1)
    for number, row in enumerate(rows):
        bins = [entry for entry in row["calibration"]["bins"] if entry["hits"] > 0]
        given = [entry["probability"] for entry in bins]
        axes.plot(given, [b["hits"] for b in bins], "o-", color=_colour(number), label=row["name"])
    axes.set(xscale="log", yscale="log", xlim=(1e-4, 1), ylim=(1e-4, 1))
    axes.set_xlabel("mean probability of the items")
    axes.set_ylabel("share that was the held-out item")
    axes.legend(frameon=False)
    return _data_uri(figure)


def _figure(width: float, height: float) -> Any:
    figure_module = require("matplotlib.figure", extra="evaluate")
    return figure_module.Figure(figsize=(width, height), layout="constrained")


def _bar(
    axes: Any, place: float, width: float, interval: Mapping[str, float] | None, colour: str
) -> None:
    if interval is None:
        return
    value = interval["value"]
    # Rounding may put the mean just outside its interval.
    error = [[max(0.0, value - interval["low"])], [max(0.0, interval["high"] - value)]]
    axes.bar(place, value, width, color=colour, yerr=error, capsize=2, error_kw={"linewidth": 0.8})
    axes.spines[["top", "right"]].set_visible(False)


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _data_uri(figure: Any) -> str:
    matplotlib = require("matplotlib", extra="evaluate")
    written = io.BytesIO()
    # Names of elements and the date would differ from one report to the next.
    with matplotlib.rc_context({"svg.hashsalt": "incatalog", "svg.fonttype": "path"}):
        figure.savefig(written, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(written.getvalue()).decode()
