from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from incatalog.data.attributes import Value
from incatalog.data.columns import Column, is_date

values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from(["a", "A", "b", "2020", "2021-05-03", ""]),
    st.lists(st.sampled_from(["a", "b", "C"]), max_size=3).map(tuple),
)


def same(one: Column, other: Column) -> bool:
    """Whether two columns answer alike, whatever numbers their texts have."""
    texts = {*one.texts, *other.texts}
    return (
        np.array_equal(one.numbers, other.numbers, equal_nan=True)
        and np.array_equal(one.present, other.present)
        and all(np.array_equal(one.with_text(t), other.with_text(t)) for t in texts)
    )


def test_numbers_texts_and_lists_lie_side_by_side() -> None:
    column = Column.of([1, "Red", None, ("blue", "RED"), True, 2.5, ()], 7)
    assert column.numbers[[0, 4, 5]].tolist() == [1.0, 1.0, 2.5]
    assert np.isnan(column.numbers[[1, 2, 3, 6]]).all()
    assert column.present.tolist() == [True, True, False, True, True, True, False]
    assert column.with_text("rEd").tolist() == [False, True, False, True, False, False, False]
    assert np.flatnonzero(column.with_texts(lambda text: "l" in text)).tolist() == [3]
    assert not column.dates


def test_an_exact_column_minds_capitals() -> None:
    column = Column.of(["a", "A"], 2, exact=True)
    assert column.with_text("A").tolist() == [False, True]


@given(st.lists(values, min_size=1, max_size=12), st.data())
def test_a_changed_column_is_that_of_the_changed_values(
    before: list[Value | None], data: st.DataObject
) -> None:
    column, now = Column.of(before, len(before)), list(before)
    for _ in range(3):
        total = len(now) + data.draw(st.integers(0, 2))
        now += [None] * (total - len(now))
        rows = sorted(data.draw(st.sets(st.integers(0, total - 1), max_size=4)))
        new = [data.draw(values) for _ in rows]
        for row, value in zip(rows, new, strict=True):
            now[row] = value
        column = column.with_values(rows, new, total)
        assert same(column, Column.of(now, total))


def test_texts_that_no_item_has_any_more_are_forgotten() -> None:
    column = Column.of(["first", "stays"], 2)
    for number in range(3000):
        column = column.with_values([0], [f"text {number}"], 2)
    assert len(column.texts) < 1100
    assert column.with_text("text 2999").tolist() == [True, False]
    assert column.with_text("stays").tolist() == [False, True]


def test_what_a_date_is() -> None:
    for text in ("2020", "2020-05", "2020-05-01", "2020-05-01T10:00", "2020-05-01 10:00:00.5Z"):
        assert is_date(text), text
    for text in ("20", "2020-5", "May 2020", "2020-05-01x", "price", "12345"):
        assert not is_date(text), text
