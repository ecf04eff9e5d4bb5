"""Tables of interactions and items: CSV, TSV, Parquet or JSON lines."""

from __future__ import annotations

import csv
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import polars.exceptions

from incatalog.data.catalog import Catalog, Item
from incatalog.data.cleaning import clean_title
from incatalog.data.documents import json_lines, require_once, text_lines
from incatalog.data.fields import FilePlace
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
    with ``k_core``, those of the core. Returns the output folder.

    Raises:
        ConfigError: A number is out of range, or an ending is unknown.
        DataError: A file is missing, empty or broken, lacks a column or has it twice, holds what
            is no text, id or time, repeats an item, or names an unknown one, or times are of
            several kinds; names file and line (the row, for Parquet).
        ArtifactError: The output folder holds something else.
    """
    least, core = settings.min_interactions, settings.k_core
    inputs = {"interactions": Path(settings.interactions), "items": Path(settings.items)}
    check_flags(Path(settings.out), "--min-interactions", least, core, inputs=inputs.values())
    columns = "item_id_column", "title_column", "description_column", "category_column"
    things = _Table(settings, Path(settings.items), *columns, "boost_column")
    actions = "user_column", "item_column", "time_column"
    deeds = _Table(settings, Path(settings.interactions), *actions)
    items = _read_items(things, settings)
    found = _read_interactions(deeds, settings, items)
    every = frame = found.frame()
    if settings.time_column:
        frame = every.unique(["user", "item", "time"], keep="first", maintain_order=True)
    repeated = len(every) - len(frame)
    hint = f"{least} and --k-core {core}" if core else str(least)
    hint = f"try less than --min-interactions {hint}"
    frame = keep_active(deeds.path, frame, least, hint, core)
    if core:
        frame, codes = renumber(frame)
        items = [items[code] for code in codes]
    prepared = Prepared(
        Catalog.from_items(items, Path(settings.out).resolve().name),
        found.histories(frame),
        {**found.left_out(frame, least, core), "repeated interactions": repeated},
        {table.path: table.unused for table in (deeds, things)},
    )
    return write_prepared(prepared, "data table", settings, inputs)


def _read_items(table: _Table, settings: TableSettings) -> list[Item]:
    items: dict[str, Item] = {}
    for place, cells in table.rows():
        item_id = place.id(settings.item_id_column, cells["item_id_column"])
        if item_id in items:
            raise place.error(f"item {item_id!r} occurs twice; expected unique ids")
        name = settings.title_column
        title = _joined(place.text(name, cells["title_column"], numbers=True))
        if not clean_title(title):
            raise place.error(f"item {item_id!r} has an empty {name}; expected a title")
        name, cell = settings.description_column, cells.get("description_column")
        description = place.text(name, cell, several=True, numbers=True)
        name, cell = settings.category_column, cells.get("category_column")
        if isinstance(cell, list):
            names = place.texts(name, cell, numbers=True)
        else:
            text = place.text(name, cell, numbers=True)
            separator = settings.category_separator
            names = text.split(separator) if separator else [text]
        categories = tuple(dict.fromkeys(filter(None, map(_joined, names))))
        boost = place.factor(settings.boost_column, cells.get("boost_column"))
        items[item_id] = Item(item_id, title, _joined(description), categories, boost=boost)
    return list(items.values())


def _joined(text: str) -> str:
    return " ".join(text.split())


def _read_interactions(table: _Table, settings: TableSettings, items: list[Item]) -> Interactions:
    row_of = {item.item_id: row for row, item in enumerate(items)}
    found = Interactions(Times(settings.time_column) if settings.time_column else None)
    for place, cells in table.rows():
        user, item = cells["user_column"], cells["item_column"]
        # Most rows name a user and an item that have been looked at.
        if not isinstance(user, str) or user not in found.user_codes:
            user = place.id(settings.user_column, user)
        if not isinstance(item, str) or item not in row_of:
            item = place.id(settings.item_column, item)
        if item not in row_of:
            message = f"item {item!r} is not in {settings.items}; add it there or remove the row"
            raise place.error(message)
        found.add(place, user, row_of[item], cells.get("time_column"))
    return found


class _Table:
    """A file of rows, of which the columns that some settings name are read."""

    def __init__(self, settings: TableSettings, path: Path, *names: str) -> None:
        self.path = path
        self.unused: dict[str, None] = {}  # Names of the other columns.
        columns = {name: getattr(settings, name) for name in names}
        self._columns: dict[str, str] = {name: column for name, column in columns.items() if column}
        self._quote = settings.quote

    def rows(self) -> Iterator[tuple[FilePlace, dict[str, Any]]]:
        """Yields the place and the cells by setting; an empty setting has none."""
        path = self.path
        endings = [ending for ending in path.suffixes if ending != ".gz"]
        ending = endings[-1].lower() if endings else ""
        if not path.is_file():
            problem = "is a folder; expected a table" if path.exists() else "no such file"
            raise DataError.at(path, problem)
        if path.stat().st_size == 0:
            raise DataError.at(path, "the file is empty; expected a table")
        if ending in _SEPARATORS:
            yield from self._csv_rows(_SEPARATORS[ending])
        elif ending in _JSON_LINES:
            for place, record in json_lines(path, label=f"reading {path.name}", unique=True):
                self._match(place, record)
                yield place, {name: record[column] for name, column in self._columns.items()}
        elif ending in _PARQUET:
            yield from self._parquet_rows()
        else:
            known = ", ".join([*_SEPARATORS, ".parquet", ".jsonl"])
            raise ConfigError(f"{path}: unknown ending {ending!r}; expected one of {known}")

    def _match(self, place: FilePlace, found: Collection[str]) -> None:
        """Refuses a table that lacks a column; notes the columns that nothing reads."""
        for name, column in self._columns.items():
            if column not in found:
                flag = "--" + name.replace("_", "-")
                raise place.error(f"no column {column!r} ({flag}); found {', '.join(found)}")
        self.unused.update((name, None) for name in found if name not in self._columns.values())

    def _csv_rows(self, separator: str) -> Iterator[tuple[FilePlace, dict[str, Any]]]:
        path, letters = self.path, self._quote == "none"
        lines = text_lines(path, label=f"reading {path.name}")
        quotes: Any = {"quoting": csv.QUOTE_NONE} if letters else {}
        reader = csv.reader(lines, delimiter=separator, strict=True, **quotes)
        place = FilePlace(path, 1)
        # The module's own limit of 131,072 characters a cell is one for all readers of a process.
        limit = csv.field_size_limit(sys.maxsize)
        try:
            header = next(reader, None)
            if header is None:
                raise DataError.at(path, "the file is empty; expected a header")
            self._match(place, header)
            require_once(path, header)
            places = {name: header.index(column) for name, column in self._columns.items()}
            found = False
            place = FilePlace(path, reader.line_num + 1)
            for cells in reader:
                if cells:
                    found = True
                    if len(cells) != len(header):
                        counts = f"{len(cells)} cells; expected {len(header)}"
                        raise place.error(f"{counts} as in the header")
                    yield place, {name: cells[index] for name, index in places.items()}
                place = FilePlace(path, reader.line_num + 1)
        except csv.Error as error:
            hint = "" if letters else "; where quotes are letters, pass --quote none"
            raise place.error(f"not valid CSV: {error}{hint}") from error
        finally:
            csv.field_size_limit(limit)
        if not found:
            raise DataError.at(path, "holds a header but no rows")

    def _parquet_rows(self) -> Iterator[tuple[FilePlace, dict[str, Any]]]:
        path = self.path
        try:
            lazy = pl.scan_parquet(path)
            schema = lazy.collect_schema()
            self._match(FilePlace(path), schema.names())
            total = int(lazy.select(pl.len()).collect().item())
            # Python's own times end at the microsecond.
            time = self._columns.get("time_column", "")
            fine = [time] if getattr(schema.get(time), "time_unit", "") == "ns" else []
            lazy = lazy.select(list(dict.fromkeys(self._columns.values())))
            lazy = lazy.with_columns(pl.col(name).dt.to_string("iso") for name in fine)
            for start in range(0, total, _PARQUET_ROWS):
                part = lazy.slice(start, _PARQUET_ROWS).collect()
                cells = [part[column].to_list() for column in self._columns.values()]
                for row, values in enumerate(zip(*cells, strict=True), start + 1):
                    yield FilePlace(path, row), dict(zip(self._columns, values, strict=True))
        except (polars.exceptions.PolarsError, OSError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError.at(path, f"not a readable Parquet file: {reason}") from error
        if not total:
            raise DataError.at(path, "holds no rows")
