"""Histories of any length without their memory: arrays in files, mapped, beside the Parquet."""

from __future__ import annotations

import hashlib
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import polars as pl
import polars.exceptions
from jaxtyping import Int32, Int64, UInt8
from polars.io.plugins import register_io_source

from incatalog.artifacts import atomic_folder, atomic_path, read_json, write_json
from incatalog.checksums import CHECKSUMS, FILES, file_checksums, sealed, verify_checksums
from incatalog.data.parquet_documents import BATCH, parquet_batches, parquet_fault
from incatalog.errors import ArtifactError, DataError, StorageError

# A folder that belongs to the reader; its name keeps it out of manifests.
MAPS = ".histories"
_OF = "of"  # What the arrays were made from.
_USERS = 1 << 13  # whose histories are in memory at once
_ARRAYS = {"letters": np.uint8, "ends": np.int64, "offsets": np.int64, "rows": np.int32}

_Make = Callable[[str, int], np.ndarray]


class UserIds(Sequence[str]):
    """Different ids side by side in an array of their letters."""

    def __init__(
        self, letters: UInt8[np.ndarray, " letters"], ends: Int64[np.ndarray, " users+1"]
    ) -> None:
        self._letters, self._ends = letters, ends

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[str, ...]: ...
    def __getitem__(self, place: int | slice) -> str | tuple[str, ...]:
        if isinstance(place, slice):
            return tuple(self[one] for one in range(*place.indices(len(self))))
        index = range(len(self))[place]
        return bytes(self._letters[self._ends[index] : self._ends[index + 1]]).decode()

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), BATCH):
            ends = self._ends[start : start + BATCH + 1]
            letters = bytes(self._letters[ends[0] : ends[-1]])
            for low, high in itertools.pairwise((ends - ends[0]).tolist()):
                yield letters[low:high].decode()


class Mapped(NamedTuple):
    """The parts of histories."""

    user_ids: UserIds
    offsets: Int64[np.ndarray, " users+1"]
    rows: Int32[np.ndarray, " interactions"]


def map_histories(path: Path, user: str, items: str, ids: Sequence[str]) -> Mapped | None:
    """The histories of a Parquet file, mapped from arrays beside it; they are made if need be.

    Arrays that were made from another file, or for other items, are made anew. Where they cannot be
    written, they are held in memory, and a notice says so.

    Args:
        path: The file.
        user: Name of its column of user ids.
        items: Name of its column of lists of item ids.
        ids: The items, by row.

    Returns:
        None where only reading entry by entry can tell what is wrong.

    Raises:
        DataError: The file cannot be read.
        ArtifactError: A file lies where the arrays belong.
    """
    own = {"sequences": _digest(path), "items": hashlib.sha256("\n".join(ids).encode()).hexdigest()}
    folder = path.with_name(MAPS)
    if folder.exists() and not folder.is_dir():
        what = "is a file; expected a folder, which is made for histories: rename the file"
        raise ArtifactError(f"{folder}: {what}")
    found = _opened(folder, own)
    if found is not None:
        return found
    try:
        with atomic_folder(folder) as partial:
            if not _read(path, user, items, ids, lambda name, size: _file(partial, name, size)):
                raise _OddRowsError
            record = {_OF: own, FILES: file_checksums(partial)}
            write_json(partial / CHECKSUMS, sealed(record))
    except _OddRowsError:
        return None
    except StorageError as error:
        sys.stderr.write(f"notice: {error}; until then histories are held in memory\n")
        held: dict[str, np.ndarray] = {}

        def hold(name: str, size: int) -> np.ndarray:
            held[name] = np.empty(size, dtype=_ARRAYS[name])
            return held[name]

        return _of(held) if _read(path, user, items, ids, hold) else None
    return _opened(folder, own)


def write_histories(
    path: Path,
    user_ids: Sequence[str],
    ids: Sequence[str],
    offsets: Int64[np.ndarray, " users+1"],
    rows: Int32[np.ndarray, " interactions"],
) -> None:
    """Writes histories as Parquet, atomically; a part of the users is in memory at once.

    Args:
        path: The file.
        user_ids: The users.
        ids: The items, by row.
        offsets: Where the history of each user begins and ends.
        rows: Rows of the items, those of one user after those of another.
    """
    names = pl.Series(ids, dtype=pl.String)
    schema: Any = {"user_id": pl.String, "history": pl.List(pl.String)}

    def parts(columns: list[str] | None, *_: object) -> Iterator[pl.DataFrame]:
        for start in range(0, len(user_ids), _USERS):
            own = offsets[start : start + _USERS + 1]
            users = np.arange(len(own) - 1)
            taken = np.repeat(users, np.diff(own))
            flat = pl.DataFrame({"user": taken, "history": names.gather(rows[own[0] : own[-1]])})
            lists = flat.group_by("user", maintain_order=True).agg("history")
            keys = pl.Series(user_ids[start : start + _USERS], dtype=pl.String)
            frame = pl.DataFrame({"user": users, "user_id": keys})
            # A user may have no items.
            frame = frame.join(lists, on="user", how="left", maintain_order="left")
            frame = frame.select("user_id", pl.col("history").fill_null([]))
            yield frame if columns is None else frame.select(columns)

    with atomic_path(path) as partial:
        register_io_source(parts, schema=schema).sink_parquet(partial, row_group_size=BATCH)


class _OddRowsError(Exception):
    """The rows of a file are to be read one by one."""


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _file(folder: Path, name: str, size: int) -> np.ndarray:
    path = folder / f"{name}.npy"
    if not size:  # Nothing cannot be mapped.
        np.save(path, np.empty(0, dtype=_ARRAYS[name]))
        return np.empty(0, dtype=_ARRAYS[name])
    return np.lib.format.open_memmap(path, "w+", dtype=_ARRAYS[name], shape=(size,))


def _opened(folder: Path, own: dict[str, str]) -> Mapped | None:
    """The arrays of a folder, if they are whole and were made from this."""
    try:
        if not (folder / CHECKSUMS).is_file() or read_json(folder / CHECKSUMS).get(_OF) != own:
            return None
        verify_checksums(folder)
        # Copies are made of what is written to, which is never the file.
        files = {name: np.load(folder / f"{name}.npy", mmap_mode="c") for name in _ARRAYS}
    except (ArtifactError, DataError, OSError, ValueError):
        return None
    return _of({name: np.asarray(array) for name, array in files.items()})


def _of(arrays: dict[str, np.ndarray]) -> Mapped:
    users = UserIds(arrays["letters"], arrays["ends"])
    return Mapped(users, arrays["offsets"], arrays["rows"])


def _read(path: Path, user: str, items: str, ids: Sequence[str], make: _Make) -> bool:
    """Fills arrays with the histories of a file; false where a row is out of order."""
    try:
        lazy = pl.scan_parquet(path)
        schema = lazy.collect_schema()
        if schema[user] != pl.String or schema[items] != pl.List(pl.String):
            return False
        whole = lazy.select(
            users=pl.len(),
            different=pl.col(user).n_unique(),
            letters=pl.col(user).str.len_bytes().sum(),
            rows=pl.col(items).list.len().sum(),
            lost=pl.col(user).is_null().sum() + pl.col(items).is_null().sum(),
        )
        [(users, different, letters, rows, lost)] = whole.collect().rows()
    except (polars.exceptions.PolarsError, OSError) as error:
        raise parquet_fault(path, error) from error
    if lost or not users or different < users:
        return False
    text, ends = make("letters", letters), make("ends", users + 1)
    offsets, flat = make("offsets", users + 1), make("rows", rows)
    ends[0] = offsets[0] = 0
    known = pl.DataFrame({"id": ids, "row": np.arange(len(ids), dtype=np.int32)})
    at = filled = spelled = 0
    for frame in parquet_batches(path, [user, items], _USERS):
        names = frame[user]
        joined = "".join(names).encode()
        lengths = names.str.len_bytes().to_numpy().astype(np.int64)
        counts = frame[items].list.len().to_numpy().astype(np.int64)
        # Lists without items would count as one.
        taken = frame.filter(pl.col(items).list.len() > 0).select(
            id=pl.col(items).explode(empty_as_null=True)
        )
        found = taken.join(known, on="id", how="left", maintain_order="left")["row"]
        if found.null_count():
            return False
        after = slice(at + 1, at + 1 + len(frame))
        text[spelled : spelled + len(joined)] = np.frombuffer(joined, dtype=np.uint8)
        ends[after] = spelled + np.cumsum(lengths)
        offsets[after] = filled + np.cumsum(counts)
        flat[filled : filled + len(found)] = found.to_numpy()
        at, filled, spelled = at + len(frame), filled + len(found), spelled + len(joined)
    return True
