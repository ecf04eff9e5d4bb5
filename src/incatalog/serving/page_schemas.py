"""Bodies of the answers that the web page needs beside those of the API."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from incatalog.serving.catalog_schemas import CatalogItem
from incatalog.web.bodies import Form


class PageSettings(Form):
    """What the operator has set for the page."""

    title: str
    """Heading of the page."""
    images: list[str]
    """Origins that images may come from, beside the page's own."""
    max_messages: int
    """Messages of a conversation at most."""
    max_characters: int
    """Characters of a conversation at most."""
    max_history: int
    """Picks at most."""


class Suggestions(Form):
    """What people may begin with, made from the catalog."""

    domain: str
    version: int
    suggestions: list[str]
    """Questions that name something of the catalog."""
    popular: list[CatalogItem]
    """Items that many know, of several categories."""
    order: Literal["popularity", "catalog"]
    """What put them first: how often items were chosen, or, where no guide knows that, their order
    in the catalog."""


class FacetChoice(Form):
    """A value of a facet."""

    value: str
    shown: str
    items: int
    """Items that have it."""


class Facet(Form):
    """A field by which items can be filtered."""

    field: str
    label: str
    kind: Literal["number", "choice", "switch"]
    """A `number` takes a range, of a `choice` some values are chosen, a `switch` is on or off."""
    items: int
    """Items that have the field."""
    least: float | None = None
    most: float | None = None
    whole: bool = False
    """Whether all its numbers are whole ones."""
    currency: str = ""
    """Code of the currency that its numbers are amounts of."""
    choices: list[FacetChoice] = Field([])
    """Its values, those of the most items first."""


class Facets(Form):
    """What a catalog can be filtered by."""

    domain: str
    version: int
    categories: list[FacetChoice]
    """Those of the most items first."""
    fields: list[Facet]
