"""The catalog: the items that may be recommended, and the categories they belong to."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64

from incatalog.data.cleaning import clean_title
from incatalog.data.documents import Entry, unique_entries, write_document
from incatalog.data.fields import first_repeated, id_problem, identifier, shown
from incatalog.errors import CatalogError, DataError

METAS = "metas.jsonl"
CATEGORIES = "category.jsonl"

ID_FIELDS = ("item_id", "id", "asin", "parent_asin")
TITLE_FIELDS = ("title", "title_t", "name", "item_title", "movie_title")


@dataclass(frozen=True)
class Item:
    """One item.

    Attributes:
        item_id: Name of the item outside; inside, an item is its row in the catalog.
        title: Title as published.
        description: Text about the item; empty if there is none.
        categories: Names of the categories the item belongs to.
        title_t: The title made unique and stable under tokenize and decode, where known.
        boost: What the shop multiplies the item's weight in answers by, more than 0.
    """

    item_id: str
    title: str
    description: str = ""
    categories: tuple[str, ...] = ()
    title_t: str | None = None
    boost: float = 1.0


@dataclass(frozen=True)
class Catalog:
    """Items in a fixed order; the position of an item is its row.

    Attributes:
        items: The items.
        name: Name of the domain, for example ``"movies"``.
        vacant: Rows of items that were removed; only :meth:`item` still knows them.

    Raises:
        CatalogError: There is no item, or two items have one id.
    """

    items: tuple[Item, ...]
    name: str
    vacant: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if not self.num_live:
            raise self._error("no items; expected at least one")
        if len(self._row_of) < self.num_live:
            twice = first_repeated(item.item_id for item in self.live_items)
            raise self._error(f"item id {twice!r} occurs twice; expected unique ids")

    def _error(self, message: str) -> CatalogError:
        return CatalogError(f"catalog {self.name}: {message}")

    @classmethod
    def from_items(cls, items: Iterable[Item], name: str = "items") -> Catalog:
        """Builds a catalog of ``items`` in their order; see the class for errors."""
        return cls(tuple(items), name)

    @classmethod
    def load(cls, folder: str | Path, name: str | None = None) -> Catalog:
        """Reads ``metas.jsonl`` and, where there is one, ``category.jsonl``.

        ``metas.jsonl`` is one JSON document or one object a line. The title comes from the first
        of the fields ``title``, ``title_t``, ``name``, ``item_title``, ``movie_title`` that holds
        text.

        Args:
            folder: Folder of prepared data or of a trained model.
            name: Name of the catalog; the folder's name when omitted.

        Raises:
            DataError: A file is missing, empty or broken, an id occurs twice, an item has no
                title, a category names an unknown item; names file and line.
        """
        folder = Path(folder)
        path = folder / METAS
        found = {entry.key: parse_item(entry) for entry in unique_entries(path, ID_FIELDS, "item")}
        if not found:
            raise DataError.at(path, "holds no items; expected at least one")
        path, categories = folder / CATEGORIES, defaultdict[str, list[str]](list)
        for entry in unique_entries(path, (), "category", hint="") if path.exists() else ():
            for member in dict.fromkeys(category_members(entry)):
                if member is None or member not in found:
                    named = f"category {entry.key!r} names item {member!r}"
                    raise entry.error(f"{named}, unknown to {METAS}")
                categories[member].append(entry.key)
        for item_id, names in categories.items():
            found[item_id] = replace(found[item_id], categories=tuple(names))
        return cls(tuple(found.values()), name or folder.resolve().name)

    def save(self, folder: str | Path) -> None:
        """Writes ``metas.jsonl`` and ``category.jsonl``, each atomically, one entry a line."""
        folder = Path(folder)
        write_document(folder / METAS, {item.item_id: _meta(item) for item in self.live_items})
        write_document(folder / CATEGORIES, self.members())

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
            CatalogError: A removed item is not there, a new one's id is taken, or none is left.
        """
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
            _row_of=row_of,
            titles_taken=taken,
            log_boosts=self._boosts_with(rows, items, len(changed)),
        )
        return catalog, rows

    def _boosts_with(
        self, rows: Sequence[int], items: Sequence[Item], total: int
    ) -> Float64[np.ndarray, " items"] | None:
        """The logarithms of the boosts where some rows hold new items."""
        before = self.log_boosts
        if before is None and all(item.boost == 1 for item in items):
            return None
        boosts = np.zeros(total)
        boosts[: len(self.items)] = 0.0 if before is None else before
        boosts[list(rows)] = np.log([item.boost for item in items])
        return boosts

    @cached_property
    def titles_taken(self) -> frozenset[str]:
        """The titles in the form the model writes, of all items that have one."""
        return frozenset(item.title_t for item in self.live_items if item.title_t is not None)

    @cached_property
    def titles_t(self) -> tuple[str, ...]:
        """Titles in the form the model writes, by row; as published where it is not known."""
        return tuple(item.title_t or item.title for item in self.items)

    def item(self, row: int) -> Item:
        """The item at ``row``; a row that is not there is a CatalogError."""
        if not 0 <= row < len(self.items):
            raise self._error(f"no item at row {row}; expected 0 to {len(self.items) - 1}")
        return self.items[row]

    def row(self, item_id: str) -> int:
        """The row of an item; an id that no item has is a CatalogError."""
        try:
            return self._row_of[item_id]
        except KeyError:
            near = _near(item_id, self._row_of)
            raise self._error(f"no item with id {item_id!r}{near}") from None

    def has(self, item_id: str) -> bool:
        """Whether there is an item of this id."""
        return item_id in self._row_of

    def rows(self, item_ids: Iterable[str]) -> Int64[np.ndarray, " ids"]:
        """The rows of several items, in their order."""
        return np.fromiter((self.row(item_id) for item_id in item_ids), dtype=np.int64)

    @cached_property
    def titles(self) -> tuple[str, ...]:
        """Titles as published, by row."""
        return tuple(item.title for item in self.items)

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """Names of all categories, sorted."""
        return tuple(sorted(self._category_rows))

    def category_rows(self, name: str) -> Int64[np.ndarray, " members"]:
        """Rows of one category's items, ascending; an unknown category is a CatalogError."""
        try:
            return self._category_rows[name]
        except KeyError:
            near = _near(name, self._category_rows)
            raise self._error(f"no category {name!r}{near}") from None

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
        """SHA-256 over ids and titles in their order."""
        digest = hashlib.sha256()
        for item in self.live_items:
            digest.update(json.dumps([item.item_id, item.title]).encode() + b"\n")
        return digest.hexdigest()

    @cached_property
    def log_boosts(self) -> Float64[np.ndarray, " items"] | None:
        """Logarithms of the items' boosts, by row; None where no item has one."""
        boosts = np.array([item.boost for item in self.items])
        return None if (boosts == 1).all() else np.log(boosts)

    def with_titles_t(self, titles: Sequence[str]) -> Catalog:
        """The same with ``titles`` as ``title_t``; another number of them is a CatalogError."""
        if len(titles) != len(self.items):
            counts = f"{len(titles)} titles for {len(self.items)} items"
            raise self._error(f"{counts}; expected one for every row")
        pairs = zip(self.items, titles, strict=True)
        items = (replace(item, title_t=title) for item, title in pairs)
        return Catalog(tuple(items), self.name, self.vacant)

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


def title_of(entry: Entry) -> str | None:
    """The text that names an item of ``metas.jsonl``; None if no field does."""
    if not isinstance(entry.value, Mapping):
        return None
    titles = (_text(entry, field) for field in TITLE_FIELDS)
    return next((title for title in titles if clean_title(title)), None)


def parse_item(entry: Entry) -> Item:
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
    title_t = _text(entry, "title_t")
    description = _text(entry, "description", several=True)
    boost = entry.factor(f"boost of item {entry.key!r}", entry.value.get("boost"))
    return Item(item_id, title, description, title_t=title_t or None, boost=boost)


def _text(entry: Entry, field: str, *, several: bool = False) -> str:
    value = entry.value.get(field)
    return entry.text(f"{field} of item {entry.key!r}", value, several=several)


def category_members(entry: Entry) -> list[str | None]:
    """The item ids of one entry of ``category.jsonl``; None stands for a value that is no id."""
    entry.unicode(f"category {entry.key!r}", entry.key)
    if not isinstance(entry.value, list):
        raise entry.error(f"category {entry.key!r}: expected a list of item ids")
    return [identifier(value) for value in entry.value]


def _meta(item: Item) -> dict[str, str | float]:
    boost = None if item.boost == 1 else item.boost
    meta = {"title": item.title, "title_t": item.title_t, "description": item.description or None}
    return {field: value for field, value in (meta | {"boost": boost}).items() if value is not None}


def _near(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(names), n=3)
    return f"; near: {', '.join(map(repr, near))}" if near else ""
