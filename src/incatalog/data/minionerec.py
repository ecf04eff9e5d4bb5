"""MiniOneRec: its item file and its rows, each a user's newest items and the one that came next.

Source: X. Kong and others, "MiniOneRec: An Open-Source Framework for Scaling Generative
Recommendation", arXiv 2510.24431.
"""

from __future__ import annotations

import ast
import csv
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from incatalog.data.catalog import Catalog, Item
from incatalog.data.cleaning import clean_title, plain_text
from incatalog.data.documents import require_once, text_lines, unique_entries
from incatalog.data.fields import FilePlace
from incatalog.data.interactions import MIN_INTERACTIONS, Histories
from incatalog.data.long_cells import rows_of
from incatalog.data.prepared import Prepared, check_flags, write_prepared
from incatalog.data.settings import MiniOneRecSettings
from incatalog.errors import DataError

_CSV = ("user_id", "history_item_id", "item_id")
_INTER = ("user_id:token", "item_id_list:token_seq", "item_id:token")


class _Question(NamedTuple):
    """A row: whose it is, the items before and the one that came next, by catalog row."""

    place: FilePlace
    user: str
    history: list[int]
    target: int


def prepare_minionerec(settings: MiniOneRecSettings) -> Path:
    """Writes MiniOneRec's data as ``metas.jsonl``, ``category.jsonl`` and ``sequential.jsonl``.

    Items keep their ids and their order, so that an index file of the same data set fits; the brand
    is the category. With ``history`` ``users`` the rows of a user, which overlap, are joined to one
    history again. With ``rows`` each row is a history of its own that ends in its target, named by
    its user and a number: whoever asks for the last item of each asks the questions of the files.
    Returns the output folder.

    Raises:
        DataError: A file is missing, empty or broken, a row lacks a column, names an item that is
            not in the item file, or does not go on from the rows of its user before; names file and
            line.
        ArtifactError: The output folder holds something else.
    """
    check_flags(Path(settings.out), "--rows", MIN_INTERACTIONS)
    items = _read_items(Path(settings.items))
    row_of = {item.item_id: row for row, item in enumerate(items)}
    paths = [Path(path) for path in settings.rows]
    questions = (one for path in paths for one in _read_rows(path, row_of, settings.items))
    if settings.history == "rows":
        found, skipped = _apart(questions)
    else:
        found, skipped = _joined(questions)
    if not found:
        raise DataError.at(paths[0], "no user is left; give more --rows, or --history rows")
    prepared = Prepared(
        Catalog.from_items(items, Path(settings.items).name.split(".")[0]),
        Histories.from_lists(list(found), list(found.values())),
        skipped,
    )
    inputs = {f"rows {number}": path for number, path in enumerate(paths, 1)}
    inputs["items"] = Path(settings.items)
    return write_prepared(prepared, "data minionerec", settings, inputs)


def _read_items(path: Path) -> list[Item]:
    items = []
    for entry in unique_entries(path, (), "item"):
        record = entry.value
        if not isinstance(record, dict):
            raise entry.error(f"item {entry.key!r}: expected an object with a title")
        item_id = entry.id("item id", entry.key)
        title = plain_text(entry.text("title", record.get("title")))
        if not clean_title(title):
            raise entry.error(f"item {item_id!r} has an empty title; expected text")
        description = _unlisted(entry.text("description", record.get("description"), several=True))
        brand = plain_text(entry.text("brand", record.get("brand")))
        items.append(Item(item_id, title, plain_text(description), (brand,) if brand else ()))
    if not items:
        raise DataError.at(path, "holds no items; expected at least one")
    return items


def _unlisted(text: str) -> str:
    """A description, which may be a list of texts as Python shows it."""
    if text.startswith("["):
        try:
            parts = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return text
        if isinstance(parts, list) and all(isinstance(part, str) for part in parts):
            return " ".join(parts)
    return text


def _read_rows(path: Path, row_of: dict[str, int], items: Path) -> Iterator[_Question]:
    for place, (user, listed, target) in _cells(path):
        history = listed.split()
        if listed.startswith("["):
            try:
                history = [str(item) for item in json.loads(listed)]
            except ValueError as error:
                wrong = f"history_item_id is {listed[:60]!r}; expected a list of item ids"
                raise place.error(wrong) from error
        for item in (*history, target):
            if item not in row_of:
                raise place.error(f"item {item!r} is not in {items}; expected the same data set")
        rows = [row_of[item] for item in history]
        yield _Question(place, place.id("user_id", user), rows, row_of[target])


def _cells(path: Path) -> Iterator[tuple[FilePlace, list[str]]]:
    """User, history and target of each row, of a CSV file or of an ``.inter`` file."""
    inter = path.suffix == ".inter"
    columns = _INTER if inter else _CSV
    options = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if inter else {"strict": True}
    reader = csv.reader(text_lines(path, label=f"reading {path.name}"), **options)
    rows = rows_of(reader)
    place = FilePlace(path, 1)
    try:
        header = next(rows, None)
        if header is None:
            raise DataError.at(path, "the file is empty; expected a header and rows")
        require_once(path, header)
        if missing := [column for column in columns if column not in header]:
            raise place.error(f"no column {missing[0]!r}; found {', '.join(header)}")
        places = [header.index(column) for column in columns]
        place = FilePlace(path, reader.line_num + 1)
        for cells in rows:
            if cells:
                if len(cells) != len(header):
                    raise place.error(f"{len(cells)} cells; expected {len(header)}")
                yield place, [cells[at].strip() for at in places]
            place = FilePlace(path, reader.line_num + 1)
    except csv.Error as error:
        raise place.error(f"not valid CSV: {error}") from error


def _apart(questions: Iterator[_Question]) -> tuple[dict[str, list[int]], dict[str, int]]:
    """A history for each row that has one."""
    found: dict[str, list[int]] = {}
    numbers: Counter[str] = Counter()
    empty = 0
    for question in questions:
        numbers[question.user] += 1
        if question.history:
            name = f"{question.user}:{numbers[question.user]}"
            found[name] = [*question.history, question.target]
        else:
            empty += 1
    return found, {"rows without a history": empty}


def _joined(questions: Iterator[_Question]) -> tuple[dict[str, list[int]], dict[str, int]]:
    """A history for each user: that of the first row, then what each further row adds."""
    joined: dict[str, list[int]] = {}
    for place, user, history, target in questions:
        known = joined.setdefault(user, [])
        both = range(min(len(known), len(history)), 0, -1)
        overlap = next((n for n in both if known[-n:] == history[:n]), 0)
        if known and not overlap:
            raise place.error(
                f"the history of user {user!r} does not go on from the rows before it; expected "
                "rows in the order of time: --rows TRAIN VALID TEST"
            )
        known += [*history[overlap:], target]
    kept = {user: rows for user, rows in joined.items() if len(rows) >= MIN_INTERACTIONS}
    few = f"users with fewer than {MIN_INTERACTIONS} interactions"
    return kept, {few: len(joined) - len(kept)}
