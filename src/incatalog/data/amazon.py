"""Amazon reviews of 2014, 2018 and 2023, as downloaded.

Sources: J. McAuley, C. Targett, Q. Shi and A. van den Hengel, "Image-Based Recommendations on
Styles and Substitutes", SIGIR 2015; J. Ni, J. Li and J. McAuley, "Justifying Recommendations using
Distantly-Labeled Reviews and Fine-Grained Aspects", EMNLP 2019; Y. Hou et al., "Bridging Language
and Items for Retrieval and Recommendation", 2024. The defaults (17 interactions, 10,000 users) are
those of RecLM-cgen (arXiv 2505.03336); users are sampled without replacement here.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from incatalog.data.amazon_ratings import find_ratings
from incatalog.data.attributes import Value
from incatalog.data.catalog import Item
from incatalog.data.cleaning import is_page_code, plain_text
from incatalog.data.fields import FilePlace
from incatalog.data.reviews import (
    Record,
    check_reviews,
    first_fields,
    plain_field,
    prepare_reviews,
    text_id,
    text_parts,
    title_problem,
    wrong_file,
)
from incatalog.data.settings import AmazonSettings
from incatalog.errors import DataError

_LONGEST_CATEGORY, _LONGEST_BRAND = 50, 100
_DOLLARS = re.compile(r"\$?\s*(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class _Vintage:
    """The files of some years, by the names of their fields."""

    years: str
    user: str
    asin: str
    time: str
    unit: str

    @property
    def used(self) -> set[str]:
        shared = {"title", "category", "categories", "main_category", "description"}
        return {self.user, self.asin, self.time, *shared, "price", "brand", "store"}

    def item_id(self, place: FilePlace, record: Record) -> str:
        return text_id(place, record, self.asin)

    def unusable(self, place: FilePlace, record: Record) -> str:
        if problem := title_problem(plain_field(place, record, "title")):
            return problem
        return "" if _categories(place, record) else "items without a category"

    def item(self, place: FilePlace, record: Record) -> Item:
        parts = text_parts(place, record, "description", or_text=True)
        words = (part for part in map(plain_text, parts) if part and not is_page_code(part))
        title = plain_field(place, record, "title")
        return Item(
            record[self.asin],
            title,
            " ".join(words),
            _categories(place, record),
            attributes=_attributes(record),
        )

    def review(self, place: FilePlace, record: Record) -> tuple[str, str, Any]:
        user, item = text_id(place, record, self.user), text_id(place, record, self.asin)
        time = record.get(self.time)
        if isinstance(time, bool) or not isinstance(time, int):
            what = "no field" if time is None else f"{time!r} in field"
            raise place.error(f"{what} {self.time!r}; expected whole {self.unit}")
        return user, item, time


_OLD = _Vintage("2014 or 2018", "reviewerID", "asin", "unixReviewTime", "seconds")
_NEW = _Vintage("2023", "user_id", "parent_asin", "timestamp", "milliseconds")


def prepare_amazon(settings: AmazonSettings) -> Path:
    """Writes Amazon reviews as ``metas.jsonl``, ``category.jsonl`` and ``sequential.jsonl``.

    The year is told by the fields of the first lines. Items without title or category are left out
    with their reviews; the rest is as in :func:`prepare_reviews`. Ratings in CSV stand in for
    reviews. Returns the output folder.

    Raises:
        ConfigError: A number is out of range.
        DataError: The files are of different years or not Amazon's; a file is missing, empty, cut
            off or damaged; a line cannot be read or lacks a field; no user is left. Names file
            and line.
        ArtifactError: Something else in the output folder would be overwritten.
    """
    check_reviews(settings)
    reviews, meta = Path(settings.reviews), Path(settings.meta)
    ratings = find_ratings(reviews)
    if ratings is None:
        described = _vintage(reviews, "--reviews", "user")
    else:
        described = _NEW if ratings.new else _OLD
    items = _vintage(meta, "--meta", "asin")
    if described != items:
        found = f"holds reviews of {described.years}, but {meta} metadata of {items.years}"
        expected = "expected Amazon files of one collection"
        step = f"get the metadata of {described.years} or the reviews of {items.years}"
        raise DataError.at(reviews, f"{found}; {expected}: {step}")
    read = None if ratings is None else ratings.read
    return prepare_reviews("data amazon", settings, items, read, formats=(("price", "USD"),))


def _vintage(path: Path, flag: str, field: str) -> _Vintage:
    """Tells the year of a file by who has a field of the first lines."""
    names = first_fields(path)
    # Reviews of 2023 have an `asin` too.
    for vintage in (_NEW, _OLD):
        if getattr(vintage, field) in names:
            return vintage
    new, old = getattr(_NEW, field), getattr(_OLD, field)
    found = f"no field {old!r} (2014, 2018) or {new!r} (2023)"
    raise wrong_file(path, flag, "a file of Amazon's", found, names)


def _attributes(record: Record) -> dict[str, Value]:
    """Price and brand where the record has usable ones: both fields hold much else."""
    found: dict[str, Value] = {}
    price = record.get("price")
    if isinstance(price, str) and (amount := _DOLLARS.fullmatch(price.strip())):
        price = float(amount[1].replace(",", ""))
    if isinstance(price, int | float) and not isinstance(price, bool) and 0 < price < math.inf:
        found["price"] = float(price)
    for field in ("brand", "store"):
        brand = record.get(field)
        brand = plain_text(brand) if isinstance(brand, str) else ""
        if 0 < len(brand) <= _LONGEST_BRAND and not is_page_code(brand):
            found["brand"] = brand
            break
    return found


def _categories(place: FilePlace, record: Record) -> tuple[str, ...]:
    """Every level of the item's paths below the root, each named by the path down to it.

    There is one path, or several in the files of 2014. The root is the department of the file; it
    is the category of items that have no other level. Where there is no path at all, the main
    category of 2023 stands in.
    """
    field = "category" if "category" in record else "categories"
    value = record.get(field)
    several = isinstance(value, list) and all(isinstance(part, list) for part in value)
    paths = value if several else [value]
    found = [
        name for path in paths or () for name in _levels(text_parts(place, {field: path}, field))
    ]
    if not found and (main := plain_field(place, record, "main_category")):
        found = [main]
    return tuple(dict.fromkeys(found))


def _levels(path: list[str]) -> list[str]:
    """The categories of a path; behind it stand features in 2018, which are sentences or markup."""
    levels: list[str] = []
    for level in path:
        name = plain_text(level)
        if not name or len(name) > _LONGEST_CATEGORY or name.endswith((".", "!")):
            break
        levels.append(name)
    return [", ".join(levels[1 : end + 1]) for end in range(1, len(levels))] or levels
