"""What an item is called: its title, which people see, and the field by which a model knows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from incatalog.artifacts import read_json, write_json
from incatalog.data.cleaning import clean_title
from incatalog.data.fields import Entry
from incatalog.data.formats import is_currency
from incatalog.errors import CatalogError

TITLE = "title"  # The field by which a model knows items unless another one is named.
TITLE_FIELDS = (TITLE, "title_t", "name", "item_title", "movie_title")
CATALOG_FILE = "catalog.json"
_FIELD, _FORMATS = "title_field", "formats"


def folder_name(folder: str | Path) -> str:
    """What a folder is called; one of the hub's cache is called as the model is there."""
    path = Path(folder).resolve()
    # models--ORG--NAME/snapshots/COMMIT
    kind, *words = path.parent.parent.name.split("--")
    cached = path.parent.name == "snapshots" and kind == "models" and bool(words)
    return "--".join(words[1:]) or words[0] if cached else path.name


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
    path, found = Path(folder) / CATALOG_FILE, _noted(folder)
    field = found.get(_FIELD, TITLE) if isinstance(found, dict) else None
    if not isinstance(field, str) or not field:
        why = f"{_FIELD}: found {field!r}; expected the name of a field of metas.jsonl"
        raise CatalogError(f"{path}: {why}; restore it or train the model again")
    return field


def remembered_formats(folder: str | Path) -> tuple[tuple[str, str], ...]:
    """The currencies of attributes that are prices, as noted beside the items.

    Raises:
        CatalogError: The note is damaged.
    """
    found = _noted(folder)
    formats = found.get(_FORMATS, {}) if isinstance(found, dict) else found
    if not isinstance(formats, dict) or not all(map(_is_currency, formats.values())):
        why = f"{_FORMATS}: found {formats!r}; expected attributes with currencies such as EUR"
        raise CatalogError(f"{Path(folder) / CATALOG_FILE}: {why}; restore it or prepare the data")
    return tuple(formats.items())


def remember_catalog(
    folder: str | Path, field: str, formats: Iterable[tuple[str, str]] = ()
) -> None:
    """Notes beside the items what names them, unless it is the title, and which are prices."""
    path = Path(folder) / CATALOG_FILE
    noted: dict[str, object] = {} if field == TITLE else {_FIELD: field}
    noted |= {_FORMATS: dict(formats)} if formats else {}
    if noted:
        write_json(path, noted)
    else:
        path.unlink(missing_ok=True)


def _is_currency(code: object) -> bool:
    return isinstance(code, str) and is_currency(code)


def _noted(folder: str | Path) -> object:
    path = Path(folder) / CATALOG_FILE
    return read_json(path) if path.is_file() else {}
