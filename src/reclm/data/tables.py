"""Tables of interactions and items: CSV, TSV, Parquet or JSON lines."""

from __future__ import annotations

import csv
import datetime
import math
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import polars.exceptions

from reclm.config import TableConfig
from reclm.data.catalog import Catalog, Item
from reclm.data.documents import identifier, json_lines, text_lines
from reclm.data.interactions import Histories, k_core
from reclm.data.prepared import (
    Prepared,
    check_min_interactions,
    check_out,
    drop_short,
    group_histories,
    require_users,
    write_prepared,
)
from reclm.errors import ConfigError, DataError

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = {".jsonl", ".ndjson", ".json"}
_PARQUET = {".parquet", ".pq"}
_PARQUET_ROWS = 1 << 16


def prepare_table(config: TableConfig) -> Path:
    """Writes tables as ``metas.jsonl``, ``category.jsonl`` and ``sequential.jsonl``.

    The format is told by the ending: ``.csv``, ``.tsv``, ``.parquet``, ``.jsonl`` (also with
    ``.gz`` behind it). Histories are ordered by time, and as in the file where times are equal.
    Rows with the same user, item and time count once. The catalog holds every item of the table;
    with ``k_core``, those of the core.

    Args:
        config: Files, columns, output folder and filters.

    Returns:
        The output folder.

    Raises:
        ConfigError: A number is out of range, or an ending is unknown.
        DataError: A file is missing, empty or broken, lacks a column, repeats an item, or names an
            unknown one; names file and line (the row, for Parquet).
        ArtifactError: The output folder holds something else.
    """
    check_min_interactions("--min-interactions", config.min_interactions)
    if config.k_core < 0:
        raise ConfigError(f"--k-core {config.k_core}: expected 0 (off) or more")
    check_out(Path(config.out))
    items = _read_items(config)
    frame, user_ids, repeated = _read_interactions(config, items)
    if config.k_core:
        user_k = max(config.k_core, config.min_interactions)
        frame = k_core(frame, config.k_core, user_k=user_k)
    else:
        frame = drop_short(frame, config.min_interactions)
    hint = f"--min-interactions {config.min_interactions}"
    hint += f" and --k-core {config.k_core}" if config.k_core else ""
    require_users(Path(config.interactions), len(frame), f"try less than {hint}")
    if config.k_core:
        codes = np.unique(frame["item"].to_numpy())
        items = [items[code] for code in codes.tolist()]
        rows = np.searchsorted(codes, frame["item"].to_numpy())
        frame = frame.with_columns(item=pl.Series(rows))
    users, lists = group_histories(frame, user_ids)
    reason = f"users with fewer than {config.min_interactions} interactions"
    if config.k_core:
        reason = f"users outside the {config.k_core}-core"
    prepared = Prepared(
        Catalog.from_items(items, Path(config.out).resolve().name),
        Histories.from_lists(users, lists),
        {reason: len(user_ids) - len(users), "repeated interactions": repeated},
    )
    inputs = {"interactions": Path(config.interactions), "items": Path(config.items)}
    return write_prepared(prepared, "data table", config, inputs)


def _read_items(config: TableConfig) -> list[Item]:
    path = Path(config.items)
    named = {
        "--item-id-column": config.item_id_column,
        "--title-column": config.title_column,
        "--description-column": config.description_column,
        "--category-column": config.category_column,
    }
    items: dict[str, Item] = {}
    for line, cells in _rows(path, named):
        item_id = identifier(cells["--item-id-column"])
        if item_id is None:
            message = f"{config.item_id_column} is {cells['--item-id-column']!r}; expected an id"
            raise DataError.at(path, message, line=line)
        if item_id in items:
            message = f"item {item_id!r} occurs twice; expected unique ids"
            raise DataError.at(path, message, line=line)
        title = _text(cells["--title-column"])
        if not title:
            message = f"item {item_id!r} has an empty {config.title_column}; expected a title"
            raise DataError.at(path, message, line=line)
        description = _text(cells.get("--description-column"))
        categories = _categories(cells.get("--category-column"), config.category_separator)
        items[item_id] = Item(item_id, title, description, categories)
    return list(items.values())


def _text(cell: Any) -> str:
    if isinstance(cell, list):
        return " ".join(_text(part) for part in cell)
    return "" if cell is None else " ".join(str(cell).split())


def _categories(cell: Any, separator: str) -> tuple[str, ...]:
    """Splits a cell; a list of a Parquet or JSON cell is taken as it is."""
    if isinstance(cell, list):
        parts = [_text(part) for part in cell]
    else:
        text = "" if cell is None else str(cell)
        parts = [_text(part) for part in (text.split(separator) if separator else [text])]
    return tuple(dict.fromkeys(part for part in parts if part))


def _read_interactions(
    config: TableConfig, items: list[Item]
) -> tuple[pl.DataFrame, list[str], int]:
    """Reads the interactions.

    Returns:
        Columns ``user``, ``item`` (codes) and ``time``, ordered by user and time; the users'
        names; and how many rows repeated another.
    """
    path = Path(config.interactions)
    named = {
        "--user-column": config.user_column,
        "--item-column": config.item_column,
        "--time-column": config.time_column,
    }
    row_of = {item.item_id: row for row, item in enumerate(items)}
    user_codes: dict[str, int] = {}
    users, rows, times = array("i"), array("i"), array("d")
    for line, cells in _rows(path, named):
        user, item = identifier(cells["--user-column"]), identifier(cells["--item-column"])
        if user is None or item is None:
            name = config.user_column if user is None else config.item_column
            cell = cells["--user-column" if user is None else "--item-column"]
            raise DataError.at(path, f"{name} is {cell!r}; expected an id", line=line)
        if item not in row_of:
            message = f"item {item!r} is not in {config.items}; add it there or remove the row"
            raise DataError.at(path, message, line=line)
        time = _seconds(cells["--time-column"]) if config.time_column else 0.0
        if time is None:
            cell = cells["--time-column"]
            message = f"{config.time_column} is {cell!r}; expected a number or an ISO 8601 time"
            raise DataError.at(path, message, line=line)
        users.append(user_codes.setdefault(user, len(user_codes)))
        rows.append(row_of[item])
        times.append(time)
    columns = {"user": np.asarray(users), "item": np.asarray(rows), "time": np.asarray(times)}
    frame = pl.DataFrame(columns).sort("user", "time", maintain_order=True)
    if not config.time_column:
        return frame, list(user_codes), 0
    once = frame.unique(["user", "item", "time"], keep="first", maintain_order=True)
    return once, list(user_codes), len(frame) - len(once)


def _seconds(cell: Any) -> float | None:
    """A time that can be ordered: a number as it is, a date or time in seconds since 1970."""
    if isinstance(cell, bool) or cell is None:
        return None
    if isinstance(cell, str):
        try:
            cell = float(cell)
        except ValueError:
            try:
                cell = datetime.datetime.fromisoformat(cell.strip())
            except ValueError:
                return None
    if isinstance(cell, datetime.date) and not isinstance(cell, datetime.datetime):
        cell = datetime.datetime.combine(cell, datetime.time())
    if isinstance(cell, datetime.datetime):
        aware = cell if cell.tzinfo else cell.replace(tzinfo=datetime.UTC)
        return aware.timestamp()
    if isinstance(cell, int | float):
        return float(cell) if math.isfinite(cell) else None
    return None


def _rows(path: Path, named: dict[str, str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields line number and cells by flag; flags without a column are passed over.

    Raises:
        ConfigError: The ending of the file is unknown.
        DataError: The file is missing, empty or broken, or lacks a column; names the flag.
    """
    flags = {flag: column for flag, column in named.items() if column}
    endings = [ending for ending in path.suffixes if ending != ".gz"]
    ending = endings[-1].lower() if endings else ""
    if not path.is_file():
        raise DataError.at(
            path, "is a folder; expected a table" if path.exists() else "no such file"
        )
    if path.stat().st_size == 0:
        raise DataError.at(path, "the file is empty; expected a table")
    if ending in _SEPARATORS:
        yield from _csv_rows(path, _SEPARATORS[ending], flags)
    elif ending in _JSON_LINES:
        for line, record in json_lines(path, label=f"reading {path.name}"):
            for flag, column in flags.items():
                if column not in record:
                    raise _no_column(path, flag, column, list(record), line)
            yield line, {flag: record[column] for flag, column in flags.items()}
    elif ending in _PARQUET:
        yield from _parquet_rows(path, flags)
    else:
        known = ", ".join([*_SEPARATORS, ".parquet", ".jsonl"])
        raise ConfigError(f"{path}: unknown ending {ending!r}; expected one of {known}")


def _csv_rows(
    path: Path, separator: str, flags: dict[str, str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = text_lines(path, label=f"reading {path.name}")
    reader = csv.reader(lines, delimiter=separator, strict=True)
    line = 1
    try:
        header = next(reader, None)
        if header is None:
            raise DataError.at(path, "the file is empty; expected a header")
        positions = {}
        for flag, column in flags.items():
            if column not in header:
                raise _no_column(path, flag, column, header, 1)
            positions[flag] = header.index(column)
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
        raise DataError.at(path, f"not valid CSV: {error}", line=line) from error
    if not found:
        raise DataError.at(path, "holds a header but no rows")


def _parquet_rows(path: Path, flags: dict[str, str]) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        lazy = pl.scan_parquet(path)
        names = lazy.collect_schema().names()
        for flag, column in flags.items():
            if column not in names:
                raise _no_column(path, flag, column, names, None)
        total = int(lazy.select(pl.len()).collect().item())
        columns = list(dict.fromkeys(flags.values()))
        for start in range(0, total, _PARQUET_ROWS):
            part = lazy.select(columns).slice(start, _PARQUET_ROWS).collect()
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
