"""Versions that are at least as new as what a client has seen, on whichever service it asks."""

from __future__ import annotations

import asyncio

from incatalog.serving.catalogs import Domain, Version
from incatalog.serving.problems import ApiError


async def version_from(domain: Domain, number: int | None, seconds: float) -> Version:
    """A version of this number or a later one; an ApiError (409, 503) if there is none in time."""
    if number is None or number <= domain.version.number:
        return domain.version
    place = "catalog_version.at_least"
    try:
        async with asyncio.timeout(seconds):
            version = await domain.catch_up()
    except TimeoutError:
        why = f"{place}: version {number} was not reached in {seconds:g} s; ask again"
        headers = {"Retry-After": "1"}
        raise ApiError(503, why, param=place, code="state_behind", headers=headers) from None
    if version.number < number:
        why = f"{place}: found {number}; the newest version of {domain.name} is {version.number}"
        raise ApiError(409, why, param=place, code="version_ahead")
    return version
