"""Amazon reviews 2018, as downloaded.

Source: J. Ni, J. Li and J. McAuley, "Justifying Recommendations using Distantly-Labeled Reviews
and Fine-Grained Aspects", EMNLP 2019. The defaults (17 interactions, 10,000 users) are those of
RecLM-cgen (arXiv 2505.03336); users are sampled without replacement here.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from incatalog.data.catalog import Catalog, Item
from incatalog.data.cleaning import clean_title, is_page_code, is_price, plain_text
from incatalog.data.documents import json_lines
from incatalog.data.fields import FilePlace, is_missing, shown
from incatalog.data.interactions import MIN_INTERACTIONS, Interactions, keep_active, renumber
from incatalog.data.prepared import Prepared, check_flags, write_prepared
from incatalog.data.settings import AmazonSettings
from incatalog.data.times import Times
from incatalog.errors import ConfigError, DataError

_LONGEST_CATEGORY = 50
_READ = {"reviewerID", "asin", "unixReviewTime", "title", "category", "description"}


def prepare_amazon(settings: AmazonSettings) -> Path:
    """Writes Amazon reviews as ``metas.jsonl``, ``category.jsonl`` and ``sequential.jsonl``.

    Items without title or category are left out with their reviews. If a user reviewed an item
    several times, the earliest review counts. Histories are ordered by time; equal times keep the
    order of the file. Then either users with at least ``length`` interactions are kept with their
    first ``length`` ones, and ``users`` of them are sampled, or the whole k-core is kept. The
    catalog holds the items of the histories that are left, in the order of the metadata. Files
    are streamed, the metadata twice. Returns the output folder.

    Raises:
        ConfigError: A number is out of range.
        DataError: A file is missing, empty, cut off or damaged, a line is not JSON or lacks a
            field, or no user is left; names file and line.
        ArtifactError: The output folder holds something else.
    """
    if settings.users < 0:
        raise ConfigError(f"--users {settings.users}: expected 0 (all) or more")
    core = settings.k_core
    least = MIN_INTERACTIONS if core else settings.length
    check_flags(Path(settings.out), "--length", least, core)
    meta, reviews = Path(settings.meta), Path(settings.reviews)
    skipped: Counter[str] = Counter()
    fields: dict[Path, dict[str, None]] = {reviews: {}, meta: {}}
    item_codes = _usable_items(meta, skipped, fields[meta])
    frame, found = _read_reviews(reviews, item_codes, skipped, fields[reviews])
    hint = f"--k-core than {core}" if core else f"--length than {least}, or --k-core 5"
    frame = keep_active(reviews, frame, least, f"try a smaller {hint}", core)
    skipped.update(found.left_out(frame, least, core))
    if not core:
        frame = frame.filter(pl.int_range(pl.len()).over("user") < least)
        users = frame["user"].unique(maintain_order=True).to_numpy()
        if 0 < settings.users < len(users):
            skipped["users not sampled"] = len(users) - settings.users
            random = np.random.default_rng(settings.seed)
            chosen = random.choice(users, size=settings.users, replace=False)
            frame = frame.filter(pl.col("user").is_in(chosen))
    frame, codes = renumber(frame)
    name = meta.name.split(".")[0].removeprefix("meta_")
    prepared = Prepared(
        Catalog.from_items(_read_items(meta, item_codes, codes), name),
        found.histories(frame),
        skipped,
        {path: [name for name in names if name not in _READ] for path, names in fields.items()},
    )
    return write_prepared(prepared, "data amazon", settings, {"reviews": reviews, "meta": meta})


def _usable_items(path: Path, skipped: Counter[str], fields: dict[str, None]) -> dict[str, int]:
    """Numbers the items that have a title and a category, in the order of the file."""
    codes: dict[str, int] = {}
    for place, record in json_lines(path, label="reading metadata"):
        fields.update(dict.fromkeys(record))
        item_id = _id(place, record, "asin")
        if item_id in codes:
            skipped["repeated items in the metadata"] += 1
        elif reason := _unusable(place, record):
            skipped[reason] += 1
        else:
            codes[item_id] = len(codes)
    if not codes:
        raise DataError.at(path, "no item has both a title and a category; nothing to recommend")
    return codes


def _unusable(place: FilePlace, record: dict[str, Any]) -> str:
    """Why an item cannot be in the catalog; empty if it can."""
    title = _title(place, record)
    if is_page_code(title) or is_price(title):
        return "items whose title is page code or a price"
    if not clean_title(title):
        return "items without a title"
    return "" if _categories(place, record) else "items without a category"


def _title(place: FilePlace, record: dict[str, Any]) -> str:
    value = record.get("title")
    if is_missing(value):
        return ""
    if not isinstance(value, str):
        raise place.error(f"field 'title' is {shown(value)}; expected text")
    return plain_text(value)


def _categories(place: FilePlace, record: dict[str, Any]) -> tuple[str, ...]:
    """Every level of the item's path below the root, each named by the path down to it.

    The root is the department of the file; it is the category of items that have no other level.
    After the path the field goes on with product features, which are sentences or markup.
    """
    levels: list[str] = []
    for level in _parts(place, record, "category"):
        name = plain_text(level)
        if not name or len(name) > _LONGEST_CATEGORY or name.endswith((".", "!")):
            break
        levels.append(name)
    paths = tuple(", ".join(levels[1 : end + 1]) for end in range(1, len(levels)))
    return paths or tuple(levels)


def _read_reviews(
    path: Path, item_codes: dict[str, int], skipped: Counter[str], fields: dict[str, None]
) -> tuple[pl.DataFrame, Interactions]:
    """The first review of every item by every user, by user and time; and all reviews."""
    found = Interactions(Times("unixReviewTime"))
    for place, record in json_lines(path, label="reading reviews"):
        fields.update(dict.fromkeys(record))
        user = _id(place, record, "reviewerID")
        item = item_codes.get(_id(place, record, "asin"))
        time = record.get("unixReviewTime")
        if isinstance(time, bool) or not isinstance(time, int):
            what = "no field" if time is None else f"{time!r} in field"
            raise place.error(f"{what} 'unixReviewTime'; expected whole seconds")
        found.user(user)
        if item is None:
            skipped["reviews of items that were left out"] += 1
        else:
            found.add(place, user, item, time)
    frame = found.frame()
    once = frame.unique(["user", "item"], keep="first", maintain_order=True)
    skipped["repeated reviews of an item by a user"] = len(frame) - len(once)
    return once, found


def _read_items(path: Path, item_codes: dict[str, int], codes: list[int]) -> list[Item]:
    """Reads the items of some codes."""
    wanted = set(codes)
    items: list[Item] = []
    for place, record in json_lines(path, label="reading titles and descriptions"):
        code = item_codes.get(record["asin"])
        # The first usable record of an item counts; repeated ones come after it.
        if code is None or code not in wanted or _unusable(place, record):
            continue
        wanted.remove(code)
        title, categories = _title(place, record), _categories(place, record)
        parts = _parts(place, record, "description", or_text=True)
        words = (part for part in map(plain_text, parts) if part and not is_page_code(part))
        items.append(Item(record["asin"], title, " ".join(words), categories))
    return items


def _parts(
    place: FilePlace, record: dict[str, Any], field: str, *, or_text: bool = False
) -> list[str]:
    """The texts of a field that holds a list; missing ones are left out."""
    expected = "text or a list of text" if or_text else "a list of text"
    value = record.get(field)
    if is_missing(value) or value == "":
        return []
    if or_text and isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise place.error(f"field {field!r} is {shown(value)}; expected {expected}")
    parts = [part for part in value if not is_missing(part)]
    for part in parts:
        if not isinstance(part, str):
            raise place.error(f"field {field!r} holds {shown(part)}; expected {expected}")
    return parts


def _id(place: FilePlace, record: dict[str, Any], field: str) -> str:
    value = record.get(field)
    if not isinstance(value, str) or not value:
        found = "no field" if field not in record else f"{shown(value)} in field"
        raise place.error(f"{found} {field!r}; expected text")
    return place.id(f"field {field!r}", value)
