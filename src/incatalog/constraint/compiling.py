"""Compiles the loops of decoding before an answer would wait for them."""

from __future__ import annotations

import numpy as np

from incatalog.constraint.spans import SpanBatch
from incatalog.constraint.weights import ItemWeights
from incatalog.trie.trie import ItemTrie


def compile_kernels() -> None:
    """Takes each kind of step in spans once, so that all loops are compiled."""
    trie = ItemTrie.build([[4, 5], [4, 6]])
    spans = SpanBatch(trie, 1)
    weights = ItemWeights.build(trie, np.array([0.0, -1.0]), share=0.5)
    slots = np.array([spans.join(weights=weights)])
    spans.open(slots)
    allowed = spans.allowed(slots)
    spans.guidance(allowed)
    spans.choose(allowed, np.array([0]))
