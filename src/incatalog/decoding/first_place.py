"""What the model ranks at the first place of a list also counts at the places behind it.

A place behind the first is asked for with the items so far in view, and what a model has learned of
such places is narrower than what it knows of the person: from place to place a list drifts away
from the ranking that the model itself gives at the first. So an item's score at a later place is
``(1 - s) log p_here + s log p_first``. It is found by the same search as a guide's, and no teacher
takes part.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from incatalog.constraint.weights import ItemWeights
from incatalog.decoding.events import RankedItems
from incatalog.decoding.request import Request
from incatalog.trie.trie import ItemTrie

# Items of the first place that are told apart at least, or twice as many as a list has; all others
# count as the last of these, which none of them is above.
_REMEMBERED = 20
# Scores may be minus infinity; as weights these would exclude items.
_LEAST = -1e6

LogFactors = Float64[np.ndarray, " items"]


class FirstPlace:
    """The ranking at the first place of one answer, and what weighs the items at each.

    Nothing is remembered of answers that sample, that a guide weighs, or that name one item.
    """

    def __init__(self, request: Request, trie: ItemTrie) -> None:
        self._request, self._trie = request, trie
        self._factors: LogFactors | None = None
        self.weights = request.weights  # Of the place that comes next
        self.leans = False  # Whether that place goes by the first, too
        # Items to find there; the best one is written.
        self.wanted = 1
        if request.first_share and not request.temperature and request.item_limit != 1:
            own = request.weights
            # Of equal weights the guide says nothing.
            if own is None or own.model == 1 or own.plain:
                self.wanted = max(_REMEMBERED, 2 * (request.item_limit or 0))

    def remember(self, found: RankedItems) -> None:
        """Takes what was found; of places behind the first nothing is kept."""
        if self.wanted == 1:
            return
        self.wanted, self.leans = 1, True
        request, logprobs = self._request, found.logprobs
        if request.weights is not None and not request.weights.plain:
            # What a shop multiplies in counts once.
            self._factors = request.weights.share * request.weights.by_row
            logprobs = logprobs - self._factors[found.rows]
        # What the model rules out here is not excluded.
        logprobs = np.maximum(logprobs, _LEAST)
        first = np.full(self._trie.num_items, logprobs.min())
        first[found.rows] = logprobs
        self.weights = ItemWeights.build(
            self._trie,
            first,
            share=request.first_share,
            log_factors=self._factors,
            base=request.barred,
        )

    def said(self, row: int, score: float) -> float:
        """What is told of an item whose score weights made: how good it is at this place alone."""
        weights = self.weights
        if not self.leans or weights is None:
            return score
        alone = (score - weights.share * float(weights.by_row[row])) / weights.model
        return alone if self._factors is None else alone + float(self._factors[row])
