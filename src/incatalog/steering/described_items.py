"""What is read of an item before a wish is compared with it."""

from __future__ import annotations

from collections.abc import Mapping

from incatalog.data.catalog import Catalog, Item
from incatalog.data.cleaning import plain_text

# What stands further down a description says little of the item, and takes time.
_MOST_LETTERS = 120
# An attribute that says more is another description, or a link.
_MOST_ATTRIBUTE_LETTERS = 60


def described(item: Item) -> str:
    """Title, categories, attributes in words, and how the description begins."""
    lines = [plain_text(item.title) or item.title]
    if item.categories:
        lines.append(", ".join(item.categories))
    if told := _attributes(item.attributes, {name.casefold() for name in item.categories}):
        lines.append(told)
    # A description that repeats the title says nothing with that.
    about = plain_text(item.description).removeprefix(lines[0]).lstrip(" .-:")
    if about:
        lines.append(about[:_MOST_LETTERS])
    return "\n".join(lines)


def all_described(catalog: Catalog) -> tuple[str, ...]:
    """The text of every row."""
    return tuple(map(described, catalog.items))


def _attributes(attributes: Mapping[str, object], known: set[str]) -> str:
    """Attributes that are texts, each once."""
    told: dict[str, None] = {}
    for value in attributes.values():
        for text in value if isinstance(value, tuple) else (value,):
            if (
                isinstance(text, str)
                and text.casefold() not in known
                and len(text) <= _MOST_ATTRIBUTE_LETTERS
                and any(letter.isalpha() for letter in text)
                and "://" not in text
            ):
                told[text] = None
    return ", ".join(told)
