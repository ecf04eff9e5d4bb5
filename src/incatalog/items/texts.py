"""What a text encoder reads of an item."""

from __future__ import annotations

from incatalog.data.catalog import Catalog, Item
from incatalog.data.cleaning import plain_text
from incatalog.errors import ConfigError

# Lines with one field each; a line is left out where its field is empty.
TEXT_WORDINGS = {
    "td": ("{title}", "{description}"),
    "t": ("{title}",),
    "tc": ("{title}", "Categories: {categories}"),
    "tdc": ("{title}", "{description}", "Categories: {categories}"),
}


def text_wording_named(name: str) -> tuple[str, ...]:
    """The wording of an item with a name."""
    if name not in TEXT_WORDINGS:
        names = ", ".join(TEXT_WORDINGS)
        raise ConfigError(f"--wording {name}: no such wording of an item; expected one of {names}")
    return TEXT_WORDINGS[name]


def item_text(item: Item, wording: tuple[str, ...]) -> str:
    """Text of one item, without markup; never empty, as every item has a title."""
    values = {
        "title": plain_text(item.called) or item.called,
        "description": plain_text(item.description),
        "categories": ", ".join(item.categories),
    }
    empty = {f"{{{field}}}" for field, text in values.items() if not text}
    lines = [part.format(**values) for part in wording if not any(one in part for one in empty)]
    return "\n".join(lines) or values["title"]


def item_texts(catalog: Catalog, wording: tuple[str, ...]) -> tuple[str, ...]:
    """Text of every item row."""
    return tuple(item_text(item, wording) for item in catalog.items)
