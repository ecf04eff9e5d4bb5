"""What a text encoder reads of an item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from incatalog.data.cleaning import plain_text
from incatalog.errors import ConfigError

if TYPE_CHECKING:
    from incatalog.data.catalog import Catalog, Item


@dataclass(frozen=True)
class TextWording:
    """One way to put an item into words: lines with one field each, left out where it is empty."""

    name: str
    parts: tuple[str, ...]


TEXT_WORDINGS = (
    TextWording("td", ("{title}", "{description}")),
    TextWording("t", ("{title}",)),
    TextWording("tc", ("{title}", "Categories: {categories}")),
    TextWording("tdc", ("{title}", "{description}", "Categories: {categories}")),
)


def text_wording_named(name: str) -> TextWording:
    """The wording with a name."""
    for wording in TEXT_WORDINGS:
        if wording.name == name:
            return wording
    names = ", ".join(wording.name for wording in TEXT_WORDINGS)
    raise ConfigError(f"--wording {name}: no such wording of an item; expected one of {names}")


def item_text(item: Item, wording: TextWording) -> str:
    """Text of one item, without markup; never empty, as every item has a title."""
    values = {
        "title": plain_text(item.title) or item.title,
        "description": plain_text(item.description),
        "categories": ", ".join(item.categories),
    }
    pieces = []
    for part in wording.parts:
        field = part[part.index("{") + 1 : part.index("}")]
        if values[field]:
            pieces.append(part.format(**values))
    return "\n".join(pieces) or values["title"]


def item_texts(catalog: Catalog, wording: TextWording) -> tuple[str, ...]:
    """Text of every item row."""
    return tuple(item_text(item, wording) for item in catalog.items)
