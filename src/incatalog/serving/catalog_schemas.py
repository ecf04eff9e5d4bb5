"""Bodies of requests about catalogs, and of the answers to them.

The text of a class and the one below a field are what `/docs` says about them.
"""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from incatalog.data.attributes import checked_attributes
from incatalog.data.fields import DAY_EXPECTED, id_problem
from incatalog.errors import CatalogError
from incatalog.serving.attribute_form import Attribute
from incatalog.serving.body_values import Factor, Id, Ids, Names, StrictForm
from incatalog.web.bodies import Form

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_LONGEST_NAME, _LONGEST_TEXT = 200, 20_000


def _attributes(given: dict[str, Any]) -> dict[str, Any]:
    """Refuses what no item can have; lists become tuples, and null is as good as nothing."""
    kept = {name: value for name, value in given.items() if value is not None}
    try:
        found = checked_attributes("", kept)
    except CatalogError as error:
        raise PydanticCustomError("attributes", "{why}", {"why": str(error)}) from error
    for name, value in found.items():
        longest = max(map(len, value if isinstance(value, tuple) else [str(value)]), default=0)
        if len(name) > _LONGEST_NAME or longest > _LONGEST_TEXT:
            limits = f"{_LONGEST_NAME} characters of a name and {_LONGEST_TEXT} of a text"
            raise PydanticCustomError("attributes", "{why}", {"why": f"expected {limits} at most"})
    return dict(found)


def _day(text: str) -> str:
    """Refuses what is no day."""
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        raise PydanticCustomError("day", DAY_EXPECTED) from None


_VALUE = {
    "anyOf": [
        {"type": ["boolean", "number", "string", "null"]},
        {"type": "array", "items": {"type": "string"}},
    ]
}
Given = Annotated[
    dict[str, Any],
    AfterValidator(_attributes),
    WithJsonSchema({"type": "object", "additionalProperties": _VALUE}),
]


def _nameable(item_id: str) -> str:
    """Refuses an id that no path could name, so that its item could never be removed."""
    if problem := id_problem(item_id):
        raise PydanticCustomError("id", problem)
    return item_id


class CatalogInfo(Form):
    """A catalog as it stands."""

    domain: str
    version: int
    items: int
    categories: list[str]
    guided: bool
    """Whether a teacher guides the answers."""
    title_field: str
    """Field by which the model knows the items; people are shown `title`."""
    fingerprint: str | None = None
    """SHA-256 over all that is known of the items, equal wherever this version is served; only of
    one catalog alone."""


class Catalogs(Form):
    """All catalogs."""

    catalogs: list[CatalogInfo]


class CatalogItem(Form):
    """An item of a catalog, with the `title_field` of the catalog where that is not `title`."""

    model_config = ConfigDict(extra="allow")

    id: str
    title: str
    categories: list[str]
    description: str
    boost: float
    """What its weight is multiplied by."""
    boost_until: str | None
    """Last day on which it is; null for ever."""
    attributes: list[Attribute]
    """What else is known of it."""
    enabled: bool


class CatalogPage(Form):
    """Some items of a catalog."""

    domain: str
    version: int
    total: int
    """Items that match."""
    items: list[CatalogItem]


class NewCatalogItem(StrictForm):
    """An item to add, or to put in place of the one with its id.

    Where the `title_field` of the catalog is another one than `title`, the item has that field too.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[str, Field(min_length=1, max_length=2000)]]

    id: Annotated[Id, AfterValidator(_nameable)]
    title: str = Field(min_length=1, max_length=2000)
    description: str = Field("", max_length=20_000)
    categories: Names = Field([], max_length=100)
    boost: Factor = 1.0
    """What its weight is multiplied by."""
    boost_until: Annotated[str, AfterValidator(_day)] | None = None
    """Last day on which it is, such as 2026-01-31; null for ever."""
    attributes: Given = Field({}, max_length=1000)
    """What else is known of it: true or false, numbers, texts and lists of texts by name."""
    codes: Annotated[list[int], Field(max_length=26)] | None = None
    """Its semantic ID, for a model that writes codes."""
    vector: Annotated[list[_Finite], Field(max_length=65_536, fail_fast=True)] | None = None
    """Its vector, for a model that retrieves."""


class NewCatalogItems(StrictForm):
    """Items to add at once: all of them, or none if one does not fit."""

    items: Annotated[list[NewCatalogItem], Field(min_length=1, max_length=10_000, fail_fast=True)]


class Feed(StrictForm):
    """All items of a catalog: what it has beside them goes, as one version."""

    items: Annotated[list[NewCatalogItem], Field(min_length=1, fail_fast=True)]
    missing: Literal["remove", "disable"] = "remove"
    """What happens to items that are not among them; disabled ones come back with a later feed."""


class FeedChanged(Form):
    """What a feed has changed, in items, and the version from which on that holds."""

    domain: str
    version: int
    added: int
    changed: int
    removed: int
    """Removed, or disabled where that was asked for."""
    unchanged: int


class ItemSwitch(StrictForm):
    """Whether an item may be recommended."""

    enabled: bool


class Removal(StrictForm):
    """Items to remove at once: all of them, or none if one is not there."""

    ids: Annotated[Ids, Field(min_length=1, max_length=10_000)]


class Changed(Form):
    """The version of the catalog from which on a change holds."""

    domain: str
    version: int
