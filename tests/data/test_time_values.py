from __future__ import annotations

import datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incatalog.data.table_blocks import cells_of
from incatalog.data.time_values import plain_times, time_value


def checked(series: pl.Series) -> bool:
    """Whether the column is plain; then each value is that of its cell."""
    found = plain_times(series)
    if found is None:
        return False
    cells = cells_of(series)
    singly = [time_value(cell) for cell in cells]
    assert [kind for kind, _ in singly] == [found.kind] * len(cells)
    assert found.values.tolist() == [value for _, value in singly]
    assert list(map(found.cell, range(len(cells)))) == cells
    return True


DAYS = st.dates().map(str)
MOMENTS = st.datetimes(timezones=st.none() | st.just(datetime.UTC)).map(str)
SECONDS = st.datetimes().map(lambda one: one.replace(microsecond=0).isoformat())
NUMBERS = st.integers(-(2**66), 2**66).map(str) | st.sampled_from(["+7", "1.0", "1.5", "1e3", " 2"])
ODD = st.sampled_from(["", "soon", "2020-13-01", "0000-01-01", "2020-01-01T24:00:00", "2020-01",
                       "2020-01-01T00:00:60", "99999999999999999999", "2020-02-30"])  # fmt: skip


@settings(deadline=None)
@given(
    st.one_of(
        *(st.lists(one, min_size=1, max_size=5) for one in (DAYS, MOMENTS, SECONDS, NUMBERS, ODD)),
        st.lists(DAYS | SECONDS | NUMBERS | ODD, min_size=1, max_size=4),
    )
)
def test_texts_at_once_are_those_one_by_one(cells) -> None:
    checked(pl.Series(cells, dtype=pl.String))


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1).map(lambda x: pl.Series(x, dtype=pl.UInt64))
    | st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1).map(pl.Series)
    | st.lists(st.floats() | st.integers(-9, 9).map(float), min_size=1).map(pl.Series)
    | st.lists(st.dates(), min_size=1).map(pl.Series)
    | st.lists(st.datetimes(), min_size=1).map(pl.Series)
    | st.lists(st.integers(-(2**62), 2**62), min_size=1).map(
        lambda found: pl.Series(found).cast(pl.Datetime("ns"))
    )
)
def test_columns_with_a_type_at_once_are_those_one_by_one(series) -> None:
    checked(series)


@pytest.mark.parametrize(
    "cells",
    [
        ["1", "-20", "+3"],
        ["2020-01-31", "1969-12-31"],
        ["2020-01-31 23:59:59", "2020-01-31T00:00:00Z"],
        ["2020-01-31", "2020-01-31T01:00+01:00"],
        [1.0, -2.0],
        [datetime.date(2020, 1, 1)],
        [datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)],
    ],
)
def test_usual_columns_are_plain(cells: list[Any]) -> None:
    assert checked(pl.Series(cells))


@pytest.mark.parametrize(
    "cells",
    [["1", None], ["1", "2020-01-01"], ["1.5"], [1.5], [float("nan")], [True], [["1"]], ["soon"],
     [b"1"], [datetime.date(9999, 1, 1)], [2.0**63], [datetime.time(1)]],
)  # fmt: skip
def test_columns_that_are_to_be_read_one_by_one(cells: list[Any]) -> None:
    assert plain_times(pl.Series(cells)) is None


def test_a_pattern_reads_texts() -> None:
    def read(text: str) -> datetime.datetime | None:
        return None if text == "?" else datetime.datetime.strptime(text, "%d.%m.%Y")

    found = plain_times(pl.Series(["02.01.1970", "01.01.1970"]), read)
    assert found is not None
    assert (found.kind, found.values.tolist()) == ("date", [86_400 * 10**9, 0])
    assert plain_times(pl.Series(["?"]), read) is None
    assert plain_times(pl.Series([1]).cast(pl.Datetime("ns")), read) is None
