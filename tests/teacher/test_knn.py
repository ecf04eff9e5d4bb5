from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incatalog.data.catalog import Catalog, Item
from incatalog.teacher.knn import ItemKnn, KnnOptions, pair_counts

NUM_ITEMS = 7
SMALL = Catalog.from_items([Item(f"i{row}", f"T {row}") for row in range(NUM_ITEMS)], name="small")
LISTS = st.lists(st.lists(st.integers(0, NUM_ITEMS - 1), max_size=9), min_size=1, max_size=6)
OPTIONS = st.builds(
    KnnOptions,
    window=st.integers(1, 5),
    decay=st.sampled_from([0.0, 0.5, 0.8, 1.0]),
    backward=st.sampled_from([0.0, 0.5, 1.0]),
    power=st.sampled_from([0.0, 0.25, 1.0]),
    row_power=st.sampled_from([0.0, 0.5, 0.75, 1.0]),
    newest=st.integers(1, 4),
    recency=st.sampled_from([0.3, 0.8, 1.0]),
)


def counted(histories: list[list[int]], options: KnnOptions) -> np.ndarray:
    """The counts of pairs, one by one."""
    counts = np.zeros((NUM_ITEMS, NUM_ITEMS))
    for rows in histories:
        for here, item in enumerate(rows):
            for gap in range(1, options.window + 1):
                if here + gap < len(rows):
                    other, weight = rows[here + gap], options.decay ** (gap - 1)
                    counts[item, other] += weight
                    counts[other, item] += options.backward * weight
    return counts


def scored(histories: list[list[int]], asked: list[int], options: KnnOptions) -> np.ndarray:
    """The scores of the head of `teacher/knn.py`, item by item."""
    pairs = counted(histories, options)
    popularity = [sum(rows.count(item) for rows in histories) for item in range(NUM_ITEMS)]
    scores = np.zeros(NUM_ITEMS)
    for age, item in enumerate(asked[::-1][: options.newest]):
        if pairs[item].sum() > 0:
            for other in range(NUM_ITEMS):
                if pairs[item, other]:
                    likeness = pairs[item, other] / pairs[item].sum() ** options.row_power
                    likeness /= popularity[other] ** options.power
                    scores[other] += options.recency**age * likeness
    return scores


def fitted(histories: list[list[int]], options: KnnOptions) -> ItemKnn:
    return ItemKnn.from_histories([np.array(r, dtype=np.int64) for r in histories], SMALL, options)


def test_pairs_count_by_distance_and_direction() -> None:
    options = KnnOptions(window=2, decay=0.8, backward=0.5)
    found = pair_counts([np.array([0, 1, 2, 3]), np.array([1, 0])], NUM_ITEMS, options).toarray()
    assert found[0, 1] == 1.5  # 1 forward, and half of the second history's
    assert found[1, 0] == 1.5
    assert found[0, 2] == 0.8
    assert found[2, 0] == 0.4
    assert found[0, 3] == 0.0  # three places apart
    assert found.sum() == pytest.approx(1.5 * (3 + 2 * 0.8 + 1))


def test_similarity_is_counts_over_powers_of_row_and_popularity() -> None:
    teacher = fitted([[0, 1], [0, 1], [0, 2]], KnnOptions(power=0.5))
    # Row 0: twice 1 and once 2, each forward. Item 1 was trained on twice.
    assert teacher.similarity.toarray()[0, :3] == pytest.approx(
        [0, 2 / 3**0.5 / 2**0.5, 1 / 3**0.5]
    )
    assert teacher.top_k([[0]], 2).tolist() == [[1, 2]]
    whole = fitted([[0, 1], [0, 1], [0, 2]], KnnOptions(row_power=1.0))
    assert whole.similarity.toarray()[0, :3] == pytest.approx([0, 2 / 3, 1 / 3])


@settings(deadline=None, max_examples=60)
@given(histories=LISTS, asked=st.lists(st.integers(0, 6), min_size=1, max_size=6), options=OPTIONS)
def test_scores_are_those_of_the_formula(
    histories: list[list[int]], asked: list[int], options: KnnOptions
) -> None:
    found = fitted(histories, options).scores([asked])
    np.testing.assert_allclose(found[0], scored(histories, asked, options), atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(histories=LISTS, options=OPTIONS, data=st.data())
def test_a_history_left_out_was_never_counted(
    histories: list[list[int]], options: KnnOptions, data: st.DataObject
) -> None:
    teacher, asked, expected = fitted(histories, options), [], []
    for user, own in enumerate(histories):
        # Mostly a beginning of the history, at times of anything.
        length = data.draw(st.integers(0, len(own)))
        asked.append(own[:length] or data.draw(st.lists(st.integers(0, 6), max_size=3)))
        others = [rows for place, rows in enumerate(histories) if place != user]
        expected.append(fitted([*others, []], options).scores([asked[-1]])[0])
    found = teacher.scores(asked, left_out=histories)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_items_that_nothing_connects_score_nothing() -> None:
    teacher = fitted([[0, 1], [3]], KnnOptions())
    assert teacher.scores([[5], [3]]).tolist() == [[0.0] * NUM_ITEMS] * 2
    assert np.exp(teacher.log_probabilities([[5]])) == pytest.approx(np.full((1, 7), 1 / 7))


def test_an_answer_does_not_depend_on_its_batch() -> None:
    rng = np.random.default_rng(4)
    histories = [rng.integers(0, NUM_ITEMS, 12).tolist() for _ in range(40)]
    teacher = fitted(histories, KnnOptions())
    together = teacher.scores(histories, left_out=histories)
    alone = [teacher.scores([rows], left_out=[rows])[0] for rows in histories]
    np.testing.assert_array_equal(together, alone)
