"""Lists of recommendations as people and programs read them: a table, JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

from incatalog.config import ListFormat
from incatalog.recommender.answer import Recommendation

_FIELDS = ("rank", "item_id", "title", "score")


@dataclass(frozen=True)
class UserList:
    """What is recommended to a user."""

    user: str | None  # None where there is only one, without a name
    items: Sequence[Recommendation]


def chosen_format(form: ListFormat, out: Path | None) -> Literal["table", "json", "csv"]:
    """The format asked for; ``auto`` goes by the ending of the file, and is a table otherwise."""
    if form != "auto":
        return form
    ending = "" if out is None else out.suffix.lower()
    return "json" if ending == ".json" else "csv" if ending == ".csv" else "table"


def write_lists(lists: Sequence[UserList], form: str, stream: TextIO) -> None:
    """Writes lists in a format; a table has no colours where nobody looks at it."""
    if form == "json":
        stream.write(json.dumps(_as_json(lists), ensure_ascii=False, indent=2) + "\n")
    elif form == "csv":
        stream.write(_as_csv(lists))
    else:
        _print_table(lists, stream)


def _entry(one: Recommendation) -> dict[str, Any]:
    return {field: getattr(one, field) for field in _FIELDS}


def _as_json(lists: Sequence[UserList]) -> Any:
    if len(lists) == 1 and lists[0].user is None:
        return list(map(_entry, lists[0].items))
    return [{"user": one.user, "items": list(map(_entry, one.items))} for one in lists]


def _as_csv(lists: Sequence[UserList]) -> str:
    text = io.StringIO()
    named = any(one.user is not None for one in lists)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*(["user"] if named else []), *_FIELDS])
    for one in lists:
        for item in one.items:
            writer.writerow([*([one.user] if named else []), *_entry(item).values()])
    return text.getvalue()


def _print_table(lists: Sequence[UserList], stream: TextIO) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    named = any(one.user is not None for one in lists)
    table = Table(*(["user"] if named else []), "rank", "item", "title", "score")
    for one in lists:
        for item in one.items:
            user = [Text(one.user or "")] if named else []
            cells = Text(item.item_id), Text(item.title), f"{item.score:.3f}"
            table.add_row(*user, str(item.rank), *cells)
        table.add_section()
    Console(file=stream).print(table)
