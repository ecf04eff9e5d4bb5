"""Which categories a text means without naming them: "something scary" is horror.

A category is the mean of its items' vectors, which have the names of categories in their texts. Of
all categories, the text means each with the softmax of how alike they are; an item is meant as much
as all its categories together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64
from scipy import sparse

from incatalog.data.catalog import Catalog
from incatalog.data.vectors import unit_rows
from incatalog.steering.likeness import Likeness

# Differences of cosines that are worth a factor of e; measured (docs/steering.md).
_TEMPERATURE = 0.035
# What a category has at least, so that none is out of reach.
_LEAST = 0.02


@dataclass(frozen=True, eq=False)
class Kinds:
    """The categories of one version of a catalog as vectors."""

    centres: Float32[np.ndarray, "categories hidden"]
    members: sparse.csr_array  # categories by items

    @classmethod
    def of(cls, catalog: Catalog, likeness: Likeness) -> Kinds | None:
        """The categories; None where there are fewer than two, or no vectors."""
        names = catalog.categories
        if len(names) < 2 or likeness.memory.sentences is None:
            return None
        rows = [catalog.category_rows(name) for name in names]
        ends = np.cumsum([0, *map(len, rows)])
        columns = np.concatenate(rows)
        shape = len(names), len(catalog)
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
