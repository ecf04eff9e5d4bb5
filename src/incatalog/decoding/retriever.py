"""Which item stands in a span that opens: the best allowed one by the retrieval head's score.

Items are compared exactly, by one matrix product. Catalogs beyond a size are searched through an
inverted-file index instead; the items it proposes are compared exactly, and where all of them are
excluded the whole catalog is. So it is where items have weights, as no index knows of those.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from incatalog.constraint.weights import ItemWeights
from incatalog.decoding.events import RankedItems
from incatalog.decoding.sampling import Sampling
from incatalog.errors import NOT_NUMBERS, BackboneError, IncatalogError, VectorError, require
from incatalog.model.head import RetrievalHead
from incatalog.trie.trie import ItemTrie

INDEX_ABOVE = 1_000_000
# Scores of the whole catalog that exist at a time.
_MOST_SCORES = 1 << 25
# Items that sampling chooses among; those behind them are too unlikely to matter.
_SAMPLED = 1000
# Items the index proposes for one; more where more are asked for.
_PROPOSED = 100
# Lists of the index that are looked through: a share of them finds nearly all nearest items.
_PROBED_SHARE = 1 / 8
# Vectors a list that the index's k-means is trained on.
_TRAINED_ON = 64
# Rows whose weights exist at a time.
_ROWS = 4
# Scores in float64 that exist at a time, of rows with item weights.
_MOST_WEIGHED = 1 << 22
# Items that are compared among each other first.
_BLOCK = 1024

Free = Bool[np.ndarray, " items"]
"""Which item rows may be named."""
_Found = TypeVar("_Found")
_Frees = Sequence[Free]
_Weights = Sequence[ItemWeights | None]
_States = Float[Tensor, "rows hidden"]
_Queries = Float[Tensor, "rows dim"]
_Scores = Float[Tensor, "rows items"]


class ItemRetriever:
    """Finds items by the scores of a retrieval head."""

    def __init__(self, head: RetrievalHead, *, index_above: int = INDEX_ABOVE) -> None:
        self.head = head
        self.indexed = len(head) > index_above
        if self.indexed:
            require("faiss", extra="index")

    def pick(
        self,
        states: _States,
        free: _Frees,
        sampling: Sequence[Sampling],
        weights: _Weights | None = None,
    ) -> list[tuple[int, float]]:
        """A free item for each state that predicts the opening token, and its log-probability.

        That is at temperature 1, among the free items (of those that the index proposes, where
        there is one). At least one is free. Probabilities are those of the scores under the
        weights, where a state has some.
        """
        wanted = max((_SAMPLED if one.temperature else 1 for one in sampling), default=1)
        chosen = []
        ranked = self._best(states, free, wanted, free, weights or [None] * len(free), share=True)
        for own, found in zip(sampling, ranked, strict=True):
            place = own.choose(found.logprobs)
            chosen.append((int(found.rows[place]), float(found.logprobs[place])))
        return chosen

    def best(
        self,
        states: _States,
        free: _Frees,
        k: int | None,
        among: _Frees | None = None,
        weights: _Weights | None = None,
    ) -> list[RankedItems]:
        """The ``k`` best free items of each state, best first; of equal ones the lower row.

        None ranks all free ones. Those ``among`` share the probability; by default the free ones.
        Where a state has weights, items are ranked by their scores under these, and the scores are
        what is returned for log-probabilities.
        """
        own = weights or [None] * len(free)
        return self._best(states, free, k, among or free, own, share=False)

    def _best(
        self,
        states: _States,
        free: _Frees,
        k: int | None,
        among: _Frees,
        weights: _Weights,
        *,
        share: bool,
    ) -> list[RankedItems]:
        """See :meth:`best`; if they ``share``, scores under weights become log-probabilities."""
        with torch.no_grad():
            query = self.head.query(states)
        if not query.isfinite().all():
            raise BackboneError(NOT_NUMBERS)
        # Where all weights are equal, the model alone decides.
        own = [None if one is None or one.plain else one for one in weights]
        found: list[RankedItems | None] = [None] * len(free)
        asked = [place for place, one in enumerate(own) if one is None]
        if self.indexed and k is not None and asked:
            parts = [[masks[place] for place in asked] for masks in (free, among)]
            proposed = self._proposed(query[asked], parts[0], k, parts[1])
            for place, ranked in zip(asked, proposed, strict=True):
                found[place] = ranked
        rest = [place for place, ranked in enumerate(found) if ranked is None]
        size = max(1, _MOST_SCORES // len(self.head))
        for start in range(0, len(rest), size):
            part = rest[start : start + size]
            some, shared = [free[place] for place in part], [among[place] for place in part]
            weighed = [own[place] for place in part]
            compared = self._compared(query[part], some, k, shared, weighed, share=share)
            for place, one in zip(part, compared, strict=True):
                found[place] = one
        return [one for one in found if one is not None]

    @torch.no_grad()
    def _compared(
        self,
        query: _Queries,
        free: _Frees,
        k: int | None,
        among: _Frees,
        weights: _Weights,
        *,
        share: bool,
    ) -> list[RankedItems]:
        """Compares all items with each query."""
        scores = self.head.scores(query)
        _bar(scores, among)
        total = _logsumexp(scores)
        if any(one is not other for one, other in zip(free, among, strict=True)):
            _bar(scores, free)
        guided = [place for place, one in enumerate(weights) if one is not None]
        if not guided:
            return _ranked(scores, total, k)
        rest = [place for place, one in enumerate(weights) if one is None]
        found = dict(zip(rest, _ranked(scores[rest], total[rest], k) if rest else (), strict=True))
        size = max(1, _MOST_WEIGHED // len(self.head))
        for start in range(0, len(guided), size):
            part = guided[start : start + size]
            own = _weighed(scores[part], total[part], [weights[place] for place in part])
            shared = _logsumexp(own) if share else torch.zeros_like(own[:, 0])
            found.update(zip(part, _ranked(own, shared, k), strict=True))
        return [found[place] for place in range(len(free))]

    @torch.no_grad()
    def _proposed(
        self, query: _Queries, free: _Frees, k: int, among: _Frees
    ) -> list[RankedItems | None]:
        """Compares the items the index proposes; None where too few of them are free."""
        count = min(len(self.head), max(_PROPOSED, 2 * k))
        _, proposed = self._index.search(query.cpu().numpy(), count)
        ranked: list[RankedItems | None] = []
        for place, rows in enumerate(proposed):
            rows = np.sort(rows[rows >= 0])
            allowed = free[place][rows]
            found = int(allowed.sum())
            if found < k and found < np.count_nonzero(free[place]):
                ranked.append(None)
                continue
            items = torch.from_numpy(rows).to(query.device)
            scores = self.head.scores(query[place : place + 1], items)[0].double().cpu().numpy()
            total = np.logaddexp.reduce(scores[among[place][rows]])
            ranked.append(ranked_items(rows[allowed], scores[allowed] - total, k))
        return ranked

    @cached_property
    def _index(self) -> Any:
        """An inverted file over all vectors (faiss), its lists made by seeded k-means."""
        faiss = require("faiss", extra="index")
        vectors = self.head.vectors.detach().cpu().numpy()
        lists = max(1, 4 * math.isqrt(len(vectors)))
        quantizer = faiss.IndexFlatIP(self.head.dim)
        index = faiss.IndexIVFFlat(quantizer, self.head.dim, lists, faiss.METRIC_INNER_PRODUCT)
        index.cp.seed = 0
        index.cp.max_points_per_centroid = _TRAINED_ON
        index.nprobe = max(1, math.ceil(lists * _PROBED_SHARE))
        index.train(vectors)
        index.add(vectors)
        return index


def each_found(
    find: Callable[[Sequence[int]], Sequence[_Found]], rows: Sequence[int]
) -> list[_Found | IncatalogError]:
    """What is found for some rows together; where that fails, for one by one, or why it is not."""
    try:
        return list(find(rows))
    except IncatalogError as error:
        if len(rows) == 1:
            return [error]
    return [found for row in rows for found in each_found(find, [row])]


def check_items(trie: ItemTrie, retriever: ItemRetriever) -> None:
    """Makes sure that a retriever's items are those of a trie."""
    if len(retriever.head) != trie.num_items:
        raise VectorError(
            f"item vectors: {len(retriever.head)} rows; expected one for each of the "
            f"{trie.num_items} items of the catalog; {retriever.head.how_to_embed()}"
        )


def _bar(scores: _Scores, free: _Frees) -> None:
    """Takes away the scores of items that are not free; few of most catalogs are not."""
    for row, mask in zip(scores, free, strict=True):
        barred = np.flatnonzero(~mask)
        if len(barred):
            row[torch.from_numpy(barred).to(scores.device)] = -torch.inf


def _weighed(
    scores: _Scores, total: Float64[Tensor, " rows"], weights: _Weights
) -> Float64[Tensor, "rows items"]:
    """Scores of the items under weights, of which each row has some."""
    given = [one for one in weights if one is not None]
    model = torch.tensor([[one.model] for one in given], dtype=torch.float64)
    own = torch.from_numpy(np.stack([one.share * one.by_row for one in given]))
    logprobs = scores.double() - total[:, None]
    # A finite logarithm, as zero times an infinite one is not a number.
    guided = model.to(scores.device) * logprobs.clamp(min=torch.finfo(torch.float64).min)
    guided += own.to(scores.device)
    return guided.masked_fill(scores == -torch.inf, -torch.inf)


def _ranked(scores: _Scores, total: Float64[Tensor, " rows"], k: int | None) -> list[RankedItems]:
    """The best items of each row by finite scores, less the total."""
    worst = bound(scores, scores.shape[1] if k is None else k)
    # More than k: all of a block's best, and items that tie, so that the order does not rest
    # on chance.
    place, row = (scores >= worst).nonzero(as_tuple=True)
    logprobs = (scores[place, row].double() - total[place]).cpu().numpy()
    ends = torch.bincount(place, minlength=len(scores)).cumsum(0).cpu().numpy()
    rows = row.cpu().numpy()
    spans = [slice(start, end) for start, end in pairwise([0, *ends])]
    return [ranked_items(rows[span], logprobs[span], k) for span in spans]


def blocks(values: _Scores) -> list[Float[Tensor, "rows blocks block"]]:
    """Values in blocks of the same size, and what is left in one of its own."""
    whole = values.shape[1] // _BLOCK * _BLOCK
    parts = [values[:, :whole].view(len(values), -1, _BLOCK), values[:, None, whole:]]
    return [part for part in parts if part.numel()]


def _logsumexp(scores: _Scores) -> Float64[Tensor, " rows"]:
    """The logarithm of a sum of exponentials; only the sums of blocks are added in float64."""
    highest = scores.amax(1, keepdim=True)
    sums = []
    # A few rows at a time, as memory that is new each time costs more than the sums.
    for some, best in zip(torch.split(scores, _ROWS), torch.split(highest, _ROWS), strict=True):
        weights = blocks((some - best).exp_())
        sums.append(torch.cat([part.sum(2).double() for part in weights], dim=1).sum(1))
    return torch.cat(sums).log() + highest[:, 0].double()


def bound(scores: _Scores, k: int) -> Float[Tensor, "rows 1"]:
    """A finite score that the k best items reach and few others do."""
    lowest = torch.finfo(scores.dtype).min
    best = torch.cat([part.amax(2) for part in blocks(scores)], dim=1)
    if k > best.shape[1]:
        best = scores
    if k >= best.shape[1]:
        return torch.full_like(scores[:, :1], lowest)
    return best.topk(k, dim=1).values[:, -1:].clamp_(min=lowest)


def ranked_items(
    rows: Int64[np.ndarray, " found"], logprobs: Float64[np.ndarray, " found"], k: int | None
) -> RankedItems:
    """The best items, ties by row."""
    best = np.lexsort((rows, -logprobs))[:k]
    return RankedItems(rows[best].astype(np.int32), logprobs[best])
