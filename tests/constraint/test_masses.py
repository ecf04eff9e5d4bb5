"""By hand; against brute force, in batches of all kinds, they are tested with `SpanBatch`."""

from __future__ import annotations

import numpy as np
import pytest

from incatalog.constraint.spans import Guidance, SpanBatch
from incatalog.constraint.weights import ItemWeights
from incatalog.trie.trie import ItemTrie

EOI = 100


def opened(trie: ItemTrie, log_weights: list[float], named: list[int]) -> Guidance:
    """What weights of share 1/2 say of an open span's first tokens, when some items were named."""
    spans = SpanBatch(trie, EOI)
    slot = spans.join(weights=ItemWeights.build(trie, np.array(log_weights), share=0.5))
    for row in named:
        spans.write(slot, row)
    slots = np.array([slot])
    spans.open(slots)
    found = spans.guidance(spans.allowed(slots))
    assert found is not None
    assert (found.rows.tolist(), found.model.tolist()) == ([0], [[0.5]])
    return found


def test_parts_of_the_weight_by_hand() -> None:
    trie = ItemTrie.build([[4, 5], [4, 6], [7, 5], [7, 6], [8]])
    found = opened(trie, np.log([1, 2, 3, 4, 10]).tolist(), [])
    np.testing.assert_allclose(np.exp(2 * found.bias[0]), np.array([3, 7, 10]) / 20)
    found = opened(trie, np.log([1, 2, 3, 4, 10]).tolist(), [3, 0])
    np.testing.assert_allclose(np.exp(2 * found.bias[0]), np.array([2, 3, 10]) / 15)


def test_what_is_left_when_the_heaviest_item_was_named() -> None:
    trie = ItemTrie.build([[4, 5], [4, 6], [4, 7], [8, 5], [8, 6]])
    # Beside item 0 a difference of sums would lose the others.
    found = opened(trie, [0.0, -60.0, -61.0, -60.0, -900.0], [0])
    first, second = np.exp(-60) + np.exp(-61), np.exp(-60)
    expected = np.log(np.array([first, second]) / (first + second))
    np.testing.assert_allclose(2 * found.bias[0], expected, rtol=1e-12)


def test_weights_too_small_for_a_number() -> None:
    trie = ItemTrie.build([[4, 5], [4, 6], [4, 7], [8, 5], [8, 6]])
    found = opened(trie, [0.0, -900.0, -901.0, -900.0, -5000.0], [0])
    parts = np.array([1 + np.exp(-1), 1])
    np.testing.assert_allclose(2 * found.bias[0], np.log(parts / parts.sum()), rtol=1e-12)


@pytest.mark.parametrize("size", [3, 5000])
def test_many_light_items_lose_no_digits(size: int) -> None:
    trie = ItemTrie.build([[first, second] for first in (4, 5) for second in range(6, 6 + size)])
    random = np.random.default_rng(size)
    log_weights = np.concatenate([random.normal(0, 1, size), random.normal(-20, 3, size)])
    named = np.argsort(-log_weights)[: size - 2].tolist()
    spans = SpanBatch(trie, 10**5)
    slot = spans.join(weights=ItemWeights.build(trie, log_weights, share=1.0))
    for row in named:
        spans.write(slot, row)
    slots = np.array([slot])
    spans.open(slots)
    found = spans.guidance(spans.allowed(slots))
    assert found is not None
    free = np.exp(log_weights)
    free[named] = 0
    parts = np.array([free[:size].sum(), free[size:].sum()])
    np.testing.assert_allclose(found.bias[0], np.log(parts / parts.sum()), rtol=1e-8, atol=1e-12)
