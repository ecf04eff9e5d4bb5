from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incatalog.data.catalog import Catalog
from incatalog.errors import TeacherError
from incatalog.teacher.popularity import Popularity
from incatalog.teacher.teacher import InProcessTeacher
from incatalog.teacher_service import likely
from incatalog.teacher_service.likely import likely_items

histories = st.lists(st.lists(st.integers(0, 23), min_size=1, max_size=8), max_size=9)


@given(asked=histories, data=st.data(), rows=st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_they_are_the_first_of_all_items_in_order(
    reference: InProcessTeacher, asked: list[list[int]], data: st.DataObject, rows: int
) -> None:
    best = [data.draw(st.integers(1, 30)) for _ in asked]
    with pytest.MonkeyPatch.context() as patch:
        # Some rows at a time: several blocks give what one gives.
        patch.setattr(likely, "MAX_SCORES", 24 * rows)
        found = list(likely_items(reference, asked, best))
    assert len(found) == len(asked)
    for row, history, count in zip(found, asked, best, strict=True):
        everything = reference.log_probabilities([history])[0]
        order = sorted(range(24), key=lambda item: (-everything[item], item))
        assert row.rows.tolist() == order[:count]
        np.testing.assert_array_equal(row.log_probabilities, everything[order[:count]])
        others = math.fsum(math.exp(everything[item]) for item in order[count:])
        if count < 24:
            assert row.rest == pytest.approx(math.log(others), rel=1e-12)
        else:
            assert row.rest == -math.inf


def test_of_equally_likely_items_the_lower_rows_are_taken(catalog: Catalog) -> None:
    counts = np.full(24, 3)
    counts[[20, 4]] = 9
    (row,) = likely_items(Popularity(counts, catalog), [[]], [5])
    assert row.rows.tolist() == [4, 20, 0, 1, 2]
    shares = np.exp([*row.log_probabilities, row.rest])
    assert shares.sum() == pytest.approx(1, abs=1e-6)
    # The other 19 are as likely as the third each.
    assert row.rest == pytest.approx(row.log_probabilities[2] + math.log(19), abs=1e-6)


def test_scores_that_are_not_numbers_are_an_error(catalog: Catalog) -> None:
    counts = np.ones(24)
    counts[3] = float("nan")
    teacher = Popularity(counts, catalog)
    with pytest.raises(TeacherError, match="history 0: the teacher's scores are not numbers"):
        list(likely_items(teacher, [[1], [2]], [2, 2]))
