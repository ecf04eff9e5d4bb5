"""What prepared data holds, and whether it can be trained on."""

from __future__ import annotations

import sys
import typing
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from incatalog.data.catalog import CATEGORIES, ID_FIELDS, METAS, Item, parse_item
from incatalog.data.cleaning import clean_title
from incatalog.data.documents import Entry, entries
from incatalog.data.interactions import MIN_INTERACTIONS, SEQUENCES, USER_FIELDS, item_ids
from incatalog.data.model_catalog import unused_names
from incatalog.data.naming import name_of, title_of
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
    without title or without a name in the title field, unknown ids in histories and categories,
    users with fewer than three items. The report's ``trainable`` decides the exit code of
    ``incatalog data check``. Titles that are shared are those by which a model would know the
    items.

    Raises:
        DataError: A file is missing, empty or not JSON; names file and line.
    """
    report, notice = _examined(settings)
    Console().print(report)
    if notice:
        sys.stderr.write(f"{notice}\n")
    return report


def examined(settings: CheckSettings) -> CheckReport:
    """What `check` finds, without a word."""
    return _examined(settings)[0]


def _examined(settings: CheckSettings) -> tuple[CheckReport, str | None]:
    """The report, and what there is to say of names that are not used."""
    folder = Path(settings.data)
    if not folder.is_dir():
        raise DataError.at(folder, f"no such folder; expected {METAS}, {CATEGORIES}, {SEQUENCES}")
    found = _Findings()
    items = _check_items(folder / METAS, found, settings.title_field)
    categories = _check_categories(folder / CATEGORIES, items.keys(), found)
    lengths, used, repeats = _check_histories(folder / SEQUENCES, items.keys(), found)
    occurrences = Counter(clean_title(item.called) for item in items.values() if item)
    report = CheckReport(
        folder=folder,
        users=len(lengths),
        items=len(items),
        interactions=sum(lengths),
        shortest=min(lengths, default=0),
        median=float(np.median(lengths)) if lengths else 0.0,
        longest=max(lengths, default=0),
        categories=len(categories),
        duplicate_titles=sum(count for count in occurrences.values() if count > 1),
        without_category=len(items.keys() - set().union(*categories.values())),
        without_interactions=len(items.keys() - used),
        repeats=repeats,
        problems=tuple(found.values()),
    )
    return report, unused_names(filter(None, items.values()), settings.title_field)


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


def _check_items(path: Path, found: _Findings, title_field: str) -> dict[str, Item | None]:
    """Every item by its id; None where it cannot be used."""
    items: dict[str, Item | None] = {}
    for entry in _unique(path, ID_FIELDS, "item", found):
        items[entry.key] = None
        try:
            if title_of(entry) is None:
                found.add("items without title", entry.error(f"item {entry.key!r}"))
                continue
            item = items[entry.key] = parse_item(entry)
        except DataError as error:
            found.add("items with an unusable field", error)
            continue
        try:
            items[entry.key] = replace(item, name=name_of(entry, title_field))
        except DataError as error:
            found.add(f"items without a name in {title_field}", error)
    return items


def _check_categories(path: Path, items: Collection[str], found: _Findings) -> dict[str, set[str]]:
    """The known items of every category."""
    categories: dict[str, set[str]] = {}
    for entry in _unique(path, (), "category", found) if path.exists() else ():
        categories[entry.key] = set()
        try:
            members = entry.ids("category")
        except DataError as error:
            found.add("categories that are no list of item ids", error)
            continue
        for member in members:
            if member not in items:
                example = entry.error(f"{member!r} in category {entry.key!r}")
                found.add("unknown items in categories", example)
        categories[entry.key] = {member for member in members if member and member in items}
    return categories


def _check_histories(
    path: Path, items: Collection[str], found: _Findings
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
            if item_id not in items:
                found.add("unknown items in histories", entry.error(f"{item_id!r} of {user}"))
        if len(history) < MIN_INTERACTIONS:
            what = f"users with fewer than {MIN_INTERACTIONS} items"
            found.add(what, entry.error(f"{user} has {len(history)}"))
        lengths.append(len(history))
        used.update(history)
        repeats += len(history) - len(set(history))
    return lengths, used, repeats
