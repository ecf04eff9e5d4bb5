"""One HTML page about some evaluation runs, with all it shows inside."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from incatalog.artifacts import atomic_path, open_run
from incatalog.data.catalog import METAS, Catalog
from incatalog.data.interactions import SEQUENCES, Histories
from incatalog.errors import ConfigError, DataError, require
from incatalog.evaluation.compare import compare_runs
from incatalog.evaluation.figures import accuracy_figure, calibration_figure, segment_figure
from incatalog.evaluation.finished import read_lines, read_users
from incatalog.evaluation.runs import (
    CONVERSATIONS,
    SUMMARY,
    USERS,
    ReportedRun,
    check_same_users,
    load_reported,
    load_run,
    named,
)
from incatalog.evaluation.settings import (
    EvaluateChatSettings,
    EvaluateCompareSettings,
    EvaluateRecommendSettings,
    EvaluateReportSettings,
)
from incatalog.teacher.settings import TeacherFitSettings
from incatalog.training.settings import SftSettings

PAGE = "report.html"

_METRICS = ("HR", "NDCG", "MRR", "OOD", "RightCount", "InHistory", "Novelty", "Similarity")
_CHAT_METRICS = ("HR", "NDCG", "OOD")
_ROUNDS = {
    "ExactlyK": "exactly k items",
    "NoControl": "no control token",
    "Accuracy": "right number",
}


def evaluate_report(config: EvaluateReportSettings) -> Path:
    """Writes ``report.html`` about runs of `incatalog evaluate recommend` and `chat`.

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
        raise ConfigError("--runs: none given; expected folders of `incatalog evaluate`")
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


def render(runs: Sequence[ReportedRun], config: EvaluateReportSettings) -> str:
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


def _pairs(
    runs: Sequence[ReportedRun], k: int, config: EvaluateReportSettings
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


_SHOWN_HISTORY = 10


def conversation_example(record: Mapping[str, Any], run: str, k: int) -> dict[str, Any]:
    """A conversation of three rounds.

    Args:
        record: A line of ``conversations.jsonl``.
        run: Name of the run.
        k: Items asked for.
    """
    answer = []
    for piece in record["recommendation"]:
        if "text" in piece:
            answer.append(_text(piece["text"]))
        else:
            answer.append(_item(piece["title"], piece["item"], record["target"]))
    history = " → ".join(record["history"][-_SHOWN_HISTORY:])
    turns = [
        _turn("user", _text(record["example"]["question"])),
        _turn("assistant", _text(record["example"]["answer"])),
        _turn("user", _text(f"[asks for {k} items after: {history}]")),
        _turn("assistant", *answer),
        _turn("user", _text(record["question"])),
        _turn("assistant", _text(record["reply"])),
    ]
    return {"run": run, "user_id": record["user_id"], "turns": turns}


def recommendation_example(
    row: Mapping[str, Any], run: str, catalog: Catalog | None, histories: Histories | None
) -> dict[str, Any]:
    """What was recommended to a user.

    Args:
        row: A row of ``users.parquet``.
        run: Name of the run.
        catalog: Gives titles to ids, where the data is still at hand.
        histories: Gives the end of the history.
    """
    parts = []
    for place, (name, item) in enumerate(zip(row["named"], row["items"], strict=True), start=1):
        parts += [_text(f"{place}. "), _item(name, item, row["target"]), _text("\n")]
    asked = f"[{row['history_length']} items]"
    if catalog is not None and histories is not None and row["user_id"] in histories.user_ids:
        user = histories.user_ids.index(row["user_id"])
        seen = histories.history(user)[: row["history_length"]].tolist()[-_SHOWN_HISTORY:]
        shown = " → ".join(catalog.item(item).title for item in seen)
        asked = f"[{row['history_length']} items, the last of them: {shown}]"
    turns = [_turn("user", _text(asked)), _turn("assistant", *parts[:-1])]
    return {"run": run, "user_id": row["user_id"], "turns": turns}


def _turn(role: str, *parts: dict[str, str]) -> dict[str, Any]:
    return {"role": role, "parts": parts}


def _text(text: str) -> dict[str, str]:
    return {"kind": "text", "text": text}


def _item(title: str, item_id: str | None, target: str) -> dict[str, str]:
    kind = "outside" if item_id is None else "hit" if item_id == target else "item"
    return {"kind": kind, "text": title}


_SETTINGS: dict[str, type] = {
    "evaluate recommend": EvaluateRecommendSettings,
    "evaluate chat": EvaluateChatSettings,
    "evaluate compare": EvaluateCompareSettings,
    "train sft": SftSettings,
    "teacher fit": TeacherFitSettings,
}


def command(manifest: Mapping[str, Any]) -> str:
    """The command line of a run: every setting that is not the default, quoted for a shell."""
    stage, settings = str(manifest["stage"]), manifest["config"]
    known = _SETTINGS.get(stage)
    defaults = {}
    if known is not None:
        defaults = {field.name: field.default for field in dataclasses.fields(known)}
    words = ["incatalog", *stage.split()]
    for name, value in settings.items():
        default = defaults.get(name, dataclasses.MISSING)
        if value == (list(default) if isinstance(default, tuple) else default) or value is None:
            continue
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        elif isinstance(value, list):
            words += [flag, *map(str, value)]
        # A path by default is a string in the manifest.
        elif str(value) != str(default):
            words += [flag, str(value)]
    return shlex.join(words)
