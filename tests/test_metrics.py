from __future__ import annotations

from itertools import pairwise
from math import log2, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from incatalog.errors import ConfigError, DataError
from incatalog.metrics import (
    PROBABILITY_EDGES,
    bootstrap_intervals,
    calibration,
    coverage,
    hit_rate,
    in_sets,
    intra_list_similarity,
    mrr,
    ndcg,
    novelty,
    out_of_domain,
    recall,
    repeats,
    right_count,
)

# Four users with one relevant item each: third place, first place, not named, empty answer.
ANSWERS = [[4, 2, 7, 1], [3, 5, 6], [0, 1, 2, 3], []]
RELEVANT = [{7}, {3}, {9}, {0}]


@pytest.mark.parametrize(
    ("k", "hits", "ndcgs", "mrrs"),
    [
        (1, [0, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]),
        (2, [0, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]),
        (3, [1, 1, 0, 0], [1 / 2, 1, 0, 0], [1 / 3, 1, 0, 0]),
        (10, [1, 1, 0, 0], [1 / 2, 1, 0, 0], [1 / 3, 1, 0, 0]),
    ],
)
def test_one_relevant_item(
    k: int, hits: list[float], ndcgs: list[float], mrrs: list[float]
) -> None:
    np.testing.assert_array_equal(hit_rate(ANSWERS, RELEVANT, k), hits)
    np.testing.assert_array_equal(recall(ANSWERS, RELEVANT, k), hits)
    np.testing.assert_allclose(ndcg(ANSWERS, RELEVANT, k), ndcgs, rtol=1e-12)
    np.testing.assert_allclose(mrr(ANSWERS, RELEVANT, k), mrrs, rtol=1e-12)


def test_several_relevant_items() -> None:
    answers, relevant = [[8, 1, 9, 2]], [{1, 2, 3}]
    np.testing.assert_allclose(recall(answers, relevant, 4), [2 / 3])
    np.testing.assert_allclose(recall(answers, relevant, 3), [1 / 3])
    np.testing.assert_allclose(mrr(answers, relevant, 4), [1 / 2])
    gained = 1 / log2(3) + 1 / log2(5)
    np.testing.assert_allclose(
        ndcg(answers, relevant, 4), [gained / (1 + 1 / log2(3) + 1 / log2(4))]
    )
    np.testing.assert_allclose(ndcg(answers, relevant, 2), [(1 / log2(3)) / (1 + 1 / log2(3))])


def test_a_relevant_item_counts_once() -> None:
    answers, relevant = [[5, 5, 5]], [{5, 6}]
    np.testing.assert_allclose(recall(answers, relevant, 3), [1 / 2])
    np.testing.assert_allclose(ndcg(answers, relevant, 3), [1 / (1 + 1 / log2(3))])


def test_what_is_not_in_the_catalog_takes_up_its_place() -> None:
    answers, relevant = [[-1, -2, 7]], [{7}]
    np.testing.assert_allclose(mrr(answers, relevant, 3), [1 / 3])
    np.testing.assert_allclose(hit_rate(answers, relevant, 2), [0])


def test_a_negative_entry_is_never_a_hit() -> None:
    np.testing.assert_array_equal(hit_rate([[-1]], [{-1}], 1), [0])


def test_rates() -> None:
    answers = [[-1, 4, -1, 4, 2], [1, 2], []]
    np.testing.assert_allclose(out_of_domain(answers, 5), [2 / 5, 0, nan])
    np.testing.assert_allclose(out_of_domain(answers, 1), [1, 0, nan])
    np.testing.assert_allclose(repeats(answers, 5), [2 / 5, 0, nan])
    np.testing.assert_allclose(repeats(answers, 3), [1 / 3, 0, nan])
    np.testing.assert_allclose(in_sets(answers, [{4}, {1}, {0}], 5), [2 / 5, 1 / 2, nan])
    np.testing.assert_allclose(in_sets(answers, [{4}, {1}, {0}], 1), [0, 1, nan])
    np.testing.assert_array_equal(right_count(answers, 2), [0, 1, 0])
    np.testing.assert_array_equal(right_count(answers, 5), [1, 0, 0])


@given(
    st.lists(
        st.tuples(st.lists(st.integers(-3, 6), max_size=8), st.sets(st.integers(0, 6), min_size=1)),
        min_size=1,
        max_size=5,
    ),
    st.integers(1, 9),
)
def test_metrics_are_ordered_and_bounded(users: list[tuple[list[int], set[int]]], k: int) -> None:
    answers, relevant = [a for a, _ in users], [r for _, r in users]
    found = [metric(answers, relevant, k) for metric in (recall, ndcg, mrr, hit_rate)]
    for values in found:
        assert np.all((values >= 0) & (values <= 1 + 1e-12))
        np.testing.assert_array_equal(values > 0, found[-1] > 0)
    assert np.all(found[0] <= found[-1])
    assert np.all(found[2] <= found[-1])
    best = [[*rows, *(n for n in range(7, 20))] for rows in relevant]
    np.testing.assert_allclose(ndcg(best, relevant, k), np.ones(len(users)))


def test_wrong_input_is_named() -> None:
    with pytest.raises(ConfigError, match="k: expected at least 1, got 0"):
        hit_rate(ANSWERS, RELEVANT, 0)
    with pytest.raises(DataError, match="user 1: no relevant item"):
        recall([[1], [2]], [{1}, set()], 1)


def test_bootstrap_of_a_constant_is_the_constant() -> None:
    [interval] = bootstrap_intervals(np.full((7, 1), 0.25), resamples=50, seed=0)
    assert interval == (0.25, 0.25, 0.25)


def test_bootstrap_interval_is_that_of_the_normal_approximation() -> None:
    values = np.random.default_rng(0).normal(3, 2, size=(400, 1))
    [interval] = bootstrap_intervals(values, resamples=4000, seed=0)
    error = values.std() / np.sqrt(400)
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_bootstrap_is_reproducible_and_metrics_do_not_disturb_each_other() -> None:
    values = np.random.default_rng(1).random((30, 2))
    both = bootstrap_intervals(values, resamples=100, seed=5)
    assert both == bootstrap_intervals(values, resamples=100, seed=5)
    np.testing.assert_allclose(
        both[1:], bootstrap_intervals(values[:, 1:], resamples=100, seed=5), rtol=1e-12
    )
    assert both != bootstrap_intervals(values, resamples=100, seed=6)


def test_bootstrap_in_parts_is_bootstrap_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).random((30, 2))
    at_once = bootstrap_intervals(values, resamples=100, seed=5)
    monkeypatch.setattr("incatalog.metrics.RESAMPLES_AT_ONCE", 90)
    np.testing.assert_allclose(bootstrap_intervals(values, resamples=100, seed=5), at_once)


def test_bootstrap_leaves_out_users_without_a_value() -> None:
    values = np.array([[1.0, np.nan], [np.nan, np.nan], [0.0, np.nan], [0.5, np.nan]])
    known, unknown = bootstrap_intervals(values, resamples=200, seed=0)
    assert known.value == 0.5
    assert 0 <= known.low < 0.5 < known.high <= 1
    assert np.isnan(unknown).all()


def test_bootstrap_refuses_nothing() -> None:
    with pytest.raises(DataError, match="no users"):
        bootstrap_intervals(np.ones((0, 1)), resamples=10, seed=0)


def test_novelty_is_the_mean_inverse_user_frequency_in_bits() -> None:
    users_with_item = np.array([8, 4, 1, 0])
    found = novelty([[0, 1], [2, -1, 3], [3, 0], [-1], []], users_with_item, 8, 2)
    # The third answer names an item no one has, counted as if one of 8 users had it.
    assert found[:3].tolist() == [(0 + 1) / 2, 3, (3 + 0) / 2]
    assert np.isnan(found[3:]).all()


def test_similarity_is_the_mean_jaccard_of_categories() -> None:
    categories = [("a",), ("a", "b"), ("b", "c"), ()]
    found = intra_list_similarity([[0, 1, 2], [0, 3, -1, 1], [0, 3], [1, 1]], categories, 4)
    assert found[0] == pytest.approx((1 / 2 + 0 + 1 / 3) / 3)
    assert found[1] == 1 / 2
    assert np.isnan(found[2])
    assert found[3] == 1


def test_coverage_counts_each_item_of_the_catalog_once() -> None:
    assert coverage([[0, 1, 2], [1, -1], []], items=8, k=2) == 2 / 8


def test_calibration_worked_out_by_hand() -> None:
    found = calibration([0.2, 0.4, 0.6, 1.0], [False, True, False, True], edges=(0.0, 0.5, 1.0))
    low = {"low": 0.0, "high": 0.5, "entries": 2, "probability": 0.3, "hits": 0.5}
    high = {"low": 0.5, "high": 1.0, "entries": 2, "probability": 0.8, "hits": 0.5}
    assert found == {"ECE": pytest.approx(0.25), "bins": [low, high]}


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30))
def test_calibration_error_is_the_weighted_gap_of_the_bins(pairs: list[tuple[float, bool]]) -> None:
    found = calibration(*zip(*pairs, strict=True))
    expected = 0.0
    for low, high in pairwise(PROBABILITY_EDGES):
        inside = [p for p in pairs if low < p[0] <= high or p[0] == low == 0]
        if inside:
            expected += abs(sum(p - hit for p, hit in inside)) / len(pairs)
    assert found["ECE"] == pytest.approx(expected, abs=1e-5)
    assert sum(entry["entries"] for entry in found["bins"]) == len(pairs)


def test_calibration_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="0 probabilities"):
        calibration([], [])
