"""The catalog: the items that may be recommended, and the categories they belong to."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from incatalog.config import DataFormat
from incatalog.data.attributes import (
    NO_ATTRIBUTES,
    Attributes,
    Value,
    checked_attributes,
    read_attributes,
)
from incatalog.data.catalog_columns import FIELDS, CatalogColumns
from incatalog.data.documents import unique_entries, write_document
from incatalog.data.fields import Entry, first_repeated, id_problem, identifier, shown, unknown
from incatalog.data.naming import (
    TITLE,
    TITLE_FIELDS,
    field_text,
    folder_name,
    name_of,
    remember_catalog,
    remembered_field,
    remembered_formats,
    title_of,
)
from incatalog.data.parquet_documents import document, in_format
from incatalog.errors import CatalogError, DataError

METAS = "metas.jsonl"
CATEGORIES = "category.jsonl"

ID_FIELDS = ("item_id", "id", "asin", "parent_asin")


@dataclass(frozen=True)
class Item:
    """One item.

    Attributes:
        item_id: Name of the item outside; inside, an item is its row in the catalog.
        title: Title as published, which people see.
        description: Text about the item; empty if there is none.
        categories: Names of the categories the item belongs to.
        title_t: The title made unique and stable under tokenize and decode, where known.
        boost: What the shop multiplies the item's weight in answers by, more than 0.
        boost_until: Last day (ISO date) on which the boost counts; None for ever.
        name: What a model knows the item by, where the catalog says that it is not the title.
        attributes: What else is known of the item, by name; not part of its fingerprint.
    """

    item_id: str
    title: str
    description: str = ""
    categories: tuple[str, ...] = ()
    title_t: str | None = None
    boost: float = 1.0
    name: str | None = None
    attributes: Mapping[str, Value] = field(default=NO_ATTRIBUTES, hash=False)
    boost_until: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.attributes, Attributes):
            checked = checked_attributes(self.item_id, self.attributes)
            object.__setattr__(self, "attributes", checked)

    @property
    def called(self) -> str:
        """What a model knows the item by."""
        return self.title if self.name is None else self.name

    def value(self, name: str) -> Value | None:
        """The value of an attribute, or of one of `FIELDS`; None where the item has none."""
        if name not in FIELDS:
            return self.attributes.get(name)
        own: dict[str, Value] = {"category": self.categories, "title": self.title}
        return own.get(name, self.item_id)


@dataclass(frozen=True)
class Catalog(CatalogColumns):
    """Items in a fixed order; the position of an item is its row.

    Attributes:
        items: The items.
        name: Name of the domain, for example ``"movies"``.
        vacant: Rows of items that were removed; only :meth:`item` still knows them.
        title_field: The field of ``metas.jsonl`` by which a model knows the items.
        formats: Attributes that are prices, with their currencies such as ``EUR``.

    Raises:
        CatalogError: There is no item, two items have one id, or one lacks the name that the title
            field gives it.
    """

    items: tuple[Item, ...]
    name: str
    vacant: frozenset[int] = frozenset()
    title_field: str = TITLE
    formats: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not self.num_live:
            raise self._error("no items; expected at least one")
        if len(self._row_of) < self.num_live:
            twice = first_repeated(item.item_id for item in self.live_items)
            raise self._error(f"item id {twice!r} occurs twice; expected unique ids")
        self._check_names(self.live_items)

    def _error(self, message: str) -> CatalogError:
        return CatalogError(f"catalog {self.name}: {message}")

    def _check_names(self, items: Iterable[Item]) -> None:
        for item in items:
            if (item.name is None) != (self.title_field == TITLE):
                has = "no name" if item.name is None else f"the name {item.name!r}"
                known = f"the model knows the items of this catalog by their {self.title_field}"
                raise self._error(f"item {item.item_id!r} has {has}; {known}")

    @classmethod
    def from_items(
        cls, items: Iterable[Item], name: str = "items", title_field: str = TITLE
    ) -> Catalog:
        """Builds a catalog of ``items`` in their order; see the class for errors."""
        return cls(tuple(items), name, title_field=title_field)

    @classmethod
    def load(
        cls, folder: str | Path, name: str | None = None, title_field: str | None = None
    ) -> Catalog:
        """Reads ``metas.jsonl`` and, where there is one, ``category.jsonl``, or both in Parquet.

        ``metas.jsonl`` is one JSON document or one object a line. The title comes from the first
        of the fields ``title``, ``title_t``, ``name``, ``item_title``, ``movie_title`` that holds
        text.

        Args:
            folder: Folder of prepared data or of a trained model.
            name: Name of the catalog; the folder's name when omitted.
            title_field: Field by which a model knows the items, any that holds text; by default
                that of the model whose folder it is, or the title.

        Raises:
            CatalogError: The folder is that of a model that knows its items by another field.
            DataError: A file is missing, empty or broken, an id occurs twice, an item has no
                title, or no text in ``title_field``, a category names an unknown item; names file
                and line.
        """
        folder = Path(folder)
        path, own = document(folder, METAS), remembered_field(folder)
        title_field = title_field or own
        if own not in (TITLE, title_field):
            trained = f"the model there knows its items by their {own}, not by their {title_field}"
            raise CatalogError(f"{folder}: {trained}; name that title field, or leave it out")
        items = unique_entries(path, ID_FIELDS, "item")
        found = {entry.key: parse_item(entry, title_field) for entry in items}
        if not found:
            raise DataError.at(path, "holds no items; expected at least one")
        metas, path = path.name, document(folder, CATEGORIES)
        categories = defaultdict[str, list[str]](list)
        for entry in unique_entries(path, (), "category", hint="") if path.exists() else ():
            for member in dict.fromkeys(entry.ids("category")):
                if member is None or member not in found:
                    named = f"category {entry.key!r} names item {member!r}"
                    raise entry.error(f"{named}, unknown to {metas}")
                categories[member].append(entry.key)
        for one, names in categories.items():
            found[one] = replace(found[one], categories=tuple(names))
        name, formats = name or folder_name(folder), remembered_formats(folder)
        return cls(tuple(found.values()), name, title_field=title_field, formats=formats)

    def save(self, folder: str | Path, form: DataFormat = "json") -> None:
        """Writes ``metas.jsonl`` and ``category.jsonl``, or Parquet, each atomically.

        A title field other than ``title``, and formats, are noted beside them in ``catalog.json``.
        """
        folder, field = Path(folder), self.title_field
        metas = {item.item_id: _meta(item, field) for item in self.live_items}
        write_document(folder / in_format(METAS, form), metas)
        write_document(folder / in_format(CATEGORIES, form), self.members())
        remember_catalog(folder, field, self.formats)

    def __len__(self) -> int:
        """Number of rows, vacant ones included."""
        return len(self.items)

    @property
    def num_live(self) -> int:
        """Number of items without those that were removed."""
        return len(self.items) - len(self.vacant)

    @property
    def live_items(self) -> Iterator[Item]:
        """The items in their order, without those that were removed."""
        return (item for row, item in enumerate(self.items) if row not in self.vacant)

    def with_changes(
        self, items: Sequence[Item] = (), removed: Sequence[str] = ()
    ) -> tuple[Catalog, list[int]]:
        """The catalog with some items added and some removed; all others keep their rows.

        Args:
            items: New items; one of them may have the id of a removed one.
            removed: Ids of items that leave.

        Returns:
            The catalog, and the rows of the new items, ascending: vacant ones first.

        Raises:
            CatalogError: A removed item is not there, a new one's id is taken, it lacks the name
                that the title field gives it, or none is left.
        """
        self._check_names(items)
        gone = {self.row(item_id) for item_id in removed}
        row_of = self._row_of.copy()
        for item_id in set(removed):
            del row_of[item_id]
        rows = sorted(self.vacant)[: len(items)]
        rows += range(len(self.items), len(self.items) + len(items) - len(rows))
        changed = list(self.items)
        for row, item in zip(rows, items, strict=True):
            if item.item_id in row_of:
                raise self._error(f"item id {item.item_id!r} is taken; expected a new one")
            changed[row : row + 1] = [item]
            row_of[item.item_id] = row
        if not row_of:
            raise self._error("nothing would be left without its last item; add another one first")
        taken = self.titles_taken - {str(self.items[row].title_t) for row in gone}
        taken |= {item.title_t for item in items if item.title_t is not None}
        # Made without the checks, which are a pass over all items; the changes were checked.
        catalog = object.__new__(Catalog)
        catalog.__dict__.update(
            items=tuple(changed),
            name=self.name,
            vacant=self.vacant.difference(rows) | gone,
            title_field=self.title_field,
            formats=self.formats,
            _row_of=row_of,
            titles_taken=taken,
            **self.columns_with(rows, items, len(changed)),
        )
        return catalog, rows

    @cached_property
    def titles_taken(self) -> frozenset[str]:
        """The titles in the form the model writes, of all items that have one."""
        return frozenset(item.title_t for item in self.live_items if item.title_t is not None)

    @cached_property
    def titles_t(self) -> tuple[str, ...]:
        """Names in the form the model writes, by row; as given where it is not known."""
        return tuple(item.title_t or item.called for item in self.items)

    def item(self, row: int) -> Item:
        """The item at ``row``; a row that is not there is a CatalogError."""
        if not 0 <= row < len(self.items):
            raise self._error(f"no item at row {row}; expected 0 to {len(self.items) - 1}")
        return self.items[row]

    def row(self, item_id: str) -> int:
        """The row of an item; an id that no item has is a CatalogError."""
        try:
            return self._row_of[item_id]
        except (KeyError, TypeError):
            raise self._error(unknown("item with id", item_id, self._row_of)) from None

    def has(self, item_id: str) -> bool:
        """Whether there is an item of this id."""
        return item_id in self._row_of

    def rows(self, item_ids: Iterable[str]) -> Int64[np.ndarray, " ids"]:
        """The rows of several items, in their order."""
        if isinstance(item_ids, str):
            raise self._error(f"item ids are the text {item_ids!r}; give [{item_ids!r}]")
        return np.fromiter((self.row(item_id) for item_id in item_ids), dtype=np.int64)

    @cached_property
    def titles(self) -> tuple[str, ...]:
        """Titles as published, by row."""
        return tuple(item.title for item in self.items)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What a model knows the items by, by row: their titles unless another field is named."""
        return tuple(item.called for item in self.items)

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """Names of all categories, sorted."""
        return tuple(sorted(self._category_rows))

    def category_rows(self, name: str) -> Int64[np.ndarray, " members"]:
        """Rows of one category's items, ascending; an unknown category is a CatalogError."""
        try:
            return self._category_rows[name]
        except KeyError:
            raise self._error(unknown("category", name, self._category_rows)) from None

    def members(self) -> dict[str, list[str]]:
        """Item ids of every category."""
        return {
            name: [self.items[row].item_id for row in rows.tolist()]
            for name, rows in sorted(self._category_rows.items())
        }

    def allowed_rows(self, categories: Sequence[str]) -> Bool[np.ndarray, " items"]:
        """Which items are in at least one of ``categories``; without any, all items are allowed."""
        allowed = np.full(len(self.items), not categories, dtype=np.bool_)
        allowed[list(self.vacant)] = False
        for name in categories:
            allowed[self.category_rows(name)] = True
        return allowed

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over ids and titles in their order, and over a title field and what it holds."""
        if self.title_field == TITLE:
            return self.items_fingerprint
        digest = hashlib.sha256(json.dumps([self.items_fingerprint, self.title_field]).encode())
        for item in self.live_items:
            digest.update(json.dumps(item.name).encode() + b"\n")
        return digest.hexdigest()

    @cached_property
    def items_fingerprint(self) -> str:
        """SHA-256 over ids and titles in their order, whatever a model knows the items by."""
        digest = hashlib.sha256()
        for item in self.live_items:
            digest.update(json.dumps([item.item_id, item.title]).encode() + b"\n")
        return digest.hexdigest()

    def with_titles_t(self, titles: Sequence[str]) -> Catalog:
        """The same with ``titles`` as ``title_t``; another number of them is a CatalogError."""
        if len(titles) != len(self.items):
            counts = f"{len(titles)} titles for {len(self.items)} items"
            raise self._error(f"{counts}; expected one for every row")
        pairs = zip(self.items, titles, strict=True)
        items = (replace(item, title_t=title) for item, title in pairs)
        return replace(self, items=tuple(items))

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {item.item_id: row for row, item in enumerate(self.items) if row not in self.vacant}

    @cached_property
    def _category_rows(self) -> dict[str, Int64[np.ndarray, " members"]]:
        members = defaultdict[str, list[int]](list)
        for row in sorted(self._row_of.values()):
            for name in dict.fromkeys(self.items[row].categories):
                members[name].append(row)
        found = {name: np.array(rows, dtype=np.int64) for name, rows in members.items()}
        for rows in found.values():
            rows.setflags(write=False)
        return found


def parse_item(entry: Entry, title_field: str = TITLE) -> Item:
    """The item of one entry of ``metas.jsonl``, without its categories."""
    item_id = entry.key
    problem = id_problem(item_id)
    if problem:
        raise entry.error(f"item id {shown(item_id)}: {problem}")
    entry.unicode(f"item id {item_id!r}", item_id)
    title = title_of(entry)
    if title is None:
        fields = ", ".join(TITLE_FIELDS)
        raise entry.error(f"item {item_id!r} has no title; expected text in one of {fields}")
    name, title_t = name_of(entry, title_field), field_text(entry, "title_t")
    description = field_text(entry, "description", several=True)
    boost = entry.factor(f"boost of item {entry.key!r}", entry.value.get("boost"))
    used = {one for one in ID_FIELDS if identifier(entry.value.get(one)) == item_id}
    used |= {title_field, *(one for one in TITLE_FIELDS if entry.value.get(one) == title)}
    attributes = read_attributes(entry, f"item {item_id!r}", entry.value, used)
    until = entry.day(f"boost_until of item {item_id!r}", entry.value.get("boost_until"))
    known: Any = {"title_t": title_t or None, "boost": boost, "name": name, "boost_until": until}
    return Item(item_id, title, description, attributes=attributes, **known)


def _meta(item: Item, title_field: str) -> dict[str, Value]:
    meta = {"title": item.title, "title_t": item.title_t, "description": item.description or None}
    known: dict[str, Value | None] = {**meta, "boost": None if item.boost == 1 else item.boost}
    known |= {**item.attributes, "boost_until": item.boost_until}
    known |= {} if item.name is None else {title_field: item.name}
    return {field: value for field, value in known.items() if value is not None}
