"""The folder of shards: one Parquet file of lists for each, whole or not there."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from incatalog.batch.user_table import USER, Shard, UserRow
from incatalog.errors import ArtifactError, first_line
from incatalog.recommender.answer import Recommendation
from incatalog.storage import partial_name, writing

FOLDER = "shards"
_ENDING = ".parquet"
_TALLY = b"incatalog"
# Lists that wait to become a row group of the file.
_ROWS_AT_ONCE = 4096
_MOST_NAMED = 3


@dataclass(frozen=True)
class Tally:
    """What some lists have come to.

    Attributes:
        users: Lists.
        short: Those with fewer items than were asked for.
        empty: Those without any.
        unknown: Ids of items left out, as the catalog has none of them.
        named: Some of these.
    """

    users: int = 0
    short: int = 0
    empty: int = 0
    unknown: int = 0
    named: tuple[str, ...] = ()

    def __add__(self, other: Tally) -> Tally:
        """Both together."""
        named = tuple(dict.fromkeys((*self.named, *other.named)))[:_MOST_NAMED]
        return Tally(
            self.users + other.users,
            self.short + other.short,
            self.empty + other.empty,
            self.unknown + other.unknown,
            named,
        )


Block = tuple[Sequence[UserRow], Sequence[Sequence[Recommendation]], Tally]
"""Some users, their lists, and what these have come to."""


class ShardFolder:
    """The files of the shards that are done."""

    def __init__(self, out: Path, id_type: Any, catalog_version: str) -> None:
        """Uses the folder in a run folder; the id type is that of the users, in Arrow."""
        self.folder = out / FOLDER
        self._id_type, self._version = id_type, catalog_version

    def done(self) -> set[str]:
        """Names of the shards that are done."""
        if not self.folder.is_dir():
            return set()
        names = (entry.name for entry in os.scandir(self.folder))
        return {name for name in names if name.endswith(_ENDING) and not name.startswith(".")}

    def write(self, shard: Shard, blocks: Iterable[Block]) -> None:
        """Writes the lists of a shard; its file is there when it is whole, and not before.

        Where another process has written it meanwhile, this one takes its place: both are alike.
        """
        target = self.folder / shard.name
        partial = partial_name(target)
        with writing(target):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                self._write(partial, blocks)
                # Gone where a successor has taken over and removed it.
                with contextlib.suppress(FileNotFoundError):
                    with partial.open("rb") as written:
                        os.fsync(written.fileno())
                    partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)

    def remove_partial(self, shard: Shard) -> None:
        """Removes what a killed process has left of a shard that is this process's now."""
        for path in self.folder.glob(f".{shard.name}.*.partial"):
            path.unlink(missing_ok=True)

    def tally(self, shards: Iterable[Shard]) -> Tally:
        """What all lists have come to, as their files tell.

        Raises:
            ArtifactError: One of the files is damaged.
        """
        from pyarrow import ArrowException
        from pyarrow.parquet import read_metadata

        found = Tally()
        for shard in shards:
            path = self.folder / shard.name
            try:
                metadata = read_metadata(path)
                told = json.loads(metadata.metadata[_TALLY])
                own = Tally(**{**told, "named": tuple(told["named"])})
                if not own.users == shard.count == metadata.num_rows:
                    raise ValueError(f"{metadata.num_rows} lists for {shard.count} users")
            except (ArrowException, OSError, LookupError, TypeError, ValueError) as error:
                why = f"damaged lists ({first_line(error)})"
                hint = "delete it and repeat the command to make it anew"
                raise ArtifactError(f"{path}: {why}; {hint}") from error
            found += own
        return found

    def _write(self, path: Path, blocks: Iterable[Block]) -> None:
        from pyarrow import parquet

        total = Tally()
        with parquet.ParquetWriter(path, self._schema(), compression="zstd") as writer:
            for users, lists, tally in _joined(blocks, _ROWS_AT_ONCE):
                writer.write_table(self._table(users, lists))
                total += tally
            writer.add_key_value_metadata({_TALLY: json.dumps(asdict(total)).encode()})

    def _schema(self) -> Any:
        import pyarrow as pa

        fields = {
            USER: self._id_type,
            "items": pa.list_(pa.string()),
            "scores": pa.list_(pa.float64()),
            "catalog_version": pa.string(),
        }
        return pa.schema(list(fields.items()))

    def _table(self, users: Sequence[UserRow], lists: Sequence[Sequence[Recommendation]]) -> Any:
        import pyarrow as pa

        columns = {
            USER: [user.user_id for user in users],
            "items": [[one.item_id for one in own] for own in lists],
            "scores": [[one.score for one in own] for own in lists],
            "catalog_version": [self._version] * len(users),
        }
        return pa.table(columns, schema=self._schema())


def _joined(blocks: Iterable[Block], least: int) -> Iterator[Block]:
    """The same blocks, each of at least so many users but the last."""
    users: list[UserRow] = []
    lists: list[Sequence[Recommendation]] = []
    total = Tally()
    for own_users, own_lists, tally in blocks:
        users += own_users
        lists += own_lists
        total += tally
        if len(users) >= least:
            yield users, lists, total
            users, lists, total = [], [], Tally()
    if users:
        yield users, lists, total
