from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incatalog.data.catalog import Catalog, Item
from incatalog.errors import TeacherError
from incatalog.teacher.ease import Ease, EaseOptions, gram_matrix

NUM_ITEMS = 6
SMALL = Catalog.from_items([Item(f"i{row}", f"T {row}") for row in range(NUM_ITEMS)], name="small")
LISTS = st.lists(st.lists(st.integers(0, NUM_ITEMS - 1), max_size=8), min_size=1, max_size=6)
OPTIONS = st.builds(
    EaseOptions,
    window=st.sampled_from([0, 1, 2, 4]),
    regularisation=st.sampled_from([1.0, 5.0, 50.0]),
    newest=st.integers(1, 4),
    recency=st.sampled_from([0.3, 0.8, 1.0]),
)


def training_rows(histories: list[list[int]], window: int) -> np.ndarray:
    """The rows that EASE is trained on, a whole history or each stretch of it."""
    rows = [np.zeros(NUM_ITEMS)]
    for history in histories:
        if not window:
            rows.append(np.isin(np.arange(NUM_ITEMS), history).astype(float))
            continue
        for start in range(1 - window, len(history)):
            stretch = history[max(start, 0) : start + window]
            rows.append(np.bincount(np.array(stretch, int), minlength=NUM_ITEMS) / window**0.5)
    return np.array(rows)


def scored(histories: list[list[int]], asked: list[int], options: EaseOptions) -> np.ndarray:
    rows = training_rows(histories, options.window)
    inverse = np.linalg.inv(rows.T @ rows + options.regularisation * np.eye(NUM_ITEMS))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    newest = asked[::-1][: options.newest]
    return sum(options.recency**age * weights[item] for age, item in enumerate(newest))


def fitted(histories: list[list[int]], options: EaseOptions) -> Ease:
    return Ease.from_histories([np.array(r, dtype=np.int64) for r in histories], SMALL, options)


def test_two_items_of_one_history_by_hand() -> None:
    # G = [[1, 1], [1, 1]], so P = [[2, -1], [-1, 2]] / 3 and B = 1/2 off the diagonal.
    teacher = fitted([[0, 1]], EaseOptions(window=0, regularisation=1.0))
    assert teacher.scores([[0]])[0] == pytest.approx([0, 0.5, 0, 0, 0, 0], abs=1e-6)


@settings(deadline=None, max_examples=60)
@given(histories=LISTS, window=st.integers(0, 5))
def test_the_gram_matrix_is_that_of_the_training_rows(
    histories: list[list[int]], window: int
) -> None:
    rows = training_rows(histories, window)
    lists = [np.array(r, dtype=np.int64) for r in histories]
    found = gram_matrix(lists, NUM_ITEMS, window).toarray()
    np.testing.assert_allclose(found, rows.T @ rows, atol=1e-9)


@settings(deadline=None, max_examples=60)
@given(histories=LISTS, asked=st.lists(st.integers(0, 5), min_size=1, max_size=6), options=OPTIONS)
def test_scores_are_those_of_the_closed_form(
    histories: list[list[int]], asked: list[int], options: EaseOptions
) -> None:
    found = fitted(histories, options).scores([asked])[0]
    np.testing.assert_allclose(found, scored(histories, asked, options), atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(histories=LISTS, options=OPTIONS, data=st.data())
def test_a_history_left_out_was_never_counted(
    histories: list[list[int]], options: EaseOptions, data: st.DataObject
) -> None:
    teacher, asked, expected = fitted(histories, options), [], []
    for user, own in enumerate(histories):
        length = data.draw(st.integers(0, len(own)))
        asked.append(own[:length] or data.draw(st.lists(st.integers(0, 5), max_size=3)))
        others = [rows for place, rows in enumerate(histories) if place != user]
        expected.append(fitted([*others, []], options).scores([asked[-1]])[0])
    found = teacher.scores(asked, left_out=histories)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # What a history leaves out is kept, and is the same the second time.
    assert teacher.scores(asked, left_out=histories).tolist() == found.tolist()
    # Several questions of one user are answered together.
    again = teacher.scores([*asked, *asked], left_out=[*histories, *histories])
    np.testing.assert_allclose(again, [*expected, *expected], atol=1e-6)


def test_items_without_training_score_nothing() -> None:
    teacher = fitted([[0, 1], [1, 2]], EaseOptions(regularisation=1.0))
    assert teacher.scores([[5]]).tolist() == [[0.0] * NUM_ITEMS]
    assert teacher.scores([[1]])[0, 3:].tolist() == [0.0] * 3


def test_a_catalog_too_large_is_named() -> None:
    with pytest.raises(TeacherError, match=r"6 items.*at most 5 items; use --kind knn"):
        Ease.from_histories([np.array([0, 1])], SMALL, max_items=5)
