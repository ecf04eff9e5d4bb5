"""`incatalog recommend`: recommendations for one history, as a table or as JSON."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from incatalog.data.model_catalog import model_catalog
from incatalog.data.where import Where
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
    catalog = model_catalog(settings.model, settings.title_field)
    titles = {item.item_id: item.title for item in catalog.items}
    history = names("--history", settings.history, titles)
    exclude = names("--exclude", settings.exclude, titles)
    categories = names("--categories", settings.categories, catalog.categories)
    _check_items("--history", history, titles)
    _check_items("--exclude", exclude, titles)
    for category in categories:
        try:
            catalog.category_rows(category)
        except CatalogError as error:
            hint = quoted_name("--categories", category, catalog.categories)
            raise ConfigError(f"--categories: {error}{hint}") from error
    where = Where.from_flags(settings.where)
    if not where.rows(catalog, "--where").any():
        raise ConfigError(f"--where: no item of {len(catalog)} fulfils {where}; ask for less")

    from incatalog.model.spec import untrained_warning
    from incatalog.recommender.recommender import Recommender

    recommender = Recommender.from_pretrained(
        settings.model,
        device=settings.device,
        verify=settings.verify,
        guide=settings.guide,
        **settings.named("guide_weight", "wording", "system", "title_field"),
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
        where=where,
    )
    if len(found) < settings.k:
        few = f"only {len(found)} items are left to recommend"
        sys.stderr.write(f"notice: --k {settings.k}: {few}\n")
    _print_recommendations(found, settings.format)


def _check_items(flag: str, item_ids: Sequence[str], titles: Mapping[str, str]) -> None:
    for item_id in item_ids:
        if item_id not in titles:
            close = difflib.get_close_matches(item_id, titles, n=3, cutoff=0.3)
            alike = ", ".join(f"{other!r} ({titles[other]})" for other in close)
            lacking = f"no item {item_id!r} in the model's catalog of {len(titles)} items"
            hint = (f"; near: {alike}" if alike else "") + quoted_name(flag, item_id, titles)
            raise ConfigError(f"{flag}: {lacking}{hint}")


def _print_recommendations(found: Sequence[Recommendation], form: str) -> None:
    if form == "json":
        fields = "rank", "item_id", "title", "score"
        rows = [{field: getattr(one, field) for field in fields} for one in found]
        sys.stdout.write(json.dumps(rows, ensure_ascii=False, indent=2) + "\n")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("rank", "item", "title", "score")
    for one in found:
        table.add_row(str(one.rank), Text(one.item_id), Text(one.title), f"{one.score:.3f}")
    Console().print(table)
