"""Catalogs whose items are called as a trained model calls them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from incatalog.data.catalog import Catalog, Item
from incatalog.data.cleaning import clean_title
from incatalog.data.naming import TITLE, remembered_field
from incatalog.errors import ConfigError


def model_catalog(model: str | Path, title_field: str = "") -> Catalog:
    """The catalog in the folder of a trained model.

    Raises:
        ConfigError: ``title_field`` is given and not the one that the model was trained with.
        DataError: The catalog is incomplete or damaged.
    """
    own = remembered_field(model)
    if title_field not in ("", own):
        raise _other_field(title_field, str(model), own)
    return Catalog.load(model)


def data_catalog(
    data: str | Path, model: str | Path, title_field: str = "", name: str | None = None
) -> Catalog:
    """The catalog of prepared data for a trained model, by default with the model's title field.

    The data of another domain may have another field.

    Raises:
        ConfigError: Another field is named for the items that the model was trained on.
        DataError: The data is incomplete or damaged, or lacks the field.
    """
    own = remembered_field(model)
    catalog = Catalog.load(data, name, title_field=title_field or own)
    if catalog.title_field != own:
        check_field(catalog, Catalog.load(model), str(model))
    return catalog


def check_field(catalog: Catalog, own: Catalog, model: str) -> None:
    """Refuses the items that a model was trained on under other names than it knows them by."""
    same = catalog.items_fingerprint == own.items_fingerprint
    if same and catalog.title_field != own.title_field:
        raise _other_field(catalog.title_field, model, own.title_field)


def _other_field(field: str, model: str, own: str) -> ConfigError:
    trained = f"{model} was trained on its items by their {own!r}"
    hint = "leave the flag out, or train a model with this one"
    return ConfigError(f"--title-field {field}: {trained}; {hint}")


def unused_names(items: Iterable[Item], title_field: str) -> str | None:
    """A notice where items have a `title_t` of their own, and a model knows them by their title."""
    if title_field != TITLE:
        return None
    pairs = [(item.title, item.title_t) for item in items]
    other = sum(new is not None and clean_title(new) != clean_title(old) for old, new in pairs)
    if not other:
        return None
    return (
        f"notice: {other:,} of {len(pairs):,} items have a title_t that differs from their title "
        "and is not used; --title-field title_t has a model know them by it"
    )
