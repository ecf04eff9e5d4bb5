from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from incatalog.data.catalog import Catalog, Item
from incatalog.data.fields import FilePlace
from incatalog.data.interactions import (
    SEQUENCES,
    Histories,
    Interactions,
    k_core,
    leave_one_out,
    without_repeats,
)
from incatalog.data.times import Times
from incatalog.errors import CatalogError, ConfigError, DataError

CATALOG = Catalog.from_items([Item(i, i.upper()) for i in "abcde"], "letters")


def test_histories_are_views_oldest_first() -> None:
    histories = Histories.from_lists(["u", "v", "w"], [[3, 1], [], [0, 4, 2]])
    assert len(histories) == 3
    assert histories.history(0).tolist() == [3, 1]
    assert histories.history(1).tolist() == []
    assert histories.history(2).base is not None
    assert histories.lengths.tolist() == [2, 0, 3]
    assert (histories.rows.dtype, histories.offsets.dtype) == (np.int32, np.int64)
    with pytest.raises(IndexError):
        histories.history(-1)


@pytest.mark.parametrize(
    ("users", "offsets", "rows", "message"),
    [
        (("u",), [0], [], "1 offsets for 1 users"),
        (("u", "v"), [0, 2, 1], [1], "offsets do not ascend"),
        (("u",), [0, 2], [1], "offsets do not ascend"),
        (("u",), [0, 1], [-1], "an item row is negative"),
        (("u", "v", "u"), [0, 0, 0, 0], [], "user 'u' occurs twice"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(users, offsets, rows, message) -> None:
    with pytest.raises(DataError, match=message):
        Histories(users, np.array(offsets, dtype=np.int64), np.array(rows, dtype=np.int32))


def test_save_and_load_round_trip(tmp_path) -> None:
    histories = Histories.from_lists(["u", "v"], [[3, 1, 1], [0]])
    histories.save(tmp_path, CATALOG)
    loaded = Histories.load(tmp_path, CATALOG)
    assert loaded.user_ids == ("u", "v")
    assert loaded.offsets.tolist() == [0, 3, 4]
    assert loaded.rows.tolist() == [3, 1, 1, 0]


def test_rows_beyond_the_catalog_are_not_saved(tmp_path) -> None:
    with pytest.raises(CatalogError, match="no item at row 9"):
        Histories.from_lists(["u"], [[9]]).save(tmp_path, CATALOG)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    [
        '{"u": ["a", "b"], "7": ["c"]}',
        '{\n "u": [\n  "a",\n  "b"\n ],\n "7": ["c"]}',
        '{"u": ["a", "b"]}\n{"7": ["c"]}\n',
        '{"user_id": "u", "items": ["a", "b"]}\n{"user_id": 7, "item_seq": ["c"]}\n',
    ],
)
def test_every_shape_of_sequences_is_read(tmp_path, text) -> None:
    (tmp_path / SEQUENCES).write_text(text)
    loaded = Histories.load(tmp_path, CATALOG)
    assert loaded.user_ids == ("u", "7")
    assert loaded.rows.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("  \n", r"sequential\.jsonl: the file is empty"),
        ("{}", r"sequential\.jsonl: holds no users"),
        ('{"u": ["a"],\n"v": ["a", "zz"]}', r":2: user 'v' has item 'zz', unknown"),
        ('{"u": ["a"]}\n{"v": ["zz"]}', r":2: user 'v' has item 'zz', unknown"),
        ('{"u": ["a"]}\n{"u": ["b"]}', r":2: user 'u' is already on line 1"),
        ('{"u": "a"}', r":1: user 'u': expected a list of item ids"),
        ('{"user_id": "u"}', r":1: user 'u': expected a list of item ids"),
        ('{"u": ["a", null]}', r":1: user 'u' has None in the history"),
        ('{"u": ["a"', r":1: not valid JSON"),
        ('{"u": ["a"]}\n{"v": ', r":2: not valid JSON"),
    ],
)
def test_broken_files_are_one_line_with_file_and_line(tmp_path, text, message) -> None:
    (tmp_path / SEQUENCES).write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        Histories.load(tmp_path, CATALOG)
    assert "\n" not in str(caught.value)


def test_leave_one_out_by_hand() -> None:
    split = leave_one_out(Histories.from_lists(["u", "v"], [[4, 3, 2, 1], [0, 1, 2]]))
    assert len(split) == 2
    assert split.user_ids == ("u", "v")
    assert split.train(0).tolist() == [4, 3]
    assert split.train(1).tolist() == [0]
    valid, test = split.valid(0), split.test(0)
    assert (valid.history.tolist(), valid.target) == ([4, 3], 2)
    assert (test.history.tolist(), test.target) == ([4, 3, 2], 1)


def test_a_user_with_two_items_cannot_be_split() -> None:
    with pytest.raises(DataError, match=r"user 'v' has 2 items \(1 more users likewise\)"):
        leave_one_out(Histories.from_lists(["u", "v", "w"], [[1, 2, 3], [0, 1], [2]]))
    with pytest.raises(DataError, match="no users"):
        leave_one_out(Histories.from_lists([], []))


def frame(pairs: list[tuple[int, int]]) -> pl.DataFrame:
    schema = {"user": pl.Int32, "item": pl.Int32}
    return pl.DataFrame(pairs, schema=schema, orient="row").with_row_index("time")


def test_k_core_by_hand() -> None:
    # Item 9 goes for want of users, then user 3 for want of items, and nothing after that.
    pairs = [(1, 7), (2, 7), (1, 8), (2, 8), (3, 7), (3, 9)]
    assert k_core(frame(pairs), 2)["time"].to_list() == [0, 1, 2, 3]
    assert len(k_core(frame(pairs), 3)) == 0
    assert len(k_core(frame(pairs), 2, user_k=3)) == 0
    with pytest.raises(ConfigError, match="--k-core 0"):
        k_core(frame(pairs), 0)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=40, unique=True),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_k_core_equals_removing_one_at_a_time(pairs, k, user_k) -> None:
    left = list(pairs)
    while True:
        users = Counter(user for user, _ in left)
        items = Counter(item for _, item in left)
        wrong = [p for p in left if users[p[0]] < user_k or items[p[1]] < k]
        if not wrong:
            break
        left.remove(wrong[0])
    kept = k_core(frame(pairs), k, user_k=user_k)
    assert list(zip(kept["user"].to_list(), kept["item"].to_list(), strict=True)) == left


def test_real_histories(shared_data) -> None:
    catalog = Catalog.load(shared_data / "office")
    histories = Histories.load(shared_data / "office", catalog)
    assert (len(histories), len(histories.rows)) == (3231, 22447)
    first = [catalog.item(int(row)).item_id for row in histories.history(0)]
    assert (histories.user_ids[0], first) == (
        "A994",
        ["2122", "243", "811", "812", "2280", "1750"],
    )
    assert len(leave_one_out(histories)) == 3231


def test_a_mark_is_passed_over_and_half_pairs_are_not(tmp_path) -> None:
    catalog = Catalog.from_items([Item("a", "A")])
    (tmp_path / SEQUENCES).write_text('\ufeff{"u": ["a"]}', encoding="utf-8")
    assert Histories.load(tmp_path, catalog).user_ids == ("u",)
    (tmp_path / SEQUENCES).write_text('{"u": ["a"],\n"\\ud800": ["a"]}')
    with pytest.raises(DataError, match=r":2: user .* holds half a surrogate pair"):
        Histories.load(tmp_path, catalog)
    (tmp_path / SEQUENCES).write_text('{"u": ["a", NaN]}')
    with pytest.raises(DataError, match=r":1: user 'u' has nan in the history"):
        Histories.load(tmp_path, catalog)


def test_rows_at_once_are_those_one_by_one() -> None:
    rows = [("u", 2, 30), ("v", 1, 10), ("u", 0, 20), ("u", 1, 20)]
    singly, at_once = Interactions(Times("when")), Interactions(Times("when"))
    for line, (user, item, time) in enumerate(rows, start=1):
        singly.add(FilePlace(Path("f"), line), user, item, time)
    users = np.array([at_once.user(user) for user, _, _ in rows], dtype=np.int32)
    items = np.array([item for _, item, _ in rows], dtype=np.int32)
    times, lines = np.array([time for _, _, time in rows]), np.arange(1, 5)
    for part in (slice(2), slice(2, None)):
        at_once.add_whole(Path("f"), lines[part], users[part], items[part], times[part])
    assert at_once.frame().equals(singly.frame())
    assert at_once.frame().rows() == [(0, 0, 20), (0, 1, 20), (0, 2, 30), (1, 1, 10)]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2))))
def test_the_first_of_repeated_rows_stays(rows) -> None:
    found = Interactions(Times("when"))
    for line, (user, item, time) in enumerate(rows):
        found.add(FilePlace(Path("f"), line), f"{user}", item, time)
    every = found.frame()
    ordered = sorted(
        enumerate(rows), key=lambda row: (found.user(f"{row[1][0]}"), row[1][2], row[0])
    )
    expected = [(found.user(f"{user}"), item, time) for _, (user, item, time) in ordered]
    assert every.rows() == expected
    assert without_repeats(every).rows() == list(dict.fromkeys(expected))
