from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from incatalog.batch.user_table import UserRow, UserTable
from incatalog.errors import ConfigError, DataError

IDS = pl.List(pl.String)


def write(path: Path, rows: list[dict[str, Any]], size: int | None = None, **types: Any) -> Path:
    """A table with row groups of some size."""
    schema = {"user_id": pl.String, "history": IDS} | types
    pl.DataFrame(rows, schema=schema).write_parquet(path, row_group_size=size)
    return path


def all_rows(table: UserTable, most: int, size: int = 3) -> list[UserRow]:
    return [
        row for shard in table.shards(most) for block in table.rows(shard, size) for row in block
    ]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.lists(st.lists(st.sampled_from("abc"), max_size=3), max_size=9), min_size=1, max_size=4
    ),
    st.integers(1, 7),
    st.integers(1, 4),
)
def test_every_row_is_in_one_shard(
    tmp_path_factory: pytest.TempPathFactory, groups: list[list[list[str]]], most: int, size: int
) -> None:
    path = tmp_path_factory.mktemp("users") / "users.parquet"
    schema = pa.schema([("user_id", pa.int64()), ("history", pa.list_(pa.string()))])
    number, expected = 0, []
    with parquet.ParquetWriter(path, schema) as writer:
        for group in groups:
            rows = [{"user_id": number + place, "history": one} for place, one in enumerate(group)]
            writer.write_table(pa.Table.from_pylist(rows, schema))
            number += len(group)
            expected += [(row["user_id"], tuple(row["history"])) for row in rows]
    if not expected:
        with pytest.raises(DataError, match="holds no user"):
            UserTable.open(path)
        return
    table = UserTable.open(path)
    assert table.users == len(expected)
    assert [(row.user_id, row.history) for row in all_rows(table, most, size)] == expected
    shards = table.shards(most)
    assert [shard.name for shard in shards] == [f"{n:05d}.parquet" for n in range(len(shards))]
    assert all(0 < shard.count <= most for shard in shards)
    # No more of them than rows and groups need.
    assert len(shards) == sum(-(-len(group) // most) for group in groups)
    for shard in shards:
        assert [len(block) for block in table.rows(shard, size)][:-1] == [size] * (
            -(-shard.count // size) - 1
        )


def test_files_of_a_folder_in_the_order_of_their_names(tmp_path: Path) -> None:
    write(tmp_path / "b.parquet", [{"user_id": "3", "history": ["x"]}])
    write(tmp_path / "a.parquet", [{"user_id": u, "history": []} for u in "12"])
    write(tmp_path / "_common.parquet", [{"user_id": "9", "history": []}])
    (tmp_path / "notes.txt").write_text("other files are none of ours")
    table = UserTable.open(tmp_path)
    assert [row.user_id for row in all_rows(table, 5)] == ["1", "2", "3"]
    write(tmp_path / "c.parquet", [{"user_id": "4", "history": [], "exclude": []}], exclude=IDS)
    with pytest.raises(DataError, match=r"c\.parquet: has user_id, history, exclude .* as a\.pa"):
        UserTable.open(tmp_path)


def test_all_forms_of_cells(tmp_path: Path) -> None:
    """Maps and lists of structs, numbers as ids, and cells that are empty or lacking."""
    expected = [
        UserRow(7, ("1", "2"), ("3",), {"4": 2.0, "5": 0.5}),
        UserRow(8, (), (), {}),
        UserRow(9, (), (), {"4": 3.0}),
    ]
    boosts = [[(4, 2.0), (5, 0.5)], None, [(4, 3.0)]]
    structs = [None if one is None else [{"id": a, "factor": b} for a, b in one] for one in boosts]
    pair = pa.struct([("id", pa.int32()), ("factor", pa.float32())])
    forms = [
        (pa.map_(pa.int64(), pa.float64()), boosts, pa.list_(pa.int64())),
        (pa.list_(pair), structs, pa.large_list(pa.int16())),
    ]
    for number, (kind, cells, ids) in enumerate(forms):
        table = pa.table(
            {
                "user_id": pa.array([7, 8, 9]),
                "history": pa.array([[1, 2], [], None], ids),
                "exclude": pa.array([[3], None, []], ids),
                "boost": pa.array(cells, kind),
                "age": pa.array([1, 2, 3]),
            }
        )
        path = tmp_path / f"{number}.parquet"
        parquet.write_table(table, path)
        found = UserTable.open(path)
        assert all_rows(found, 2) == expected
        assert found.unread == ("age",)
    # Texts that are kept once each.
    words = pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(["a", "b"]))
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 2]), words)
    parquet.write_table(pa.table({"user_id": words, "history": lists}), tmp_path / "d.parquet")
    found = UserTable.open(tmp_path / "d.parquet")
    assert found.id_type == pa.string()
    assert [(row.user_id, row.history) for row in all_rows(found, 9)] == [
        ("a", ("a",)),
        ("b", ("b",)),
    ]


@pytest.mark.parametrize(
    ("types", "message"),
    [
        ({"user_id": pl.Float64}, r"user_id: found double; expected texts or whole numbers"),
        ({"history": pl.String}, r"history: found \w+; expected lists of item ids"),
        (
            {"history": pl.List(pl.Float64)},
            r"history: found .*double.*; expected lists of item ids",
        ),
        ({"boost": IDS}, r"boost: found .*; expected maps of item ids to factors"),
        ({"exclude": pl.List(IDS)}, r"exclude: found .*; expected lists of item ids"),
    ],
)
def test_columns_of_other_types_are_named(tmp_path: Path, types: Any, message: str) -> None:
    path = write(tmp_path / "u.parquet", [], **types)
    with pytest.raises(DataError, match=rf"u\.parquet: {message}"):
        UserTable.open(path)


def test_what_is_no_table_of_users_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--histories .*x: no such file or folder; expected"):
        UserTable.open(tmp_path / "x")
    with pytest.raises(ConfigError, match=r"--histories .*: holds no \*\.parquet; expected"):
        UserTable.open(tmp_path)
    pl.DataFrame({"user": ["1"], "history": [["2"]]}).write_parquet(tmp_path / "u.parquet")
    with pytest.raises(DataError, match=r"has the columns user, history; expected user_id \(texts"):
        UserTable.open(tmp_path / "u.parquet")
    (tmp_path / "u.parquet").write_text("user_id,history\n")
    with pytest.raises(DataError, match=r"u\.parquet: cannot be read as Parquet \(.+\)"):
        UserTable.open(tmp_path)
