"""What recommendations are about, as bodies of requests say it.

The text of a class and the one below a field are what `/docs` says about them.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from incatalog.data.where import Where
from incatalog.serving.body_values import Boosts, Ids, LenientForm, Names, Positive
from incatalog.serving.condition_form import Conditions
from incatalog.serving.seen_version import SeenVersion


class ItemQuestion(LenientForm):
    """What recommendations are about; none of it is in OpenAI's API."""

    domain: str | None = Field(None, max_length=64)
    """Catalog to recommend from; null: no items are named."""
    history: Ids = Field([])
    """Ids of the user's items, oldest first."""
    exclude: Ids = Field([])
    """Ids of items that must not be recommended."""
    categories: Names = Field([])
    """Recommend from these only; all if empty."""
    where: Conditions = Field({})
    """Conditions that every item fulfils: a value, a list of values (one of them), or an object of
    `eq`, `ne`, `in`, `not_in`, `lt`, `lte`, `gt`, `gte`, `contains` (a part of a text), `words`
    (all of them in a text), by attribute (also `category`, `title`, `id`):
    `{"price": {"lte": 20}, "brand": ["A", "B"], "in_stock": true}`."""
    exclude_seen: bool = True
    """Never recommend items of the history."""
    boost: Boosts = Field({})
    """Factors of items by id: what their weight is multiplied by, beside what the catalog says."""
    guide_weight: float | None = Field(None, ge=0, le=1)
    """How much the guide counts, from 0 (the model alone) to 1; null: as the service is set."""
    unknown: Literal["ignore", "error"] = "ignore"
    """What is done about ids of the history that the catalog has not: they are left out and listed
    in the answer, or they are an error."""

    catalog_version: SeenVersion | None = None
    """Which version of the catalog the client has seen: `{"at_least": 12}` waits for it."""

    @property
    def conditions(self) -> Where:
        """What `where` says."""
        return Where.parse(self.where)


class RecommendationRequest(ItemQuestion):
    """Which items follow a history?"""

    domain: str | None = Field(None, max_length=64)
    """May be left out if there is one."""
    k: Positive = 10
    decode: Literal["beam", "list", "greedy"] = "beam"
    """`beam`: by the exact probability of the first place; `list`: written, each item the best one
    at its place and the first; `greedy`: written token by token."""
