from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from incatalog import metrics
from incatalog.data.catalog import Catalog, Item
from incatalog.errors import ConfigError
from incatalog.grpo.rewards import (
    REWARDS,
    Batch,
    diversity,
    ndcg,
    ranking_aware,
    reward_functions,
    rule,
    teacher_gain,
    well_formed,
)

LOG2_3 = math.log2(3)
ITEMS = [[4, 7], [7, 4], [5, 6], []]
RIGHT = [{7}, {7}, {7}, {7}]


def test_rule_is_one_where_a_right_item_is_named() -> None:
    assert rule(ITEMS, RIGHT) == [1, 1, 0, 0]


def test_ndcg_discounts_by_place_and_counts_an_item_once() -> None:
    assert ndcg(ITEMS, RIGHT) == pytest.approx([1 / LOG2_3, 1, 0, 0])
    assert ndcg([[7, 7, 8]], [{7, 8}]) == pytest.approx([(1 + 1 / 2) / (1 + 1 / LOG2_3)])


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 9), min_size=5, max_size=5),
            st.sets(st.integers(0, 9), min_size=1, max_size=7),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_ndcg_is_that_of_the_evaluation(pairs: list[tuple[list[int], set[int]]]) -> None:
    items, right = zip(*pairs, strict=True)
    assert ndcg(items, right) == pytest.approx(metrics.ndcg(items, right, 5).tolist())


def test_the_ranking_aware_reward_punishes_the_likeliest_wrong_answers_most() -> None:
    # Two groups of three. In the first the right answer is the second likeliest: the wrong ones
    # stand at places 1 and 3. In the second nobody is right.
    items = [[1], [2], [3], [1], [2], [3]]
    logprobs = [-3.0, -1.0, -2.0, -1.0, -2.0, -3.0]
    total = 1 + 1 / LOG2_3 + 1 / 2
    expected = [-(1 / 2) / total, -1 / total, 0, 0, 0, 0]
    assert ranking_aware(items, [{3}] * 3 + [{9}] * 3, logprobs, 3) == pytest.approx(expected)


def test_the_ranking_aware_reward_gives_equal_answers_one_place() -> None:
    items = [[1], [1], [2], [3]]
    logprobs = [-1.0, -1.0, -2.0, -3.0]
    total = 1 + 1 / LOG2_3 + 1 / 2 + 1 / math.log2(5)
    expected = [-1 / total, -1 / total, -(1 / LOG2_3) / total, 0]
    assert ranking_aware(items, [{3}] * 4, logprobs, 4) == pytest.approx(expected)


def test_the_ranking_aware_reward_wants_whole_groups() -> None:
    with pytest.raises(ConfigError, match="3 answers do not make groups of 2"):
        ranking_aware([[1], [2], [3]], [{1}] * 3, [0.0] * 3, 2)


def test_teacher_gain_is_the_mean_discount_of_its_ranks() -> None:
    found = teacher_gain([[1, 2], [3, -1], []])
    assert found == pytest.approx([(1 + 1 / LOG2_3) / 2, (1 / 2) / 2, 0])


def test_diversity_is_the_mean_distance_of_pairs() -> None:
    categories = [{"a", "b"}, {"b", "c"}, {"d"}, set(), set()]
    # Overlap over union: 0 and 1 share one of three, 2 shares nothing with either.
    found = diversity([[0, 1, 2], [0, 1], [0], [3, 4]], categories)
    assert found == pytest.approx([(2 / 3 + 1 + 1) / 3, 2 / 3, 0, 0])


def test_well_formed_wants_the_right_number_of_different_items() -> None:
    assert well_formed([[1, 2], [1, 1], [1], [1, 2, 3]], 2) == [1, 0, 0, 0]


def test_every_name_is_bound_to_its_function() -> None:
    class Ranks:
        def ranking(self, histories: object, candidates: object) -> list[object]:
            import numpy as np

            assert histories == [(8,)] * 2
            assert candidates == [[0, 1], [1, 2]]
            return [np.array([1, 2]), np.array([3, -1])]

    catalog = Catalog.from_items(
        [Item("x", "X", categories=("a",)), Item("y", "Y", categories=("b",)), Item("z", "Z")], "c"
    )
    batch = Batch(
        items=[[0, 1], [1, 2]],
        logprobs=[-1.0, -2.0],
        relevant=[{1}, {1}],
        histories=[(8,)] * 2,
        group=2,
        wanted=2,
    )
    functions = reward_functions(REWARDS, catalog, Ranks())  # type: ignore[arg-type]
    assert {name: reward(batch) for name, reward in functions.items()} == {
        "rule": [1, 1],
        "ndcg": pytest.approx([1 / LOG2_3, 1]),
        "ranking-aware": [0, 0],
        "teacher": pytest.approx([(1 + 1 / LOG2_3) / 2, 1 / 4]),
        "diversity": [1, 1],
        "format": [1, 1],
    }
