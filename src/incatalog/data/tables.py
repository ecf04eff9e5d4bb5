"""Tables of interactions and items: CSV, TSV, Parquet or JSON lines."""

from __future__ import annotations

import csv
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import polars.exceptions

from incatalog.config import Quote
from incatalog.data.catalog import Catalog, Item
from incatalog.data.cleaning import clean_title
from incatalog.data.documents import json_lines, require_once, text_lines
from incatalog.data.fields import id_field, text_field, text_fields
from incatalog.data.interactions import Histories, k_core
from incatalog.data.prepared import (
    Prepared,
    check_min_interactions,
    check_out,
    drop_short,
    group_histories,
    require_users,
    write_prepared,
)
from incatalog.data.settings import TableSettings
from incatalog.data.times import Times
from incatalog.errors import ConfigError, DataError

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = {".jsonl", ".ndjson", ".json"}
_PARQUET = {".parquet", ".pq"}
_PARQUET_ROWS = 1 << 16


def prepare_table(settings: TableSettings) -> Path:
    """Writes tables as ``metas.jsonl``, ``category.jsonl`` and ``sequential.jsonl``.

    The format is told by the ending: ``.csv``, ``.tsv``, ``.parquet``, ``.jsonl`` (also with
    ``.gz`` behind it). Histories are ordered by time, and as in the file where times are equal.
    Rows with the same user, item and time count once. The catalog holds every item of the table;
    with ``k_core``, those of the core.

    Args:
        settings: Files, columns, output folder and filters.

    Returns:
        The output folder.

    Raises:
        ConfigError: A number is out of range, or an ending is unknown.
        DataError: A file is missing, empty or broken, lacks a column or has it twice, holds what
            is no text, id or time, repeats an item, or names an unknown one, or times are of
            several kinds; names file and line (the row, for Parquet).
        ArtifactError: The output folder holds something else.
    """
    check_min_interactions("--min-interactions", settings.min_interactions)
    if settings.k_core < 0:
        raise ConfigError(f"--k-core {settings.k_core}: expected 0 (off) or more")
    check_out(Path(settings.out))
    items, unused_of_items = _read_items(settings)
    read = _read_interactions(settings, items)
    frame, user_ids = read.frame, read.user_ids
    if settings.k_core:
        user_k = max(settings.k_core, settings.min_interactions)
        frame = k_core(frame, settings.k_core, user_k=user_k)
    else:
        frame = drop_short(frame, settings.min_interactions)
    hint = f"--min-interactions {settings.min_interactions}"
    hint += f" and --k-core {settings.k_core}" if settings.k_core else ""
    require_users(Path(settings.interactions), len(frame), f"try less than {hint}")
    if settings.k_core:
        codes = np.unique(frame["item"].to_numpy())
        items = [items[code] for code in codes.tolist()]
        rows = np.searchsorted(codes, frame["item"].to_numpy())
        frame = frame.with_columns(item=pl.Series(rows))
    users, lists = group_histories(frame, user_ids)
    reason = f"users with fewer than {settings.min_interactions} interactions"
    if settings.k_core:
        reason = f"users outside the {settings.k_core}-core"
    prepared = Prepared(
        Catalog.from_items(items, Path(settings.out).resolve().name),
        Histories.from_lists(users, lists),
        {reason: len(user_ids) - len(users), "repeated interactions": read.repeated},
        {Path(settings.interactions): read.unused, Path(settings.items): unused_of_items},
    )
    inputs = {"interactions": Path(settings.interactions), "items": Path(settings.items)}
    return write_prepared(prepared, "data table", settings, inputs)


@dataclass(frozen=True, eq=False)
class _Interactions:
    """The rows of a table of interactions."""

    frame: pl.DataFrame
    user_ids: list[str]
    repeated: int
    unused: tuple[str, ...]


def _read_items(settings: TableSettings) -> tuple[list[Item], tuple[str, ...]]:
    """Reads the items; returns them and the columns that hold something else."""
    path = Path(settings.items)
    named = {
        "--item-id-column": settings.item_id_column,
        "--title-column": settings.title_column,
        "--description-column": settings.description_column,
        "--category-column": settings.category_column,
    }
    items: dict[str, Item] = {}
    unused: dict[str, None] = {}
    for line, cells in _rows(path, named, settings.quote, unused):
        item_id = id_field(path, line, settings.item_id_column, cells["--item-id-column"])
        if item_id in items:
            message = f"item {item_id!r} occurs twice; expected unique ids"
            raise DataError.at(path, message, line=line)
        cell = cells["--title-column"]
        title = _joined(text_field(path, line, settings.title_column, cell, numbers=True))
        if not clean_title(title):
            message = f"item {item_id!r} has an empty {settings.title_column}; expected a title"
            raise DataError.at(path, message, line=line)
        name, cell = settings.description_column, cells.get("--description-column")
        description = text_field(path, line, name, cell, several=True, numbers=True)
        name, cell = settings.category_column, cells.get("--category-column")
        if isinstance(cell, list):
            names = text_fields(path, line, name, cell, numbers=True)
        else:
            text = text_field(path, line, name, cell, numbers=True)
            names = (
                text.split(settings.category_separator) if settings.category_separator else [text]
            )
        categories = tuple(dict.fromkeys(filter(None, map(_joined, names))))
        items[item_id] = Item(item_id, title, _joined(description), categories)
    return list(items.values()), tuple(unused)


def _joined(text: str) -> str:
    return " ".join(text.split())


def _read_interactions(settings: TableSettings, items: list[Item]) -> _Interactions:
    path = Path(settings.interactions)
    named = {
        "--user-column": settings.user_column,
        "--item-column": settings.item_column,
        "--time-column": settings.time_column,
    }
    row_of = {item.item_id: row for row, item in enumerate(items)}
    user_codes: dict[str, int] = {}
    users, rows, times = array("i"), array("i"), Times(path, settings.time_column)
    unused: dict[str, None] = {}
    for line, cells in _rows(path, named, settings.quote, unused):
        user, item = cells["--user-column"], cells["--item-column"]
        # Most rows name a user and an item that have been looked at.
        if not isinstance(user, str) or user not in user_codes:
            user = id_field(path, line, settings.user_column, user)
        if not isinstance(item, str) or item not in row_of:
            item = id_field(path, line, settings.item_column, item)
        if item not in row_of:
            message = f"item {item!r} is not in {settings.items}; add it there or remove the row"
            raise DataError.at(path, message, line=line)
        if settings.time_column:
            times.add(line, cells["--time-column"])
        users.append(user_codes.setdefault(user, len(user_codes)))
        rows.append(row_of[item])
    time = times.order() if settings.time_column else np.zeros(len(users), dtype=np.int64)
    columns = {"user": np.asarray(users), "item": np.asarray(rows), "time": time}
    frame = pl.DataFrame(columns).sort("user", "time", maintain_order=True)
    once = frame
    if settings.time_column:
        once = frame.unique(["user", "item", "time"], keep="first", maintain_order=True)
    return _Interactions(once, list(user_codes), len(frame) - len(once), tuple(unused))


def _rows(
    path: Path, named: dict[str, str], quote: Quote, unused: dict[str, None]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields line number and cells by flag; flags without a column are passed over."""
    flags = {flag: column for flag, column in named.items() if column}
    columns = set(flags.values())
    endings = [ending for ending in path.suffixes if ending != ".gz"]
    ending = endings[-1].lower() if endings else ""
    if not path.is_file():
        raise DataError.at(
            path, "is a folder; expected a table" if path.exists() else "no such file"
        )
    if path.stat().st_size == 0:
        raise DataError.at(path, "the file is empty; expected a table")
    if ending in _SEPARATORS:
        yield from _csv_rows(path, _SEPARATORS[ending], flags, quote, unused)
    elif ending in _JSON_LINES:
        for line, record in json_lines(path, label=f"reading {path.name}", unique=True):
            for flag, column in flags.items():
                if column not in record:
                    raise _no_column(path, flag, column, list(record), line)
            unused.update((name, None) for name in record if name not in columns)
            yield line, {flag: record[column] for flag, column in flags.items()}
    elif ending in _PARQUET:
        yield from _parquet_rows(path, flags, unused)
    else:
        known = ", ".join([*_SEPARATORS, ".parquet", ".jsonl"])
        raise ConfigError(f"{path}: unknown ending {ending!r}; expected one of {known}")


def _csv_rows(
    path: Path, separator: str, flags: dict[str, str], quote: Quote, unused: dict[str, None]
) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = text_lines(path, label=f"reading {path.name}")
    quotes: Any = {"quoting": csv.QUOTE_NONE} if quote == "none" else {}
    reader = csv.reader(lines, delimiter=separator, strict=True, **quotes)
    line = 1
    # The module's own limit of 131,072 characters a cell is one for all readers of a process.
    limit = csv.field_size_limit(sys.maxsize)
    try:
        header = next(reader, None)
        if header is None:
            raise DataError.at(path, "the file is empty; expected a header")
        positions = {}
        for flag, column in flags.items():
            if column not in header:
                raise _no_column(path, flag, column, header, 1)
            positions[flag] = header.index(column)
        require_once(path, header)
        unused.update((name, None) for name in header if name not in flags.values())
        found = False
        line = reader.line_num + 1
        for cells in reader:
            if cells:
                if len(cells) != len(header):
                    message = f"{len(cells)} cells; expected {len(header)} as in the header"
                    raise DataError.at(path, message, line=line)
                found = True
                yield line, {flag: cells[position] for flag, position in positions.items()}
            line = reader.line_num + 1
    except csv.Error as error:
        way_out = "" if quote == "none" else "; where quotes are letters, pass --quote none"
        raise DataError.at(path, f"not valid CSV: {error}{way_out}", line=line) from error
    finally:
        csv.field_size_limit(limit)
    if not found:
        raise DataError.at(path, "holds a header but no rows")


def _parquet_rows(
    path: Path, flags: dict[str, str], unused: dict[str, None]
) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        lazy = pl.scan_parquet(path)
        schema = lazy.collect_schema()
        names = schema.names()
        for flag, column in flags.items():
            if column not in names:
                raise _no_column(path, flag, column, names, None)
        unused.update((name, None) for name in names if name not in flags.values())
        total = int(lazy.select(pl.len()).collect().item())
        columns = list(dict.fromkeys(flags.values()))
        # Python's own times end at the microsecond.
        time = flags.get("--time-column", "")
        fine = [time] if getattr(schema.get(time), "time_unit", "") == "ns" else []
        lazy = lazy.select(columns).with_columns(pl.col(name).dt.to_string("iso") for name in fine)
        for start in range(0, total, _PARQUET_ROWS):
            part = lazy.slice(start, _PARQUET_ROWS).collect()
            cells = {flag: part[column].to_list() for flag, column in flags.items()}
            for row in range(len(part)):
                yield start + row + 1, {flag: values[row] for flag, values in cells.items()}
    except (polars.exceptions.PolarsError, OSError) as error:
        raise DataError.at(path, f"not a readable Parquet file: {_first_line(error)}") from error
    if not total:
        raise DataError.at(path, "holds no rows")


def _no_column(
    path: Path, flag: str, column: str, found: Sequence[str], line: int | None
) -> DataError:
    message = f"no column {column!r} ({flag}); found {', '.join(found)}"
    return DataError.at(path, message, line=line)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
