"""What the model ranks at the first place of a list also counts at the places behind it.

A place behind the first is asked for with the items so far in view, and what a model has learned of
such places is narrower than what it knows of the person: from place to place a list drifts away
from the ranking that the model itself gives at the first. So an item's score at a later place is
``(1 - s) log p_here + s log p_first``. It is found by the same search as a guide's, and no teacher
takes part.
"""

from __future__ import annotations

import numpy as np

from incatalog.constraint.weights import ItemWeights
from incatalog.decoding.events import RankedItems
from incatalog.decoding.request import Request
from incatalog.trie.trie import ItemTrie

# Items of the first place that are told apart at least, or twice as many as a list has; all others
# count as the last of these, which none of them is above.
_REMEMBERED = 20


class FirstPlace:
    """The ranking at the first place of one answer, and what weighs the items at each.

    Nothing is remembered of answers that sample, that a guide weighs, or that name one item.
    """

    def __init__(self, request: Request, trie: ItemTrie) -> None:
        own = request.weights
        # Equal weights say nothing.
        self._given = None if own is None or own.plain else own
        self._share, self._trie, self._base = request.first_share, trie, request.barred
        lists = (
            request.first_share > 0
            and request.temperature == 0
            and request.item_limit != 1
            and (self._given is None or self._given.model == 1)
        )
        self._factors: np.ndarray | None = None
        self.weights = own  # Of the place that comes next
        self.leans = False  # Whether that place goes by the first, too
        # Items to find there; the best one is written.
        self.wanted = max(_REMEMBERED, 2 * (request.item_limit or 0)) if lists else 1

    def remember(self, found: RankedItems) -> None:
        """Takes what was found; of places behind the first nothing is kept."""
        if self.wanted == 1:
            return
        self.wanted, self.leans = 1, True
        logprobs = found.logprobs
        if self._given is not None:
            # What a shop multiplies in counts once.
            self._factors = self._given.share * self._given.by_row
            logprobs = logprobs - self._factors[found.rows]
        first = np.full(self._trie.num_items, logprobs.min())
        first[found.rows] = logprobs
        self.weights = ItemWeights.build(
            self._trie, first, share=self._share, log_factors=self._factors, base=self._base
        )

    def said(self, row: int, score: float) -> float:
        """What is told of an item whose score weights made: how good it is at this place alone."""
        weights = self.weights
        if not self.leans or weights is None:
            return score
        alone = (score - weights.share * float(weights.by_row[row])) / weights.model
        return alone if self._factors is None else alone + float(self._factors[row])
