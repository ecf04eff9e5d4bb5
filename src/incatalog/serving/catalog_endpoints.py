"""Catalogs over HTTP: what is in them, and changes while they are in use."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.types import Scope

from incatalog.data.catalog import Item
from incatalog.data.cleaning import clean_title
from incatalog.data.naming import TITLE
from incatalog.serving import catalog_schemas as forms
from incatalog.serving.attribute_form import Attribute
from incatalog.serving.catalogs import Domain, Version
from incatalog.serving.problems import PROBLEMS, ApiError, find_domain
from incatalog.serving.store import NewItem
from incatalog.serving.title_search import TitleSearch

_MOST_LISTED = 1000
_LONGEST_NAME = 80  # of a field, in a message
_ITEMS = "/v1/catalogs/{domain}/items"
_ITEM = _ITEMS + "/{item_id:path}"


class CatalogEndpoints:
    """Lists, searches and changes catalogs."""

    def __init__(self, domains: Mapping[str, Domain]) -> None:
        self._domains = domains
        self._searches: dict[str, TitleSearch] = {}

    def add_to(self, app: FastAPI) -> None:
        """Adds the endpoints to an application."""

        @app.get("/v1/catalogs", responses=PROBLEMS)
        async def catalogs() -> forms.Catalogs:
            """All catalogs."""
            return forms.Catalogs(catalogs=[_info(domain) for domain in self._domains.values()])

        @app.get("/v1/catalogs/{domain}", responses=PROBLEMS)
        async def catalog(domain: str) -> forms.CatalogInfo:
            """A catalog as it stands."""
            return _info(find_domain(self._domains, domain))

        @app.get(_ITEMS, responses=PROBLEMS)
        async def items(
            domain: str,
            query: Annotated[str, Query(max_length=200)] = "",
            search: Annotated[str, Query(max_length=200)] = "",
            category: Annotated[str, Query(max_length=512)] = "",
            limit: Annotated[int, Query(ge=1, le=_MOST_LISTED)] = 20,
            offset: Annotated[int, Query(ge=0, le=1 << 31)] = 0,
        ) -> forms.CatalogPage:
            """Items of a catalog; with `query` those whose titles hold its words.

            `search` forgives: a word may be misspelled, or only begun; the best come first.
            """
            found = find_domain(self._domains, domain)
            version = found.version
            if query and search:
                why = "search: cannot stand beside query; give one of them"
                raise ApiError(400, why, param="search", code="form")
            rows = await asyncio.to_thread(self._search, found, version, query, search)
            if category:
                members = set(version.catalog.category_rows(category).tolist())
                rows = [row for row in rows if row in members]
            shown = [catalog_item(version, row) for row in rows[offset : offset + limit]]
            number, total = version.number, len(rows)
            return forms.CatalogPage(domain=domain, version=number, total=total, items=shown)

        @app.get(_ITEM, responses=PROBLEMS)
        async def item(domain: str, item_id: str) -> forms.CatalogItem:
            """One item."""
            version = find_domain(self._domains, domain).version
            _check_item(version, item_id)
            return catalog_item(version, version.catalog.row(item_id))

        @app.post(_ITEMS, responses=PROBLEMS)
        async def add(domain: str, body: forms.NewCatalogItems, request: Request) -> forms.Changed:
            """Adds items, or puts them in the place of those with their ids."""
            changing = self._to_change(request, domain)
            field = changing.version.catalog.title_field
            items = [_new_item(one, place, field) for place, one in enumerate(body.items)]
            return _changed(domain, await changing.put(items))

        schema = forms.Feed.model_json_schema(ref_template="#/components/schemas/{model}")
        # The form of an item is described with the endpoint that adds some.
        schema.pop("$defs")
        content = {"required": True, "content": {"application/json": {"schema": schema}}}

        @app.put(_ITEMS, responses=PROBLEMS, openapi_extra={"requestBody": content})
        async def feed(domain: str, request: Request) -> forms.FeedChanged:
            """Makes the catalog one of exactly these items, as one version.

            Items that stay the same cost nothing, and those of which only texts, categories,
            boosts or attributes differ hardly anything.
            """
            changing = self._to_change(request, domain)
            body = await request.body()
            field = changing.version.catalog.title_field
            # A feed takes longer to read than any other body.
            items, disable = await asyncio.to_thread(_feed, body, field)
            version, counts = await changing.feed(items, disable=disable)
            return forms.FeedChanged(domain=domain, version=version.number, **asdict(counts))

        @app.post(_ITEMS + "/remove", responses=PROBLEMS)
        async def remove_several(
            domain: str, body: forms.Removal, request: Request
        ) -> forms.Changed:
            """Removes several items at once."""
            changing = self._to_change(request, domain, *body.ids)
            return _changed(domain, await changing.remove(body.ids))

        @app.delete(_ITEM, responses=PROBLEMS)
        async def remove(domain: str, item_id: str, request: Request) -> forms.Changed:
            """Removes an item."""
            changing = self._to_change(request, domain, item_id)
            return _changed(domain, await changing.remove([item_id]))

        @app.patch(_ITEM, responses=PROBLEMS)
        async def switch(
            domain: str, item_id: str, body: forms.ItemSwitch, request: Request
        ) -> forms.Changed:
            """Allows an item to be recommended, or forbids it."""
            changing = self._to_change(request, domain, item_id)
            return _changed(domain, await changing.enable(item_id, enabled=body.enabled))

    def _search(self, domain: Domain, version: Version, query: str, search: str) -> list[int]:
        known = self._searches.get(domain.name)
        if known is None or not known.fits(version.catalog):
            known = self._searches[domain.name] = TitleSearch(version.catalog)
        return known.near(search) if search else known.rows(query)

    def _to_change(self, request: Request, name: str, *item_ids: str) -> Domain:
        """A domain that may be changed by who asks, and that has the items."""
        if not request.state.key.admin:
            raise ApiError(403, "this key may not change catalogs", code="not_admin")
        domain = find_domain(self._domains, name)
        for item_id in item_ids:
            _check_item(domain.version, item_id)
        return domain


def is_feed(scope: Scope) -> bool:
    """Whether a request brings all items of a catalog."""
    path: str = scope["path"]
    return (
        bool(scope["method"] == "PUT")
        and path.startswith("/v1/catalogs/")
        and path.endswith("/items")
    )


def _feed(body: bytes, title_field: str) -> tuple[list[NewItem], bool]:
    """The items of a feed, and whether what is missing is to be disabled."""
    try:
        found = forms.Feed.model_validate_json(body)
    except ValidationError as error:
        faults = [{**one, "loc": ("body", *one["loc"])} for one in error.errors()]
        raise RequestValidationError(faults) from error
    items = [_new_item(one, place, title_field) for place, one in enumerate(found.items)]
    return items, found.missing == "disable"


def _new_item(new: forms.NewCatalogItem, place: int, title_field: str) -> NewItem:
    """An item of a body, with what the model knows it by, where that is not its title."""
    others = new.model_extra or {}
    for other in others:
        if other != title_field:
            name = f"items.{place}.{other[:_LONGEST_NAME]}"
            raise ApiError(400, f"{name}: no such field; see /docs", param=name, code="form")
    known = None
    if title_field != TITLE:
        known = others.get(title_field, getattr(new, title_field, None))
        if not isinstance(known, str) or not clean_title(known):
            name = f"items.{place}.{title_field}"
            why = "expected text, as the model knows the items of this catalog by it"
            raise ApiError(400, f"{name}: {why}", param=name, code="form")
    return NewItem(
        Item(
            new.id,
            new.title,
            new.description,
            _categories(new),
            boost=new.boost,
            name=known,
            attributes=new.attributes,
            boost_until=new.boost_until,
        ),
        None if new.codes is None else tuple(new.codes),
        None if new.vector is None else tuple(new.vector),
        title_field,
    )


def _categories(new: forms.NewCatalogItem) -> tuple[str, ...]:
    return tuple(dict.fromkeys(new.categories))


def _changed(domain: str, version: Version) -> forms.Changed:
    return forms.Changed(domain=domain, version=version.number)


def _info(domain: Domain) -> forms.CatalogInfo:
    version = domain.version
    return forms.CatalogInfo(
        domain=domain.name,
        version=version.number,
        items=version.catalog.num_live,
        categories=list(version.catalog.categories),
        guided=version.recommender.guide is not None,
        title_field=version.catalog.title_field,
    )


def catalog_item(version: Version, row: int) -> forms.CatalogItem:
    """An item as clients see it."""
    item, field = version.catalog.item(row), version.catalog.title_field
    known: Any = {} if field in forms.CatalogItem.model_fields else {field: item.name}
    return forms.CatalogItem(
        id=item.item_id,
        title=item.title,
        categories=list(item.categories),
        description=item.description,
        boost=item.boost,
        boost_until=item.boost_until,
        attributes=[Attribute(**one) for one in version.catalog.shown(item)],
        enabled=row not in version.recommender.disabled,
        **known,
    )


def _check_item(version: Version, item_id: str) -> None:
    if not version.catalog.has(item_id):
        raise ApiError(404, "item: no item of this id in the catalog", param="id", code="not_found")
