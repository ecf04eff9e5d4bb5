"""Rows of the rewriting data set: what is asked, and the columns that the rewards read.

ms-swift reads ``messages`` and hands the other columns to the rewards; TRL calls the same messages
``prompt``. Every row has every column, empty where it is of the other kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from incatalog.errors import DataError
from incatalog.rewrite.rewrite_rewards import GroupRow, Row, SingleRow

_SINGLE = (
    "Rewrite the title of this item so that it is short, natural, and still tells which item is "
    "meant. Answer with the new title only.\n\nTitle: {title}\nCategory: {category}\n"
    "Description: {description}"
)
_GROUP = (
    "Rewrite the titles of these items, one a line, in the same order, so that they are short and "
    "natural, and still tell which items are meant. Answer with the new titles only.\n\n{titles}"
)
_DESCRIPTION = 400
_QUOTES = "\"'“”‘’`*"
_EMPTY: dict[str, Any] = {
    "title": "",
    "description": "",
    "category": "",
    "distractors": [],
    "neighbours": [],
    "recommendation_prompt": "",
    "titles": [],
    "target": -1,
}


def record(row: Row) -> dict[str, Any]:
    """A row as a line of the file."""
    own = {name: list(v) if isinstance(v, tuple) else v for name, v in vars(row).items()}
    if isinstance(row, SingleRow):
        kind, description = "single", row.description[:_DESCRIPTION] or "unknown"
        category = row.category or "unknown"
        content = _SINGLE.format(title=row.title, category=category, description=description)
        own["recommendation_prompt"] = own.pop("prompt")
    else:
        kind, content = "group", _GROUP.format(titles="\n".join(row.titles))
    messages = [{"role": "user", "content": content}]
    return {"messages": messages, "kind": kind, **_EMPTY, **own}


def row_of(columns: Mapping[str, Any]) -> Row:
    """A line of the file as a row."""
    try:
        if columns["kind"] == "single":
            return SingleRow(
                columns["title"],
                columns["description"],
                columns["category"],
                tuple(columns["distractors"]),
                tuple(columns["neighbours"]),
                columns["recommendation_prompt"],
                columns["domain"],
            )
        if columns["kind"] == "group":
            return GroupRow(tuple(columns["titles"]), int(columns["target"]), columns["domain"])
    except KeyError as error:
        raise DataError(
            f"rewriting data: no column {error}; make the file with `incatalog rewrite data`"
        ) from error
    raise DataError(f"rewriting data: found kind {columns['kind']!r}; expected 'single' or 'group'")


def rows_of(columns: Mapping[str, Sequence[Any]], count: int) -> list[Row]:
    """Columns of several lines, as trainers hand them to rewards, as rows."""
    lists = [(n, o) for n, o in columns.items() if isinstance(o, Sequence) and len(o) == count]
    return [row_of({name: own[place] for name, own in lists}) for place in range(count)]


def rewrite_of(completion: Any) -> str:
    """The lines of a completion (text, or messages) that say something, without outer quotes."""
    if not isinstance(completion, str):
        completion = completion[-1]["content"]
    lines = (line.strip().strip(_QUOTES).strip() for line in completion.splitlines())
    return "\n".join(line for line in lines if line)
