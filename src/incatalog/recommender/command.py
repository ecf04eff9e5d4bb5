"""`incatalog recommend`: recommendations for one history, as a table or as JSON."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from incatalog.data.catalog import Catalog
from incatalog.errors import CatalogError, ConfigError
from incatalog.names import names, quoted_name
from incatalog.recommender.settings import RecommendSettings

if TYPE_CHECKING:
    from incatalog.recommender.answer import Recommendation


def recommend(settings: RecommendSettings) -> None:
    """Prints recommendations for one history as a table or as JSON.

    Raises:
        ConfigError: A flag names no model, no item or no category of the model's catalog.
    """
    if not settings.model.is_dir():
        raise ConfigError(f"--model: no such folder: {settings.model}")
    # Before the weights are loaded: a mistyped id should not cost that time.
    catalog = Catalog.load(settings.model)
    item_ids = {item.item_id for item in catalog.items}
    history = names("--history", settings.history, item_ids)
    exclude = names("--exclude", settings.exclude, item_ids)
    categories = names("--categories", settings.categories, catalog.categories)
    _check_items("--history", history, catalog)
    _check_items("--exclude", exclude, catalog)
    _check_categories(categories, catalog)

    from incatalog.model.spec import untrained_warning
    from incatalog.recommender.recommender import Recommender

    recommender = Recommender.from_pretrained(
        settings.model, device=settings.device, verify=settings.verify
    )
    warning = untrained_warning(recommender.spec)
    if warning is not None:
        sys.stderr.write(f"{warning}\n")
    found = recommender.recommend(
        history,
        k=settings.k,
        exclude=exclude,
        categories=categories,
        exclude_seen=settings.exclude_seen,
        decode=settings.decode,
    )
    if len(found) < settings.k:
        sys.stderr.write(
            f"notice: --k {settings.k}: only {len(found)} items are left to recommend\n"
        )
    _print_recommendations(found, settings.format)


def _check_items(flag: str, item_ids: Sequence[str], catalog: Catalog) -> None:
    known = {item.item_id: item.title for item in catalog.items}
    for item_id in item_ids:
        if item_id in known:
            continue
        close = difflib.get_close_matches(item_id, known, n=3, cutoff=0.3)
        alike = ", ".join(f"{other!r} ({known[other]})" for other in close)
        raise ConfigError(
            f"{flag}: no item {item_id!r} in the model's catalog of {len(known)} items"
            + (f"; near: {alike}" if alike else "")
            + quoted_name(flag, item_id, known)
        )


def _check_categories(categories: Sequence[str], catalog: Catalog) -> None:
    for category in categories:
        try:
            catalog.category_rows(category)
        except CatalogError as error:
            hint = quoted_name("--categories", category, catalog.categories)
            raise ConfigError(f"--categories: {error}{hint}") from error


def _print_recommendations(found: Sequence[Recommendation], form: str) -> None:
    if form == "json":
        rows = [
            {"rank": one.rank, "item_id": one.item_id, "title": one.title, "score": one.score}
            for one in found
        ]
        sys.stdout.write(json.dumps(rows, ensure_ascii=False, indent=2) + "\n")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("rank", "item", "title", "score")
    for one in found:
        table.add_row(str(one.rank), Text(one.item_id), Text(one.title), f"{one.score:.3f}")
    Console().print(table)
