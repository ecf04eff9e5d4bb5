from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from incatalog.data.fields import FilePlace
from incatalog.data.time_formats import time_format
from incatalog.data.times import Times
from incatalog.errors import DataError

_MOMENTS = [datetime(2023, 1, 5, 9, 7, 3) + timedelta(days=11 * at, hours=at) for at in range(40)]


@pytest.mark.parametrize(
    "pattern",
    [
        "%d.%m.%Y %H:%M", "%d.%m.%Y", "%d/%m/%Y %H:%M:%S", "%m/%d/%Y", "%m/%d/%Y %I:%M %p",
        "%d-%m-%Y", "%b %d, %Y", "%d %B %Y", "%Y/%m/%d %H:%M", "%d.%m.%y",
    ],
)  # fmt: skip
def test_a_format_is_found_and_read(pattern: str, tmp_path) -> None:
    texts = [f"{moment:{pattern}}" for moment in _MOMENTS]
    found = time_format(texts)
    assert found is not None
    assert found.other == ""
    times = Times("when", found.pattern)
    for line, text in enumerate(texts, 2):
        times.add(FilePlace(tmp_path / "t.csv", line), f" {text} ")
    assert (times.order()[1:] > times.order()[:-1]).all()
    expected = [datetime.strptime(text, pattern) for text in texts]
    assert [datetime.strptime(text, found.pattern) for text in texts] == expected
    with pytest.raises(DataError, match=r"t\.csv:9: when is 'soon'; expected %"):
        times.add(FilePlace(tmp_path / "t.csv", 9), "soon")


@pytest.mark.parametrize(
    "texts", [["1700000000", "1700000001"], ["2023-01-05", "2023-02-05T10:00Z"]]
)
def test_numbers_and_iso_need_none(texts: list[str]) -> None:
    assert time_format(texts) == ("", "")


def test_what_is_no_time_has_no_format() -> None:
    assert time_format(["05.01.2023", "soon"]) is None
    assert time_format(["", "x"]) is None
    assert time_format([]) is None


def test_days_that_could_be_months_are_told_by_their_order_or_left_open() -> None:
    # As days of January they ascend; as months they do not, nor do they descend.
    rising = ["01/01/2023", "05/01/2023", "09/01/2023", "03/02/2023"]
    found = time_format(rising)
    assert found is not None
    assert (found.pattern, found.other) == ("%d/%m/%Y", "")
    both = time_format(["01/02/2023", "02/03/2023"])
    assert both is not None
    assert {both.pattern, both.other} == {"%d/%m/%Y", "%m/%d/%Y"}
