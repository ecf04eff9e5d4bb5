from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax

from incatalog.data.catalog import Catalog
from incatalog.errors import TeacherError
from incatalog.teacher.blend import BlendPart, BlendTeacher
from incatalog.teacher.counted import training_counts
from incatalog.teacher.ease import Ease
from incatalog.teacher.knn import ItemKnn
from incatalog.teacher.selection import ScoringTeacher
from incatalog.teacher.teacher import InProcessTeacher
from incatalog.teacher.words import WordsTeacher

TRAIN = [np.array([0, 1, 2, 2]), np.array([2, 1, 5]), np.array([7, 2])]
TRAINED = [0, 1, 2, 5, 7]


def blend_of(catalog: Catalog, *parts: tuple[ScoringTeacher, float, float]) -> BlendTeacher:
    counts = training_counts(TRAIN, len(catalog))
    return BlendTeacher(catalog, counts, [BlendPart(*part) for part in parts])


def test_the_sum_of_weighted_log_probabilities(catalog: Catalog) -> None:
    counts = training_counts(TRAIN, len(catalog))
    knn = ItemKnn.from_histories(TRAIN, catalog)
    words = WordsTeacher.from_catalog(catalog, counts)
    blend = blend_of(catalog, (knn, 1.0, 0.5), (words, 0.3, 0.2))
    asked = [[2], [1, 5]]
    expected = log_softmax(knn.scores(asked).astype(float) / 0.5, axis=1)
    expected += 0.3 * log_softmax(words.scores(asked).astype(float) / 0.2, axis=1)
    np.testing.assert_allclose(blend.scores(asked), expected, rtol=1e-5)
    blend.temperature = 1.3
    np.testing.assert_allclose(
        blend.log_probabilities(asked), log_softmax(expected / 1.3, axis=1), rtol=1e-5
    )


def test_no_history_is_answered_by_popularity(catalog: Catalog, teacher: InProcessTeacher) -> None:
    blend = blend_of(catalog, (teacher, 1.0, 1.0))
    assert blend.top_k([[], [1]], 3)[0].tolist() == [2, 1, 0]
    with pytest.raises(TeacherError, match="history 0: empty"):
        teacher.top_k([[]], 3)


def test_a_network_gives_items_without_training_its_middle_score(
    catalog: Catalog, teacher: InProcessTeacher
) -> None:
    scores = teacher.scores([[1, 2]])[0].astype(float)
    scores[[row for row in range(24) if row not in TRAINED]] = np.median(scores[TRAINED])
    found = blend_of(catalog, (teacher, 1.0, 2.0)).scores([[1, 2]])[0]
    np.testing.assert_allclose(found, log_softmax(scores / 2), rtol=1e-5)


def test_words_order_items_without_training(catalog: Catalog, teacher: InProcessTeacher) -> None:
    counts = training_counts(TRAIN, len(catalog))
    words = WordsTeacher.from_catalog(catalog, counts)
    knn, ease = ItemKnn.from_histories(TRAIN, catalog), Ease.from_histories(TRAIN, catalog)
    parts = [(one, 1.0, 1.0) for one in (teacher, knn, ease, words)]
    cold = [row for row in range(24) if row not in TRAINED]
    found, alone = (t.scores([[2]])[0, cold] for t in (blend_of(catalog, *parts), words))
    # "Title 2" is "even" and one of the "few", as some of these are.
    assert len(set(np.round(alone, 5))) > 1
    np.testing.assert_array_equal(
        np.argsort(found, kind="stable"), np.argsort(alone, kind="stable")
    )


def test_a_history_is_left_out_of_every_part(catalog: Catalog) -> None:
    def parts(train: list[np.ndarray]) -> list[tuple[ScoringTeacher, float, float]]:
        return [
            (ItemKnn.from_histories(train, catalog), 1.0, 0.5),
            (Ease.from_histories(train, catalog), 0.5, 0.1),
        ]

    found = blend_of(catalog, *parts(TRAIN)).scores([[2, 1]], left_out=[TRAIN[1]])
    expected = blend_of(catalog, *parts([TRAIN[0], TRAIN[2]])).scores([[2, 1]])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_blend_that_cannot_be(catalog: Catalog, teacher: InProcessTeacher) -> None:
    with pytest.raises(TeacherError, match="blend: found no parts"):
        blend_of(catalog)
    with pytest.raises(TeacherError, match=r"weight 0\.0 and temperature 1\.0 of sasrec"):
        blend_of(catalog, (teacher, 0.0, 1.0))
    with pytest.raises(TeacherError, match="temperature nan"):
        blend_of(catalog, (teacher, 1.0, float("nan")))
