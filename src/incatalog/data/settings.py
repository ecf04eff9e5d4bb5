"""Settings of the commands of `data`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from incatalog.config import NonNegative, Quote, Settings


@dataclass(frozen=True)
class AmazonSettings(Settings):
    """Prepare raw Amazon-2018 reviews."""

    reviews: Path
    """Review file as downloaded, JSON lines, gzip or plain (X_5.json.gz)."""
    meta: Path
    """Metadata file as downloaded, JSON lines, gzip or plain (meta_X.json.gz)."""
    out: Path
    """Folder for metas.jsonl, category.jsonl and sequential.jsonl."""
    length: int = 17
    """Keep users with at least this many interactions, and their first ones only."""
    users: int = 10_000
    """Users to sample without replacement; 0 keeps all."""
    k_core: int = 0
    """Instead of `length` and `users`, keep the k-core of users and items with complete histories;
    0 switches it off."""
    seed: NonNegative = 0
    """Seed of the sample."""


@dataclass(frozen=True)
class MovieLensSettings(Settings):
    """Prepare MovieLens (ml-100k, ml-1m) or RecBole's .inter/.item files."""

    source: Path
    """Folder with the files as published."""
    out: Path
    """Folder for metas.jsonl, category.jsonl and sequential.jsonl."""
    min_rating: float = 0.0
    """Keep ratings of at least this value; 0 keeps every rating."""
    min_interactions: int = 3
    """Keep users with at least this many interactions."""


@dataclass(frozen=True)
class TableSettings(Settings):
    """Prepare tables (CSV, Parquet or JSON lines) of interactions and items."""

    interactions: Path
    """File with one row per interaction."""
    items: Path
    """File with one row per item."""
    out: Path
    """Folder for metas.jsonl, category.jsonl and sequential.jsonl."""
    user_column: str = "user_id"
    """Column of `interactions` that holds the user id."""
    item_column: str = "item_id"
    """Column of `interactions` that holds the item id."""
    time_column: str = "timestamp"
    """Column of `interactions` to order by; empty keeps the order of the file."""
    item_id_column: str = "item_id"
    """Column of `items` that holds the item id."""
    title_column: str = "title"
    """Column of `items` that holds the title."""
    description_column: str = ""
    """Column of `items` that holds the description; empty for none."""
    category_column: str = ""
    """Column of `items` that holds the category; empty for none."""
    boost_column: str = ""
    """Column of `items` that holds what the shop multiplies an item's weight by; empty for none."""
    category_separator: str = ""
    """Splits several categories in one cell; empty for one category."""
    quote: Quote = "double"
    """Whether double quotes hold the cells of CSV and TSV together (double) or are letters like any
    other (none)."""
    k_core: int = 0
    """Keep the k-core of users and items; 0 switches it off."""
    min_interactions: int = 3
    """Keep users with at least this many interactions."""


@dataclass(frozen=True)
class CheckSettings(Settings):
    """Report on prepared data and say whether it can be trained on."""

    data: Path
    """Folder with metas.jsonl, category.jsonl and sequential.jsonl."""
    title_field: str = "title"
    """Text field of metas.jsonl by which a model is to know the items."""


@dataclass(frozen=True)
class ToUnirecSettings(Settings):
    """Write prepared data as the files UniRec trains on."""

    data: Path
    """Folder of prepared data."""
    out: Path
    """Run folder; its name is the name of the data set in UniRec."""
