"""Examples of the report: what a user had, what each run recommends, and conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from incatalog.artifacts import fingerprint
from incatalog.data.catalog import METAS, Catalog
from incatalog.data.interactions import SEQUENCES, Histories
from incatalog.evaluation.finished import CONVERSATIONS, FinishedRun, read_lines
from incatalog.evaluation.looks import label_of

_SHOWN_HISTORY = 10
_SEARCHED = 1000  # Users among whom examples are sought.

# Runs and what each said to one user.
_Answers = list[tuple[FinishedRun, dict[str, Any]]]


class PreparedData(NamedTuple):
    """Items and histories of a data folder."""

    catalog: Catalog
    histories: Histories


class ExampleList(NamedTuple):
    """What some runs, all of them alike, recommend to a user.

    Attributes:
        names: The runs.
        items: Title of each item, and whether it is the held-out one (``hit``), another of the
            catalog (``item``), or in no catalog (``outside``).
    """

    names: tuple[str, ...]
    items: tuple[tuple[str, str], ...]


class ExampleCard(NamedTuple):
    """A user with all lists.

    Attributes:
        user_id: The user.
        length: Items of the history.
        history: Titles of its last items; None where the data is gone.
        target: The held-out item: its title, or its id where the data is gone.
        found: How many of the runs name it.
        runs: How many runs there are.
        lists: The lists.
    """

    user_id: str
    length: int
    history: tuple[str, ...] | None
    target: str
    found: int
    runs: int
    lists: tuple[ExampleList, ...]


def prepared_data(run: FinishedRun) -> PreparedData | None:
    """The data of a run, if it is still where and what it was."""
    folder, known = Path(str(run.manifest["config"].get("data"))), run.manifest.get("data", {})
    for name in (METAS, SEQUENCES):
        if not (folder / name).exists() or fingerprint([folder / name]) != known.get(name):
            return None
    catalog = Catalog.load(folder)
    return PreparedData(catalog, Histories.load(folder, catalog))


def example_cards(
    runs: Sequence[FinishedRun], best: FinishedRun, count: int, data: PreparedData | None
) -> list[ExampleCard]:
    """The first users whose item the best run found, and the first whose item no run found.

    They are half each, one more of the former where the number is odd; where there are not so
    many, users follow whose item another run found.

    Args:
        runs: Runs on one set of data, in the order of the lists.
        best: One of them.
        count: How many users.
        data: That data.
    """
    columns = ("user_id", "history_length", "target", "items", "named")
    first = runs[0].users["user_id"].head(_SEARCHED)
    rows: dict[tuple[str, str], _Answers] = {}
    for run in runs:
        asked = run.users.filter(run.users["user_id"].is_in(first.to_list()))
        for row in asked.select(columns).iter_rows(named=True):
            rows.setdefault((row["user_id"], row["target"]), []).append((run, row))
    found: list[_Answers] = []
    missed: list[_Answers] = []
    others: list[_Answers] = []
    for (_, target), answers in rows.items():
        by = [run for run, row in answers if target in row["items"]]
        (found if best in by else others if by else missed).append(answers)
    half = min(len(missed), count // 2)
    chosen = found[: count - half]
    chosen += missed[: count - len(chosen)]
    chosen += others[: count - len(chosen)]
    return [_card(answers, data) for answers in chosen]


def _card(answers: _Answers, data: PreparedData | None) -> ExampleCard:
    lists: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for run, row in answers:
        pairs = zip(row["named"], row["items"], strict=True)
        items = tuple((name, item_kind(item, row["target"])) for name, item in pairs)
        lists.setdefault(items, []).append(label_of(run))
    _, row = answers[0]
    user, length, target = row["user_id"], row["history_length"], row["target"]
    history = None
    if data is not None and user in data.histories.user_ids:
        catalog = data.catalog
        seen = data.histories.history(data.histories.user_ids.index(user))[:length].tolist()
        history = tuple(catalog.titles[item] for item in seen[-_SHOWN_HISTORY:])
        target = catalog.titles[catalog.row(target)]
    hits = sum(row["target"] in row["items"] for _, row in answers)
    shown = tuple(ExampleList(tuple(names), items) for items, names in lists.items())
    return ExampleCard(user, length, history, target, hits, len(answers), shown)


def item_kind(item_id: str | None, target: str) -> str:
    """What a named item is: the held-out one, another, or none of the catalog."""
    return "outside" if item_id is None else "hit" if item_id == target else "item"


def conversations(run: FinishedRun, count: int) -> list[dict[str, Any]]:
    """The first conversations of a run, as turns with marked items."""
    records = read_lines(run.folder / CONVERSATIONS, count)
    return [conversation_example(record, label_of(run), run.k) for record in records]


def conversation_example(record: Mapping[str, Any], run: str, k: int) -> dict[str, Any]:
    """A conversation of three rounds, from a line of ``conversations.jsonl``."""
    told, target = record["recommendation"], record["target"]
    answer = [
        {"kind": "text", "text": piece["text"]}
        if "text" in piece
        else {"kind": item_kind(piece["item"], target), "text": piece["title"]}
        for piece in told
    ]
    history = " → ".join(record["history"][-_SHOWN_HISTORY:])
    turns = [
        _turn("user", record["example"]["question"]),
        _turn("assistant", record["example"]["answer"]),
        _turn("user", f"[asks for {k} items after: {history}]"),
        {"role": "assistant", "parts": answer},
        _turn("user", record["question"]),
        _turn("assistant", record["reply"]),
    ]
    return {"run": run, "user_id": record["user_id"], "turns": turns}


def _turn(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"kind": "text", "text": text}]}
