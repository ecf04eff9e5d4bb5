from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incatalog.batch import shard_folder
from incatalog.batch.shard_folder import Block, ShardFolder, Tally
from incatalog.batch.user_table import Shard, UserRow
from incatalog.errors import ArtifactError
from incatalog.recommender.answer import Recommendation


def shard(count: int, number: int = 0) -> Shard:
    return Shard(f"{number:05d}.parquet", Path("users.parquet"), 0, 0, count)


def block(users: list[int], unknown: int = 0) -> Block:
    """Users, each with as many items as the number says."""
    lists = [[Recommendation(f"i{n}", "", n + 1, 0.5**n) for n in range(user)] for user in users]
    tally = Tally(len(users), 0, users.count(0), unknown, ("x",) if unknown else ())
    return [UserRow(user, ()) for user in users], lists, tally


def test_a_shard_is_read_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_folder, "_ROWS_AT_ONCE", 3)
    folder = ShardFolder(tmp_path, pa.int64(), "v1")
    assert folder.done() == set()
    folder.write(shard(5), iter([block([1, 0], 2), block([2, 3]), block([4], 1)]))
    assert folder.done() == {"00000.parquet"}
    found = pl.read_parquet(tmp_path / "shards" / "00000.parquet")
    assert found.schema == {
        "user_id": pl.Int64,
        "items": pl.List(pl.String),
        "scores": pl.List(pl.Float64),
        "catalog_version": pl.String,
    }
    assert found["user_id"].to_list() == [1, 0, 2, 3, 4]
    assert found["items"].to_list() == [[f"i{n}" for n in range(user)] for user in (1, 0, 2, 3, 4)]
    assert found["scores"].to_list()[3] == [1.0, 0.5, 0.25]
    assert set(found["catalog_version"]) == {"v1"}
    assert folder.tally([shard(5)]) == Tally(5, 0, 1, 3, ("x",))


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), max_size=6), st.integers(1, 7))
def test_blocks_are_joined_to_row_groups(blocks: list[list[int]], least: int) -> None:
    users = [user for one in blocks for user in one]
    found = list(shard_folder._joined(map(block, blocks), least))
    assert [user.user_id for own, _, _ in found for user in own] == users
    assert sum(tally.users for _, _, tally in found) == len(users)
    assert all(len(own) >= least for own, _, _ in found[:-1])
    assert all(len(own) < least + 5 for own, _, _ in found)


def test_a_shard_that_fails_leaves_nothing(tmp_path: Path) -> None:
    folder = ShardFolder(tmp_path, pa.int64(), "v1")

    def failing() -> Iterator[Block]:
        yield block([1])
        assert list((tmp_path / "shards").glob(".00000.parquet.*.partial"))
        assert folder.done() == set()
        raise InterruptedError

    with pytest.raises(InterruptedError):
        folder.write(shard(2), failing())
    assert list((tmp_path / "shards").iterdir()) == []


def test_a_successor_that_removes_the_partial_file_has_the_last_word(tmp_path: Path) -> None:
    folder = ShardFolder(tmp_path, pa.int64(), "v1")

    def slow() -> Iterator[Block]:
        yield block([1])
        folder.remove_partial(shard(2))
        folder.write(shard(2), iter([block([1, 2])]))

    folder.write(shard(2), slow())
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["00000.parquet"]
    assert folder.tally([shard(2)]).users == 2


def test_what_a_killed_process_left_of_one_shard_is_removed(tmp_path: Path) -> None:
    folder = ShardFolder(tmp_path, pa.int64(), "v1")
    (tmp_path / "shards").mkdir()
    names = [".00000.parquet.ab12.partial", ".00001.parquet.ab12.partial"]
    for name in names:
        (tmp_path / "shards" / name).touch()
    folder.remove_partial(shard(2))
    assert [path.name for path in (tmp_path / "shards").iterdir()] == names[1:]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    folder = ShardFolder(tmp_path, pa.int64(), "v1")
    folder.write(shard(2), iter([block([1, 2])]))
    path = tmp_path / "shards" / "00000.parquet"
    with pytest.raises(
        ArtifactError, match=r"00000\.parquet: damaged lists \(2 lists for 3 users\)"
    ):
        folder.tally([shard(3)])
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ArtifactError, match=r"damaged lists \(.*\); delete it and repeat the comm"):
        folder.tally([shard(2)])
    pl.DataFrame({"user_id": [1, 2]}).write_parquet(path)
    with pytest.raises(ArtifactError, match="damaged lists"):
        folder.tally([shard(2)])
