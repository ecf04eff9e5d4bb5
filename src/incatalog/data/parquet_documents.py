"""Documents of prepared data as Parquet: one row an entry, one column a field."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import polars as pl
import polars.exceptions

from incatalog.artifacts import atomic_path
from incatalog.config import DataFormat
from incatalog.data.fields import Entry, FilePlace, identifier, shown
from incatalog.errors import DataError

PARQUET: Final = ".parquet"
# Rows that are in memory at once.
BATCH: Final = 1 << 16
# What the columns of a document are called: that of the keys, and that of the values if they are
# lists. A document of objects has a column for each field.
_COLUMNS: Final[Mapping[str, tuple[str, str]]] = {
    "metas": ("item_id", ""),
    "category": ("category", "items"),
    "sequential": ("user_id", "history"),
}
# A column whose values are of several kinds holds them as JSON, in the one field of an object.
_JSON: Final = "json"
_MOST_INT: Final = 1 << 63


def in_format(name: str, form: DataFormat) -> str:
    """The name of a document, such as ``metas.jsonl``, in a format."""
    return name if form == "json" else Path(name).stem + PARQUET


def document(folder: str | Path, name: str) -> Path:
    """The file of a document of prepared data, in the format that it is in.

    Raises:
        DataError: It is there in both formats.
    """
    path, twin = Path(folder) / name, Path(folder) / in_format(name, "parquet")
    if path.exists() and twin.exists():
        raise DataError.at(folder, f"holds {name} and {twin.name}; expected one: delete the other")
    return twin if twin.exists() else path


def parquet_fault(path: Path, error: Exception) -> DataError:
    """What an error says about a Parquet file that cannot be read."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return DataError.at(path, f"not a readable Parquet file: {reason}")


def parquet_batches(
    path: Path, columns: Sequence[str], size: int = BATCH
) -> Iterator[pl.DataFrame]:
    """Yields some columns of a file, so many rows at once, in their order.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        lazy = pl.scan_parquet(path).select(columns)
        yield from lazy.collect_batches(chunk_size=size, maintain_order=True)
    except (polars.exceptions.PolarsError, OSError) as error:
        raise parquet_fault(path, error) from error


def parquet_columns(path: Path) -> dict[str, pl.DataType]:
    """The columns of a file with their types.

    Raises:
        DataError: The file cannot be read.
    """
    if not path.is_file():
        raise DataError.at(path, "no such file")
    try:
        return dict(pl.scan_parquet(path).collect_schema())
    except (polars.exceptions.PolarsError, OSError) as error:
        raise parquet_fault(path, error) from error


def key_column(path: Path, columns: Iterable[str], names: Sequence[str]) -> str:
    """The first of some names that a file has a column of; without names, its first column.

    Raises:
        DataError: It has none of them.
    """
    found = list(columns)
    key = next((name for name in names or found if name in found), None)
    if key is None:
        raise DataError.at(path, f"no column {' or '.join(names)}; found {', '.join(found)}")
    return key


def parquet_entries(path: Path, id_fields: tuple[str, ...]) -> Iterator[Entry]:
    """Yields the entries of a document; their line is the row.

    The key stands in a column called as one of ``id_fields``, and the value is an object of the
    other columns. Without ``id_fields`` the file has two columns, key and value.

    Raises:
        DataError: The file cannot be read, lacks a column, or a row has no key.
    """
    columns = parquet_columns(path)
    key = key_column(path, columns, id_fields)
    others = [name for name in columns if name != key]
    if not id_fields and len(others) != 1:
        raise DataError.at(path, f"found {', '.join(columns)}; expected two columns, key and value")
    row = 0
    for frame in parquet_batches(path, list(columns)):
        keys, fields = frame[key].to_list(), [_values(frame[name]) for name in others]
        for found, *values in zip(keys, *fields, strict=True):
            row += 1
            own = found if isinstance(found, str) else identifier(found)
            if own is None:
                raise FilePlace(path, row).error(f"{key} is {shown(found)}; expected an id")
            pairs = zip(others, values, strict=True)
            record = {name: value for name, value in pairs if value is not None}
            yield Entry(path, row, key=own, value=record if id_fields else values[0])


def write_parquet(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a document that maps keys to objects or to lists of ids, atomically.

    A field whose values are all of one kind is a column of that kind; one of several kinds, or of
    what Parquet has no kind for, holds JSON.

    Raises:
        DataError: An entry has a field of the name of the keys that says another key.
    """
    key, lists = _COLUMNS[path.stem]
    columns = [pl.Series(key, list(value), dtype=pl.String)]
    if lists:
        members = [list(map(identifier, members)) for members in value.values()]
        columns += [pl.Series(lists, members, dtype=pl.List(pl.String))]
    else:
        for own, record in value.items():
            if identifier(record.get(key, own)) != own:
                what = f"entry {own!r} has a field {key!r} that is {shown(record[key])}"
                raise DataError.at(path, f"{what}; expected none, or the same: rename the field")
        names = {
            name: None
            for record in value.values()
            for name, field in record.items()
            if name != key and field is not None
        }
        columns += [_column(name, [one.get(name) for one in value.values()]) for name in names]
    with atomic_path(path) as partial:
        pl.DataFrame(columns).write_parquet(partial, row_group_size=BATCH)


def _column(name: str, values: Sequence[Any]) -> pl.Series:
    kinds = {type(value) for value in values if value is not None}
    dtype: Any = None
    match [kind.__name__ for kind in kinds]:
        case ["bool"]:
            dtype = pl.Boolean
        case ["int"] if all(-_MOST_INT <= value < _MOST_INT for value in values if value):
            dtype = pl.Int64
        case ["float"]:
            dtype = pl.Float64
        case ["str"]:
            dtype = pl.String
        case ["list" | "tuple"] if all(_of_texts(value) for value in values if value):
            dtype = pl.List(pl.String)
        case _:
            pass
    if dtype is not None:
        try:
            return pl.Series(name, values, dtype=dtype)
        except UnicodeEncodeError:  # half a surrogate pair, which JSON can spell
            pass
    texts = [None if value is None else {_JSON: json.dumps(value)} for value in values]
    return pl.Series(name, texts, dtype=pl.Struct({_JSON: pl.String}))


def _of_texts(value: Iterable[Any]) -> bool:
    return all(type(one) is str for one in value)


def _values(series: pl.Series) -> list[Any]:
    """The values of a column, as JSON would have them."""
    dtype = series.dtype
    if dtype == pl.Struct({_JSON: pl.String}):
        return [None if one is None else json.loads(one[_JSON]) for one in series.to_list()]
    if isinstance(dtype, pl.Categorical | pl.Enum):
        series = series.cast(pl.String)
    elif isinstance(dtype, pl.Decimal):
        series = series.cast(pl.Float64)
    elif dtype.is_temporal():
        return [None if one is None else str(one) for one in series.dt.to_string("iso")]
    return series.to_list()
