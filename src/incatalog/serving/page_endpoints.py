"""The web page, and what it asks for beside the API: settings, suggestions, facets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from incatalog.serving.catalog_endpoints import catalog_item
from incatalog.serving.catalogs import Domain, Version
from incatalog.serving.facets import category_sizes, facets
from incatalog.serving.page_schemas import FacetChoice, Facets, PageSettings, Suggestions
from incatalog.serving.problems import PROBLEMS, find_domain
from incatalog.serving.settings import ServeSettings
from incatalog.serving.suggestions import begin_with, popularity, questions

_PAGE = Path(__file__).parent / "page"
_CATALOG = "/v1/catalogs/{domain}"
_T = TypeVar("_T")


class PageEndpoints:
    """Answers the page; what it makes of a catalog is kept until the catalog changes."""

    def __init__(self, domains: Mapping[str, Domain], settings: ServeSettings) -> None:
        self._domains, self._settings = domains, settings
        self._suggested: dict[str, tuple[Version, Suggestions]] = {}
        self._facets: dict[str, tuple[Version, Facets]] = {}

    def add_to(self, app: FastAPI) -> None:
        """Adds the endpoints to an application."""

        @app.get(_CATALOG + "/suggestions", responses=PROBLEMS)
        async def suggestions(domain: str) -> Suggestions:
            """Questions to begin with, and popular items to pick from."""
            return await self._kept(self._suggested, domain, _suggestions)

        @app.get(_CATALOG + "/facets", responses=PROBLEMS)
        async def catalog_facets(domain: str) -> Facets:
            """What the catalog can be filtered by, with the number of items of each value."""
            return await self._kept(self._facets, domain, _facets)

        @app.get("/page/settings.json", include_in_schema=False)
        async def page_settings() -> PageSettings:
            own = self._settings
            return PageSettings(
                title=own.title,
                images=list(own.allow_image),
                max_messages=own.max_messages,
                max_characters=own.max_characters,
                max_history=own.max_history,
            )

        @app.get("/", include_in_schema=False)
        async def page() -> FileResponse:
            return FileResponse(_PAGE / "index.html")

        @app.get("/docs", include_in_schema=False)
        async def docs() -> FileResponse:
            return FileResponse(_PAGE / "docs.html")

        app.mount("/page", StaticFiles(directory=_PAGE))

    async def _kept(
        self, kept: dict[str, tuple[Version, _T]], domain: str, make: Callable[[str, Version], _T]
    ) -> _T:
        """What is made of a catalog as it stands, once for each version."""
        version = find_domain(self._domains, domain).version
        known = kept.get(domain)
        if known is None or known[0] is not version:
            known = kept[domain] = (version, await asyncio.to_thread(make, domain, version))
        return known[1]


def _suggestions(domain: str, version: Version) -> Suggestions:
    recommender = version.recommender
    known = popularity(recommender)
    rows = list(begin_with(recommender, known))
    return Suggestions(
        domain=domain,
        version=version.number,
        suggestions=questions(recommender, rows),
        popular=[catalog_item(version, row) for row in rows],
        order="catalog" if known is None else "popularity",
    )


def _facets(domain: str, version: Version) -> Facets:
    sizes = category_sizes(version.recommender)
    return Facets(
        domain=domain,
        version=version.number,
        categories=[FacetChoice(value=name, shown=name, items=size) for name, size in sizes],
        fields=facets(version.recommender),
    )
