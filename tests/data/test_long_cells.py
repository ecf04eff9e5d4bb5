from __future__ import annotations

import csv

import pytest

from incatalog.data.long_cells import rows_of


def lines(count: int) -> list[str]:
    return ["x" * 200_000 + f",{n}\r\n" for n in range(count)]


def test_the_limit_of_others_stays_whoever_ends_first() -> None:
    limit = csv.field_size_limit()
    first, second = rows_of(csv.reader(lines(2))), rows_of(csv.reader(lines(2)))
    assert next(first)[1] == next(second)[1] == "0"
    assert csv.field_size_limit() == limit
    first.close()
    assert [row[1] for row in second] == ["1"]
    assert csv.field_size_limit() == limit


def test_an_error_leaves_the_limit_as_it_was() -> None:
    limit = csv.field_size_limit()
    with pytest.raises(csv.Error):
        list(rows_of(csv.reader(['"open'], strict=True)))
    assert csv.field_size_limit() == limit
