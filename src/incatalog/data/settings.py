"""Settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from incatalog.config import Quote


@dataclass(frozen=True)
class AmazonConfig:
    """Prepare raw Amazon-2018 reviews.

    Attributes:
        reviews: Review file as downloaded, JSON lines, gzip or plain (X_5.json.gz).
        meta: Metadata file as downloaded, JSON lines, gzip or plain (meta_X.json.gz).
        out: Folder for metas.jsonl, category.jsonl and sequential.jsonl.
        length: Keep users with at least this many interactions, and their first ones only.
        users: Users to sample without replacement; 0 keeps all.
        k_core: Instead of `length` and `users`, keep the k-core of users and items with complete
            histories; 0 switches it off.
        seed: Seed of the sample.
    """

    reviews: Path
    meta: Path
    out: Path
    length: int = 17
    users: int = 10_000
    k_core: int = 0
    seed: int = 0


@dataclass(frozen=True)
class MovieLensConfig:
    """Prepare MovieLens (ml-100k, ml-1m) or RecBole's .inter/.item files.

    Attributes:
        source: Folder with the files as published.
        out: Folder for metas.jsonl, category.jsonl and sequential.jsonl.
        min_rating: Keep ratings of at least this value; 0 keeps every rating.
        min_interactions: Keep users with at least this many interactions.
    """

    source: Path
    out: Path
    min_rating: float = 0.0
    min_interactions: int = 3


@dataclass(frozen=True)
class TableConfig:
    """Prepare tables (CSV, Parquet or JSON lines) of interactions and items.

    Attributes:
        interactions: File with one row per interaction.
        items: File with one row per item.
        out: Folder for metas.jsonl, category.jsonl and sequential.jsonl.
        user_column: Column of `interactions` that holds the user id.
        item_column: Column of `interactions` that holds the item id.
        time_column: Column of `interactions` to order by; empty keeps the order of the file.
        item_id_column: Column of `items` that holds the item id.
        title_column: Column of `items` that holds the title.
        description_column: Column of `items` that holds the description; empty for none.
        category_column: Column of `items` that holds the category; empty for none.
        category_separator: Splits several categories in one cell; empty for one category.
        quote: Whether double quotes hold the cells of CSV and TSV together (double) or are letters
            like any other (none).
        k_core: Keep the k-core of users and items; 0 switches it off.
        min_interactions: Keep users with at least this many interactions.
    """

    interactions: Path
    items: Path
    out: Path
    user_column: str = "user_id"
    item_column: str = "item_id"
    time_column: str = "timestamp"
    item_id_column: str = "item_id"
    title_column: str = "title"
    description_column: str = ""
    category_column: str = ""
    category_separator: str = ""
    quote: Quote = "double"
    k_core: int = 0
    min_interactions: int = 3


@dataclass(frozen=True)
class CheckConfig:
    """Report on prepared data and say whether it can be trained on.

    Attributes:
        data: Folder with metas.jsonl, category.jsonl and sequential.jsonl.
    """

    data: Path


@dataclass(frozen=True)
class ToUnirecConfig:
    """Write prepared data as the files UniRec trains on.

    Attributes:
        data: Folder of prepared data.
        out: Run folder; its name is the name of the data set in UniRec.
    """

    data: Path
    out: Path
