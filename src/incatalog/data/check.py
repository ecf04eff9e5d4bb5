"""What prepared data holds, and whether it can be trained on."""

from __future__ import annotations

import typing
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from incatalog.data.catalog import (
    CATEGORIES,
    ID_FIELDS,
    METAS,
    category_members,
    parse_item,
    title_of,
)
from incatalog.data.cleaning import clean_title
from incatalog.data.documents import Entry, entries
from incatalog.data.interactions import MIN_INTERACTIONS, SEQUENCES, USER_FIELDS, item_ids
from incatalog.data.settings import CheckSettings
from incatalog.errors import DataError

_EXAMPLES = 3


@dataclass(frozen=True)
class DataProblem:
    """Something that makes training impossible, how often, and its first places."""

    what: str
    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.what}: {self.count:,} ({'; '.join(self.examples)})"


@dataclass(frozen=True)
class CheckReport:
    """The findings on one folder: counts, and in words what each counts."""

    folder: Path
    users: Annotated[int, "users"]
    items: Annotated[int, "items"]
    interactions: Annotated[int, "interactions"]
    shortest: Annotated[int, "shortest history"]
    median: Annotated[float, "median history"]
    longest: Annotated[int, "longest history"]
    categories: Annotated[int, "categories"]
    duplicate_titles: Annotated[int, "items that share their title"]
    without_category: Annotated[int, "items without category"]
    without_interactions: Annotated[int, "items in no history"]
    repeats: Annotated[int, "repeats within a history"]
    problems: tuple[DataProblem, ...]

    @property
    def trainable(self) -> bool:
        """Whether the data can be trained on."""
        return not self.problems

    def __rich__(self) -> Group:
        """A table of counts, the problems, and the verdict."""
        table = Table()
        table.add_column(str(self.folder), overflow="fold")
        table.add_column("count", justify="right")
        for name, hint in typing.get_type_hints(CheckReport, include_extras=True).items():
            for words in getattr(hint, "__metadata__", ()):
                count = getattr(self, name)
                table.add_row(words, f"{count:,g}" if isinstance(count, float) else f"{count:,}")
        lines = [Text(f"problem: {problem}", "red") for problem in self.problems]
        verdict = Text("cannot be trained on; mend the problems above", "bold red")
        if self.trainable:
            verdict = Text("can be trained on", "green")
        return Group(table, *lines, verdict)


class _Findings(dict[str, DataProblem]):
    """Problems by what is wrong."""

    def add(self, what: str, example: DataError | Path) -> None:
        known = self.get(what, DataProblem(what, 0, ()))
        examples = (*known.examples, str(example))[:_EXAMPLES]
        self[what] = DataProblem(what, known.count + 1, examples)


def check(settings: CheckSettings) -> CheckReport:
    """Reads a folder of prepared data and prints what it holds.

    Problems are gathered rather than raised, so that one call shows them all: repeated ids, items
    without title, unknown ids in histories and categories, users with fewer than three items.
    The report's ``trainable`` decides the exit code of ``incatalog data check``.

    Raises:
        DataError: A file is missing, empty or not JSON; names file and line.
    """
    folder = Path(settings.data)
    if not folder.is_dir():
        raise DataError.at(folder, f"no such folder; expected {METAS}, {CATEGORIES}, {SEQUENCES}")
    found = _Findings()
    titles = _check_items(folder / METAS, found)
    categories = _check_categories(folder / CATEGORIES, titles, found)
    lengths, used, repeats = _check_histories(folder / SEQUENCES, titles, found)
    occurrences = Counter(clean_title(title) for title in titles.values() if title)
    report = CheckReport(
        folder=folder,
        users=len(lengths),
        items=len(titles),
        interactions=sum(lengths),
        shortest=min(lengths, default=0),
        median=float(np.median(lengths)) if lengths else 0.0,
        longest=max(lengths, default=0),
        categories=len(categories),
        duplicate_titles=sum(count for count in occurrences.values() if count > 1),
        without_category=len(titles.keys() - set().union(*categories.values())),
        without_interactions=len(titles.keys() - used),
        repeats=repeats,
        problems=tuple(found.values()),
    )
    Console().print(report)
    return report


def _unique(path: Path, id_fields: tuple[str, ...], noun: str, found: _Findings) -> Iterator[Entry]:
    """Yields the first entry of every key and counts the others."""
    lines: dict[str, int] = {}
    for entry in entries(path, id_fields):
        if entry.key not in lines:
            lines[entry.key] = entry.line
            yield entry
        else:
            twice = f"{entry.key!r}, first on {lines[entry.key]}"
            found.add(f"repeated {noun}", entry.error(twice))
    if not lines and noun != "category":
        found.add(f"no {noun} at all", path)


def _check_items(path: Path, found: _Findings) -> dict[str, str]:
    """The title of every item, empty where it has none."""
    titles: dict[str, str] = {}
    for entry in _unique(path, ID_FIELDS, "item", found):
        titles[entry.key] = ""
        try:
            if title_of(entry) is None:
                found.add("items without title", entry.error(f"item {entry.key!r}"))
            else:
                titles[entry.key] = parse_item(entry).title
        except DataError as error:
            found.add("items with an unusable field", error)
    return titles


def _check_categories(path: Path, titles: dict[str, str], found: _Findings) -> dict[str, set[str]]:
    """The known items of every category."""
    categories: dict[str, set[str]] = {}
    for entry in _unique(path, (), "category", found) if path.exists() else ():
        categories[entry.key] = set()
        try:
            members = category_members(entry)
        except DataError as error:
            found.add("categories that are no list of item ids", error)
            continue
        for member in members:
            if member not in titles:
                example = entry.error(f"{member!r} in category {entry.key!r}")
                found.add("unknown items in categories", example)
        categories[entry.key] = titles.keys() & members
    return categories


def _check_histories(
    path: Path, titles: dict[str, str], found: _Findings
) -> tuple[list[int], set[str], int]:
    """The length of every history, the items used, and the number of repeats."""
    lengths: list[int] = []
    used: set[str] = set()
    repeats = 0
    for entry in _unique(path, USER_FIELDS, "user", found):
        try:
            history = item_ids(entry)
        except DataError as error:
            found.add("histories that are no list of item ids", error)
            continue
        user = f"user {entry.key!r}"
        for item_id in history:
            if item_id not in titles:
                found.add("unknown items in histories", entry.error(f"{item_id!r} of {user}"))
        if len(history) < MIN_INTERACTIONS:
            what = f"users with fewer than {MIN_INTERACTIONS} items"
            found.add(what, entry.error(f"{user} has {len(history)}"))
        lengths.append(len(history))
        used.update(history)
        repeats += len(history) - len(set(history))
    return lengths, used, repeats
