"""What an item is called: its title, which people see, and the field by which a model knows it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from incatalog.artifacts import read_json, write_json
from incatalog.data.cleaning import clean_title
from incatalog.data.documents import Entry
from incatalog.errors import CatalogError

TITLE = "title"  # The field by which a model knows items unless another one is named.
TITLE_FIELDS = (TITLE, "title_t", "name", "item_title", "movie_title")
CATALOG_FILE = "catalog.json"
_FIELD = "title_field"


def field_text(entry: Entry, field: str, *, several: bool = False) -> str:
    """The text in a field of an item; empty for a missing value."""
    value = entry.value.get(field)
    return entry.text(f"{field} of item {entry.key!r}", value, several=several)


def title_of(entry: Entry) -> str | None:
    """The title of an item of ``metas.jsonl``; None if no field holds one."""
    if not isinstance(entry.value, Mapping):
        return None
    titles = (field_text(entry, field) for field in TITLE_FIELDS)
    return next((title for title in titles if clean_title(title)), None)


def name_of(entry: Entry, field: str) -> str | None:
    """The text by which a model knows an item of ``metas.jsonl``; None where that is its title.

    Raises:
        DataError: The item has no such field, or no text in it; names file and line.
    """
    if field == TITLE:
        return None
    item = f"item {entry.key!r}"
    if not isinstance(entry.value, Mapping) or field not in entry.value:
        known = list(entry.value) if isinstance(entry.value, Mapping) else []
        named = f"; it has {', '.join(map(str, known))}" if known else ""
        expected = "expected text that the model knows it by (--title-field)"
        raise entry.error(f"{item} has no field {field!r}; {expected}{named}")
    text = field_text(entry, field)
    if not clean_title(text):
        raise entry.error(f"{field} of {item} is empty; expected text that the model knows it by")
    return text


def remembered_field(folder: str | Path) -> str:
    """The field by which the model of a folder knows its items; ``title`` where none is noted.

    Raises:
        CatalogError: The note is damaged.
    """
    path = Path(folder) / CATALOG_FILE
    if not path.is_file():
        return TITLE
    found = read_json(path)
    field = found.get(_FIELD) if isinstance(found, dict) else None
    if not isinstance(field, str) or not field:
        why = f"{_FIELD}: found {field!r}; expected the name of a field of metas.jsonl"
        raise CatalogError(f"{path}: {why}; restore it or train the model again")
    return field


def remember_field(folder: str | Path, field: str) -> None:
    """Notes the field beside the items, unless it is the title."""
    path = Path(folder) / CATALOG_FILE
    if field == TITLE:
        path.unlink(missing_ok=True)
    else:
        write_json(path, {_FIELD: field})
