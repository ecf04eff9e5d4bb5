"""Steam: the reviews and games that J. McAuley's group crawled.

Source: W.-C. Kang and J. McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018. Both files
hold a Python dict a line. RecLM-cgen (arXiv 2505.03336) uses Steam as it uses Amazon's reviews.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from incatalog.data.catalog import Item
from incatalog.data.cleaning import clean_title, plain_text
from incatalog.data.fields import FilePlace, is_missing
from incatalog.data.reviews import (
    Record,
    check_reviews,
    plain_field,
    prepare_reviews,
    require_fields,
    text_parts,
)
from incatalog.data.settings import SteamSettings

_APP = re.compile(r"/app/([0-9]+)")


class _Steam:
    """The fields of Steam's files."""

    used: Collection[str] = frozenset(
        {"username", "product_id", "date", "id", "url", "title", "app_name", "genres", "tags"}
    )
    time = "date"

    def item_id(self, place: FilePlace, record: Record) -> str:
        """The number of the game; where it is missing, that of its page."""
        if not is_missing(record.get("id")):
            return place.id("field 'id'", record["id"])
        page = _APP.search(plain_field(place, record, "url"))
        return page[1] if page else ""

    def unusable(self, place: FilePlace, record: Record) -> str:
        if not self.item_id(place, record):
            return "games without an id"
        _categories(place, record)  # Before the reviews are read.
        return "" if clean_title(_title(place, record)) else "games without a title"

    def item(self, place: FilePlace, record: Record) -> Item:
        item_id, title = self.item_id(place, record), _title(place, record)
        return Item(item_id, title, categories=_categories(place, record))

    def review(self, place: FilePlace, record: Record) -> tuple[str, str, Any]:
        user = "" if is_missing(record.get("username")) else record["username"]
        for field in ("product_id", "date"):
            if field not in record:
                raise place.error(f"no field {field!r}; found {', '.join(record)}")
        item = place.id("field 'product_id'", record["product_id"])
        return user and place.id("field 'username'", user), item, record["date"]


def prepare_steam(settings: SteamSettings) -> Path:
    """Writes Steam's reviews as ``metas.jsonl``, ``category.jsonl`` and ``sequential.jsonl``.

    Users are told apart by ``username``, as published. A game is called by its ``title``, or
    ``app_name`` where there is none; genres and tags become categories. Games without id or title
    are left out with their reviews; the rest is as in
    :func:`incatalog.data.reviews.prepare_reviews`. Returns the output folder.

    Raises:
        ConfigError: A number is out of range.
        DataError: A file is missing, empty, cut off or damaged, a line cannot be read or lacks a
            field, or no user is left; names file and line.
        ArtifactError: Something else in the output folder would be overwritten.
    """
    check_reviews(settings)
    reviews, meta = Path(settings.reviews), Path(settings.meta)
    require_fields(reviews, "--reviews", "Steam's reviews", ("username", "product_id", "date"))
    require_fields(meta, "--meta", "Steam's games", ("id",))
    return prepare_reviews("data steam", settings, _Steam())


def _title(place: FilePlace, record: Record) -> str:
    return plain_field(place, record, "title") or plain_field(place, record, "app_name")


def _categories(place: FilePlace, record: Record) -> tuple[str, ...]:
    """Genres and tags."""
    named = (name for field in ("genres", "tags") for name in text_parts(place, record, field))
    return tuple(dict.fromkeys(filter(None, map(plain_text, named))))
