from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incatalog.batch import user_check
from incatalog.batch.user_check import check_users
from incatalog.batch.user_table import UserTable
from incatalog.errors import DataError

IDS = pl.List(pl.String)
FACTORS = pl.List(pl.Struct({"id": pl.String, "factor": pl.Float64}))


def table_of(
    path: Path, rows: list[dict[str, Any]], size: int = 2, kind: Any = pl.String
) -> UserTable:
    schema = {"user_id": kind, "history": IDS, "exclude": IDS, "boost": FACTORS}
    given = {"history": [], "exclude": [], "boost": []}
    pl.DataFrame([given | row for row in rows], schema=schema).write_parquet(
        path, row_group_size=size
    )
    return UserTable.open(path)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=12), st.integers(1, 5), st.booleans())
def test_a_user_of_two_rows_is_named(
    tmp_path_factory: pytest.TempPathFactory, users: list[int], most: int, text: bool
) -> None:
    path = tmp_path_factory.mktemp("users") / "users.parquet"
    ids: list[Any] = [f"u{user}" for user in users] if text else users
    rows = [{"user_id": user} for user in ids]
    table = table_of(path, rows, kind=pl.String if text else pl.Int64)
    repeated = {user: [row for row, one in enumerate(ids, 1) if one == user] for user in ids}
    expected = {
        f"{path}: row {rows[1]}: user {user!r} stands in row {rows[0]} too; expected each user once"
        for user, rows in repeated.items()
        if len(rows) > 1
    }
    # However few hashes fit into the memory.
    for passes in (most, 1 << 24):
        if not expected:
            user_check._refuse_repeated(table, passes)
            continue
        with pytest.raises(DataError) as raised:
            user_check._refuse_repeated(table, passes)
        assert str(raised.value) in expected


def test_users_of_one_hash_are_not_the_same(tmp_path: Path) -> None:
    table = table_of(tmp_path / "u.parquet", [{"user_id": user} for user in "abcde"])
    hashes = pl.Series(list("abcde")).hash(seed=0).to_numpy()
    user_check._name_repeated(table, np.sort(hashes))


def test_a_user_of_two_files_is_named(tmp_path: Path) -> None:
    table_of(tmp_path / "a.parquet", [{"user_id": user} for user in "abc"])
    table_of(tmp_path / "b.parquet", [{"user_id": user} for user in "deb"])
    with pytest.raises(
        DataError, match=r"b\.parquet: row 3: user 'b' stands in a\.parquet, row 2 too"
    ):
        check_users(UserTable.open(tmp_path))


BROKEN = [
    ({"user_id": None}, r"row 4: user_id: found none; expected one in every row"),
    ({"history": ["x", None]}, r"row 4: user 'd': history: found an item without id"),
    ({"exclude": [None]}, r"row 4: user 'd': exclude: found an item without id"),
    ({"boost": [("x", 0.0)]}, r"row 4: user 'd': boost: found 0\.0 for item 'x'; expected a num"),
    ({"boost": [("x", float("nan"))]}, r"boost: found nan for item 'x'; expected a number from"),
    ({"boost": [("x", 2.0), ("y", float("inf"))]}, r"boost: found inf for item 'y'; expected a n"),
    ({"boost": [("x", None)]}, r"boost: found None for item 'x'; expected a number"),
    ({"boost": [(None, 2.0)]}, r"boost: found a factor of no item; expected the id of one"),
]


@pytest.mark.parametrize(("change", "message"), BROKEN)
def test_a_broken_row_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    rows: list[dict[str, Any]] = [
        {"user_id": user, "history": ["x"], "boost": [{"id": "x", "factor": 2.0}]}
        for user in "abcdef"
    ]
    check_users(table_of(tmp_path / "u.parquet", rows))
    if "boost" in change:
        change = {"boost": [{"id": item, "factor": factor} for item, factor in change["boost"]]}
    rows[3] |= change
    with pytest.raises(DataError, match=message):
        check_users(table_of(tmp_path / "u.parquet", rows))
