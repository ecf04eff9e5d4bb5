from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs import SpelledCatalog, spelled_catalogs
from incatalog.constraint.excluded import ExcludedItems
from incatalog.constraint.weights import ItemWeights, all_excluded
from incatalog.errors import ConfigError, TrieError
from incatalog.trie.trie import ItemTrie

# Near ones, some so light that they are lost beside others, or are no numbers at all as masses.
log_weight = st.sampled_from([0.0, -0.5, -3.0, -40.0, -900.0, -901.0, -math.inf, 12.0]) | st.floats(
    -5, 5
)


def brute_mass(weights: list[float], counts: list[int], items: list[int]) -> float:
    """Logarithm of the weight of items, of each the part that one of its spellings has."""
    found = [weights[item] - math.log(counts[item]) for item in items]
    most = max(found, default=-math.inf)
    if most == -math.inf:
        return most
    return most + math.log(math.fsum(math.exp(one - most) for one in found))


@settings(max_examples=300, deadline=None)
@given(spelled_catalogs(), st.booleans(), st.data())
def test_masses_of_ranges_equal_brute_force(
    catalog: SpelledCatalog, remove: bool, data: st.DataObject
) -> None:
    trie = ItemTrie.build(catalog.rows, items=catalog.items)
    vacant = set()
    if remove and catalog.num_items > 1:
        vacant = data.draw(st.sets(st.integers(1, catalog.num_items - 1)))
        trie = trie.without_items(vacant)
    given_weights = data.draw(
        st.lists(log_weight, min_size=catalog.num_items, max_size=catalog.num_items)
    )
    base = data.draw(st.sampled_from([None, ExcludedItems.build(trie, catalog.excluded)]))
    weights = ItemWeights.build(trie, np.array(given_weights), share=0.3, base=base)
    gone = vacant | (set() if base is None else set(catalog.excluded))
    own = [-math.inf if item in gone else one for item, one in enumerate(given_weights)]
    assert weights.by_row.tolist() == own
    named = {item for item, one in enumerate(own) if one > -math.inf}
    assert set(np.flatnonzero(~weights.excluded.rows).tolist()) - vacant == named
    assert (weights.model, weights.share) == (0.7, 0.3)

    order, live = trie.order.tolist(), trie.num_live
    counts = [catalog.items.count(item) for item in range(catalog.num_items)]
    heaviest = max(own)
    lo, hi = np.triu_indices(live + 1)
    found = weights.log_mass(lo, hi)
    shift = heaviest if heaviest > -math.inf else 0.0
    for low, high, one in zip(lo.tolist(), hi.tolist(), found.tolist(), strict=True):
        expected = brute_mass(own, counts, order[low:high]) - shift
        assert one == pytest.approx(expected, abs=1e-6)
    lo, hi = lo[hi > lo], hi[hi > lo]
    for low, high, one in zip(lo, hi, weights.greatest(lo, hi), strict=True):
        assert one == max(own[item] for item in order[low:high])
    assert weights.greatest(lo[:0], hi[:0]).tolist() == []
    different = {one for one in own if one > -math.inf}
    assert weights.plain == (len(different) < 2)


def test_a_light_range_behind_heavy_ones_is_added_up() -> None:
    trie = ItemTrie.build([[row] for row in range(6)])
    given_weights = np.array([0.0, 0.0, -50.0, -51.0, -800.0, -801.0])
    weights = ItemWeights.build(trie, given_weights, share=1.0)
    found = weights.log_mass(np.array([0, 2, 4, 2, 5, 3]), np.array([2, 4, 6, 6, 6, 3]))
    pair = math.log1p(math.exp(-1))
    expected = [math.log(2), -50 + pair, -800 + pair, -50 + pair, -801, -math.inf]
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    # The difference of two prefix sums would be this.
    assert weights.mass[4] - weights.mass[2] == 0


def test_the_score_of_an_item() -> None:
    trie = ItemTrie.build([[4], [5], [6]])
    teacher, boosts = np.log([0.5, 0.3, 0.2]), np.log([1.0, 4.0, 1.0])
    logprobs = np.log([0.1, 0.2, 0.7])
    for share in (0.0, 0.25, 1.0):
        weights = ItemWeights.build(trie, teacher, share=share, log_factors=boosts)
        expected = (1 - share) * logprobs + share * teacher + boosts
        np.testing.assert_allclose(weights.scores(logprobs, weights.by_row), expected, atol=1e-12)
    # With the teacher alone an item that the model cannot write counts too.
    alone = ItemWeights.build(trie, teacher, share=1.0)
    never = np.array([-np.inf, -1.0, -2.0])
    assert alone.scores(never, alone.by_row).tolist() == teacher.tolist()


def test_what_excludes_an_item() -> None:
    trie = ItemTrie.build([[4], [5], [6], [7]]).without_items([3])
    base = ExcludedItems.build(trie, [0])
    never = np.array([0.0, -np.inf, 0.0, 0.0])
    for weights in (
        ItemWeights.build(trie, never, share=0.5, base=base),
        ItemWeights.build(trie, never, share=0.0, base=base),
        ItemWeights.build(trie, log_factors=never, base=base),
        ItemWeights.build(trie, np.zeros(4), share=0.5, log_factors=never, base=base),
    ):
        assert weights.excluded.rows[:3].tolist() == [True, True, False]
        assert weights.by_row.tolist() == [-np.inf, -np.inf, 0.0, -np.inf]
        assert weights.plain
        assert all_excluded(None, weights) is weights.excluded
        assert all_excluded(weights.excluded, weights) is weights.excluded
        assert all_excluded(base, weights) is weights.excluded
        # What is vacant cannot be named.
        assert all_excluded(ExcludedItems.build(trie, [0, 3]), weights) is weights.excluded
        with pytest.raises(TrieError, match="weights: item row 2 is excluded beside them"):
            all_excluded(ExcludedItems.build(trie, [1, 2]), weights)
        with pytest.raises(TrieError, match="another trie"):
            all_excluded(ExcludedItems.build(ItemTrie.build([[4]]), [0]), weights)
    assert all_excluded(base, None) is base
    # A guide that does not count still excludes; its numbers are not read otherwise.
    weights = ItemWeights.build(trie, np.array([1.0, 2.0, 3.0, 4.0]), share=0.0)
    assert weights.plain
    assert (weights.model, weights.share) == (1.0, 1.0)


def test_equal_weights_alone_decide_where_the_model_does_not() -> None:
    trie = ItemTrie.build([[4], [5]])
    assert ItemWeights.build(trie, np.full(2, -3.0), share=0.9).plain
    assert not ItemWeights.build(trie, np.full(2, -3.0), share=1.0).plain
    nothing = ItemWeights.build(trie, np.full(2, -np.inf), share=0.9)
    assert nothing.plain
    assert nothing.log_mass(np.array([0]), np.array([2])).tolist() == [-np.inf]


@pytest.mark.parametrize(
    ("given_weights", "message"),
    [
        (np.zeros(2), r"log_weights: found shape \(2,\); expected \(3,\)"),
        (np.zeros((3, 1)), r"log_weights: found shape \(3, 1\); expected \(3,\)"),
        (np.array([0.0, np.nan, 0.0]), "log_weights: found nan for item row 1; expected a number"),
        (np.array([0.0, 0.0, np.inf]), "log_weights: found inf for item row 2; expected a number"),
    ],
)
def test_what_is_no_weight_is_refused(given_weights: np.ndarray, message: str) -> None:
    trie = ItemTrie.build([[4], [5], [6]])
    for share in (0.0, 0.5):
        with pytest.raises(TrieError, match=message):
            ItemWeights.build(trie, given_weights, share=share)
    with pytest.raises(TrieError, match=message.replace("weights", "factors")):
        ItemWeights.build(trie, log_factors=given_weights)


def test_what_does_not_fit_is_refused() -> None:
    trie = ItemTrie.build([[4], [5], [6]])
    for share in (-0.1, 1.1, math.nan):
        with pytest.raises(ConfigError, match=f"share: found {share}; expected 0 to 1"):
            ItemWeights.build(trie, np.zeros(3), share=share)
    other = ExcludedItems.build(ItemTrie.build([[4], [5], [6]]), [0])
    with pytest.raises(TrieError, match="another trie"):
        ItemWeights.build(trie, np.zeros(3), base=other)
    for factor in (2.0, -2.0):
        with pytest.raises(ConfigError, match=f"share: found 1e-308; .* logarithm is {factor}"):
            ItemWeights.build(
                trie, np.zeros(3), share=1e-308, log_factors=np.array([0.0, factor, 0.0])
            )
