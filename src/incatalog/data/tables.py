"""Tables of interactions and items: CSV, TSV, Parquet or JSON lines."""

from __future__ import annotations

import csv
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import polars.exceptions

from incatalog.config import Quote
from incatalog.data.catalog import Catalog, Item
from incatalog.data.cleaning import clean_title
from incatalog.data.documents import json_lines, require_once, text_lines
from incatalog.data.fields import Place
from incatalog.data.interactions import Interactions, keep_active, renumber
from incatalog.data.prepared import Prepared, check_flags, write_prepared
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
    least, core = settings.min_interactions, settings.k_core
    check_flags(Path(settings.out), "--min-interactions", least, core)
    inputs = {"interactions": Path(settings.interactions), "items": Path(settings.items)}
    unused: dict[Path, dict[str, None]] = {path: {} for path in inputs.values()}
    items = _read_items(settings, unused[inputs["items"]])
    found = _read_interactions(settings, items, unused[inputs["interactions"]])
    every = frame = found.frame()
    if settings.time_column:
        frame = every.unique(["user", "item", "time"], keep="first", maintain_order=True)
    repeated = len(every) - len(frame)
    hint, reason = f"--min-interactions {least}", f"users with fewer than {least} interactions"
    if core:
        hint, reason = f"{hint} and --k-core {core}", f"users outside the {core}-core"
    frame = keep_active(inputs["interactions"], frame, least, f"try less than {hint}", core)
    if core:
        frame, codes = renumber(frame)
        items = [items[code] for code in codes]
    histories = found.histories(frame)
    prepared = Prepared(
        Catalog.from_items(items, Path(settings.out).resolve().name),
        histories,
        {reason: found.num_users - len(histories), "repeated interactions": repeated},
        unused,
    )
    return write_prepared(prepared, "data table", settings, inputs)


def _read_items(settings: TableSettings, unused: dict[str, None]) -> list[Item]:
    path = Path(settings.items)
    named = {
        "--item-id-column": settings.item_id_column,
        "--title-column": settings.title_column,
        "--description-column": settings.description_column,
        "--category-column": settings.category_column,
    }
    items: dict[str, Item] = {}
    for place, cells in _rows(path, named, settings.quote, unused):
        item_id = place.id(settings.item_id_column, cells["--item-id-column"])
        if item_id in items:
            raise place.error(f"item {item_id!r} occurs twice; expected unique ids")
        name = settings.title_column
        title = _joined(place.text(name, cells["--title-column"], numbers=True))
        if not clean_title(title):
            raise place.error(f"item {item_id!r} has an empty {name}; expected a title")
        name, cell = settings.description_column, cells.get("--description-column")
        description = place.text(name, cell, several=True, numbers=True)
        name, cell = settings.category_column, cells.get("--category-column")
        if isinstance(cell, list):
            names = place.texts(name, cell, numbers=True)
        else:
            text = place.text(name, cell, numbers=True)
            separator = settings.category_separator
            names = text.split(separator) if separator else [text]
        categories = tuple(dict.fromkeys(filter(None, map(_joined, names))))
        items[item_id] = Item(item_id, title, _joined(description), categories)
    return list(items.values())


def _joined(text: str) -> str:
    return " ".join(text.split())


def _read_interactions(
    settings: TableSettings, items: list[Item], unused: dict[str, None]
) -> Interactions:
    named = {
        "--user-column": settings.user_column,
        "--item-column": settings.item_column,
        "--time-column": settings.time_column,
    }
    row_of = {item.item_id: row for row, item in enumerate(items)}
    found = Interactions(Times(settings.time_column) if settings.time_column else None)
    for place, cells in _rows(Path(settings.interactions), named, settings.quote, unused):
        user, item = cells["--user-column"], cells["--item-column"]
        # Most rows name a user and an item that have been looked at.
        if not found.knows(user):
            user = place.id(settings.user_column, user)
        if not isinstance(item, str) or item not in row_of:
            item = place.id(settings.item_column, item)
        if item not in row_of:
            message = f"item {item!r} is not in {settings.items}; add it there or remove the row"
            raise place.error(message)
        found.add(place, user, row_of[item], cells.get("--time-column"))
    return found


def _rows(
    path: Path, named: dict[str, str], quote: Quote, unused: dict[str, None]
) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Yields the place and the cells by flag, of the flags that ``named`` gives a column.

    ``unused`` takes the names of the other columns.
    """
    flags = {flag: column for flag, column in named.items() if column}
    endings = [ending for ending in path.suffixes if ending != ".gz"]
    ending = endings[-1].lower() if endings else ""
    if not path.is_file():
        problem = "is a folder; expected a table" if path.exists() else "no such file"
        raise DataError.at(path, problem)
    if path.stat().st_size == 0:
        raise DataError.at(path, "the file is empty; expected a table")
    if ending in _SEPARATORS:
        yield from _csv_rows(path, _SEPARATORS[ending], flags, quote, unused)
    elif ending in _JSON_LINES:
        for line, record in json_lines(path, label=f"reading {path.name}", unique=True):
            place = Place(path, line)
            _match(place, flags, record, unused)
            yield place, {flag: record[column] for flag, column in flags.items()}
    elif ending in _PARQUET:
        yield from _parquet_rows(path, flags, unused)
    else:
        known = ", ".join([*_SEPARATORS, ".parquet", ".jsonl"])
        raise ConfigError(f"{path}: unknown ending {ending!r}; expected one of {known}")


def _match(
    place: Place, flags: dict[str, str], columns: Collection[str], unused: dict[str, None]
) -> None:
    """Refuses a table without a column of a flag; adds the columns of no flag to ``unused``."""
    for flag, column in flags.items():
        if column not in columns:
            raise place.error(f"no column {column!r} ({flag}); found {', '.join(columns)}")
    unused.update((name, None) for name in columns if name not in flags.values())


def _csv_rows(
    path: Path, separator: str, flags: dict[str, str], quote: Quote, unused: dict[str, None]
) -> Iterator[tuple[Place, dict[str, Any]]]:
    lines = text_lines(path, label=f"reading {path.name}")
    quotes: Any = {"quoting": csv.QUOTE_NONE} if quote == "none" else {}
    reader = csv.reader(lines, delimiter=separator, strict=True, **quotes)
    place = Place(path, 1)
    # The module's own limit of 131,072 characters a cell is one for all readers of a process.
    limit = csv.field_size_limit(sys.maxsize)
    try:
        header = next(reader, None)
        if header is None:
            raise DataError.at(path, "the file is empty; expected a header")
        _match(place, flags, header, unused)
        require_once(path, header)
        positions = {flag: header.index(column) for flag, column in flags.items()}
        found = False
        place = Place(path, reader.line_num + 1)
        for cells in reader:
            if cells:
                if len(cells) != len(header):
                    message = f"{len(cells)} cells; expected {len(header)} as in the header"
                    raise place.error(message)
                found = True
                yield place, {flag: cells[position] for flag, position in positions.items()}
            place = Place(path, reader.line_num + 1)
    except csv.Error as error:
        way_out = "" if quote == "none" else "; where quotes are letters, pass --quote none"
        raise place.error(f"not valid CSV: {error}{way_out}") from error
    finally:
        csv.field_size_limit(limit)
    if not found:
        raise DataError.at(path, "holds a header but no rows")


def _parquet_rows(
    path: Path, flags: dict[str, str], unused: dict[str, None]
) -> Iterator[tuple[Place, dict[str, Any]]]:
    try:
        lazy = pl.scan_parquet(path)
        schema = lazy.collect_schema()
        _match(Place(path), flags, schema.names(), unused)
        total = int(lazy.select(pl.len()).collect().item())
        # Python's own times end at the microsecond.
        time = flags.get("--time-column", "")
        fine = [time] if getattr(schema.get(time), "time_unit", "") == "ns" else []
        lazy = lazy.select(list(dict.fromkeys(flags.values())))
        lazy = lazy.with_columns(pl.col(name).dt.to_string("iso") for name in fine)
        for start in range(0, total, _PARQUET_ROWS):
            part = lazy.slice(start, _PARQUET_ROWS).collect()
            cells = {flag: part[column].to_list() for flag, column in flags.items()}
            for row in range(len(part)):
                place = Place(path, start + row + 1)
                yield place, {flag: values[row] for flag, values in cells.items()}
    except (polars.exceptions.PolarsError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError.at(path, f"not a readable Parquet file: {reason}") from error
    if not total:
        raise DataError.at(path, "holds no rows")
