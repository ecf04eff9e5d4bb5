"""The tables of the report: what stands in which column, in which order, and what is best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from incatalog.evaluation.finished import FinishedRun
from incatalog.evaluation.headline import Gap, Standing
from incatalog.evaluation.looks import Shape, label_of, look_of, shape_of, variable
from incatalog.evaluation.result_tables import number

Better = Literal["high", "low"]
Found = Mapping[str, float] | None

_BEFORE = {"target": "target: ", "history": "history: ", "category": ""}


class ReportColumn(NamedTuple):
    """A column: its heading, the key of its word in the glossary, its group, and what is better."""

    heading: str
    term: str = ""
    group: str = ""
    better: Better | None = None


@dataclass(frozen=True)
class ReportCell:
    """A value as text, its interval below it, and whether it is the best of its column or row."""

    text: str
    interval: str = ""
    best: bool = False
    value: float | None = None


EMPTY = ReportCell("–")


@dataclass(frozen=True)
class ReportRow:
    """A row; that of a run has the run's mark and colour, that of the base line stands apart."""

    name: str
    cells: tuple[ReportCell, ...]
    shape: Shape | None = None
    colour: str = ""
    is_base: bool = False


@dataclass(frozen=True)
class ReportTable:
    """A table; `label` names it for those who hear it."""

    label: str
    first: str
    columns: tuple[ReportColumn, ...]
    rows: tuple[ReportRow, ...]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Headings over neighbouring columns, with their widths; none where no column has one."""
        found: list[tuple[str, int]] = []
        for column in self.columns:
            if found and found[-1][0] == column.group:
                found[-1] = (column.group, found[-1][1] + 1)
            else:
                found.append((column.group, 1))
        return found if any(name for name, _ in found) else []


def in_order(runs: Sequence[FinishedRun], metric: str) -> list[FinishedRun]:
    """The base line, then all others from the best down; those without the metric come last."""

    def place(run: FinishedRun) -> tuple[bool, float, bool]:
        found = run.summary["metrics"].get(metric)
        worth = found["value"] if found else -1.0
        return look_of(run).family != "base", -worth, run.is_language_model

    return sorted(runs, key=place)


def metrics_table(runs: Sequence[FinishedRun], k: int) -> ReportTable:
    """All metrics of all runs, in groups."""
    right, kept = "Finds the right item", "Keeps to what was asked"
    variety = "Variety"

    def metric(name: str) -> Callable[[FinishedRun], ReportCell]:
        return lambda run: interval_cell(run.summary["metrics"].get(f"{name}@{k}"))

    def coverage(run: FinishedRun) -> ReportCell:
        return _plain(run.summary.get("coverage"))

    def error(run: FinishedRun) -> ReportCell:
        return _plain(run.summary.get("calibration", {}).get("ECE"), 4)

    read = {
        ReportColumn(f"NDCG@{k}", "NDCG", right, "high"): metric("NDCG"),
        ReportColumn(f"HR@{k}", "HR", right, "high"): metric("HR"),
        ReportColumn(f"MRR@{k}", "MRR", right, "high"): metric("MRR"),
        ReportColumn(f"OOD@{k}", "OOD", kept, "low"): metric("OOD"),
        ReportColumn("right count", "RightCount", kept, "high"): metric("RightCount"),
        ReportColumn("in history", "InHistory", kept, "low"): metric("InHistory"),
        ReportColumn("coverage", "coverage", variety): coverage,
        ReportColumn("novelty", "Novelty", variety): metric("Novelty"),
        ReportColumn("similarity", "Similarity", variety): metric("Similarity"),
        ReportColumn("ECE", "ECE", "Odds", "low"): error,
    }
    return _of_runs("All figures", in_order(runs, f"NDCG@{k}"), read)


def chat_table(runs: Sequence[FinishedRun], k: int) -> ReportTable:
    """What conversations of three rounds gave."""
    lists, after, free = "The list", "The answer after it", "Titles in its free text"

    def metric(name: str) -> Callable[[FinishedRun], ReportCell]:
        return lambda run: interval_cell(run.summary["metrics"].get(f"{name}@{k}"))

    def part(section: str, name: str) -> Callable[[FinishedRun], ReportCell]:
        return lambda run: interval_cell(run.summary[section].get(name))

    read = {
        ReportColumn(f"NDCG@{k}", "NDCG", lists, "high"): metric("NDCG"),
        ReportColumn(f"HR@{k}", "HR", lists, "high"): metric("HR"),
        ReportColumn(f"OOD@{k}", "OOD", lists, "low"): metric("OOD"),
        ReportColumn(f"exactly {k} items", "", lists, "high"): part("rounds", "ExactlyK"),
        ReportColumn("plain text", "NoControl", after, "high"): part("rounds", "NoControl"),
        ReportColumn("right number", "", after, "high"): part("rounds", "Accuracy"),
        ReportColumn("titles", "", free): lambda r: ReportCell(
            str(r.summary["free_text"]["titles"])
        ),
        ReportColumn("in no catalog", "", free): lambda r: _plain(r.summary["free_text"]["OOD"]),
        ReportColumn("now", "perplexity", "Perplexity"): part("perplexity", "after"),
        ReportColumn("before training", "", "Perplexity"): part("perplexity", "before"),
    }
    return _of_runs("Conversations", in_order(runs, f"NDCG@{k}"), read)


def segments_table(runs: Sequence[FinishedRun], metric: str) -> ReportTable:
    """A row each kind of user and a column each run; the best of a row is marked."""
    ordered = in_order([run for run in runs if "segments" in run.summary], metric)
    found = [
        {(one["by"], one["segment"]): one for one in run.summary["segments"]} for run in ordered
    ]
    rows = []
    for key in dict.fromkeys(key for own in found for key in own):
        users = max(own[key]["users"] for own in found if key in own)
        cells = [interval_cell(own[key]["metrics"].get(metric) if key in own else None)
                 for own in found]  # fmt: skip
        by, segment = key
        marked = _with_best(cells, "high")
        rows.append(ReportRow(f"{_BEFORE[by]}{segment}", (ReportCell(f"{users:,}"), *marked)))
    columns = (ReportColumn("users"), *(ReportColumn(label_of(run)) for run in ordered))
    return ReportTable(f"{metric} by kind of user", "users by", columns, tuple(rows))


def gaps_table(standings: Sequence[Standing]) -> ReportTable:
    """Each run less the best one, by each metric; the first metric orders and has the best."""
    best, *others = standings[0].runs
    columns: list[ReportColumn] = []
    for standing in standings:
        columns += [
            ReportColumn("difference", "interval", standing.metric),
            ReportColumn("p (Holm)", "p", standing.metric),
            ReportColumn("by its interval", "", standing.metric),
        ]
    rows = []
    for run in others:
        cells: list[ReportCell] = []
        for standing in standings:
            cells += _gap_cells(standing.gap(run, best))
        rows.append(_row(run, cells))
    return ReportTable(f"Differences from {label_of(best)}", "run", tuple(columns), tuple(rows))


def pairs_table(pairs: Sequence[Mapping[str, Any]], runs: Sequence[FinishedRun]) -> ReportTable:
    """Each two runs."""
    names = {run.name: label_of(run) for run in runs}
    rows = []
    for pair in sorted(pairs, key=lambda pair: str(pair["metric"])):
        gap = Gap(**pair["difference"], p=pair.get("p_holm"))
        difference, holm, _ = _gap_cells(gap)
        p = ReportCell("–") if pair["p"] is None else _plain(pair["p"], 4)
        first, second = (ReportCell(names[pair[which]]) for which in ("second", "first"))
        cells = (first, second, ReportCell(f"{pair['users']:,}"), difference, p, holm)
        rows.append(ReportRow(pair["metric"], cells))
    headings = ("this run", "less this one", "users", "difference", "p", "p (Holm)")
    columns = tuple(ReportColumn(heading) for heading in headings)
    return ReportTable("Differences of all pairs", "metric", columns, tuple(rows))


def interval_cell(found: Found) -> ReportCell:
    """A value with its interval, which is left out where it has no width."""
    if not found:
        return EMPTY
    low, high = number(found["low"]), number(found["high"])
    return ReportCell(
        number(found["value"]), "" if low == high else f"{low}–{high}", value=found["value"]
    )


def _gap_cells(gap: Gap) -> tuple[ReportCell, ReportCell, ReportCell]:
    word = "ahead" if gap.is_ahead else "behind" if gap.is_behind else "may be chance"
    word = "the same" if gap.is_zero else word
    low, high = number(gap.low, "+"), number(gap.high, "+")
    difference = ReportCell(number(gap.value, "+"), f"{low} to {high}" if low != high else "")
    return difference, _plain(gap.p, 4), ReportCell(word)


def _plain(value: float | None, places: int = 3) -> ReportCell:
    return EMPTY if value is None else ReportCell(f"{value:.{places}f}", value=value)


def _of_runs(
    label: str,
    runs: Sequence[FinishedRun],
    read: Mapping[ReportColumn, Callable[[FinishedRun], ReportCell]],
) -> ReportTable:
    """A row each run; a column that would be empty is left out."""
    columns, filled = [], []
    for column, cell in read.items():
        cells = [cell(run) for run in runs]
        if any(one != EMPTY for one in cells):
            columns.append(column)
            filled.append(_with_best(cells, column.better))
    users = {int(run.summary["users"]) for run in runs}
    if len(users) > 1:
        columns.insert(0, ReportColumn("users"))
        filled.insert(0, [ReportCell(f"{run.summary['users']:,}") for run in runs])
    rows = [_row(run, cells) for run, cells in zip(runs, zip(*filled, strict=True), strict=True)]
    return ReportTable(label, "run", tuple(columns), tuple(rows))


def _row(run: FinishedRun, cells: Sequence[ReportCell]) -> ReportRow:
    look = look_of(run)
    colour = variable(look.light)
    return ReportRow(label_of(run), tuple(cells), shape_of(run), colour, look.family == "base")


def _with_best(cells: Sequence[ReportCell], better: Better | None) -> list[ReportCell]:
    """The cells with the best as shown marked, unless nothing is better than anything."""
    shown = {cell.text: cell.value for cell in cells if cell.value is not None}
    if better is None or len(shown) < 2:
        return list(cells)
    choose = max if better == "high" else min
    best = choose(shown, key=lambda text: float(shown[text] or 0.0))
    return [replace(cell, best=cell.text == best) for cell in cells]
