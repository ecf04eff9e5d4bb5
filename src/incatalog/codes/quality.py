"""How good semantic IDs are: collisions, code use, reconstruction, neighbours."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int, Int32, Int64
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from incatalog.artifacts import atomic_path
from incatalog.errors import require
from incatalog.storage import writing

_QUERIES = 1000
_ROWS_AT_ONCE = 1 << 14


def neighbour_prefixes(
    vectors: Float32[np.ndarray, "items width"],
    codes: Int32[np.ndarray, "items levels"],
    count: int,
    seed: int,
) -> dict[str, Any]:
    """How often an item and its nearest neighbours (by cosine) share their first codes.

    Args:
        vectors: Item vectors.
        codes: Codes of each item.
        count: Neighbours of an item, fewer in a smaller catalog.
        seed: Seed of the sample: at most 1,000 items, and as many pairs at random.

    Returns:
        `neighbours` and `random`, the share of pairs that agree on the first 1, 2, … codes.
    """
    rng = np.random.default_rng(seed)
    queries = np.sort(rng.choice(len(codes), min(_QUERIES, len(codes)), replace=False))
    near = _nearest(vectors, queries, min(count, len(codes) - 1))
    others = rng.integers(len(codes) - 1, size=near.shape) if len(codes) > 1 else near
    others = others + (others >= queries[:, None])
    return {
        "queries": len(queries),
        "count": near.shape[1],
        "neighbours": _agreement(codes, queries, near),
        "random": _agreement(codes, queries, others),
    }


def _agreement(codes: np.ndarray, queries: np.ndarray, others: np.ndarray) -> list[float]:
    if not others.size:
        return []
    same = codes[queries][:, None] == codes[others]
    shares = np.logical_and.accumulate(same, axis=2).mean(axis=(0, 1))
    return [round(float(share), 6) for share in shares]


def _nearest(
    vectors: Float32[np.ndarray, "items width"], queries: Int64[np.ndarray, " queries"], count: int
) -> Int64[np.ndarray, "queries count"]:
    """Rows of the nearest other items, in bounded memory."""
    asked = torch.nn.functional.normalize(torch.from_numpy(np.array(vectors[queries])))
    own = torch.from_numpy(queries)
    best = torch.empty(len(queries), 0)
    rows = torch.empty(len(queries), 0, dtype=torch.int64)
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        block = torch.from_numpy(np.array(vectors[start : start + _ROWS_AT_ONCE]))
        cosines = asked @ torch.nn.functional.normalize(block).T
        inside = (own >= start) & (own < start + len(block))
        cosines[inside.nonzero()[:, 0], own[inside] - start] = float("-inf")
        found = torch.arange(start, start + len(block)).expand(len(queries), -1)
        best, rows = torch.cat([best, cosines], 1), torch.cat([rows, found], 1)
        best, order = best.topk(min(count, best.shape[1]), dim=1)
        rows = rows.gather(1, order)
    nearest: np.ndarray = rows.numpy()
    return nearest


def draw_quality(path: Path, report: Mapping[str, Any]) -> None:
    """Draws a quality report as a PNG file.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figures = require("matplotlib.figure", extra="items")
    figure = figures.Figure(figsize=(12, 3.4), layout="constrained")
    collisions, use, near = figure.subplots(1, 3)
    rates = [100 * report[when]["collision_rate"] for when in ("before", "after")]
    bars = collisions.bar(["before", "after"], rates, color=["C3", "C2"], width=0.5)
    collisions.bar_label(bars, [f"{rate:.2f} %" for rate in rates])
    collisions.set(title="items that share their codes", ylim=(0, max(*rates, 1) * 1.2))
    sizes: Sequence[int] = report["sizes"]
    levels = np.arange(1, len(sizes) + 1)
    for shift, name in ((-0.2, "used"), (0.2, "perplexity")):
        shares = [100 * one / size for one, size in zip(report["after"][name], sizes, strict=True)]
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
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=120)


_SECONDS_BETWEEN_LINES = 5.0


Entry = dict[str, Any]


def code_use(
    codes: Int[np.ndarray, "items levels"], sizes: Sequence[int]
) -> dict[str, float | list[int] | list[float]]:
    """How codes are spread.

    Returns:
        `collision_rate`, the share of items that share all codes with an earlier one;
        `used`, the codes in use at each level; `perplexity` at each level, the number of codes
        that would be as uneven to guess if all were used alike.
    """
    used, perplexity = [], []
    for level, size in enumerate(sizes):
        share = np.bincount(codes[:, level], minlength=size) / len(codes)
        share = share[share > 0]
        used.append(len(share))
        perplexity.append(round(float(np.exp(-(share * np.log(share)).sum())), 2))
    distinct = len(np.unique(codes, axis=0))
    rate = (len(codes) - distinct) / len(codes)
    return {"collision_rate": rate, "used": used, "perplexity": perplexity}


class LearningReport:
    """Progress on the console and curves for TensorBoard.

    A live bar in a terminal; elsewhere (logs, pipes) a line every few seconds.
    """

    def __init__(
        self, folder: Path, epochs: int, *, done: int = 0, console: Console | None = None
    ) -> None:
        """Prepares the report of a run that has `done` of `epochs` epochs behind it.

        Raises:
            MissingExtraError: TensorBoard is not installed.
        """
        require("tensorboard", extra="items")
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)
        self._console = console or Console(stderr=True)
        self._epochs = epochs
        self._said = time.monotonic()
        self._progress = Progress(
            TextColumn("quantize"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[result]}"),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task("", total=epochs, completed=done, result="")
        if done:
            self._console.print(f"quantize: resuming after epoch {done}")

    def __enter__(self) -> LearningReport:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()
        with writing(self._writer.log_dir):
            self._writer.close()

    def epoch_done(self, entry: Entry) -> None:
        """Shows and records an epoch; one with a validation has `collision_rate`."""
        epoch = int(entry["epoch"])
        with writing(self._writer.log_dir):
            for name, value in entry.items():
                if isinstance(value, list):
                    for level, part in enumerate(value, start=1):
                        self._writer.add_scalar(f"{name}/level {level}", part, epoch)
                elif name != "epoch":
                    self._writer.add_scalar(name, value, epoch)
        if "collision_rate" not in entry:
            self._progress.update(self._task, completed=epoch)
            return
        result = (
            f"loss {entry['loss']:.4f}, unexplained {entry['unexplained']:.3f}, "
            f"collisions {entry['collision_rate']:.2%}"
        )
        self._progress.update(self._task, completed=epoch, result=result)
        quiet = time.monotonic() - self._said < _SECONDS_BETWEEN_LINES
        if not self._console.is_terminal and (not quiet or epoch == self._epochs):
            self._said = time.monotonic()
            line = f"quantize: epoch {epoch} of {self._epochs}, {result}"
            self._console.print(line, soft_wrap=True, highlight=False)


def draw_learning(path: Path, history: Sequence[Entry], sizes: Sequence[int], unit: str) -> None:
    """Draws loss, collision rate and code use over epochs or levels as a PNG file.

    Args:
        path: Where to.
        history: Entries with `unit`; those with a validation have `collision_rate`.
        sizes: Codes at each level.
        unit: What is counted, `epoch` or `level`.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figures = require("matplotlib.figure", extra="items")
    figure = figures.Figure(figsize=(12, 3.4), layout="constrained")
    loss, collisions, use = figure.subplots(1, 3)
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
        shares = [
            (e[unit], 100 * e["perplexity"][level] / size)
            for e in checked
            if level < len(e["perplexity"])
        ]
        use.plot(*zip(*shares, strict=True), marker=marker, label=f"level {level + 1}")
    use.set(title="perplexity, % of the codes", ylim=(0, 100))
    use.legend()
    for axes in (loss, collisions, use):
        axes.set_xlabel(unit)
        axes.grid(alpha=0.3)
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=120)
