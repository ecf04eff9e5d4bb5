"""One HTML page about some evaluation runs, with all it shows inside."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from reclm.artifacts import atomic_path, open_run
from reclm.config import EvaluateReportConfig
from reclm.data.catalog import METAS, Catalog
from reclm.data.interactions import SEQUENCES, Histories
from reclm.errors import ConfigError, DataError, require
from reclm.evaluation.chat import CONVERSATIONS
from reclm.evaluation.compare import check_same_users, compare_runs, load_run
from reclm.evaluation.examples import conversation_example, recommendation_example
from reclm.evaluation.figures import accuracy_figure, calibration_figure, segment_figure
from reclm.evaluation.finished import read_finished, read_lines, read_users
from reclm.evaluation.recommend import SUMMARY, USERS
from reclm.evaluation.reproduce import command

PAGE = "report.html"

_STAGES = ("evaluate recommend", "evaluate chat")
_METRICS = ("HR", "NDCG", "MRR", "OOD", "RightCount", "InHistory", "Novelty", "Similarity")
_CHAT_METRICS = ("HR", "NDCG", "OOD")
_ROUNDS = {
    "ExactlyK": "exactly k items",
    "NoControl": "no control token",
    "Accuracy": "right number",
}


@dataclass(frozen=True)
class ReportedRun:
    """A finished run that goes into a report.

    Attributes:
        folder: Its folder.
        name: Its name on the page.
        manifest: Its manifest.
        summary: Its summary.
    """

    folder: Path
    name: str
    manifest: Mapping[str, Any]
    summary: Mapping[str, Any]


def evaluate_report(config: EvaluateReportConfig) -> Path:
    """Writes ``report.html`` about runs of `reclm evaluate recommend` and `chat`.

    The page needs nothing but itself: figures are inlined, there is no script, and a content
    security policy forbids it to load anything. Texts of data and models are escaped.

    Returns:
        The path of the page.

    Raises:
        ArtifactError: A folder holds no finished run of these, or ``config.out`` something else.
        ConfigError: No runs are given, or a setting cannot work.
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    if not config.runs:
        raise ConfigError("--runs: none given; expected folders of `reclm evaluate`")
    for field in ("resamples", "examples"):
        if getattr(config, field) < (field == "resamples"):
            raise ConfigError(f"--{field}: expected more, got {getattr(config, field)}")
    require("jinja2", extra="evaluate")
    runs = named([load_reported(folder) for folder in config.runs])
    inputs = {f"run {n}/{file.name}": file for n, run in enumerate(runs) for file in _files(run)}
    opened = open_run(config.out, "evaluate report", config, inputs=inputs)
    page = config.out / PAGE
    if not opened.finished:
        with atomic_path(page) as partial:
            partial.write_text(render(runs, config), encoding="utf-8")
        opened.finish()
    Console(stderr=True).print(f"report: {page}", soft_wrap=True, highlight=False)
    return page


def render(runs: Sequence[ReportedRun], config: EvaluateReportConfig) -> str:
    """The page as HTML."""
    jinja2 = require("jinja2", extra="evaluate")
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.Undefined)
    scored = _of_stage(runs, "evaluate recommend")
    chats = _of_stage(runs, "evaluate chat")
    rows = [dict(run.summary) | {"name": run.name} for run in scored]
    k = min((int(row["k"]) for row in rows), default=0)
    figures = {}
    if rows:
        figures["accuracy"] = accuracy_figure(rows, k)
        if segmented := [row for row in rows if "segments" in row]:
            figures["segments"] = segment_figure(segmented, k)
        if calibrated := [row for row in rows if "calibration" in row]:
            figures["calibration"] = calibration_figure(calibrated)
    pairs, not_compared = _pairs(scored, k, config)
    chat_k = min((int(run.summary["k"]) for run in chats), default=0)
    html: str = environment.from_string(template).render(
        title=config.title,
        rows=rows,
        metrics=[f"{name}@{k}" for name in _METRICS],
        segment_metric=f"HR@{k}",
        figures=figures,
        pairs=pairs,
        not_compared=not_compared,
        chats=[dict(run.summary) | {"name": run.name} for run in chats],
        chat_metrics=[f"{name}@{chat_k}" for name in _CHAT_METRICS],
        round_labels=_ROUNDS,
        examples=[example for run in runs for example in _examples(run, config.examples)],
        runs=[
            {
                "name": run.name,
                "command": command(run.manifest),
                "manifest": json.dumps(run.manifest, ensure_ascii=False, indent=2),
            }
            for run in runs
        ],
    )
    return html


def load_reported(folder: str | Path) -> ReportedRun:
    """Reads a run that a report can be about.

    Raises:
        ArtifactError: The folder holds none.
    """
    folder = Path(folder)
    manifest, summary = read_finished(folder, _STAGES)
    return ReportedRun(folder, str(summary["method"]), manifest, summary)


def named(runs: Sequence[ReportedRun]) -> list[ReportedRun]:
    """Runs under names of their own: where methods of one stage repeat, their folders'."""
    found = []
    for run in runs:
        alike = [
            other
            for other in runs
            if other.name == run.name and other.manifest["stage"] == run.manifest["stage"]
        ]
        short = len({other.folder.name for other in alike}) == len(alike)
        folder = run.folder.name if short else str(run.folder)
        found.append(replace(run, name=f"{run.name} ({folder})") if len(alike) > 1 else run)
    return found


def _pairs(
    runs: Sequence[ReportedRun], k: int, config: EvaluateReportConfig
) -> tuple[list[dict[str, Any]], str]:
    """Tests between each two runs, or why there are none."""
    if len(runs) < 2:
        return [], ""
    scored = [replace(load_run(run.folder), name=run.name) for run in runs]
    try:
        for other in scored[1:]:
            check_same_users(scored[0], other)
    except DataError as error:
        return [], str(error)
    names = (f"HR@{k}", f"NDCG@{k}")
    result = compare_runs(scored, names, config.resamples, config.seed)
    pairs: list[dict[str, Any]] = sorted(result["pairs"], key=lambda pair: str(pair["metric"]))
    return pairs, ""


def _examples(run: ReportedRun, count: int) -> list[dict[str, Any]]:
    """The first conversations or recommendations of a run, as turns with marked items."""
    if run.manifest["stage"] == "evaluate chat":
        records = read_lines(run.folder / CONVERSATIONS, count)
        return [conversation_example(record, run.name, run.summary["k"]) for record in records]
    users = read_users(run.folder / USERS).head(count)
    catalog, histories = None, None
    data = Path(str(run.manifest["config"].get("data")))
    if (data / METAS).exists() and (data / SEQUENCES).exists():
        catalog = Catalog.load(data)
        histories = Histories.load(data, catalog)
    return [
        recommendation_example(row, run.name, catalog, histories)
        for row in users.iter_rows(named=True)
    ]


def _of_stage(runs: Sequence[ReportedRun], stage: str) -> list[ReportedRun]:
    return [run for run in runs if run.manifest["stage"] == stage]


def _files(run: ReportedRun) -> list[Path]:
    names = [SUMMARY, USERS]
    if run.manifest["stage"] == "evaluate chat":
        names.append(CONVERSATIONS)
    return [run.folder / name for name in names]
