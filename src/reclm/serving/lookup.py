"""What several endpoints share: the errors they document, and domains by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reclm.serving.catalogs import Domain
from reclm.serving.problems import ApiError
from reclm.serving.schemas import Problem

PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The request cannot be answered."},
    401: {"model": Problem, "description": "No valid API key."},
    403: {"model": Problem, "description": "The key may not do this."},
    404: {"model": Problem, "description": "There is no such model, catalog, item or session."},
    409: {"model": Problem, "description": "A turn of the session is still being answered."},
    413: {"model": Problem, "description": "The body is too large."},
    429: {"model": Problem, "description": "Too many requests; see `Retry-After`."},
    504: {"model": Problem, "description": "The answer took too long."},
}


def find_domain(domains: Mapping[str, Domain], name: str, param: str = "domain") -> Domain:
    """The domain of a name.

    Raises:
        ApiError: There is none (404).
    """
    try:
        return domains[name]
    except KeyError:
        known = ", ".join(domains)
        message = f"{param}: no such catalog; expected one of {known}"
        raise ApiError(404, message, param=param, code="domain_not_found") from None
