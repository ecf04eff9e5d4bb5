"""The table of users: Parquet files, read a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from incatalog.errors import ConfigError, DataError, first_line, require

USER, HISTORY, EXCLUDE, BOOST = "user_id", "history", "exclude", "boost"
_FILES = "*.parquet"
_EXPECTED = {
    USER: "texts or whole numbers",
    HISTORY: "lists of item ids",
    EXCLUDE: "lists of item ids",
    BOOST: "maps of item ids to factors, or lists of structs of both",
}
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class UserRow:
    """A user whose list is wanted.

    Attributes:
        user_id: As the table has it, a text or a whole number.
        history: Item ids, oldest first.
        exclude: Item ids never to recommend to this user.
        boost: Factors of items, by id.
    """

    user_id: Any
    history: Sequence[str]
    exclude: Sequence[str] = ()
    boost: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Shard:
    """Users of one row group, or a part of them: what one process does in one go."""

    name: str  # that of the file of its lists
    file: Path
    group: int
    start: int  # its first row, in the group
    count: int


@dataclass(frozen=True)
class UserTable:
    """Users in Parquet files of one schema.

    Attributes:
        files: The files, in the order of their names.
        groups: Rows of each row group of each file.
        columns: Which of the known columns there are.
        unread: Other columns.
    """

    files: tuple[Path, ...]
    groups: tuple[tuple[int, ...], ...]
    columns: tuple[str, ...]
    unread: tuple[str, ...]
    id_type: Any  # that of the user ids, in Arrow

    @classmethod
    def open(cls, path: Path) -> UserTable:
        """Looks at the files, not at their rows.

        Raises:
            ConfigError: There is no such file or folder, or none in it.
            DataError: A file is none of Parquet, lacks a column, or has one of another type.
        """
        require("pyarrow", extra="batch")
        files: tuple[Path, ...] = (path,)
        if path.is_dir():
            files = tuple(sorted(p for p in path.glob(_FILES) if not p.name.startswith((".", "_"))))
        if not files or not path.exists():
            found = "no such file or folder" if not path.exists() else f"holds no {_FILES}"
            expected = f"expected Parquet with {USER} and {HISTORY}"
            raise ConfigError(f"--histories {path}: {found}; {expected}")
        opened = [cls._of_file(file) for file in files]
        first = opened[0]
        for other in opened[1:]:
            if (other.columns, other.id_type) != (first.columns, first.id_type):
                has = f"has {', '.join(other.columns)} ({USER}: {other.id_type})"
                expected = f"expected {', '.join(first.columns)} ({USER}: {first.id_type})"
                raise DataError.at(other.files[0], f"{has}; {expected}, as {first.files[0].name}")
        groups = tuple(one.groups[0] for one in opened)
        unread = tuple(dict.fromkeys(name for one in opened for name in one.unread))
        if not any(map(sum, groups)):
            raise DataError.at(path, "holds no user; expected at least one row")
        return replace(first, files=files, groups=groups, unread=unread)

    @classmethod
    def _of_file(cls, file: Path) -> UserTable:
        import pyarrow as pa

        try:
            with _opened(file) as reader:
                schema, metadata = reader.schema_arrow, reader.metadata
                numbers = range(metadata.num_row_groups)
                groups = tuple(metadata.row_group(group).num_rows for group in numbers)
        except (pa.ArrowException, OSError) as error:
            raise DataError.at(file, f"cannot be read as Parquet ({first_line(error)})") from error
        for name in (USER, HISTORY):
            if name not in schema.names:
                has = f"has the columns {', '.join(schema.names)}"
                raise DataError.at(file, f"{has}; expected {name} ({_EXPECTED[name]})")
        columns = tuple(name for name in _EXPECTED if name in schema.names)
        for name in columns:
            found = schema.field(name).type
            if not _fits(name, found):
                raise DataError.at(file, f"{name}: found {found}; expected {_EXPECTED[name]}")
        unread = tuple(name for name in schema.names if name not in _EXPECTED)
        kind = schema.field(USER).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        return cls((file,), (groups,), columns, unread, kind)

    @cached_property
    def users(self) -> int:
        """Rows of all files."""
        return sum(map(sum, self.groups))

    def shards(self, most: int) -> list[Shard]:
        """All users in shards of at most so many, none of which spans two row groups."""
        parts = [
            (file, group, start, min(most, rows - start))
            for file, groups in zip(self.files, self.groups, strict=True)
            for group, rows in enumerate(groups)
            for start in range(0, rows, most)
        ]
        digits = max(5, len(str(len(parts))))
        return [Shard(f"{number:0{digits}d}.parquet", *part) for number, part in enumerate(parts)]

    def rows(self, shard: Shard, size: int) -> Iterator[list[UserRow]]:
        """The users of a shard, so many at a time."""
        users = self._users(shard)
        while block := list(islice(users, size)):
            yield block

    def _users(self, shard: Shard) -> Iterator[UserRow]:
        skip, left = shard.start, shard.count
        for batch in self.batches(shard.file, shard.group):
            part = batch.slice(min(skip, len(batch)), left)
            skip -= min(skip, len(batch))
            left -= len(part)
            yield from map(_user, part.to_pylist())
            if not left:
                return

    def batches(
        self, file: Path, group: int, columns: Sequence[str] = (), rows: int = _ROWS_AT_ONCE
    ) -> Iterator[Any]:
        """A row group as Arrow's record batches of a few rows, of these columns or all known."""
        wanted = list(columns or self.columns)
        with _opened(file) as reader:
            how = {"row_groups": [group], "columns": wanted, "use_threads": False}
            yield from reader.iter_batches(rows, **how)


def factors(cell: Any) -> dict[Any, Any]:
    """The pairs of a cell of boosts: a map's entries, or structs of an id and a factor."""
    pairs = [tuple(one.values()) if isinstance(one, dict) else one for one in cell or ()]
    return dict(pair or (None, None) for pair in pairs)


def _user(row: Mapping[str, Any]) -> UserRow:
    boost = {str(item): float(factor) for item, factor in factors(row.get(BOOST)).items()}
    history, exclude = (tuple(map(str, row.get(name) or ())) for name in (HISTORY, EXCLUDE))
    return UserRow(row[USER], history, exclude, boost)


def _opened(file: Path) -> Any:
    from pyarrow.parquet import ParquetFile

    # Neither a whole file nor a whole row group is read ahead.
    return ParquetFile(file, memory_map=True, pre_buffer=False)


def _fits(name: str, found: Any) -> bool:
    """Whether a column is of a type that can be read."""
    from pyarrow import types

    if name == USER:
        return _is_id(found)
    if name == BOOST and types.is_map(found):
        return _is_id(found.key_type) and _is_number(found.item_type)
    lists = types.is_list(found) or types.is_large_list(found) or types.is_fixed_size_list(found)
    if not lists or name != BOOST:
        return bool(lists) and _is_id(found.value_type)
    pair = found.value_type
    two = types.is_struct(pair) and pair.num_fields == 2
    return bool(two) and _is_id(pair.field(0).type) and _is_number(pair.field(1).type)


def _is_id(found: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(found):
        found = found.value_type
    text = types.is_string(found) or types.is_large_string(found) or types.is_string_view(found)
    return bool(text or types.is_integer(found))


def _is_number(found: Any) -> bool:
    from pyarrow import types

    return bool(types.is_floating(found) or types.is_integer(found))
