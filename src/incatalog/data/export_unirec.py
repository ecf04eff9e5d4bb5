"""Prepared data as the files UniRec trains on (github.com/microsoft/UniRec), and its item numbers.

UniRec numbers users and items from 1; 0 is padding. Here the number of an item is its row in the
catalog plus one. RecLM's own preprocessing numbers items by first appearance in the histories, so
weights trained on its files need that order, or a map.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxtyping import Int64
from rich.console import Console

from incatalog.artifacts import atomic_path, open_run, write_json
from incatalog.data.catalog import CATEGORIES, Catalog
from incatalog.data.documents import entries, read_text, write_document
from incatalog.data.fields import FilePlace
from incatalog.data.interactions import Histories, LeaveOneOut, leave_one_out
from incatalog.data.prepared import prepared_files
from incatalog.data.settings import ToUnirecSettings
from incatalog.errors import DataError, require

TRAIN, VALID, TEST = "train.pkl", "valid.pkl", "test.pkl"
USER_HISTORY = "user_history.pkl"
MAP = "map.pkl"
ITEM_NUMBERS = "item2id.json"
PADDING = "[PAD]"
# UniRec runs on Python from 3.8 on.
_PROTOCOL = 4


def to_unirec(settings: ToUnirecSettings) -> Path:
    """Writes the leave-one-out split of prepared data as UniRec reads it.

    - ``train.pkl``, ``valid.pkl``, ``test.pkl``: one row an interaction, ``user_id``, ``item_id``
      (int64), users in their order, items oldest first.
    - ``user_history.pkl``: ``user_id``, and as ``item_seq`` all items but the last (int32 array),
      in which UniRec looks up what came before a target.
    - ``map.pkl``: ``user2id`` and ``item2id`` (dict), ``id2user`` and ``id2item`` (list).
    - ``item2id.json``: ``item2id`` once more, for `incatalog teacher import-unirec`.
    - ``category.jsonl``, and the data set's YAML under the name of the folder.

    Returns:
        ``settings.out``.

    Raises:
        DataError: The data is broken, a user has fewer than three items, or an id is ``[PAD]``.
        ArtifactError: ``settings.out`` holds something else.
        MissingExtraError: pandas is not installed.
    """
    require("pandas", extra="unirec")
    inputs = prepared_files(settings.data)
    catalog = Catalog.load(settings.data)
    split = leave_one_out(Histories.load(settings.data, catalog))
    user_numbers = _numbers(settings.data, "user", split.user_ids)
    item_numbers = _numbers(settings.data, "item", [item.item_id for item in catalog.items])
    out = Path(settings.out)
    run = open_run(out, "data to-unirec", settings, inputs=inputs)
    description = out / f"{out.resolve().name}.yaml"
    if not run.finished:
        for name, table in _tables(split).items():
            _write_pickle(out / name, table)
        maps = {"user2id": user_numbers, "item2id": item_numbers}
        names = {"id2user": list(user_numbers), "id2item": list(item_numbers)}
        _write_pickle(out / MAP, maps | names)
        write_json(out / ITEM_NUMBERS, item_numbers)
        write_document(out / CATEGORIES, catalog.members())
        with atomic_path(description) as partial:
            partial.write_text(yaml.safe_dump(_description(split, catalog)), encoding="utf-8")
        interactions = int(split.histories.lengths.sum())
        run.finish(users=len(split), items=len(catalog), interactions=interactions)
    counts = f"{len(split):,} users, {len(catalog):,} items"
    message = f"{out}: {counts}; UniRec looks for {description.name} under config/dataset"
    Console(stderr=True).print(message, highlight=False, soft_wrap=True)
    return out


class Table(dict[str, np.ndarray | list[np.ndarray]]):
    """The columns of a pandas data frame, which is made when it is read."""


class _PortablePickler(pickle.Pickler):
    """Writes frames and arrays as calls of public constructors.

    The pickles of pandas and numpy name private modules, which the releases that UniRec runs with
    (pandas 1, numpy 1) do not have.
    """

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Table):
            return require("pandas", extra="unirec").DataFrame, (dict(value),)
        if isinstance(value, np.ndarray):
            # A bytearray, as an array over bytes would be read-only.
            return np.frombuffer, (bytearray(value.tobytes()), value.dtype.str)
        return NotImplemented


def _write_pickle(path: Path, value: Any) -> None:
    with atomic_path(path) as partial, partial.open("wb") as stream:
        _PortablePickler(stream, protocol=_PROTOCOL).dump(value)


def _tables(split: LeaveOneOut) -> dict[str, Table]:
    users = range(len(split))
    numbers = np.arange(1, len(split) + 1)
    train = [split.train(user) for user in users]
    before = [(split.test(user).history + 1).astype(np.int32) for user in users]
    return {
        TRAIN: _pairs(np.repeat(numbers, list(map(len, train))), np.concatenate(train)),
        VALID: _pairs(numbers, np.array([split.valid(user).target for user in users])),
        TEST: _pairs(numbers, np.array([split.test(user).target for user in users])),
        USER_HISTORY: Table({"user_id": numbers, "item_seq": before}),
    }


def _pairs(users: Int64[np.ndarray, " pairs"], rows: np.ndarray) -> Table:
    return Table({"user_id": users.astype(np.int64), "item_id": rows.astype(np.int64) + 1})


def _description(split: LeaveOneOut, catalog: Catalog) -> dict[str, int | str]:
    found: dict[str, int | str] = {"n_users": len(split) + 1, "n_items": len(catalog) + 1}
    found |= {"group_size": -1, "user_history_file_format": "user-item_seq"}
    for part in ("train", "valid", "test"):
        found |= {f"{part}_file_format": "user-item", f"n_neg_{part}_from_sampling": 0}
    return found


def _numbers(data: Path, noun: str, ids: Sequence[str]) -> dict[str, int]:
    if PADDING in ids:
        kept = "UniRec keeps this id for padding"
        raise DataError.at(data, f"{noun} {PADDING!r}: {kept}; rename the {noun}")
    return {name: number for number, name in enumerate([PADDING, *ids])}


def numbers_by_row(catalog: Catalog) -> Int64[np.ndarray, " items"]:
    """UniRec's number of each item as `incatalog data to-unirec` gives it: the row plus one."""
    return np.arange(1, len(catalog) + 1)


def numbers_by_appearance(
    catalog: Catalog, histories: Histories, data: Path
) -> Int64[np.ndarray, " items"]:
    """UniRec's number of each item as RecLM's preprocessing gives it: by first appearance."""
    rows, first = np.unique(histories.rows, return_index=True)
    if len(rows) < len(catalog):
        row = int(np.setdiff1d(np.arange(len(catalog)), rows)[0])
        lacking = f"item {catalog.item(row).item_id!r}{_more(len(catalog) - len(rows) - 1)}"
        found = f"{lacking} is in no history, so by appearance it has no number"
        expected = "expected every item of the catalog, or a file with all numbers"
        raise DataError.at(data, f"{found}; {expected}")
    numbers = np.empty(len(catalog), dtype=np.int64)
    numbers[rows[np.argsort(first)]] = np.arange(1, len(catalog) + 1)
    return numbers


def load_numbers(path: Path, catalog: Catalog) -> Int64[np.ndarray, " items"]:
    """UniRec's number of each item, from a map: a JSON object, or lines of item id and number."""
    row_of = {item.item_id: row for row, item in enumerate(catalog.items)}
    numbers = np.zeros(len(catalog), dtype=np.int64)
    taken: dict[int, str] = {}
    for place, item_id, number in _numbered(path):
        if item_id == PADDING and number == 0:
            continue
        if item_id not in row_of:
            raise place.error(f"item {item_id!r} is not in the catalog")
        if not 1 <= number <= len(catalog) or number in taken:
            why = f"is that of {taken[number]!r} too" if number in taken else "is out of range"
            expected = f"each of 1 to {len(catalog)} once"
            raise place.error(f"item {item_id!r}: its number {number} {why}; expected {expected}")
        if numbers[row_of[item_id]]:
            raise place.error(f"item {item_id!r} occurs twice")
        taken[number] = item_id
        numbers[row_of[item_id]] = number
    missing = np.flatnonzero(numbers == 0)
    if len(missing):
        lacking = f"{catalog.item(int(missing[0])).item_id!r}{_more(len(missing) - 1)}"
        expected = "a number for every item of the catalog"
        raise DataError.at(path, f"lacks item {lacking}; expected {expected}")
    return numbers


def _numbered(path: Path) -> Iterator[tuple[FilePlace, str, int]]:
    """Place, item id and number of every entry of a map."""
    text = read_text(path)
    if text.lstrip().startswith("{"):
        for entry in entries(path, ()):
            if type(entry.value) is not int:
                found = f"item {entry.key!r}: found {json.dumps(entry.value)[:40]}"
                raise entry.error(f"{found}; expected a whole number")
            yield entry, entry.key, entry.value
        return
    for line, content in enumerate(text.splitlines(), start=1):
        place = FilePlace(path, line)
        fields = content.rsplit(maxsplit=1)
        if not fields:
            continue
        if len(fields) < 2 or not re.fullmatch("[0-9]{1,18}", fields[1]):
            raise place.error(f"found {content[:40]!r}; expected an item id, a tab and a number")
        yield place, fields[0].strip(), int(fields[1])


def _more(others: int) -> str:
    return f" (and {others} more)" if others else ""
