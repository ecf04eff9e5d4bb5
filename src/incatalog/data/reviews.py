"""Reviews of a shop and the metadata of its items: what all such data sets have in common."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from incatalog.data.catalog import Catalog, Item
from incatalog.data.cleaning import clean_title, is_page_code, is_price, plain_text
from incatalog.data.documents import json_lines
from incatalog.data.fields import FilePlace, is_missing, shown
from incatalog.data.interactions import MIN_INTERACTIONS, Interactions, keep_active, renumber
from incatalog.data.prepared import Prepared, check_flags, write_prepared
from incatalog.data.settings import ReviewSettings
from incatalog.data.times import Times
from incatalog.errors import ConfigError, DataError

Record = dict[str, Any]
_FIRST_LINES = 20
_MOST_SHOWN = 12
LEFT_OUT = "reviews of items that were left out"


class ReviewFormat(Protocol):
    """Where the files of a data set keep what is read."""

    @property
    def used(self) -> Collection[str]:
        """Names of the fields that are read."""
        ...

    @property
    def time(self) -> str:
        """Name of the field that reviews are ordered by."""
        ...

    def item_id(self, place: FilePlace, record: Record) -> str:
        """Id of the item of a line of metadata; empty where :meth:`unusable` says so."""
        ...

    def unusable(self, place: FilePlace, record: Record) -> str:
        """Why an item cannot be in the catalog; empty if it can."""
        ...

    def item(self, place: FilePlace, record: Record) -> Item:
        """The item of a line of metadata that is usable."""
        ...

    def review(self, place: FilePlace, record: Record) -> tuple[str, str, Any]:
        """User (empty if none is named), item id and time of a review."""
        ...


# Of item codes, what was left out by reason, and the names of the fields.
ReadReviews = Callable[[dict[str, int], Counter[str], dict[str, None]], Interactions]


def check_reviews(settings: ReviewSettings) -> None:
    """Refuses numbers out of range and a wrong output folder, before anything is read."""
    if settings.users < 0:
        raise ConfigError(f"--users {settings.users}: expected 0 (all) or more")
    core = settings.k_core
    least = MIN_INTERACTIONS if core else settings.length
    inputs = (Path(settings.meta), Path(settings.reviews))
    check_flags(Path(settings.out), "--length", least, core, inputs=inputs)


def prepare_reviews(
    command: str,
    settings: ReviewSettings,
    form: ReviewFormat,
    read: ReadReviews | None = None,
    formats: tuple[tuple[str, str], ...] = (),
) -> Path:
    """Writes reviews as ``metas.jsonl``, ``category.jsonl`` and ``sequential.jsonl``.

    If a user reviewed an item several times, the earliest review counts. Histories are ordered by
    time; equal times keep the order of the file. Then either users with at least ``length``
    interactions are kept with their first ``length`` ones, and ``users`` of them are sampled, or
    the whole k-core is kept. The catalog holds the items of the histories that are left, in the
    order of the metadata. Files are streamed, the metadata twice.

    Args:
        command: Name of the command.
        settings: Its settings, for which :func:`check_reviews` has been called.
        form: Where the files keep what is read.
        read: Gathers the reviews where they are no records.
        formats: Attributes of the items that are prices, with their currencies.

    Returns:
        The output folder.

    Raises:
        DataError: A file is missing, empty, cut off or damaged, a line cannot be read or lacks a
            field, or no user is left; names file and line.
        ArtifactError: Something else in the output folder would be overwritten.
    """
    core = settings.k_core
    least = MIN_INTERACTIONS if core else settings.length
    meta, reviews = Path(settings.meta), Path(settings.reviews)
    skipped: Counter[str] = Counter()
    fields: dict[Path, dict[str, None]] = {reviews: {}, meta: {}}
    item_codes = _usable_items(meta, form, skipped, fields[meta])
    if read is None:
        found = _read_reviews(reviews, form, item_codes, skipped, fields[reviews])
    else:
        found = read(item_codes, skipped, fields[reviews])
    every = found.frame()
    frame = every.unique(["user", "item"], keep="first", maintain_order=True)
    skipped["repeated reviews of an item by a user"] += len(every) - len(frame)
    hint = f"--k-core than {core}" if core else f"--length than {least}, or --k-core 5"
    frame = keep_active(reviews, frame, least, f"try a smaller {hint}", core)
    skipped.update(found.left_out(frame, least, core))
    if not core:
        frame = _sampled(frame, least, settings, skipped)
    frame, codes = renumber(frame)
    name = meta.name.split(".")[0].removeprefix("meta_")
    prepared = Prepared(
        Catalog(tuple(_read_items(meta, form, item_codes, codes)), name, formats=formats),
        found.histories(frame),
        skipped,
        {path: [name for name in names if name not in form.used] for path, names in fields.items()},
    )
    return write_prepared(prepared, command, settings, {"reviews": reviews, "meta": meta})


def first_fields(path: Path) -> dict[str, None]:
    """Names of the fields in the first lines of a file."""
    lines = itertools.islice(json_lines(path, literals=True), _FIRST_LINES)
    return {name: None for _, record in lines for name in record}


def require_fields(path: Path, flag: str, what: str, fields: Iterable[str]) -> None:
    """Refuses a file whose first lines lack a field, such as that of another flag."""
    names = first_fields(path)
    for field in fields:
        if field not in names:
            raise wrong_file(path, flag, what, f"no field {field!r}", names)


def wrong_file(path: Path, flag: str, what: str, found: str, names: Iterable[str]) -> DataError:
    """The error about a file that has other fields than ``what`` that belongs to a flag."""
    some = ", ".join(itertools.islice(names, _MOST_SHOWN))
    other = "--meta" if flag == "--reviews" else "--reviews"
    hint = f"expected {what} for {flag}; is it the file for {other}?"
    return DataError.at(path, f"{found} in the first lines; found {some}; {hint}")


def text_id(place: FilePlace, record: Record, field: str) -> str:
    """The id in a field, which is text."""
    value = record.get(field)
    if not isinstance(value, str) or not value:
        found = "no field" if field not in record else f"{shown(value)} in field"
        raise place.error(f"{found} {field!r}; expected text")
    return place.id(f"field {field!r}", value)


def plain_field(place: FilePlace, record: Record, field: str) -> str:
    """The text of a field without markup; empty for a missing value."""
    value = record.get(field)
    if is_missing(value):
        return ""
    if not isinstance(value, str):
        raise place.error(f"field {field!r} is {shown(value)}; expected text")
    return plain_text(value)


def text_parts(place: FilePlace, record: Record, field: str, *, or_text: bool = False) -> list[str]:
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


def title_problem(title: str) -> str:
    """Why an item cannot be called so; empty if it can."""
    if is_page_code(title) or is_price(title):
        return "items whose title is page code or a price"
    return "" if clean_title(title) else "items without a title"


def _usable_items(
    path: Path, form: ReviewFormat, skipped: Counter[str], fields: dict[str, None]
) -> dict[str, int]:
    """Numbers the items that can be in the catalog, in the order of the file."""
    codes: dict[str, int] = {}
    reasons: Counter[str] = Counter()
    for place, record in json_lines(path, label="reading metadata", literals=True):
        fields.update(dict.fromkeys(record))
        item_id = form.item_id(place, record)
        if item_id in codes:
            skipped["repeated items in the metadata"] += 1
        elif reason := form.unusable(place, record):
            reasons[reason] += 1
        else:
            codes[item_id] = len(codes)
    if not codes:
        why = ", ".join(f"{reason} ({count:,})" for reason, count in reasons.items())
        raise DataError.at(path, f"nothing to recommend; found only {why}")
    skipped.update(reasons)
    return codes


def _read_reviews(
    path: Path,
    form: ReviewFormat,
    item_codes: dict[str, int],
    skipped: Counter[str],
    fields: dict[str, None],
) -> Interactions:
    found = Interactions(Times(form.time))
    for place, record in json_lines(path, label="reading reviews", literals=True):
        fields.update(dict.fromkeys(record))
        user, item_id, time = form.review(place, record)
        if not user:
            skipped["reviews without a user"] += 1
            continue
        found.user(user)
        item = item_codes.get(item_id)
        if item is None:
            skipped[LEFT_OUT] += 1
        else:
            found.add(place, user, item, time)
    return found


def _sampled(
    frame: pl.DataFrame, least: int, settings: ReviewSettings, skipped: Counter[str]
) -> pl.DataFrame:
    """The first interactions of some users."""
    frame = frame.filter(pl.int_range(pl.len()).over("user") < least)
    users = frame["user"].unique(maintain_order=True).to_numpy()
    if 0 < settings.users < len(users):
        skipped["users not sampled"] = len(users) - settings.users
        random = np.random.default_rng(settings.seed)
        chosen = random.choice(users, size=settings.users, replace=False)
        frame = frame.filter(pl.col("user").is_in(chosen))
    return frame


def _read_items(
    path: Path, form: ReviewFormat, item_codes: dict[str, int], codes: list[int]
) -> list[Item]:
    """Reads the items of some codes."""
    wanted = set(codes)
    items: list[Item] = []
    for place, record in json_lines(path, label="reading titles", literals=True):
        code = item_codes.get(form.item_id(place, record))
        # The first usable record of an item counts; repeated ones come after it.
        if code is None or code not in wanted or form.unusable(place, record):
            continue
        wanted.remove(code)
        items.append(form.item(place, record))
    return items
