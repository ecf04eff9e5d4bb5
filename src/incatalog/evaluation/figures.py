"""Figures of the report: SVG whose colours are the page's, so that they follow light and dark."""

from __future__ import annotations

import contextlib
import hashlib
import html
import io
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from incatalog.errors import require
from incatalog.evaluation.finished import FinishedRun
from incatalog.evaluation.looks import COLOURS, GROUNDS, label_of, look_of, shape_of, variable
from incatalog.evaluation.result_tables import number

# Colours of a light page, and the variables of the page that replace them.
TEXT, DIM, LINE, GROUND = "#1c1d1b", "#5d5f59", "#dcdcd5", GROUNDS[0]
_VARIABLES = {TEXT: "--text", DIM: "--dim", LINE: "--line", GROUND: "--surface"} | {
    light: variable(light) for light, _ in COLOURS
}
_MARKERS = {"triangle": "^", "square": "s", "disc": "o", "ring": "o", "diamond": "D", "cross": "X"}
_LONGEST_NAME = 28
_STYLE = {
    # Names of elements would differ from one report to the next.
    "svg.hashsalt": "incatalog",
    "svg.fonttype": "none",
    "font.size": 9,
    "text.color": TEXT,
    "axes.edgecolor": LINE,
    "axes.labelcolor": TEXT,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": LINE,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": DIM,
    "ytick.labelcolor": TEXT,
}


class Panel(NamedTuple):
    """One panel: a value of each run.

    Attributes:
        title: What is shown.
        intervals: Value and interval of each run; None where it has none.
    """

    title: str
    intervals: Sequence[Mapping[str, float] | None]


def highest(facets: Sequence[Panel]) -> float:
    """The upper end of the scale for some facets."""
    return max((one["high"] for facet in facets for one in facet.intervals if one), default=0) or 1


def dot_figure(runs: Sequence[FinishedRun], facets: Sequence[Panel], most: float) -> str:
    """Facets side by side on a scale from 0 to `most`: a row for each run, from the top down.

    A run is a mark at its value, a line over its interval, and the value in figures.
    """
    places = range(len(runs))
    with _figure(1.0 + 3.1 * len(facets), 0.62 + 0.27 * len(runs)) as figure:
        panels = figure.subplots(1, len(facets), sharey=True, squeeze=False)[0]
        for axes, facet in zip(panels, facets, strict=True):
            for place, run, found in zip(places, runs, facet.intervals, strict=True):
                if found is not None:
                    _mark(axes, place, run, found)
            axes.set_title(facet.title, fontsize=9.5, loc="left", parse_math=False)
            axes.set_yticks(places, [_short(label_of(run)) for run in runs], parse_math=False)
            axes.set(ylim=(len(runs) - 0.5, -0.5), xlim=(0, 1.04 * most))
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.tick_params(axis="y", length=0, pad=7)
            axes.grid(axis="x", linewidth=0.6)
            axes.set_axisbelow(True)
            axes.locator_params(axis="x", nbins=5)
        said = ". ".join(_described(runs, facet) for facet in facets)
        return _svg(figure, said)


def segment_facets(runs: Sequence[FinishedRun], metric: str, by: str) -> list[Panel]:
    """A metric of each kind of user, cut by ``target`` or ``history``."""
    found = [
        {one["segment"]: one for one in run.summary["segments"] if one["by"] == by} for run in runs
    ]
    facets = []
    for segment in dict.fromkeys(name for own in found for name in own):
        users = max(own[segment]["users"] for own in found if segment in own)
        kind = f"{segment} item" if by == "target" else f"history of {segment}"
        intervals = [own[segment]["metrics"].get(metric) if segment in own else None
                     for own in found]  # fmt: skip
        facets.append(Panel(f"{metric}, {kind} ({users:,} users)", intervals))
    return facets


def calibration_figure(runs: Sequence[FinishedRun]) -> str:
    """Probability of items against how often they were the held-out one."""
    with _figure(4.2, 3.6) as figure:
        axes = figure.subplots()
        axes.plot([1e-6, 1], [1e-6, 1], color=DIM, linewidth=1, linestyle=":")
        for run, line in zip(runs, itertools.cycle(("-", "--", "-.", ":")), strict=False):
            bins = [entry for entry in run.summary["calibration"]["bins"] if entry["hits"] > 0]
            axes.plot(
                [one["probability"] for one in bins], [one["hits"] for one in bins],
                color=look_of(run).light, marker=_MARKERS[shape_of(run)], markersize=5,
                linestyle=line, label=_short(label_of(run)),
            )  # fmt: skip
        seen = [one for run in runs for one in run.summary["calibration"]["bins"] if one["hits"]]
        least = min((min(one["probability"], one["hits"]) for one in seen), default=1e-4)
        low = 10 ** math.floor(math.log10(max(least, 1e-6)))
        axes.set(xscale="log", yscale="log", xlim=(low, 1), ylim=(low, 1))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
            axis.set_ticks([], minor=True)
        axes.set_xlabel("mean probability of the items")
        axes.set_ylabel("share that was the held-out item")
        axes.spines[["top", "right"]].set_visible(False)
        for text in axes.legend(frameon=False).get_texts():
            text.set_parse_math(False)
        off = [f"{label_of(run)} {run.summary['calibration']['ECE']:.4f}" for run in runs]
        return _svg(figure, f"Mean distance from the diagonal: {'; '.join(off)}")


def _described(runs: Sequence[FinishedRun], facet: Panel) -> str:
    """What a panel shows, in words."""
    said = [
        f"{label_of(run)} {number(one['value'])} ({number(one['low'])} to {number(one['high'])})"
        for run, one in zip(runs, facet.intervals, strict=True)
        if one is not None
    ]
    return f"{facet.title}: {'; '.join(said)}"


def _mark(axes: Any, place: int, run: FinishedRun, found: Mapping[str, float]) -> None:
    colour, shape = look_of(run).light, shape_of(run)
    axes.plot(
        [found["low"], found["high"]], [place, place], color=colour, linewidth=2, clip_on=False
    )
    # A ring is a disc whose middle is the page.
    face = GROUND if shape == "ring" else colour
    axes.plot(
        [found["value"]], [place], marker=_MARKERS[shape], markersize=6.5, color=colour,
        markerfacecolor=face, markeredgecolor=colour, markeredgewidth=1.6, linestyle="none",
        clip_on=False,
    )  # fmt: skip
    axes.text(
        1.02, place, number(found["value"]), transform=axes.get_yaxis_transform(), va="center",
        fontsize=9,
    )  # fmt: skip


def _short(name: str) -> str:
    """A name that leaves room for the figure; its end tells folders apart."""
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[: _LONGEST_NAME // 2 - 1]}…{name[-_LONGEST_NAME // 2 :]}"


@contextlib.contextmanager
def _figure(width: float, height: float) -> Iterator[Any]:
    """A figure in inches, drawn in the style of the page."""
    matplotlib = require("matplotlib", extra="evaluate")
    figure_module = require("matplotlib.figure", extra="evaluate")
    with matplotlib.rc_context(_STYLE):
        yield figure_module.Figure(figsize=(width, height), layout="constrained")


def _svg(figure: Any, label: str) -> str:
    """An element for a page: without what a document begins with, sizes and colours of its own."""
    written = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(written, format="svg", metadata=nothing)
    svg = written.getvalue()
    svg = svg[svg.index("<svg") :]
    # A style here would be that of the whole page, and so would ids.
    svg = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    own = hashlib.sha256(svg.encode()).hexdigest()[:8]
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>figure-{own}-", svg)
    for colour, name in _VARIABLES.items():
        svg = svg.replace(colour, f"var({name}, {colour})")
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)
