"""One HTML page about some evaluation runs, which needs no other file."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from incatalog.artifacts import atomic_path, open_run
from incatalog.data.catalog import METAS, Catalog
from incatalog.data.interactions import SEQUENCES, Histories
from incatalog.errors import ConfigError, DataError, require
from incatalog.evaluation.compare import compare_runs
from incatalog.evaluation.figures import accuracy_figure, calibration_figure, segment_figure
from incatalog.evaluation.finished import (
    CHAT,
    CONVERSATIONS,
    RECOMMEND,
    SUMMARY,
    USERS,
    FinishedRun,
    check_same_users,
    read_lines,
)
from incatalog.evaluation.settings import (
    EvaluateChatSettings,
    EvaluateCompareSettings,
    EvaluateRecommendSettings,
    EvaluateReportSettings,
)

PAGE = "report.html"

_SHOWN_HISTORY = 10
_SETTINGS: dict[str, type] = {
    RECOMMEND: EvaluateRecommendSettings,
    CHAT: EvaluateChatSettings,
    "evaluate compare": EvaluateCompareSettings,
}


def evaluate_report(settings: EvaluateReportSettings) -> Path:
    """Writes ``report.html`` about runs of `incatalog evaluate recommend` and `chat`.

    The page needs no other file: figures are inlined, there is no script, and a content
    security policy forbids it to load anything. Texts of data and models are escaped.

    Returns:
        The path of the page.

    Raises:
        ArtifactError: A folder holds no finished run of these, or ``settings.out`` something else.
        ConfigError: No runs are given.
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    if not settings.runs:
        raise ConfigError("--runs: none given; expected folders of `incatalog evaluate`")
    require("jinja2", extra="evaluate")
    runs = _named([FinishedRun.load(folder, RECOMMEND, CHAT) for folder in settings.runs])
    inputs = {
        f"run {number}/{name}": run.folder / name
        for number, run in enumerate(runs)
        for name in (SUMMARY, USERS, CONVERSATIONS)[: 3 if run.stage == CHAT else 2]
    }
    opened = open_run(settings.out, "evaluate report", settings, inputs=inputs)
    page = settings.out / PAGE
    if not opened.finished:
        with atomic_path(page) as unfinished:
            unfinished.write_text(render(runs, settings), encoding="utf-8")
        opened.finish()
    Console(stderr=True).print(f"report: {page}", soft_wrap=True, highlight=False)
    return page


def render(runs: Sequence[FinishedRun], settings: EvaluateReportSettings) -> str:
    """The page as HTML."""
    jinja2 = require("jinja2", extra="evaluate")
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True)
    indented = partial(json.dumps, ensure_ascii=False, indent=2)
    environment.filters |= {"command": command, "indented": indented}
    scored, chats = ([run for run in runs if run.stage == stage] for stage in (RECOMMEND, CHAT))
    rows, chat_rows = ([{**run.summary, "name": run.name} for run in of] for of in (scored, chats))
    k, chat_k = (min((run.k for run in of), default=0) for of in (scored, chats))
    figures = {}
    if rows:
        figures["accuracy"] = accuracy_figure(rows, k)
        if segmented := [row for row in rows if "segments" in row]:
            figures["segments"] = segment_figure(segmented, k)
        if calibrated := [row for row in rows if "calibration" in row]:
            figures["calibration"] = calibration_figure(calibrated)
    pairs, not_compared = _pairs(scored, k, settings)
    html: str = environment.from_string(template).render(
        title=settings.title,
        rows=rows,
        k=k,
        figures=figures,
        pairs=pairs,
        not_compared=not_compared,
        chats=chat_rows,
        chat_k=chat_k,
        examples=[example for run in runs for example in _examples(run, settings.examples)],
        runs=runs,
    )
    return html


def _named(runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    """Runs under different names; where a method repeats in a stage, its folder is added."""
    found = []
    for run in runs:
        alike = [o.folder for o in runs if (o.name, o.stage) == (run.name, run.stage)]
        short = len({folder.name for folder in alike}) == len(alike)
        folder = run.folder.name if short else run.folder
        name = f"{run.name} ({folder})" if len(alike) > 1 else run.name
        found.append(dataclasses.replace(run, name=name))
    return found


def _pairs(
    runs: Sequence[FinishedRun], k: int, settings: EvaluateReportSettings
) -> tuple[list[dict[str, Any]], str]:
    """Tests between each two runs, or why there are none."""
    if len(runs) < 2:
        return [], ""
    try:
        check_same_users(runs)
    except DataError as error:
        return [], str(error)
    names = (f"HR@{k}", f"NDCG@{k}")
    result = compare_runs(runs, names, settings.resamples, settings.seed)
    return sorted(result["pairs"], key=lambda pair: str(pair["metric"])), ""


def _examples(run: FinishedRun, count: int) -> list[dict[str, Any]]:
    """The first conversations or recommendations of a run, as turns with marked items."""
    if run.stage == CHAT:
        records = read_lines(run.folder / CONVERSATIONS, count)
        return [conversation_example(record, run.name, run.k) for record in records]
    shown: tuple[Catalog, Histories] | None = None
    data = Path(str(run.manifest["config"].get("data")))
    if (data / METAS).exists() and (data / SEQUENCES).exists():
        catalog = Catalog.load(data)
        shown = catalog, Histories.load(data, catalog)
    rows = run.users.head(count).iter_rows(named=True)
    return [recommendation_example(row, run.name, shown) for row in rows]


def conversation_example(record: Mapping[str, Any], run: str, k: int) -> dict[str, Any]:
    """A conversation of three rounds, from a line of ``conversations.jsonl``."""
    told, target = record["recommendation"], record["target"]
    answer = [p["text"] if "text" in p else _item(p["title"], p["item"], target) for p in told]
    history = " → ".join(record["history"][-_SHOWN_HISTORY:])
    turns = [
        _turn("user", record["example"]["question"]),
        _turn("assistant", record["example"]["answer"]),
        _turn("user", f"[asks for {k} items after: {history}]"),
        _turn("assistant", *answer),
        _turn("user", record["question"]),
        _turn("assistant", record["reply"]),
    ]
    return {"run": run, "user_id": record["user_id"], "turns": turns}


def recommendation_example(
    row: Mapping[str, Any], run: str, data: tuple[Catalog, Histories] | None
) -> dict[str, Any]:
    """What was recommended to a user, and the history if the data is still there."""
    parts: list[str | dict[str, str]] = []
    for place, (name, item) in enumerate(zip(row["named"], row["items"], strict=True), start=1):
        parts += [f"{place}. ", _item(name, item, row["target"]), "\n"]
    asked = f"{row['history_length']} items"
    if data is not None and row["user_id"] in data[1].user_ids:
        catalog, histories = data
        user = histories.user_ids.index(row["user_id"])
        seen = histories.history(user)[: row["history_length"]].tolist()[-_SHOWN_HISTORY:]
        asked += ", the last of them: " + " → ".join(catalog.titles[item] for item in seen)
    turns = [_turn("user", f"[{asked}]"), _turn("assistant", *parts[:-1])]
    return {"run": run, "user_id": row["user_id"], "turns": turns}


def _turn(role: str, *parts: str | dict[str, str]) -> dict[str, Any]:
    shown = [{"kind": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return {"role": role, "parts": shown}


def _item(title: str, item_id: str | None, target: str) -> dict[str, str]:
    kind = "outside" if item_id is None else "hit" if item_id == target else "item"
    return {"kind": kind, "text": title}


def command(manifest: Mapping[str, Any]) -> str:
    """The command line of a run: every setting that is not the default, quoted for a shell."""
    stage = str(manifest["stage"])
    known: Any = _SETTINGS.get(stage)
    fields = dataclasses.fields(known) if known is not None else ()
    # As a manifest has them: several values are a list, a path is text.
    defaults = {one.name: json.loads(json.dumps(one.default, default=str)) for one in fields}
    words = ["incatalog", *stage.split()]
    for name, value in manifest["config"].items():
        if value is None or value == defaults.get(name, dataclasses.MISSING):
            continue
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(words)
