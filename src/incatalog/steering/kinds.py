"""Which categories a text means without naming them: "something scary" is horror.

A category is the mean of its items' vectors, which have the names of categories in their texts. Of
all categories, the text means each with the softmax of how alike they are; an item is meant as much
as all its categories together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Float64

from incatalog.data.catalog import Catalog
from incatalog.data.vectors import unit_rows
from incatalog.steering.likeness import Likeness

if TYPE_CHECKING:
    from scipy import sparse

# Differences of cosines that are worth a factor of e; measured (docs/steering.md).
_TEMPERATURE = 0.035
# What a category has at least, so that none is out of reach.
_LEAST = 0.02
# The part of the items that a category has at least, and that all of these have together.
_SMALLEST, _HELD = 0.005, 0.6


@dataclass(frozen=True, eq=False)
class Kinds:
    """The categories of one version of a catalog as vectors."""

    centres: Float32[np.ndarray, "categories hidden"]
    members: sparse.csr_array  # categories by items

    @classmethod
    def of(cls, catalog: Catalog, likeness: Likeness) -> Kinds | None:
        """The categories that sort the catalog; None where they do not, or without vectors.

        Small ones, such as most brands of a shop, are as like a text as single items are. What is
        left has to hold most items.
        """
        if likeness.memory.sentences is None:
            return None
        every = map(catalog.category_rows, catalog.categories)
        rows = [own for own in every if len(own) >= _SMALLEST * catalog.num_live]
        held = np.unique(np.concatenate(rows)).size if rows else 0
        if len(rows) < 2 or held < _HELD * catalog.num_live:
            return None
        ends = np.cumsum([0, *map(len, rows)])
        # The service loads sooner, and smaller, where nothing asks for it.
        from scipy import sparse

        columns = np.concatenate(rows)
        shape = len(rows), len(catalog)
        members = sparse.csr_array((np.ones(len(columns), np.float32), columns, ends), shape=shape)
        centres = unit_rows(members @ likeness.all_vectors())
        return cls(centres.astype(np.float32), members)

    def log_meant(self, vector: Float32[np.ndarray, " hidden"]) -> Float64[np.ndarray, " items"]:
        """Logarithm of how much a text means each item's categories."""
        scores = (self.centres @ vector).astype(np.float64) / _TEMPERATURE
        odds = np.exp(scores - scores.max())
        meant = np.minimum(self.members.T @ (odds / odds.sum()), 1.0)
        found: Float64[np.ndarray, " items"] = np.log(meant + _LEAST)
        return found
