"""Which categories a text means without naming them: "something scary" is horror.

A category is the mean of its items' vectors, which have the names of categories in their texts. Of
all categories, the text means each with the softmax of how alike they are; an item is meant as much
as all its categories together. Where categories do not sort a catalog, the nouns at the heads of
its titles do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Float64

from incatalog.data.catalog import Catalog
from incatalog.data.vectors import unit_rows
from incatalog.data.word_forms import plural
from incatalog.steering.likeness import Likeness
from incatalog.steering.title_kinds import TitleKinds

if TYPE_CHECKING:
    from scipy import sparse

# Differences of cosines that are worth a factor of e; measured (docs/steering.md).
_TEMPERATURE = 0.035
# "to put letters in" sounds like letters, and not like what is bought to put them in.
_ASKING = "I want to buy a product. "
# What a category has at least, so that none is out of reach.
_LEAST = 0.02
# The part of the items that a category has at least, and that all of these have together.
_SMALLEST, _HELD = 0.005, 0.6


@dataclass(frozen=True, eq=False)
class Kinds:
    """The categories of one version of a catalog as vectors.

    Attributes:
        centres: The mean vector of each.
        members: Which items each has.
        named: What a person would call the categories of an item, by its row.
        log_sizes: Logarithms of what each counts before anything is said. Kinds that are told by
            titles are of all sizes, and what most of the catalog is, is meant more often.
        by_titles: Whether it is titles that tell them.
    """

    centres: Float32[np.ndarray, "categories hidden"]
    members: sparse.csr_array  # categories by items
    named: Callable[[int], Sequence[str]]
    log_sizes: Float64[np.ndarray, " categories"]
    by_titles: bool = False

    @classmethod
    def of(cls, catalog: Catalog, likeness: Likeness, titles: TitleKinds) -> Kinds | None:
        """What sorts the catalog; None where nothing does, or without vectors.

        Small categories, such as most brands of a shop, are as like a text as single items are.
        What is left has to hold most items.
        """
        if likeness.memory.sentences is None:
            return None
        every = map(catalog.category_rows, catalog.categories)
        rows = [own for own in every if len(own) >= _SMALLEST * catalog.num_live]
        held = np.unique(np.concatenate(rows)).size if rows else 0

        def by_category(row: int) -> Sequence[str]:
            return catalog.item(row).categories

        def by_title(row: int) -> Sequence[str]:
            return tuple(map(plural, titles.of_title(catalog.item(row).title)))

        named, by_titles = by_category, False
        if len(rows) < 2 or held < _HELD * catalog.num_live:
            rows, named = list(titles.rows(catalog).values()), by_title
            by_titles = True
        if len(rows) < 2:
            return None
        ends = np.cumsum([0, *map(len, rows)])
        # The service loads sooner, and smaller, where nothing asks for it.
        from scipy import sparse

        columns = np.concatenate(rows)
        shape = len(rows), len(catalog)
        members = sparse.csr_array((np.ones(len(columns), np.float32), columns, ends), shape=shape)
        centres = unit_rows(members @ likeness.all_vectors())
        sizes = np.log(np.diff(ends)) if by_titles else np.zeros(len(rows))
        return cls(centres.astype(np.float32), members, named, sizes, by_titles)

    @property
    def asking(self) -> str:
        """What is put before a text, so that it sounds like a request for one."""
        return _ASKING if self.by_titles else ""

    def log_meant(self, vector: Float32[np.ndarray, " hidden"]) -> Float64[np.ndarray, " items"]:
        """Logarithm of how much a text means each item's categories."""
        scores = (self.centres @ vector).astype(np.float64) / _TEMPERATURE + self.log_sizes
        odds = np.exp(scores - scores.max())
        meant = np.minimum(self.members.T @ (odds / odds.sum()), 1.0)
        found: Float64[np.ndarray, " items"] = np.log(meant + _LEAST)
        return found
