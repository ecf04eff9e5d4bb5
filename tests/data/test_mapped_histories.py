from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incatalog.data import mapped_histories
from incatalog.data.catalog import Catalog, Item
from incatalog.data.interactions import Histories
from incatalog.data.mapped_histories import MAPS, UserIds
from incatalog.errors import ArtifactError, DataError

CATALOG = Catalog.from_items([Item(name, name.upper()) for name in "abcd"])
FILE = "sequential.parquet"


def same(one: Histories, other: Histories) -> bool:
    return (
        tuple(one.user_ids) == tuple(other.user_ids)
        and one.offsets.tolist() == other.offsets.tolist()
        and one.rows.tolist() == other.rows.tolist()
        and one.rows.dtype == other.rows.dtype
    )


USERS = st.dictionaries(st.text(st.characters(codec="utf-8")), st.lists(st.integers(0, 3)))


@settings(deadline=None, max_examples=30)
@given(USERS.filter(bool), st.integers(1, 3))
def test_histories_come_back(tmp_path_factory, lists, together) -> None:
    folder = tmp_path_factory.mktemp("d")
    with pytest.MonkeyPatch.context() as patch:
        # So that a few users are several parts.
        patch.setattr(mapped_histories, "_USERS", together)
        patch.setattr(mapped_histories, "BATCH", together)
        histories = Histories.from_lists(list(lists), lists.values())
        histories.save(folder, CATALOG, "parquet")
        loaded = Histories.load(folder, CATALOG)
        assert same(loaded, histories)
        assert same(Histories.load(folder, CATALOG), histories)
    assert loaded.history(0).tolist() == next(iter(lists.values()))


def test_ids_are_a_sequence() -> None:
    names = ["u", "", "ünï", "v"]
    letters = "".join(names).encode()
    ends = np.cumsum([0, *(len(name.encode()) for name in names)])
    ids = UserIds(np.frombuffer(letters, dtype=np.uint8), ends)
    assert (len(ids), list(ids), ids[2], ids[-1], ids[1:3]) == (4, names, "ünï", "v", ("", "ünï"))
    assert ids.index("v") == 3
    assert "w" not in ids
    with pytest.raises(IndexError):
        ids[4]


def write(folder: Path, lists: dict[str, list[str]]) -> None:
    columns = {"user_id": list(lists), "history": list(lists.values())}
    schema = {"user_id": pl.String, "history": pl.List(pl.String)}
    pl.DataFrame(columns, schema=schema).write_parquet(folder / FILE)


def rows_of(folder: Path) -> list[list[int]]:
    loaded = Histories.load(folder, CATALOG)
    return [loaded.history(user).tolist() for user in range(len(loaded))]


def test_arrays_are_made_once_and_anew_when_something_changed(tmp_path) -> None:
    write(tmp_path, {"u": ["a", "b"], "v": ["d"]})
    assert rows_of(tmp_path) == [[0, 1], [3]]
    made = (tmp_path / MAPS / "rows.npy").stat().st_ino
    assert rows_of(tmp_path) == [[0, 1], [3]]
    assert (tmp_path / MAPS / "rows.npy").stat().st_ino == made
    # Other histories.
    write(tmp_path, {"u": ["b", "b"], "v": ["d"]})
    assert rows_of(tmp_path) == [[1, 1], [3]]
    # The same items in another order.
    turned = Catalog.from_items(CATALOG.items[::-1])
    assert Histories.load(tmp_path, turned).rows.tolist() == [2, 2, 0]
    # A flipped bit, and a file that is cut off.
    assert rows_of(tmp_path) == [[1, 1], [3]]
    for damage in (lambda content: content[:-4] + b"\1\0\0\0", lambda content: content[:40]):
        path = tmp_path / MAPS / "rows.npy"
        path.write_bytes(damage(path.read_bytes()))
        assert rows_of(tmp_path) == [[1, 1], [3]]


def test_rows_can_be_written_to_and_files_stay(tmp_path) -> None:
    write(tmp_path, {"u": ["a", "b"]})
    Histories.load(tmp_path, CATALOG).rows[:] = 3
    assert rows_of(tmp_path) == [[0, 1]]


def test_where_nothing_can_be_written_histories_are_held_in_memory(tmp_path, capsys) -> None:
    write(tmp_path, {"u": ["a", "b"]})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        found = rows_of(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert found == [[0, 1]]
    notice = capsys.readouterr().err
    assert notice.startswith("notice: ")
    assert "until then histories are held in memory" in notice
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_place_that_is_taken_is_left_alone(tmp_path) -> None:
    write(tmp_path, {"u": ["a", "b"]})
    (tmp_path / MAPS).write_text("mine")
    with pytest.raises(ArtifactError, match=r"\.histories: is a file; expected a folder, which is"):
        rows_of(tmp_path)
    assert (tmp_path / MAPS).read_text() == "mine"


def test_files_of_others_are_read(tmp_path) -> None:
    frame = pl.DataFrame({"user": [1, 2], "item_ids": [["a"], ["d", "a"]], "more": [1, 1]})
    frame.write_parquet(tmp_path / FILE)
    loaded = Histories.load(tmp_path, CATALOG)
    assert (list(loaded.user_ids), loaded.rows.tolist()) == (["1", "2"], [0, 3, 0])
    assert not (tmp_path / MAPS).exists()


@pytest.mark.parametrize(
    ("users", "lists", "message"),
    [
        (["u", "v"], [["a"], ["b", "q"]], r":2: user 'v' has item 'q', unknown to metas\.jsonl"),
        (["u", "u"], [["a"], ["b"]], r":2: user 'u' is already on line 1"),
        (["u", None], [["a"], ["b"]], r":2: user_id is None; expected an id"),
        (["u", "v"], [["a"], None], r":2: user 'v': expected a list of item ids, oldest first"),
        (["u", "v"], [["a"], [None]], r":2: user 'v' has None in the history; expected item ids"),
        (["u", "v"], ["a", "b"], r":1: user 'u': expected a list of item ids, oldest first"),
    ],
)
def test_broken_rows_are_named_by_a_second_reading(tmp_path, users, lists, message) -> None:
    pl.DataFrame({"user_id": users, "history": lists}).write_parquet(tmp_path / FILE)
    with pytest.raises(DataError, match=message) as caught:
        Histories.load(tmp_path, CATALOG)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / MAPS).exists()


def test_broken_files(tmp_path) -> None:
    write(tmp_path, {})
    with pytest.raises(DataError, match=r"sequential\.parquet: holds no users; expected at least"):
        Histories.load(tmp_path, CATALOG)
    pl.DataFrame({"user_id": ["u"]}).write_parquet(tmp_path / FILE)
    with pytest.raises(DataError, match=r"no column items or item_ids or .*; found user_id"):
        Histories.load(tmp_path, CATALOG)
    (tmp_path / FILE).write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"sequential\.parquet: not a readable Parquet file"):
        Histories.load(tmp_path, CATALOG)
