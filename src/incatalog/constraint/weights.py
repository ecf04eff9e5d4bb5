"""Log-weights of items: exclusions, continued.

The score of an item is ``model * log p + share * log_weight``, where ``p`` is the probability that
the language model gives it. A guide's log-probabilities count with a share ``w`` and the model with
``1 - w``; a factor that a shop gives an item multiplies the score's exponential by that factor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float, Float64, Integer

from incatalog.constraint.excluded import ExcludedItems, check_trie
from incatalog.errors import ConfigError, TrieError
from incatalog.trie.build import spread
from incatalog.trie.trie import ItemTrie

Bounds = Integer[np.ndarray, " ranges"]
LIGHT = 1e-6
"""Share of a prefix sum below which a difference is too rough, and items are added up instead."""
LEAST = 1e-290
"""And so they are below this, as digits are lost there."""


@dataclass(frozen=True, eq=False)
class ItemWeights:
    """A log-weight for every item of a trie; an item of log-weight minus infinity is excluded.

    Built once for each history. Prefix sums give the weight below any node as the difference of
    two numbers, and the greatest log-weight below a node bounds the search.
    """

    trie: ItemTrie
    model: float  # what the model's log-probability of an item is multiplied by
    share: float  # what an item's log-weight is multiplied by
    # By sorted position; minus infinity where an item is excluded or vacant.
    log_weights: Float64[np.ndarray, " positions"]
    excluded: ExcludedItems  # those of the rule below, and those of log-weight minus infinity

    @classmethod
    def build(
        cls,
        trie: ItemTrie,
        log_weights: Float[np.ndarray, " items"] | None = None,
        *,
        share: float = 0.0,
        log_factors: Float[np.ndarray, " items"] | None = None,
        base: ExcludedItems | None = None,
    ) -> ItemWeights:
        """Weights by item row.

        Args:
            trie: The items.
            log_weights: Natural logarithms, such as a teacher's log-probabilities after a history.
                They need not sum to one.
            share: How much they count, from 0 to 1; the model counts with the rest.
            log_factors: Logarithms of factors that are multiplied in beside model and guide.
            base: Items excluded besides those of log-weight minus infinity.

        Raises:
            ConfigError: The share is not from 0 to 1.
            TrieError: Weights are not one for each item, or not a number, or plus infinity.
        """
        if not 0 <= share <= 1:
            raise ConfigError(f"share: found {share}; expected 0 to 1")
        check_trie(trie, base)
        # A score adds `own` times the log-weight, so what is no guide's is divided by it.
        own = share or 1.0
        values = np.zeros(trie.num_items)
        if log_weights is not None:
            given = _checked("log_weights", log_weights, trie)
            values = given if share else np.where(np.isneginf(given), -np.inf, 0.0)
        if log_factors is not None:
            factors = _checked("log_factors", log_factors, trie)
            with np.errstate(over="ignore"):
                total = values + factors / own
            lost = np.isfinite(values) & np.isfinite(factors) & ~np.isfinite(total)
            if lost.any():
                raise ConfigError(
                    f"share: found {share}; expected 0, or more beside a factor whose logarithm "
                    f"is {factors[lost][0]}"
                )
            values = total
        excluded = ExcludedItems.build(trie, np.isneginf(values) & trie.live_rows, base)
        by_position = np.where(excluded.rows, -np.inf, values)[trie.order]
        by_position[trie.num_live :] = -np.inf
        return cls(trie, 1.0 - share, own, by_position, excluded)

    def narrowed(self, excluded: ExcludedItems) -> ItemWeights:
        """The same with further exclusions, which hold those of before."""
        weights = self.log_weights.copy()
        weights[excluded.listed] = -np.inf
        return replace(self, log_weights=weights, excluded=excluded)

    def sampling(self, temperature: float, random: np.random.Generator) -> ItemWeights:
        """Weights by which the item of the greatest score is a sample.

        Each item is drawn with the probability of its score divided by the temperature: the noise
        that is added is Gumbel's, the same for all spellings of an item (arXiv 1411.0030).
        """
        noise = random.gumbel(size=self.trie.num_items)[self.trie.order]
        # Neither a huge temperature nor a tiny one may make an infinite score.
        cooled, heated = max(temperature, 1.0), min(temperature, 1.0)
        weights = self.share * self.log_weights / cooled + heated * noise
        return replace(self, log_weights=weights, share=1.0, model=self.model / cooled)

    @cached_property
    def plain(self) -> bool:
        """Whether all items that may be named weigh the same, so that the model alone decides."""
        named = self.log_weights[np.isfinite(self.log_weights)]
        return self.model > 0 and (not len(named) or named.min() == named.max())

    @cached_property
    def mass(self) -> Float64[np.ndarray, " positions+1"]:
        """Weight before each sorted position, the heaviest item weighing 1.

        The spellings of an item have equal parts of its weight. Differences of a sum that is much
        larger say nothing of a light range, so :meth:`log_mass` adds the items of one up itself.
        """
        return np.concatenate([[0.0], np.cumsum(np.exp(self.spread))])

    @cached_property
    def spread(self) -> Float64[np.ndarray, " positions"]:
        """Log-weights less the greatest; those of an item are shared among its spellings."""
        live, trie = np.isfinite(self.log_weights), self.trie
        weights = self.log_weights - (self.log_weights[live].max() if live.any() else 0.0)
        if trie.spellings is not None:
            count = np.bincount(trie.order[: trie.num_live], minlength=trie.num_items)
            weights = weights - np.log(np.maximum(count[trie.order], 1))
        return weights

    @cached_property
    def below(self) -> tuple[Float64[np.ndarray, " edges"], Float64[np.ndarray, " nodes"]]:
        """Logarithms of the weight below each edge of the trie and each node, once asked for.

        Not a number where they were not; :mod:`incatalog.constraint.masses` fills them in as an
        answer comes to a node.
        """
        arrays = self.trie.arrays
        return np.empty(len(arrays.edge_token)), np.full(self.trie.num_nodes, np.nan)

    @cached_property
    def by_row(self) -> Float64[np.ndarray, " items"]:
        """The log-weight of each item row; minus infinity where it is excluded or vacant."""
        rows = np.full(self.trie.num_items, -np.inf)
        live = self.trie.num_live
        rows[self.trie.order[:live]] = self.log_weights[:live]
        return rows

    def log_mass(self, lo: Bounds, hi: Bounds) -> Float64[np.ndarray, " ranges"]:
        """Logarithm of the weight of all items in ranges of sorted positions."""
        mass = self.mass[hi] - self.mass[lo]
        with np.errstate(divide="ignore"):
            found: np.ndarray = np.log(np.maximum(mass, 0.0))
        # So light beside what stands before it that rounding would show.
        light = (mass <= np.maximum(LIGHT * self.mass[hi], LEAST)).nonzero()[0]
        light = light[lo[light] < hi[light]]
        if len(light):
            counts = (hi - lo)[light]
            of, within = spread(counts)
            weights = self.spread[lo[light][of] + within]
            starts = np.cumsum(counts) - counts
            most = np.maximum.reduceat(weights, starts)
            most[np.isneginf(most)] = 0.0
            with np.errstate(divide="ignore"):
                found[light] = most + np.log(np.add.reduceat(np.exp(weights - most[of]), starts))
        return found

    def greatest(self, lo: Bounds, hi: Bounds) -> Float64[np.ndarray, " ranges"]:
        """The greatest log-weight in each of some ranges, none of them empty."""
        if not len(lo):
            return np.empty(0)
        # Every second of these stretches is a range, those between are of no interest.
        ends = np.stack([lo, hi], axis=1).reshape(-1)
        padded = np.append(self.log_weights, -np.inf)
        found: np.ndarray = np.maximum.reduceat(padded, ends)[::2]
        return found

    def scores(
        self, logprobs: Float64[np.ndarray, " n"], log_weights: Float64[np.ndarray, " n"]
    ) -> Float64[np.ndarray, " n"]:
        """Scores of items, or bounds of those below a prefix."""
        own: np.ndarray = self.share * log_weights
        # Zero times the logarithm of a probability that has become zero is not a number.
        return own if self.model == 0 else self.model * logprobs + own


def all_excluded(
    excluded: ExcludedItems | None, weights: ItemWeights | None
) -> ExcludedItems | None:
    """All items that may not be named: those of the weights, which hold the others already."""
    if weights is None:
        return excluded
    if excluded is not None and excluded is not weights.excluded:
        check_trie(weights.trie, excluded)
        named = excluded.rows & ~weights.excluded.rows & weights.trie.live_rows
        if named.any():
            raise TrieError(
                f"weights: item row {named.argmax()} is excluded beside them and not in them; "
                "expected weights that were built with all that is excluded as their base"
            )
    return weights.excluded


def _checked(
    name: str, values: Float[np.ndarray, " items"], trie: ItemTrie
) -> Float64[np.ndarray, " items"]:
    given = np.asarray(values, dtype=np.float64)
    if given.shape != (trie.num_items,):
        raise TrieError(f"{name}: found shape {given.shape}; expected ({trie.num_items},)")
    wrong = np.flatnonzero(np.isnan(given) | np.isposinf(given))
    if len(wrong):
        raise TrieError(
            f"{name}: found {given[wrong[0]]} for item row {wrong[0]}; expected a number, or "
            "minus infinity for an item that must not be named"
        )
    return given
