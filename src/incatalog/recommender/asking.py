"""What commands that ask a model for lists have in common: their rules, and the model opened."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from incatalog.data.catalog import Catalog
from incatalog.data.where import Where
from incatalog.errors import CatalogError, ConfigError
from incatalog.names import names, quoted_name
from incatalog.recommender.item_names import ItemNames
from incatalog.recommender.opening import ModelKind, open_recommender
from incatalog.recommender.settings import ABOUT_LISTS, OFF, OWN, AskedSettings

if TYPE_CHECKING:
    from incatalog.recommender.recommender import Recommender


def refuse_model_flags(settings: AskedSettings, kind: ModelKind) -> None:
    """Refuses flags about a language model where a teacher is asked, or about other lists.

    Raises:
        ConfigError: There is one; names it.
    """
    settings.refuse_first(
        (kind == "teacher" and given, flag,
         f"{settings.model} is a teacher and is asked by itself; leave it out")
        for flag, given in (
            ("--guide", settings.guide not in (OWN, OFF)),
            ("--guide-weight", settings.guide_weight is not None),
            ("--wording", settings.wording is not None),
            ("--system", settings.system is not None),
            ("--first-share", settings.first_share is not None),
            ("--decode", settings.decode != "beam"))
    )  # fmt: skip
    ranked = settings.decode == "beam" and settings.first_share is not None
    settings.refuse_first([(ranked, "first_share", ABOUT_LISTS)])


def asked_rules(settings: AskedSettings, catalog: Catalog, items: ItemNames) -> dict[str, Any]:
    """The rules of all lists, as `Recommender.recommend_batch` takes them.

    Raises:
        CatalogError: A flag names no item of the catalog, or several.
        ConfigError: A flag names no category, or no item fulfils the conditions.
    """
    exclude = items.listed("--exclude", settings.exclude)
    categories = names("--categories", settings.categories, catalog.categories)
    for category in categories:
        try:
            catalog.category_rows(category)
        except CatalogError as error:
            hint = quoted_name("--categories", category, catalog.categories)
            raise ConfigError(f"--categories: {error}{hint}") from error
    where = Where.from_flags(settings.where)
    if not where.rows(catalog, "--where").any():
        raise ConfigError(f"--where: no item of {len(catalog)} fulfils {where}; ask for less")
    return {"exclude": exclude, "categories": categories, "where": where}


def open_asked(
    settings: AskedSettings, kind: ModelKind, catalog: Catalog, *, weights: bool = True
) -> Recommender:
    """Loads the model with its guide; says so where nothing has taught it the items.

    Without `weights` these stay where another engine has them, which is then to be asked.

    Raises:
        IncatalogError: As :func:`~incatalog.recommender.opening.open_recommender` does.
    """
    from incatalog.model.spec import untrained_warning

    asked = settings.named("guide", "guide_weight", "device", "verify", "wording", "system")
    asked["first_share"] = settings.first_share
    asked |= {"title_field": settings.title_field, "weights": weights}
    recommender = open_recommender(settings.model, kind, catalog, **asked)
    warning = untrained_warning(recommender.spec)
    if warning is not None and recommender.guide is None:
        sys.stderr.write(f"{warning}\n")
    return recommender
