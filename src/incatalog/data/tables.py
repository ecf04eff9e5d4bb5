"""Tables of interactions and items: CSV, TSV, Parquet or JSON lines."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import polars.exceptions

from incatalog.data.attributes import RESERVED
from incatalog.data.catalog import Catalog, Item
from incatalog.data.cleaning import clean_title
from incatalog.data.documents import json_lines, require_once
from incatalog.data.fields import FilePlace, is_missing
from incatalog.data.formats import is_currency
from incatalog.data.id_forms import FORMS
from incatalog.data.interactions import Interactions, keep_active, renumber
from incatalog.data.prepared import Prepared, check_flags, write_prepared
from incatalog.data.settings import ColumnSettings, TableSettings
from incatalog.data.settling import settled
from incatalog.data.table_sample import JSON_LINES, SEPARATORS, csv_format, csv_rows, ending_of
from incatalog.data.times import Times
from incatalog.data.typed_columns import item_attributes, typed_column
from incatalog.errors import ConfigError, DataError

_PARQUET_ROWS = 1 << 16
_OF_ITEMS = (
    "item_id_column",
    "title_column",
    "description_column",
    "category_column",
    "boost_column",
    "boost_until_column",
)
_MOST_NAMED = 3  # Unknown items that are named.
# Names of columns whose numbers are amounts of money, for `--currency`.
_PRICE = re.compile(
    r"(?i)(?<![a-z])(?:price|cost|amount|msrp|preis|prix|precio|prezzo|prijs|pris)(?![a-z])"
)


def prepare_table(settings: TableSettings) -> Path:
    """Writes tables as ``metas.jsonl``, ``category.jsonl`` and ``sequential.jsonl``.

    The format is told by the ending: ``.csv``, ``.tsv``, ``.txt``, ``.parquet``, ``.jsonl`` (also
    with ``.gz`` behind it). What is not given of columns, separators, encodings and the forms of
    ids and times is guessed, and said; on a terminal what cannot be told is asked for. Histories
    are ordered by time, and as in the file where times are equal. Rows with the same user, item and
    time count once. The catalog holds every item of the table; with ``k_core``, those of the core.
    Columns of the items that nothing else uses are their attributes, each of the kind that its
    cells are of. Returns the output folder.

    Raises:
        ConfigError: A number is out of range, or an ending is unknown.
        DataError: A file is missing, empty or broken, lacks a column or has it twice, has columns
            that are not given and cannot be told (all of them are named), holds what is no text, id
            or time, repeats an item, names an unknown one where that is an error, or times are of
            several kinds; names file and line (the row, for Parquet).
        ArtifactError: The output folder holds something else.
    """
    least, core = settings.min_interactions, settings.k_core
    inputs = {"interactions": Path(settings.interactions), "items": Path(settings.items)}
    check_flags(Path(settings.out), "--min-interactions", least, core, inputs=inputs.values())
    settings = settled(settings)
    things = _Table(settings, Path(settings.items), *_OF_ITEMS, keep=True)
    actions = "user_column", "item_column", "time_column"
    deeds = _Table(settings, Path(settings.interactions), *actions)
    table = _read_items(things, settings)
    items = table.items
    found = _read_interactions(deeds, settings, items)
    every = frame = found.frame()
    if deeds.name("time_column"):
        frame = every.unique(["user", "item", "time"], keep="first", maintain_order=True)
    repeated = len(every) - len(frame)
    hint = f"{least} and --k-core {core}" if core else str(least)
    hint = f"try less than --min-interactions {hint}"
    frame = keep_active(deeds.path, frame, least, hint, core)
    if core:
        frame, codes = renumber(frame)
        items = [items[code] for code in codes]
    catalog = Catalog(
        tuple(items), Path(settings.out).resolve().name, formats=tuple(table.formats.items())
    )
    prepared = Prepared(
        catalog,
        found.histories(frame),
        {
            **deeds.left_out,
            **found.left_out(frame, least, core),
            "repeated interactions": repeated,
        },
        {one.path: one.unused for one in (deeds, things)},
        (_told_columns(deeds, things, table),),
    )
    return write_prepared(prepared, "data table", settings, inputs)


@dataclass(frozen=True, eq=False)
class ItemTable:
    """The items of a table, and what its other columns became."""

    items: list[Item]
    kinds: Mapping[str, str]  # what each attribute holds, in words
    formats: Mapping[str, str]  # currencies of the attributes that are prices


def read_item_table(path: Path, settings: ColumnSettings) -> ItemTable:
    """The items of a table alone; its columns have to be given.

    Raises:
        ConfigError: The ending of the file is unknown, or a currency is none.
        DataError: As :func:`prepare_table`.
    """
    table = _Table(settings, path, *_OF_ITEMS, keep=True)
    return _read_items(table, settings)


def _read_items(table: _Table, settings: ColumnSettings) -> ItemTable:
    items = _bare_items(table, settings)
    columns = {name: typed_column(cells) for name, cells in table.kept.items()}
    for name in [name for name, column in columns.items() if column.empty]:
        del columns[name]
        table.unused[name] = None
    attributes = item_attributes(columns, len(items))
    formats = {name: column.currency for name, column in columns.items() if column.currency}
    kinds = {name: column.kind for name, column in columns.items()}
    for name, currency in _currencies(settings.currency, kinds).items():
        formats[name] = currency
        kinds[name] = f"prices in {currency}"
    pairs = zip(items, attributes, strict=True)
    return ItemTable([replace(item, attributes=own) for item, own in pairs], kinds, formats)


def _currencies(given: Sequence[str], kinds: Mapping[str, str]) -> dict[str, str]:
    """The currencies of the columns that flags name, or that are called as prices are."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, code = text.rpartition("=")
        numbers = [one for one, kind in kinds.items() if kind == "numbers"]
        names = [name] if equals else [one for one in numbers if _PRICE.search(one)]
        if not is_currency(code):
            expected = "expected three letters such as EUR, or COLUMN=EUR"
            raise ConfigError(f"--currency {text}: {expected}")
        if not names or names[0] not in kinds:
            known = f"columns of numbers are {', '.join(numbers) or 'none'}"
            raise ConfigError(f"--currency {text}: no such column of prices; {known}")
        found |= dict.fromkeys(names, code)
    return found


def _told_columns(deeds: _Table, things: _Table, table: ItemTable) -> str:
    """Which columns were used, and which kept."""
    used = "; ".join(f"{', '.join(one.used)} of {one.path.name}" for one in (deeds, things))
    kept = ", ".join(f"{name} ({kind})" for name, kind in table.kinds.items())
    return f"columns used: {used}" + (f"; kept as attributes: {kept}" if kept else "")


def _bare_items(table: _Table, settings: ColumnSettings) -> list[Item]:
    items: dict[str, Item] = {}
    trimmed = settings.id_form != "exact"
    for place, cells in table.rows():
        item_id = place.id(table.name("item_id_column"), cells["item_id_column"])
        item_id = item_id.strip() if trimmed else item_id
        if item_id in items:
            raise place.error(f"item {item_id!r} occurs twice; expected unique ids")
        name = table.name("title_column")
        title = _joined(place.text(name, cells["title_column"], numbers=True))
        if not clean_title(title):
            raise place.error(f"item {item_id!r} has an empty {name}; expected a title")
        name, cell = table.name("description_column"), cells.get("description_column")
        description = place.text(name, cell, several=True, numbers=True)
        name, cell = table.name("category_column"), cells.get("category_column")
        if isinstance(cell, list):
            names = place.texts(name, cell, numbers=True)
        else:
            text = place.text(name, cell, numbers=True)
            separator = settings.category_separator
            names = text.split(separator) if separator else [text]
        categories = tuple(dict.fromkeys(filter(None, map(_joined, names))))
        boost = place.factor(table.name("boost_column"), cells.get("boost_column"))
        name, cell = table.name("boost_until_column"), cells.get("boost_until_column")
        text = _joined(description)
        boosts: Any = {"boost": boost, "boost_until": place.day(name, cell)}
        items[item_id] = Item(item_id, title, text, categories, **boosts)
    return list(items.values())


def _joined(text: str) -> str:
    return " ".join(text.split())


def _read_interactions(table: _Table, settings: TableSettings, items: list[Item]) -> Interactions:
    plain = FORMS[settings.id_form or "exact"]
    known = {plain(item.item_id): row for row, item in enumerate(items)}
    row_of = {item.item_id: row for row, item in enumerate(items)}
    time = table.name("time_column")
    found = Interactions(Times(time, settings.time_format or "") if time else None)
    unknown = Counter[str]()
    for place, cells in table.rows():
        user, item = cells["user_column"], cells["item_column"]
        # Guests have no account, and shipping is no product.
        if empty := [what for what, cell in (("user", user), ("item", item)) if _is_empty(cell)]:
            table.left_out[f"rows without {' and '.join(empty)}"] += 1
            continue
        # Most rows name a user and an item that have been looked at.
        if not isinstance(user, str) or user not in found.user_codes:
            user = place.id(table.name("user_column"), user)
        if not isinstance(item, str) or item not in row_of:
            item = place.id(table.name("item_column"), item)
            if item not in unknown and (row := known.get(plain(item))) is not None:
                row_of[item] = row
        if item not in row_of:
            if settings.unknown_items == "error":
                what = f"item {item!r} is not in {settings.items}"
                raise place.error(f"{what}; add it there or remove the row")
            unknown[item] += 1
            continue
        found.add(place, user, row_of[item], cells.get("time_column"))
    if unknown and not len(found):
        some = ", ".join(map(repr, itertools.islice(unknown, _MOST_NAMED)))
        what = f"none of its items is in {settings.items}; found {some}"
        raise DataError.at(table.path, f"{what}; name the columns that hold the same ids")
    if unknown:
        some = ", ".join([*list(unknown)[:_MOST_NAMED], *["…"][: len(unknown) > _MOST_NAMED]])
        table.left_out[f"rows of {len(unknown)} items that are not in the catalog ({some})"] = (
            unknown.total()
        )
    return found


def _is_empty(cell: Any) -> bool:
    return is_missing(cell) or (isinstance(cell, str) and not cell.strip())


class _Table:
    """A file of rows, of which the columns that some settings name are read, or all."""

    def __init__(
        self, settings: ColumnSettings, path: Path, *names: str, keep: bool = False
    ) -> None:
        self.path = path
        self.unused: dict[str, None] = {}  # Names of the columns that nothing reads.
        # The cells of the other columns, with `keep`; whole when all rows have been read.
        self.kept: dict[str, list[Any]] = {}
        self._keeps = keep
        columns = {name: getattr(settings, name) for name in names}
        self._columns: dict[str, str] = {name: column for name, column in columns.items() if column}
        self._settings = settings
        self.left_out = Counter[str]()  # Rows that say nothing, by why.

    def name(self, setting: str) -> str:
        """The column that a setting names; empty for none."""
        return self._columns.get(setting, "")

    @property
    def used(self) -> list[str]:
        """The columns that settings name."""
        return list(dict.fromkeys(self._columns.values()))

    def rows(self) -> Iterator[tuple[FilePlace, dict[str, Any]]]:
        """Yields the place and the cells by setting; an empty setting has none."""
        path = self.path
        ending = ending_of(path)
        if ending in SEPARATORS:
            yield from self._csv_rows()
        elif ending in JSON_LINES:
            lines = json_lines(path, label=f"reading {path.name}", unique=True)
            for number, (place, record) in enumerate(lines):
                self._match(place, record)
                self._keep_record(place, record, number)
                yield place, {name: record[column] for name, column in self._columns.items()}
        else:
            yield from self._parquet_rows()

    def _match(self, place: FilePlace, found: Collection[str]) -> None:
        """Refuses a table that lacks a column; notes the columns that nothing reads."""
        for name, column in self._columns.items():
            if column not in found:
                flag = "--" + name.replace("_", "-")
                raise place.error(f"no column {column!r} ({flag}); found {', '.join(found)}")
        others = [name for name in found if name not in self._columns.values()]
        kept = [name for name in others if self._keeps and name and name not in RESERVED]
        self.unused.update((name, None) for name in others if name not in kept)
        for name in kept:
            self.kept.setdefault(name, [])

    def _keep_record(self, place: FilePlace, record: Mapping[str, Any], number: int) -> None:
        """Keeps the cells of a row, of which there are so many before it; some may be missing."""
        for name, cells in self.kept.items():
            cells += [None] * (number - len(cells))
            cell = record.get(name)
            cells.append(place.unicode(name, cell) if isinstance(cell, str) else cell)

    def _csv_rows(self) -> Iterator[tuple[FilePlace, dict[str, Any]]]:
        known = self._settings.named("quote", "separator", "encoding")
        rows = csv_rows(self.path, csv_format(self.path, **known))
        place, header = next(rows)
        self._match(place, header)
        require_once(self.path, header)
        places = {name: header.index(column) for name, column in self._columns.items()}
        kept = [(header.index(name), column.append) for name, column in self.kept.items()]
        for place, cells in rows:
            for index, keep in kept:
                keep(cells[index])
            yield place, {name: cells[index] for name, index in places.items()}

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
            fine += [one for one in self.kept if getattr(schema[one], "time_unit", "") == "ns"]
            lazy = lazy.select([*self.used, *self.kept])
            lazy = lazy.with_columns(pl.col(name).dt.to_string("iso") for name in fine)
            for start in range(0, total, _PARQUET_ROWS):
                part = lazy.slice(start, _PARQUET_ROWS).collect()
                cells = [part[column].to_list() for column in self._columns.values()]
                for name, column in self.kept.items():
                    column += part[name].to_list()
                for row, values in enumerate(zip(*cells, strict=True), start + 1):
                    yield FilePlace(path, row), dict(zip(self._columns, values, strict=True))
        except (polars.exceptions.PolarsError, OSError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError.at(path, f"not a readable Parquet file: {reason}") from error
        if not total:
            raise DataError.at(path, "holds no rows")
