from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from incatalog.data.fields import FilePlace
from incatalog.data.times import Times
from incatalog.errors import DataError


def ranks(*cells: Any) -> list[int]:
    """Rank of each time: 0 for the first, equal ones share theirs."""
    times = Times("when")
    for line, cell in enumerate(cells, start=2):
        times.add(FilePlace(Path("f"), line), cell)
    found = times.order().tolist()
    return [sorted(set(found)).index(one) for one in found]


@pytest.mark.parametrize(
    "cells",
    [
        # Neighbours that are one number as 64-bit floats.
        ("1700000000000000003", "1700000000000000002", "1700000000000000004"),
        (2**53 + 1, 2**53, 2**53 + 2),
        (10**20 + 1, 10**20, "100000000000000000002"),
        ("1700000000.000000002", "1700000000.000000001", "1700000000.000000003"),
        (Decimal("0.10"), 0, "1e0"),
        ("-1", "-2", 0.5),
        ("2020-01-02", "2020-01-01T23:59", "2020-01-02T00:00:01"),
        ("2020-01-01T00:00:00.000000002", "2020-01-01T00:00:00.000000001Z", "2020-01-01T00:00:01"),
        ("2020-01-01T01:00:00", "2020-01-01T01:30+01:00", "2020-01-01T00:30-01:00"),
        (datetime.date(2020, 1, 2), "2020-01-01", datetime.datetime(2020, 1, 2, 1)),
    ],
)
def test_order_is_kept_exactly(cells) -> None:
    assert ranks(*cells) == [1, 0, 2]


def test_equal_times_are_equal_however_written() -> None:
    assert ranks("7", 7, 7.0, "7.0", Decimal(7), "+7", " 7 ", "0.7e1") == [0] * 8
    assert ranks("2020-01-01", "2020-01-01T00:00:00Z", datetime.date(2020, 1, 1)) == [0] * 3
    assert ranks("1.5", 1.5, Decimal("1.50")) == [0] * 3


@pytest.mark.parametrize(
    "cell",
    [None, "", "nan", "NaN", "inf", "-Infinity", float("nan"), float("inf"), Decimal("NaN"), True,
     "soon", "1_000", "0x10", "٣", b"1", [1], datetime.time(1), "2020-13-01",
     "2020-01-01T00:00:00.0000000001"],
)  # fmt: skip
def test_what_is_no_time_is_refused(cell) -> None:
    with pytest.raises(DataError, match=r"^f:3: when is .*; expected a number or an ISO 8601"):
        ranks(1, cell)


@pytest.mark.parametrize(
    ("cells", "places"),
    [
        (("1600000000", "1600000001000"), (2, 3)),
        ((1600000001000, 5, 1600000000), (2, 4)),
        ((1.6e9, 1.6e15), (2, 3)),
        ((1_600_000_000_000, 1_600_000_000_000_000_000), (2, 3)),
        (("1600000000.5", "1600000001000"), (2, 3)),
        # The smallest and the largest are what tells them apart.
        ((900_000_000, 1_600_000_000, 1_700_000_000_000, 900_000_000_000), (3, 5)),
        (("20200103", "1600000000"), (2, 3)),
        (("20200103", "20200104123000"), (2, 3)),
        (("2020-01-01", "20200103"), (2, 3)),
        (("20200103", "2020-01-01"), (2, 3)),
        ((datetime.date(2020, 1, 1), 1600000000), (2, 3)),
    ],
)
def test_two_kinds_of_time_are_named_with_a_line_of_each(cells, places) -> None:
    first, second = places
    with pytest.raises(DataError) as caught:
        ranks(*cells)
    message = str(caught.value)
    assert message.startswith(f"f:{second}: when is ")
    assert f" on line {first}; expected times of one kind" in message
    for place in places:
        assert str(cells[place - 2]) in message


@pytest.mark.parametrize(
    "cells",
    [
        range(10),
        (0, 1_600_000_000),
        (-1, 0, 1_600_000_000_000),
        # A clock of milliseconds from its start, over many years.
        [1000 * 3**power for power in range(20)],
        (315_532_800, 1_700_000_000),
        ("20190101", "20210101"),
        # 1970 and today, as a date.
        ("1970-01-01", "1970-02-01", "2024-01-01"),
    ],
)
def test_one_kind_of_time_passes(cells) -> None:
    assert ranks(*cells) == list(range(len(cells)))


@given(st.lists(st.integers(-(2**70), 10_000_000), max_size=20))
def test_whole_numbers_are_ordered_as_python_orders_them(numbers: list[int]) -> None:
    order = sorted(set(numbers))
    for written in (numbers, list(map(str, numbers))):
        assert ranks(*written) == [order.index(number) for number in numbers]


@given(st.lists(st.decimals(-1000, 1000, places=12), max_size=20))
def test_decimals_are_ordered_as_python_orders_them(numbers: list[Decimal]) -> None:
    order = sorted(set(numbers))
    for written in (numbers, [f"{number:f}" for number in numbers]):
        assert ranks(*written) == [order.index(number) for number in numbers]


WHOLE = st.lists(st.integers(-(2**62), 2**62 - 1) | st.integers(1, 2 * 10**9), min_size=1)


@given(WHOLE, st.integers(0, 20))
def test_whole_numbers_at_once_are_those_one_by_one(values, cut) -> None:
    path, cut = Path("f"), min(cut, len(values))
    singly, at_once = Times("when"), Times("when")
    for line, value in enumerate(values, start=2):
        singly.add(FilePlace(path, line), str(value))
    lines = np.arange(2, len(values) + 2)
    for part in (slice(None, cut), slice(cut, None)):
        at_once.add_whole(path, lines[part], np.array(values, dtype=np.int64)[part])
    outcomes = []
    for times in (singly, at_once):
        try:
            outcomes.append(times.order().tolist())
        except DataError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


def test_dates_beside_whole_numbers_at_once_are_refused() -> None:
    times = Times("when")
    times.add(FilePlace(Path("f"), 2), "2020-01-01")
    with pytest.raises(DataError, match=r"^f:7: when is '5', but '2020-01-01' on line 2"):
        times.add_whole(Path("f"), np.array([7]), np.array([5]))
