"""`incatalog catalog sync`: a running service gets a table of items as its catalog."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from rich.console import Console

from incatalog.artifacts import MANIFEST, read_json
from incatalog.data.catalog import Item
from incatalog.data.naming import TITLE
from incatalog.data.settings import ColumnSettings
from incatalog.data.tables import read_item_table
from incatalog.errors import ConfigError, ServiceError, require
from incatalog.serving.settings import CatalogSyncSettings

if TYPE_CHECKING:
    import httpx

KEY_VARIABLE = "INCATALOG_API_KEY"
_TIMEOUT = 600.0
_OF_ITEMS = (
    "item_id_column",
    "title_column",
    "description_column",
    "category_column",
    "boost_column",
    "boost_until_column",
    "category_separator",
    "id_form",
    "separator",
    "encoding",
)


def sync_catalog(settings: CatalogSyncSettings) -> None:
    """Sends all items of a table to a running service, in one request, and prints what changed.

    Raises:
        ConfigError: The address is none, or the service has several catalogs and none is named.
        DataError: The table cannot be read; names file and line.
        ServiceError: Nobody answers there, or the answer is a refusal.
    """
    require("httpx", extra="serve")
    import httpx

    if not settings.url.startswith(("http://", "https://")):
        raise ConfigError(
            f"--url {settings.url}: expected an address such as http://127.0.0.1:8000"
        )
    table = read_item_table(settings.items, _columns(settings))
    key = os.environ.get(KEY_VARIABLE, "")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    base = settings.url.rstrip("/")
    try:
        # A proxy from the environment would rarely find a service in the same network.
        with httpx.Client(timeout=_TIMEOUT, trust_env=False, headers=headers) as client:
            known = _asked(client, "GET", f"{base}/v1/catalogs")
            domain = _domain(settings.domain, known["catalogs"])
            body = {
                "items": [_body(item, domain["title_field"]) for item in table.items],
                "missing": settings.missing,
            }
            path = f"{base}/v1/catalogs/{quote(domain['domain'])}/items"
            told = _asked(client, "PUT", path, json.dumps(body).encode())
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        why = str(error) or type(error).__name__
        hint = "is `incatalog serve` running there?"
        raise ServiceError(f"--url {settings.url}: no answer ({why}); {hint}") from error
    _print_changes(told, settings)


def _columns(settings: CatalogSyncSettings) -> ColumnSettings:
    """The columns of the table: those of the flags, else of the data, else with our names."""
    usual = {"item_id_column": "item_id", "title_column": "title", "id_form": "exact"}
    if settings.data is not None:
        path = Path(settings.data) / MANIFEST
        found = read_json(path) if path.is_file() else None
        noted = found.get("config") if isinstance(found, dict) else None
        if not isinstance(noted, dict) or "item_id_column" not in noted:
            expected = "expected a folder that `incatalog data table` or quickstart has written"
            raise ConfigError(f"--data {settings.data}: {expected}")
        usual |= {name: noted[name] for name in _OF_ITEMS if noted.get(name) is not None}
        usual["quote"] = noted.get("quote", settings.quote)
    given = {name: getattr(settings, name, None) for name in _OF_ITEMS}
    usual |= {name: value for name, value in given.items() if value is not None}
    known: Any = usual
    return replace(ColumnSettings(quote=settings.quote), **known)


def _domain(name: str, catalogs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The catalog of a name; of no name the only one."""
    known = ", ".join(one["domain"] for one in catalogs)
    if not name and len(catalogs) > 1:
        raise ConfigError(f"--domain: the service has several catalogs; expected one of {known}")
    for one in catalogs:
        if name in ("", one["domain"]):
            return one
    raise ConfigError(f"--domain {name}: no such catalog there; expected one of {known}")


def _body(item: Item, title_field: str) -> dict[str, Any]:
    """An item as the service takes it."""
    attributes = dict(item.attributes)
    found: dict[str, Any] = {
        "id": item.item_id,
        "title": item.title,
        "description": item.description,
        "categories": list(item.categories),
        "boost": item.boost,
        "boost_until": item.boost_until,
    }
    if title_field != TITLE:
        # The service says so if a column of this name is missing.
        found |= {title_field: attributes.pop(title_field)} if title_field in attributes else {}
    return found | {"attributes": attributes}


def _asked(
    client: httpx.Client, method: str, url: str, content: bytes | None = None
) -> dict[str, Any]:
    """The answer of the service."""
    headers = {"Content-Type": "application/json"} if content else {}
    reply = client.request(method, url, content=content, headers=headers)
    if reply.status_code == 200:
        found: dict[str, Any] = reply.json()
        return found
    try:
        said = str(reply.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        said = reply.text[:200] or reply.reason_phrase
    hint = ""
    if reply.status_code in (401, 403):
        hint = f"; set {KEY_VARIABLE} to a key that may change catalogs"
    if reply.status_code == 413:
        hint = "; start the service with a larger --max-feed"
    raise ServiceError(f"{method} {url}: {reply.status_code} {said}{hint}")


def _print_changes(told: dict[str, Any], settings: CatalogSyncSettings) -> None:
    gone = "disabled" if settings.missing == "disable" else "removed"
    parts = [
        f"{told['added']:,} added",
        f"{told['changed']:,} changed",
        f"{told['removed']:,} {gone}",
        f"{told['unchanged']:,} unchanged",
    ]
    line = f"catalog {told['domain']}, version {told['version']}: {', '.join(parts)}"
    Console().print(line, highlight=False, soft_wrap=True, markup=False)
