"""The catalog: the items that may be recommended, and the categories they belong to."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from incatalog.artifacts import atomic_path
from incatalog.data.cleaning import clean_title
from incatalog.data.documents import Entry, entries, identifier
from incatalog.data.fields import id_problem, shown, text_field, unicode_text
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
    """

    item_id: str
    title: str
    description: str = ""
    categories: tuple[str, ...] = ()
    title_t: str | None = None


@dataclass(frozen=True)
class Catalog:
    """Items in a fixed order; the position of an item is its row.

    Attributes:
        items: The items.
        name: Name of the domain, for example ``"movies"``.
        vacant: Rows of items that were removed; nothing but :meth:`item` still knows them.

    Raises:
        CatalogError: There is no item, or two items have one id.
    """

    items: tuple[Item, ...]
    name: str
    vacant: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if not self.num_live:
            raise CatalogError(f"catalog {self.name}: no items; expected at least one")
        if len(self._row_of) < self.num_live:
            seen: set[str] = set()
            for item in self.live_items:
                if item.item_id in seen:
                    raise CatalogError(
                        f"catalog {self.name}: item id {item.item_id!r} occurs twice; "
                        "expected unique ids"
                    )
                seen.add(item.item_id)

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
        lines: dict[str, int] = {}
        loaded: list[Item] = []
        for entry in entries(path, ID_FIELDS):
            if entry.key in lines:
                message = f"item {entry.key!r} is already on line {lines[entry.key]}"
                raise DataError.at(path, message + "; expected unique ids", line=entry.line)
            lines[entry.key] = entry.line
            loaded.append(parse_item(path, entry))
        if not loaded:
            raise DataError.at(path, "holds no items; expected at least one")
        categories = _load_categories(folder / CATEGORIES, lines)
        items = (
            dataclasses.replace(item, categories=tuple(categories.get(item.item_id, ())))
            for item in loaded
        )
        return cls(tuple(items), name or folder.resolve().name)

    def save(self, folder: str | Path) -> None:
        """Writes ``metas.jsonl`` and ``category.jsonl``, each atomically, one entry a line."""
        folder = Path(folder)
        metas = {item.item_id: _meta(item) for item in self.live_items}
        members = {
            name: [self.items[row].item_id for row in self.category_rows(name)]
            for name in self.categories
        }
        write_document(folder / METAS, metas)
        write_document(folder / CATEGORIES, members)

    def __len__(self) -> int:
        """Number of rows, vacant ones included."""
        return len(self.items)

    @property
    def num_live(self) -> int:
        """Number of items, those that were removed left out."""
        return len(self.items) - len(self.vacant)

    @property
    def live_items(self) -> Iterator[Item]:
        """The items in their order, those that were removed left out."""
        if not self.vacant:
            return iter(self.items)
        return (item for row, item in enumerate(self.items) if row not in self.vacant)

    def with_changes(
        self, items: Sequence[Item] = (), removed: Sequence[str] = ()
    ) -> tuple[Catalog, list[int]]:
        """The catalog with some items more and some less; all others keep their rows.

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
                raise CatalogError(
                    f"catalog {self.name}: item id {item.item_id!r} is taken; expected a new one"
                )
            changed[row : row + 1] = [item]
            row_of[item.item_id] = row
        if not row_of:
            raise CatalogError(
                f"catalog {self.name}: nothing would be left without its last item; add another "
                "one first"
            )
        taken = self.titles_taken - {str(self.items[row].title_t) for row in gone}
        taken |= {item.title_t for item in items if item.title_t is not None}
        vacant = self.vacant.difference(rows) | gone
        return self._changed(tuple(changed), vacant, row_of, taken), rows

    def _changed(
        self,
        items: tuple[Item, ...],
        vacant: frozenset[int],
        row_of: dict[str, int],
        titles_taken: frozenset[str],
    ) -> Catalog:
        """A catalog whose parts are known to be sound, with what would take a pass over it."""
        changed = object.__new__(Catalog)
        known = {"items": items, "name": self.name, "vacant": vacant}
        changed.__dict__.update(known, _row_of=row_of, titles_taken=titles_taken)
        return changed

    @cached_property
    def titles_taken(self) -> frozenset[str]:
        """The titles in the form the model writes, of all items that have one."""
        return frozenset(item.title_t for item in self.live_items if item.title_t is not None)

    @cached_property
    def titles_t(self) -> tuple[str, ...]:
        """Titles in the form the model writes, by row; as published where that is not known."""
        return tuple(item.title_t or item.title for item in self.items)

    def item(self, row: int) -> Item:
        """The item at ``row``.

        Raises:
            CatalogError: There is no such row.
        """
        if not 0 <= row < len(self.items):
            raise CatalogError(
                f"catalog {self.name}: no item at row {row}; expected 0 to {len(self.items) - 1}"
            )
        return self.items[row]

    def row(self, item_id: str) -> int:
        """The row of an item.

        Raises:
            CatalogError: No item has this id.
        """
        try:
            return self._row_of[item_id]
        except KeyError:
            near = _near(item_id, self._row_of)
            raise CatalogError(f"catalog {self.name}: no item with id {item_id!r}{near}") from None

    def has(self, item_id: str) -> bool:
        """Whether there is an item of this id."""
        return item_id in self._row_of

    def rows(self, item_ids: Iterable[str]) -> Int64[np.ndarray, " ids"]:
        """The rows of several items, in their order.

        Raises:
            CatalogError: No item has one of these ids.
        """
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
        """Rows of the items of one category, ascending.

        Raises:
            CatalogError: No item is of this category; names similar ones.
        """
        try:
            return self._category_rows[name]
        except KeyError:
            near = _near(name, self._category_rows)
            message = f"catalog {self.name}: no category {name!r}{near}"
            raise CatalogError(message) from None

    def allowed_rows(self, categories: Sequence[str]) -> Bool[np.ndarray, " items"]:
        """Which items are in at least one of ``categories``; all items if none is given.

        Raises:
            CatalogError: No item is of one of these categories.
        """
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

    def with_titles_t(self, titles: Sequence[str]) -> Catalog:
        """The same catalog with ``titles``, one for every row, as ``title_t``.

        Raises:
            CatalogError: The number of titles differs from the number of items.
        """
        if len(titles) != len(self.items):
            raise CatalogError(
                f"catalog {self.name}: {len(titles)} titles for {len(self.items)} items; "
                "expected one for every row"
            )
        pairs = zip(self.items, titles, strict=True)
        items = (dataclasses.replace(item, title_t=title) for item, title in pairs)
        return Catalog(tuple(items), self.name, self.vacant)

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {item.item_id: row for row, item in enumerate(self.items) if row not in self.vacant}

    @cached_property
    def _category_rows(self) -> dict[str, Int64[np.ndarray, " members"]]:
        members: dict[str, list[int]] = {}
        for row, item in enumerate(self.items):
            if row in self.vacant:
                continue
            for name in dict.fromkeys(item.categories):
                members.setdefault(name, []).append(row)
        found = {name: np.asarray(rows, dtype=np.int64) for name, rows in members.items()}
        for rows in found.values():
            rows.setflags(write=False)
        return found


def title_of(path: Path, entry: Entry) -> str | None:
    """The text that names an item of ``metas.jsonl``; ``None`` if no field does."""
    if not isinstance(entry.value, Mapping):
        return None
    for field in TITLE_FIELDS:
        title = _text(path, entry, field)
        if clean_title(title):
            return title
    return None


def parse_item(path: Path, entry: Entry) -> Item:
    """The item of one entry of ``metas.jsonl``, without its categories."""
    problem = id_problem(entry.key)
    if problem:
        raise DataError.at(path, f"item id {shown(entry.key)}: {problem}", line=entry.line)
    unicode_text(path, entry.line, f"item id {entry.key!r}", entry.key)
    title = title_of(path, entry)
    if title is None:
        fields = ", ".join(TITLE_FIELDS)
        message = f"item {entry.key!r} has no title; expected text in one of {fields}"
        raise DataError.at(path, message, line=entry.line)
    title_t = _text(path, entry, "title_t")
    description = _text(path, entry, "description", several=True)
    return Item(entry.key, title, description, title_t=title_t or None)


def _text(path: Path, entry: Entry, field: str, *, several: bool = False) -> str:
    name = f"{field} of item {entry.key!r}"
    return text_field(path, entry.line, name, entry.value.get(field), several=several)


def category_members(path: Path, entry: Entry) -> list[str | None]:
    """The item ids of one entry of ``category.jsonl``; None for what cannot be one."""
    unicode_text(path, entry.line, f"category {entry.key!r}", entry.key)
    if not isinstance(entry.value, list):
        message = f"category {entry.key!r}: expected a list of item ids"
        raise DataError.at(path, message, line=entry.line)
    return [identifier(value) for value in entry.value]


def write_document(path: Path, value: Mapping[str, Any]) -> None:
    """Writes one JSON object with one entry a line, atomically."""
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8") as stream:
        stream.write("{")
        for number, (key, entry) in enumerate(value.items()):
            stream.write(",\n" if number else "\n")
            stream.write(f"{json.dumps(key, ensure_ascii=False)}: ")
            stream.write(json.dumps(entry, ensure_ascii=False))
        stream.write("\n}\n" if value else "}\n")


def _meta(item: Item) -> dict[str, str]:
    meta = {"title": item.title}
    if item.title_t is not None:
        meta["title_t"] = item.title_t
    if item.description:
        meta["description"] = item.description
    return meta


def _load_categories(path: Path, known: Mapping[str, int]) -> dict[str, list[str]]:
    """Reads the categories of every item that has some, in the order of the file."""
    found: dict[str, list[str]] = {}
    if not path.exists():
        return found
    lines: dict[str, int] = {}
    for entry in entries(path, ()):
        if entry.key in lines:
            message = f"category {entry.key!r} is already on line {lines[entry.key]}"
            raise DataError.at(path, message, line=entry.line)
        lines[entry.key] = entry.line
        for member in dict.fromkeys(category_members(path, entry)):
            if member is None or member not in known:
                message = f"category {entry.key!r} names item {member!r}, unknown to {METAS}"
                raise DataError.at(path, message, line=entry.line)
            found.setdefault(member, []).append(entry.key)
    return found


def _near(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(names), n=3)
    return f"; near: {', '.join(map(repr, near))}" if near else ""
