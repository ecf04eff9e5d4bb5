"""Tables of interactions and items: CSV, TSV, Parquet or JSON lines."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from incatalog.data.catalog import Catalog, Item
from incatalog.data.cleaning import clean_title
from incatalog.data.formats import is_currency
from incatalog.data.interactions import keep_active, renumber, without_repeats
from incatalog.data.prepared import Prepared, check_flags, write_prepared
from incatalog.data.settings import ColumnSettings, TableSettings
from incatalog.data.settling import settled
from incatalog.data.table_file import TableFile
from incatalog.data.table_interactions import read_interactions
from incatalog.data.typed_columns import item_attributes, typed_column
from incatalog.errors import ConfigError

_OF_ITEMS = (
    "item_id_column",
    "title_column",
    "description_column",
    "category_column",
    "boost_column",
    "boost_until_column",
)
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
    things = TableFile(settings, Path(settings.items), *_OF_ITEMS, keep=True)
    actions = "user_column", "item_column", "time_column"
    deeds = TableFile(settings, Path(settings.interactions), *actions)
    table = _read_items(things, settings)
    items = table.items
    found = read_interactions(deeds, settings, items)
    every = frame = found.frame()
    if deeds.name("time_column"):
        frame = without_repeats(every)
    repeated = len(every) - len(frame)
    del every
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
    table = TableFile(settings, path, *_OF_ITEMS, keep=True)
    return _read_items(table, settings)


def _read_items(table: TableFile, settings: ColumnSettings) -> ItemTable:
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


def _told_columns(deeds: TableFile, things: TableFile, table: ItemTable) -> str:
    """Which columns were used, and which kept."""
    used = "; ".join(f"{', '.join(one.used)} of {one.path.name}" for one in (deeds, things))
    kept = ", ".join(f"{name} ({kind})" for name, kind in table.kinds.items())
    return f"columns used: {used}" + (f"; kept as attributes: {kept}" if kept else "")


def _bare_items(table: TableFile, settings: ColumnSettings) -> list[Item]:
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
