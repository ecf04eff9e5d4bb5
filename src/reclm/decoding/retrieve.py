"""Which item stands in a span that opens: the best allowed one by the retrieval head's score.

Items are compared exactly, by one matrix product. Catalogs beyond a size are searched through an
inverted-file index instead; the items it proposes are compared exactly, and where all of them are
excluded the whole catalog is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from reclm.decoding.beam import RankedItems, Slot, check_count
from reclm.decoding.packed import PackedModel, Readout, RowCache
from reclm.decoding.sampling import NOT_NUMBERS, choose
from reclm.errors import BackboneError, ReclmError, TrieError, VectorError, require
from reclm.items.trie import ItemTrie
from reclm.retrieval import RetrievalHead

INDEX_ABOVE = 1_000_000
# Scores of the whole catalog that exist at a time.
_MOST_SCORES = 1 << 25
# Items that sampling chooses among; no answer of any use comes from behind them.
_SAMPLED = 1000
# Items the index proposes for one; more where more are asked for.
_PROPOSED = 100
# Lists of the index that are looked through: a share of them finds nearly all nearest items.
_PROBED_SHARE = 1 / 8
# Vectors a list that the index's k-means is trained on.
_TRAINED_ON = 64
# Rows whose weights exist at a time.
_ROWS = 4
# Items that are compared among each other first.
_BLOCK = 1024

Free = Bool[np.ndarray, " items"]
"""Which item rows may be named."""


@dataclass(frozen=True)
class Pick:
    """How one item is chosen.

    Attributes:
        free: Item rows to choose among.
        temperature: Divides the scores before sampling; 0 takes the best item.
        top_k: Sample from this many best items; 0 for all that count.
        top_p: Sample from the smallest set of items with this probability.
        random: Source of the sample.
    """

    free: Free
    temperature: float
    top_k: int
    top_p: float
    random: np.random.Generator


class ItemRetriever:
    """Finds items by the scores of a retrieval head.

    Args:
        head: The head, with a vector for each item row.
        index_above: Number of items beyond which an index is built and asked.

    Raises:
        MissingExtraError: The catalog needs an index and faiss is not installed.
    """

    def __init__(self, head: RetrievalHead, *, index_above: int = INDEX_ABOVE) -> None:
        self.head = head
        if len(head) > index_above:
            require("faiss", extra="index")
        self._indexed = len(head) > index_above

    def pick(
        self, states: Float[Tensor, "rows hidden"], picks: Sequence[Pick]
    ) -> list[tuple[int, float]]:
        """Chooses an item for each state.

        Args:
            states: Hidden states that predict the opening token.
            picks: How to choose; each leaves at least one item free.

        Returns:
            Item row, and its log-probability at temperature 1 among the free items (of those that
            the index proposes, where there is one).

        Raises:
            BackboneError: The scores are not numbers.
        """
        wanted = max((_SAMPLED if pick.temperature else 1 for pick in picks), default=1)
        chosen = []
        for pick, found in zip(
            picks, self.best(states, [pick.free for pick in picks], wanted), strict=True
        ):
            place = choose(
                found.logprobs,
                temperature=pick.temperature,
                top_k=pick.top_k,
                top_p=pick.top_p,
                random=pick.random,
            )
            chosen.append((int(found.rows[place]), float(found.logprobs[place])))
        return chosen

    def best(
        self,
        states: Float[Tensor, "rows hidden"],
        free: Sequence[Free],
        k: int | None,
        among: Sequence[Free] | None = None,
    ) -> list[RankedItems]:
        """The best free items of each state, best first; of equal ones the lower row.

        Args:
            states: Hidden states that predict the opening token.
            free: For each state the item rows to choose among.
            k: Items to find; None ranks all free ones.
            among: For each state the item rows that share the probability; by default the free
                ones.

        Raises:
            BackboneError: The scores are not numbers.
        """
        with torch.no_grad():
            query = self.head.query(states)
        if not query.isfinite().all():
            raise BackboneError(NOT_NUMBERS)
        found: list[RankedItems | None] = [None] * len(free)
        among = free if among is None else among
        if self._indexed and k is not None:
            found = self._proposed(query, free, k, among)
        rest = [place for place, ranked in enumerate(found) if ranked is None]
        size = max(1, _MOST_SCORES // len(self.head))
        for start in range(0, len(rest), size):
            part = rest[start : start + size]
            ranked = self._compared(
                query[part], [free[place] for place in part], k, [among[place] for place in part]
            )
            for place, one in zip(part, ranked, strict=True):
                found[place] = one
        return [one for one in found if one is not None]

    @torch.no_grad()
    def _compared(
        self,
        query: Float[Tensor, "rows dim"],
        free: Sequence[Free],
        k: int | None,
        among: Sequence[Free],
    ) -> list[RankedItems]:
        """Compares all items."""
        scores = self.head.scores(query)
        _bar(scores, among)
        total = _logsumexp(scores)
        if free is not among:
            _bar(scores, free)
        worst = _bound(scores, scores.shape[1] if k is None else k)
        # More than k: all of a block's best, and items that tie, so that the order does not rest
        # on chance.
        place, row = (scores >= worst).nonzero(as_tuple=True)
        logprobs = (scores[place, row].double() - total[place]).cpu().numpy()
        ends = torch.bincount(place, minlength=len(query)).cumsum(0).cpu().numpy()
        rows = row.cpu().numpy()
        return [
            _ranked(rows[start:end], logprobs[start:end], k)
            for start, end in zip([0, *ends[:-1]], ends, strict=True)
        ]

    @torch.no_grad()
    def _proposed(
        self,
        query: Float[Tensor, "rows dim"],
        free: Sequence[Free],
        k: int,
        among: Sequence[Free],
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
            ranked.append(_ranked(rows[allowed], scores[allowed] - total, k))
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


class ItemRanking:
    """Ranks the items of slots by the retrieval head's softmax; one forward pass for all slots.

    Args:
        model: A transformers causal LM, also within a PEFT wrapper, or one made for packed rows.
        trie: The items.
        retriever: Finds them.

    Raises:
        VectorError: The head has vectors of another number of items.
        BackboneError: The model cannot be fed packed rows.
    """

    def __init__(self, model: Any, trie: ItemTrie, retriever: ItemRetriever) -> None:
        check_items(trie, retriever)
        self._model = model if isinstance(model, PackedModel) else PackedModel(model)
        self._trie = trie
        self._retriever = retriever
        self.forward_passes = 0

    def top_items(self, slots: Sequence[Slot], k: int | None = 10) -> list[RankedItems]:
        """The best items of each slot; as :meth:`reclm.decoding.beam.ItemBeam.top_items`.

        Raises:
            ConfigError: ``k`` is not positive.
            TrieError: A slot's domain or exclusions are not those of the trie.
            BackboneError: The model's scores are not numbers.
        """
        searches = [self.search(slot, k) for slot in slots]
        try:
            while waiting := [search for search in searches if not search.over]:
                self.step(waiting)
            return [search.ranked() for search in searches]
        finally:
            for search in searches:
                search.end()

    def search(self, slot: Slot, k: int | None = 10) -> RankingSearch:
        """The search of one slot, to be advanced by :meth:`step`; arguments as in `top_items`.

        Whoever does not advance it to its end ends it by ``end``.

        Raises:
            ConfigError: ``k`` is not positive.
            TrieError: The slot's domain or exclusions are not those of the trie.
        """
        check_count(k)
        among = self._trie.rows_of(slot.domain)
        return RankingSearch(slot, self._free(slot, among), among, k)

    def step(self, searches: Sequence[RankingSearch], tokens: int | None = None) -> int:
        """One forward pass; as :meth:`reclm.decoding.beam.ItemBeam.step`."""
        left = math.inf if tokens is None else tokens
        fed: list[tuple[RankingSearch, list[int]]] = []
        for search in searches:
            if left <= 0:
                break
            part = search.next_tokens(left)
            fed.append((search, part))
            left -= len(part)
        readout = self._model.forward([(search.cache, part) for search, part in fed])
        self.forward_passes += 1
        ready: dict[int | None, list[int]] = {}
        for row, (search, _) in enumerate(fed):
            if not search.unfed:
                ready.setdefault(search.k, []).append(row)
        for k, rows in ready.items():
            self._find(readout, {row: fed[row][0] for row in rows}, k)
        return sum(len(part) for _, part in fed)

    def _find(self, readout: Readout, searches: Mapping[int, RankingSearch], k: int | None) -> None:
        """Finds the items of searches, by their places in what the model said."""
        own = list(searches.values())
        try:
            states = readout.states(list(searches))
            ranked = self._retriever.best(
                states, [one.free for one in own], k, [one.among for one in own]
            )
        except ReclmError as error:
            if len(own) == 1:
                own[0].fail(error)
            else:
                for row, one in searches.items():
                    self._find(readout, {row: one}, k)
            return
        for one, found in zip(own, ranked, strict=True):
            one.take(found)

    def _free(self, slot: Slot, among: Free) -> Free:
        if slot.excluded is None:
            return among
        if slot.excluded.trie is not self._trie:
            raise TrieError("excluded: holds items of another trie; build it for this one")
        free: Free = among & ~slot.excluded.rows
        return free


class RankingSearch:
    """The state of the search in one slot.

    Args:
        slot: What to search.
        free: Item rows that are allowed.
        among: Item rows that share the probability.
        k: Items to find; None ranks all that are allowed.

    Attributes:
        over: Whether the items are found.
        error: Why the model failed at it, if it did.
        cache: Keys and values of the prompt.
    """

    def __init__(self, slot: Slot, free: Free, among: Free, k: int | None) -> None:
        self.free, self.among, self.k = free, among, k
        self.cache = RowCache()
        self.over = not free.any()
        self._prompt = [int(token) for token in slot.prompt_ids]
        self.error: ReclmError | None = None
        self._fed = 0
        self._found = RankedItems(np.empty(0, np.int32), np.empty(0))

    @property
    def unfed(self) -> int:
        """Tokens of the prompt that the model has not seen yet."""
        return len(self._prompt) - self._fed

    def next_tokens(self, most: float) -> list[int]:
        """The next tokens of the prompt, up to so many; they count as seen from now on."""
        start, self._fed = self._fed, int(min(self._fed + most, len(self._prompt)))
        return self._prompt[start : self._fed]

    def take(self, found: RankedItems) -> None:
        """Takes the items."""
        self._found = found
        self.end()

    def end(self) -> None:
        """Lets the keys and values go; the search is over."""
        self.over = True
        self.cache.release()

    def fail(self, error: ReclmError) -> None:
        """Ends the search, as the model cannot go on with it; what it found is this error."""
        self.error = error
        self.end()

    def ranked(self) -> RankedItems:
        """What was found; the search is over.

        Raises:
            ReclmError: The model failed at it.
        """
        if self.error is not None:
            raise self.error
        return self._found


def check_items(trie: ItemTrie, retriever: ItemRetriever) -> None:
    """Makes sure that a retriever's items are those of a trie.

    Raises:
        VectorError: They are not as many.
    """
    if len(retriever.head) != trie.num_items:
        raise VectorError(
            f"item vectors: {len(retriever.head)} rows; expected one for each of the "
            f"{trie.num_items} items of the catalog; {retriever.head.how_to_embed()}"
        )


def _bar(scores: Float[Tensor, "rows items"], free: Sequence[Free]) -> None:
    """Takes away the scores of items that are not free; few of most catalogs are not."""
    for row, mask in zip(scores, free, strict=True):
        barred = np.flatnonzero(~mask)
        if len(barred):
            row[torch.from_numpy(barred).to(scores.device)] = -torch.inf


def _blocks(values: Float[Tensor, "rows items"]) -> list[Float[Tensor, "rows blocks block"]]:
    """Values in blocks of the same size, and what is left in one of its own."""
    whole = values.shape[1] // _BLOCK * _BLOCK
    parts = [values[:, :whole].view(len(values), -1, _BLOCK), values[:, None, whole:]]
    return [part for part in parts if part.numel()]


def _logsumexp(scores: Float[Tensor, "rows items"]) -> Float64[Tensor, " rows"]:
    """As of torch, but in float64 only from block to block."""
    highest = scores.amax(1, keepdim=True)
    sums = []
    # A few rows at a time, as memory that is new each time costs more than the sums.
    for some, best in zip(torch.split(scores, _ROWS), torch.split(highest, _ROWS), strict=True):
        weights = _blocks((some - best).exp_())
        sums.append(torch.cat([part.sum(2).double() for part in weights], dim=1).sum(1))
    return torch.cat(sums).log() + highest[:, 0].double()


def _bound(scores: Float[Tensor, "rows items"], k: int) -> Float[Tensor, "rows 1"]:
    """A finite score that the k best items reach and few others do."""
    lowest = torch.finfo(scores.dtype).min
    best = torch.cat([part.amax(2) for part in _blocks(scores)], dim=1)
    if k > best.shape[1]:
        best = scores
    if k >= best.shape[1]:
        return torch.full_like(scores[:, :1], lowest)
    return best.topk(k, dim=1).values[:, -1:].clamp_(min=lowest)


def _ranked(
    rows: Int64[np.ndarray, " found"], logprobs: Float64[np.ndarray, " found"], k: int | None
) -> RankedItems:
    best = np.lexsort((rows, -logprobs))[:k]
    return RankedItems(rows[best].astype(np.int32), logprobs[best])
