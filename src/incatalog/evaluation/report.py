"""One HTML page about some evaluation runs, which needs no other file."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from incatalog.artifacts import atomic_path, open_run
from incatalog.errors import ConfigError, DataError, require
from incatalog.evaluation.compare import compare_runs
from incatalog.evaluation.example_cards import conversations, example_cards, prepared_data
from incatalog.evaluation.figures import (
    Panel,
    calibration_figure,
    dot_figure,
    highest,
    segment_facets,
)
from incatalog.evaluation.finished import (
    CHAT,
    CONVERSATIONS,
    RECOMMEND,
    SUMMARY,
    USERS,
    FinishedRun,
    check_same_users,
)
from incatalog.evaluation.glossary import glossary
from incatalog.evaluation.headline import Standing, headline
from incatalog.evaluation.looks import colour_rules, label_of, look_of
from incatalog.evaluation.report_tables import (
    ReportTable,
    chat_table,
    gaps_table,
    in_order,
    metrics_table,
    pairs_table,
    segments_table,
)
from incatalog.evaluation.settings import (
    EvaluateChatSettings,
    EvaluateCompareSettings,
    EvaluateRecommendSettings,
    EvaluateReportSettings,
)

PAGE = "report.html"

_SETTINGS: dict[str, type] = {
    RECOMMEND: EvaluateRecommendSettings,
    CHAT: EvaluateChatSettings,
    "evaluate compare": EvaluateCompareSettings,
}


def evaluate_report(settings: EvaluateReportSettings) -> Path:
    """Writes ``report.html`` about runs of `incatalog evaluate recommend` and `chat`.

    Three sentences say what was compared, who wins, and what the language model adds; figures,
    examples, tables and a glossary follow. The page needs no other file: figures are inlined,
    there is no script, and a content security policy forbids it to load anything. Texts of data
    and models are escaped.

    Returns:
        The path of the page.

    Raises:
        ArtifactError: A folder holds no finished run of these, or ``settings.out`` something else.
        ConfigError: No runs are given.
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    if not settings.runs:
        raise ConfigError("--runs: none given; expected folders of `incatalog evaluate`")
    for name in ("jinja2", "matplotlib"):
        require(name, extra="evaluate")
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
    jinja2, markupsafe = (require(name, extra="evaluate") for name in ("jinja2", "markupsafe"))
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"command": command, "indented": _indented}
    scored, chats = ([run for run in runs if run.stage == stage] for stage in (RECOMMEND, CHAT))
    k, chat_k = (min((run.k for run in of), default=0) for of in (scored, chats))
    names = (f"NDCG@{k}", f"HR@{k}")
    scored = in_order(scored, names[0])
    pairs, not_compared = _pairs(scored, names, settings)
    tables = _tables(scored, pairs, names, k) | (
        {"chats": chat_table(chats, chat_k)} if chats else {}
    )
    best = max(scored, key=lambda run: _level(run, names[0]), default=None)
    alike = [run for run in scored if best and _data(run) == _data(best)]
    data = prepared_data(best) if best else None
    light, dark = colour_rules()
    html: str = environment.from_string(template).render(
        title=settings.title,
        light=light,
        dark=dark,
        headline=headline(scored, pairs, names[0], chats, len(data.catalog) if data else None),
        tables=tables,
        # Figures are ours, and what they hold of others was escaped when they were drawn.
        figures={name: list(map(markupsafe.Markup, found))
                 for name, found in _figures(scored, names).items()},
        best=label_of(best) if best else "",
        cards=example_cards(alike, best, settings.examples, data) if best else [],
        dialogues=[one for run in chats for one in conversations(run, settings.examples)],
        glossary=glossary(_terms(runs, tables.values()), k or chat_k),
        not_compared=not_compared,
        runs=[(label_of(run), run.manifest) for run in [*scored, *chats]],
    )  # fmt: skip
    return html


def _named(runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    """Runs under different names; where one repeats in a stage, its folder is added."""
    found = []
    for run in runs:
        alike = [o.folder for o in runs if (o.name, o.stage) == (run.name, run.stage)]
        if len(alike) == 1:
            found.append(run)
            continue
        short = len({folder.name for folder in alike}) == len(alike)
        folder = run.folder.name if short else run.folder
        name = f"{run.name[:-1]}, {folder})" if run.name.endswith(")") else f"{run.name} ({folder})"
        found.append(dataclasses.replace(run, name=name))
    return found


def _pairs(
    runs: Sequence[FinishedRun], names: Sequence[str], settings: EvaluateReportSettings
) -> tuple[list[dict[str, Any]], str]:
    """Tests between each two runs, or why there are none."""
    if len(runs) < 2:
        return [], ""
    try:
        check_same_users(runs)
    except DataError as error:
        return [], str(error)
    for run in runs:
        if missing := [name for name in names if name not in run.users.columns]:
            others = f"other runs have answers of another length (--k {run.k} here)"
            return [], f"{run.folder}: has no {missing[0]}; {others}; repeat some with one --k"
    return compare_runs(runs, names, settings.resamples, settings.seed)["pairs"], ""


def _tables(
    runs: Sequence[FinishedRun], pairs: Sequence[Mapping[str, Any]], names: Sequence[str], k: int
) -> dict[str, ReportTable]:
    """The tables about recommendations, by where they stand."""
    if not runs:
        return {}
    tables = {"metrics": metrics_table(runs, k)}
    if any("segments" in run.summary for run in runs):
        tables["segments"] = segments_table(runs, f"HR@{k}")
    if pairs:
        tables["gaps"] = gaps_table([Standing(runs, pairs, name) for name in names])
        tables["pairs"] = pairs_table(pairs, runs)
    return tables


def _figures(runs: Sequence[FinishedRun], names: Sequence[str]) -> dict[str, list[str]]:
    """The figures about recommendations, by where they stand."""
    found: dict[str, list[str]] = {}
    if runs:
        facets = [Panel(name, [r.summary["metrics"].get(name) for r in runs]) for name in names]
        found["accuracy"] = [dot_figure(runs, [one], highest([one])) for one in facets]
    cut = [run for run in runs if "segments" in run.summary]
    for by in ("target", "history") if cut else ():
        facets = segment_facets(cut, names[1], by)
        # Kinds of users stand beside one another on one scale.
        found[by] = [dot_figure(cut, [one], highest(facets)) for one in facets]
    if calibrated := [run for run in runs if "calibration" in run.summary]:
        found["calibration"] = [calibration_figure(calibrated)]
    return found


def _terms(runs: Sequence[FinishedRun], tables: Iterable[ReportTable]) -> set[str]:
    """The keys of all terms that the page uses."""
    used = {"held-out", "interval"} | {run.method for run in runs}
    used |= {column.term for table in tables for column in table.columns}
    families = {look_of(run).family for run in runs}
    scored = [run for run in runs if run.stage == RECOMMEND and run.is_language_model]
    for term, is_used in (
        ("teacher", "teacher" in families),
        ("guided", any(run.guided for run in scored)),
        ("free", any(run.is_free for run in scored)),
        ("list", any("list" in run.form for run in scored)),
        ("ranking", any(run.summary.get("decode") == "beam" for run in scored)),
        ("segment", any("segments" in run.summary for run in runs)),
    ):
        used |= {term} if is_used else set()
    return used


def _level(run: FinishedRun, metric: str) -> float:
    found = run.summary["metrics"].get(metric)
    return float(found["value"]) if found else -1.0


def _data(run: FinishedRun) -> str:
    return str(run.manifest["config"].get("data"))


def _indented(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


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
