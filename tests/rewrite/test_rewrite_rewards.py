from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from incatalog.errors import ConfigError
from incatalog.rewrite.rewrite_rewards import (
    GroupRow,
    SingleRow,
    average_ppl,
    discriminative,
    item2item,
    judge_question,
    length,
    length_reward,
    order_reward,
    ppl_reward,
    rank_reward,
    user2item,
)

SINGLE = SingleRow(
    title="Harbour Lights Deluxe Edition",
    description="A film",
    category="Drama",
    distractors=("Harbour Master", "Night Train", "Zebra"),
    neighbours=(4, 1, 3, 0),
    prompt="Recommend a film: ",
    domain="films",
)
GROUP = GroupRow(("Harbour Lights", "Zebra"), target=2, domain="films")
ROWS = [SINGLE, GROUP, SINGLE]


class Words:
    """Counts words as tokens, and takes perplexities from a table."""

    def __init__(self, ppl: dict[str, float] | None = None) -> None:
        self.ppl = ppl or {}
        self.asked: list[tuple[str, str]] = []

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def perplexities(self, prompts: Sequence[str], texts: Sequence[str]) -> list[float]:
        self.asked += zip(prompts, texts, strict=True)
        return [self.ppl[text] for text in texts]


class Alike:
    """Similarities by a table."""

    def __init__(self, table: dict[str, list[float]]) -> None:
        self.table = table

    def similarities(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([self.table[text] for text in texts])


def test_perplexity_by_hand() -> None:
    scorer = Words({"short": 10.0, "long": 100.0})
    found = average_ppl(ROWS, ["short", "ignored", "long"], scorer)
    assert found == [pytest.approx(math.exp(-0.2)), None, pytest.approx(math.exp(-2))]
    assert scorer.asked == [("Recommend a film: ", "short"), ("Recommend a film: ", "long")]
    # A rewrite without a word gets nothing, and the scorer is not asked.
    assert average_ppl(ROWS, ["", "", "short"], scorer) == [0, None, pytest.approx(math.exp(-0.2))]
    for wrong in (0.5, float("nan")):
        with pytest.raises(ConfigError, match="perplexity"):
            ppl_reward(wrong)


def test_length_by_hand() -> None:
    # Four words before: two are 1 / (1 + 1/4), eight are 1 / (1 + 4).
    found = length(ROWS, ["two words", "x", "one two three four five six seven eight"], Words())
    assert found == [pytest.approx(4 / 5), None, pytest.approx(1 / 5)]
    assert length_reward(0, 3) == 1
    assert length_reward(3, 3) == 1 / 2
    with pytest.raises(ConfigError, match="title"):
        length_reward(3, 0)


def test_judge_sees_four_shuffled_titles_and_the_original_counts() -> None:
    class Judge:
        def __init__(self, answer: str) -> None:
            self.answer = answer
            self.options: list[list[str]] = []

        def choices(self, questions: Sequence[str], options: Sequence[Sequence[str]]) -> list[int]:
            assert questions == [judge_question("a"), judge_question("c")]
            self.options += map(list, options)
            return [row.index(self.answer) if self.answer in row else -1 for row in options]

    right, wrong, silent = Judge(SINGLE.title), Judge("Zebra"), Judge("none of these")
    assert discriminative(ROWS, ["a", "b", "c"], right) == [1, None, 1]
    assert discriminative(ROWS, ["a", "b", "c"], wrong) == [0, None, 0]
    assert discriminative(ROWS, ["a", "b", "c"], silent) == [0, None, 0]
    assert sorted(right.options[0]) == sorted([SINGLE.title, *SINGLE.distractors])
    # The same row is asked about in the same way, whoever judges; another seed shuffles anew.
    assert right.options[0] == right.options[1] == wrong.options[0]
    others = set()
    for seed in range(8):
        judge = Judge(SINGLE.title)
        assert discriminative(ROWS, ["a", "b", "c"], judge, seed) == [1, None, 1]
        others.add(tuple(judge.options[0]))
    assert len(others) > 1


def test_order_of_neighbours_by_hand() -> None:
    # Neighbours 4, 1, 3, 0 in this order; similarity to items 0 to 4.
    table = {
        "same": [0.1, 0.3, 0.0, 0.2, 0.4],
        "reversed": [0.4, 0.2, 0.0, 0.3, 0.1],
        # Order 1, 4, 3, 0: d = 1, 1, 0, 0, rho = 1 - 6 * 2 / (4 * 15) = 4/5.
        "swapped": [0.1, 0.4, 0.0, 0.2, 0.3],
        "equal": [0.5] * 5,
    }
    scorer = Alike(table)
    assert item2item([SINGLE], ["same"], scorer) == [pytest.approx(1)]
    assert item2item([SINGLE], ["reversed"], scorer) == [pytest.approx(0)]
    assert item2item([SINGLE], ["swapped"], scorer) == [pytest.approx((4 / 5 + 1) / 2)]
    assert item2item([SINGLE], ["equal"], scorer) == [0.5]
    assert item2item([GROUP], ["same"], scorer) == [None]
    with pytest.raises(ConfigError, match="neighbours"):
        order_reward(np.array([1.0]))


@given(st.lists(st.integers(0, 5), min_size=2, max_size=10))
def test_order_reward_is_spearmans_correlation(values: list[int]) -> None:
    similar = np.array(values, dtype=float)
    found = order_reward(similar)
    assert 0 <= found <= 1 + 1e-12
    if len(set(values)) == len(values):
        order = (-similar).argsort().argsort() + 1
        d = order - np.arange(1, len(values) + 1)
        count = len(values)
        rho = 1 - 6 * float((d**2).sum()) / (count * (count**2 - 1))
        assert found == pytest.approx((rho + 1) / 2)


def test_rank_of_the_next_item_by_hand() -> None:
    scorer = Alike({"first": [0.1, 0.2, 0.9], "last": [0.5, 0.6, 0.1], "tie": [0.4, 0.1, 0.4]})
    rows = [GROUP, SINGLE, GROUP, GROUP]
    found = user2item(rows, ["first", "x", "last", "tie"], scorer)
    assert found == [
        1.0,
        None,
        pytest.approx(math.exp(-2 / 2000)),
        pytest.approx(math.exp(-1 / 2000)),
    ]
    assert user2item([SINGLE], ["x"], scorer) == [None]
    assert rank_reward(2001) == pytest.approx(math.exp(-1))
    with pytest.raises(ConfigError, match="rank"):
        rank_reward(0)


def test_rewrites_must_be_as_many_as_rows() -> None:
    with pytest.raises(ConfigError, match="1 of 3 rows"):
        length(ROWS, ["one"], Words())
