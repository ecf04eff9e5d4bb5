from __future__ import annotations

import numpy as np
import pytest

from incatalog.data.catalog import Catalog
from incatalog.errors import TeacherError
from incatalog.teacher.counted import CountedTeacher, newest_weights, training_counts
from incatalog.teacher.ease import Ease
from incatalog.teacher.knn import ItemKnn
from incatalog.teacher.popularity import Popularity
from incatalog.teacher.words import WordsTeacher

TRAIN = [np.array([0, 1, 2, 2]), np.array([2, 1, 5]), np.array([7, 2])]


@pytest.fixture(params=["knn", "ease", "words", "popularity"])
def counting(request: pytest.FixtureRequest, catalog: Catalog) -> CountedTeacher:
    counts = training_counts(TRAIN, len(catalog))
    teachers = {
        "knn": lambda: ItemKnn.from_histories(TRAIN, catalog),
        "ease": lambda: Ease.from_histories(TRAIN, catalog),
        "words": lambda: WordsTeacher.from_catalog(catalog, counts),
        "popularity": lambda: Popularity(counts, catalog),
    }
    teacher = teachers[request.param]()
    assert teacher.kind == request.param
    return teacher


def test_no_history_is_answered_by_popularity(counting: CountedTeacher) -> None:
    if counting.kind != "popularity":
        counting.temperature = 0.3
    found = np.exp(counting.log_probabilities([[], [1], []]))
    # Nine trainings and 24 items, each with one more.
    expected = np.ones(24)
    expected[[0, 1, 2, 5, 7]] = [2, 3, 5, 2, 2]
    np.testing.assert_allclose(found[[0, 2]], [expected / 33] * 2, rtol=1e-5)
    assert counting.top_k([[]], 3).tolist() == [[2, 1, 0]]


def test_popularity_without_a_history_of_its_own(counting: CountedTeacher) -> None:
    found = np.exp(counting.log_probabilities([[]], left_out=[TRAIN[0]]))
    expected = np.ones(24)
    expected[[1, 2, 5, 7]] = [2, 3, 2, 2]
    np.testing.assert_allclose(found, [expected / 29], rtol=1e-5)


def test_probabilities_are_those_of_scores_over_temperature(counting: CountedTeacher) -> None:
    counting.temperature = 0.5
    scores = counting.scores([[2], [1, 5]]).astype(float) / 0.5
    expected = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    found = counting.log_probabilities([[2], [1, 5]])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_history_of_one_item_is_answered(counting: CountedTeacher) -> None:
    assert np.isfinite(counting.log_probabilities([[row] for row in range(24)])).all()


def test_a_list_left_out_for_each_history(counting: CountedTeacher) -> None:
    with pytest.raises(TeacherError, match="left_out: found 1 entries; expected 2"):
        counting.log_probabilities([[1], [2]], left_out=[[1]])
    with pytest.raises(TeacherError, match="left_out 0: row 24 not in the catalog"):
        counting.scores([[1]], left_out=[[24]])


def test_a_temperature_must_be_one(catalog: Catalog) -> None:
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(TeacherError, match="temperature: found"):
            Popularity(np.zeros(24), catalog, wrong)


def test_weights_of_the_newest_items() -> None:
    lines, items, weights = newest_weights([np.array([4, 5, 6]), np.array([7])], 2, 0.5)
    assert lines.tolist() == [0, 0, 1]
    assert items.tolist() == [5, 6, 7]
    assert weights.tolist() == [0.5, 1.0, 1.0]
