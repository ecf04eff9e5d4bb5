"""The Yelp Open Dataset: reviews and businesses, one JSON object a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from incatalog.data.catalog import Item
from incatalog.data.cleaning import clean_title
from incatalog.data.documents import json_lines
from incatalog.data.fields import FilePlace
from incatalog.data.reviews import (
    Record,
    check_reviews,
    plain_field,
    prepare_reviews,
    require_fields,
    text_id,
)
from incatalog.data.settings import YelpSettings


@dataclass(frozen=True, eq=False)
class _Yelp:
    """The fields of Yelp's files, and how many businesses have each name."""

    names: Counter[str]

    used: Collection[str] = frozenset(
        {"user_id", "business_id", "date", "name", "address", "city", "categories"}
    )
    time: str = "date"

    def item_id(self, place: FilePlace, record: Record) -> str:
        return text_id(place, record, "business_id")

    def unusable(self, place: FilePlace, record: Record) -> str:
        _categories(place, record)  # Before the reviews are read.
        return "" if _name(place, record) else "businesses without a name"

    def item(self, place: FilePlace, record: Record) -> Item:
        title = _name(place, record)
        if self.names[title] > 1:
            where = [plain_field(place, record, field) for field in ("address", "city")]
            known = ", ".join(filter(None, where))
            title = f"{title} ({known})" if known else title
        return Item(record["business_id"], title, categories=_categories(place, record))

    def review(self, place: FilePlace, record: Record) -> tuple[str, str, Any]:
        user, item = text_id(place, record, "user_id"), text_id(place, record, "business_id")
        if "date" not in record:
            raise place.error(f"no field 'date'; found {', '.join(record)}")
        return user, item, record["date"]


def prepare_yelp(settings: YelpSettings) -> Path:
    """Writes Yelp's reviews as ``metas.jsonl``, ``category.jsonl`` and ``sequential.jsonl``.

    A business is called by its name; where several have it, address and city stand behind it in
    brackets. Businesses without a name are left out with their reviews, those without categories
    stay; the rest is as in :func:`incatalog.data.reviews.prepare_reviews`. Returns the output
    folder.

    Raises:
        ConfigError: A number is out of range.
        DataError: A file is missing, empty, cut off or damaged, a line cannot be read or lacks a
            field, or no user is left; names file and line.
        ArtifactError: Something else in the output folder would be overwritten.
    """
    check_reviews(settings)
    reviews, meta = Path(settings.reviews), Path(settings.meta)
    require_fields(reviews, "--reviews", "Yelp's reviews", ("user_id", "business_id", "date"))
    require_fields(meta, "--meta", "Yelp's businesses", ("business_id", "name", "categories"))
    businesses = json_lines(meta, label="reading names")
    names = Counter(_name(place, record) for place, record in businesses)
    return prepare_reviews("data yelp", settings, _Yelp(names))


def _name(place: FilePlace, record: Record) -> str:
    return clean_title(plain_field(place, record, "name"))


def _categories(place: FilePlace, record: Record) -> tuple[str, ...]:
    parts = map(str.strip, plain_field(place, record, "categories").split(","))
    return tuple(dict.fromkeys(filter(None, parts)))
