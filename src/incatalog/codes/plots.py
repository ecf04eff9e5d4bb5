"""Pictures of how a quantizer learned and how good its semantic IDs are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from incatalog.artifacts import atomic_path
from incatalog.errors import require
from incatalog.fitting import Epoch


def draw_learning(path: Path, history: Sequence[Epoch], sizes: Sequence[int]) -> None:
    """Draws loss, collision rate and code use over epochs or levels as a PNG file."""
    unit = "epoch" if "epoch" in history[0] else "level"
    with _three_plots(path) as (loss, collisions, use):
        checked = [entry for entry in history if "collision_rate" in entry]
        steps = [entry[unit] for entry in checked]
        marker = "o" if len(steps) < 20 else None
        if "loss" in history[0]:
            loss.plot([e[unit] for e in history], [e["loss"] for e in history], label="loss")
        loss.plot(steps, [e["unexplained"] for e in checked], marker=marker, label="unexplained")
        # Of items that are all alike nothing is left to explain, and 0 has no logarithm.
        drawn = [e[name] for e in history for name in ("loss", "unexplained") if name in e]
        scale = "log" if max(drawn) > 0 else "linear"
        loss.set(title="loss, and variance not explained", yscale=scale)
        loss.legend()
        collisions.plot(steps, [100 * e["collision_rate"] for e in checked], marker=marker)
        collisions.set(title="items that share their codes, %", ylim=(0, None))
        for level, size in enumerate(sizes):
            with_level = [e for e in checked if level < len(e["perplexity"])]
            shares = [100 * e["perplexity"][level] / size for e in with_level]
            places = [e[unit] for e in with_level]
            use.plot(places, shares, marker=marker, label=f"level {level + 1}")
        use.set(title="perplexity, % of the codes", ylim=(0, 100))
        use.legend()
        for axes in (loss, collisions, use):
            axes.set_xlabel(unit)
            axes.grid(alpha=0.3)


def draw_quality(path: Path, report: Mapping[str, Any]) -> None:
    """Draws a quality report as a PNG file."""
    with _three_plots(path) as (collisions, use, near):
        rates = [100 * report[when]["collision_rate"] for when in ("before", "after")]
        bars = collisions.bar(["before", "after"], rates, color=["C3", "C2"], width=0.5)
        collisions.bar_label(bars, [f"{rate:.2f} %" for rate in rates])
        collisions.set(title="items that share their codes", ylim=(0, max(*rates, 1) * 1.2))
        sizes = np.array(report["sizes"])
        levels = np.arange(1, len(sizes) + 1)
        for shift, name in ((-0.2, "used"), (0.2, "perplexity")):
            shares = 100 * np.array(report["after"][name]) / sizes
            use.bar(levels + shift, shares, width=0.4, label=name)
        use.set(title="codes, % of their number", xlabel="level", ylim=(0, 100), xticks=levels)
        use.legend()
        shared = report.get("prefixes")
        # A single item has no neighbours.
        if shared and shared["neighbours"]:
            for shift, name in ((-0.2, "neighbours"), (0.2, "random")):
                near.bar(levels + shift, [100 * s for s in shared[name]], width=0.4, label=name)
            near.legend()
            near.set(xticks=levels)
        near.set(title="pairs that share their first codes, %", xlabel="codes shared")


@contextlib.contextmanager
def _three_plots(path: Path) -> Iterator[Any]:
    """Axes to draw on, written as a PNG file in the end."""
    figures = require("matplotlib.figure", extra="items")
    figure = figures.Figure(figsize=(12, 3.4), layout="constrained")
    yield figure.subplots(1, 3)
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=120)
