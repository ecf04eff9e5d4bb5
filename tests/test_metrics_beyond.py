from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from incatalog.errors import ConfigError
from incatalog.metrics import (
    PROBABILITY_EDGES,
    calibration,
    coverage,
    intra_list_similarity,
    novelty,
)


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
