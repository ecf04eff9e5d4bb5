"""Settings of the commands of `data`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from incatalog.config import Bounds, Headings, IdForm, NonNegative, Quote, Settings


@dataclass(frozen=True)
class ReviewSettings(Settings):
    """Prepare reviews and the metadata of what they are about."""

    reviews: Path
    """Review file as downloaded, one record a line, gzip or plain."""
    meta: Path
    """Metadata file as downloaded, one record a line, gzip or plain."""
    out: Path
    """Folder for metas.jsonl, category.jsonl and sequential.jsonl; other files in it stay."""
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
class AmazonSettings(ReviewSettings):
    """Prepare raw Amazon reviews of 2014, 2018 or 2023.

    Example:
        incatalog data amazon --reviews Video_Games.jsonl.gz --meta meta_Video_Games.jsonl.gz \
--out data --k-core 5
    """

    reviews: Path
    """Reviews as downloaded, gzip or plain: JSON lines (X_5.json.gz, X.jsonl.gz) or ratings in CSV
    (rating_only/X.csv.gz, last_out_w_his/X.test.csv.gz, ratings_X.csv)."""
    meta: Path
    """Metadata as downloaded, gzip or plain, of the same year (meta_X.json.gz, meta_X.jsonl.gz)."""


@dataclass(frozen=True)
class SteamSettings(ReviewSettings):
    """Prepare raw Steam reviews and games.

    Example:
        incatalog data steam --reviews steam_reviews.json.gz --meta steam_games.json.gz --out data
    """

    reviews: Path
    """Reviews as downloaded, gzip or plain (steam_reviews.json.gz)."""
    meta: Path
    """Games as downloaded, gzip or plain (steam_games.json.gz)."""


@dataclass(frozen=True)
class YelpSettings(ReviewSettings):
    """Prepare the reviews and businesses of the Yelp Open Dataset.

    Example:
        incatalog data yelp --reviews yelp_academic_dataset_review.json \
--meta yelp_academic_dataset_business.json --out data --k-core 5
    """

    reviews: Path
    """Reviews as downloaded, gzip or plain (yelp_academic_dataset_review.json)."""
    meta: Path
    """Businesses as downloaded, gzip or plain (yelp_academic_dataset_business.json)."""


@dataclass(frozen=True)
class MovieLensSettings(Settings):
    """Prepare MovieLens (100K to 32M, latest, latest-small) or RecBole's .inter/.item files.

    Example:
        incatalog data movielens --source ml-latest-small --out data
    """

    source: Path
    """Folder with the files as published."""
    out: Path
    """Folder for metas.jsonl, category.jsonl and sequential.jsonl; other files in it stay."""
    min_rating: float = 0.0
    """Keep ratings of at least this value; 0 keeps every rating."""
    min_interactions: int = 3
    """Keep users with at least this many interactions."""


@dataclass(frozen=True, kw_only=True)
class ColumnSettings(Settings):
    """How two tables are written, and which columns hold what."""

    headings: ClassVar[Headings] = {
        "columns of interactions": "user_column item_column time_column time_format",
        "columns of items": (
            "item_id_column title_column description_column category_column category_separator "
            "boost_column boost_until_column currency"
        ),
        "form of the files": "id_form separator encoding quote",
    }

    user_column: str | None = None
    """Column of the orders (or other interactions) that holds the user id; guessed if not given, as
    all columns are."""
    item_column: str | None = None
    """Column of the orders that holds the item id."""
    time_column: str | None = None
    """Column of the orders to order by; empty keeps the order of the file."""
    item_id_column: str | None = None
    """Column of the products that holds the item id."""
    title_column: str | None = None
    """Column of the products that holds the title."""
    description_column: str | None = None
    """Column of the products that holds the description; empty for none."""
    category_column: str | None = None
    """Column of the products that holds the category; empty for none."""
    boost_column: str | None = None
    """Column of the products that holds what the shop multiplies an item's weight by; empty for
    none."""
    boost_until_column: str | None = None
    """Column of the products that holds the last day (ISO date) of the boost; empty for none."""
    currency: tuple[str, ...] = ()
    """Currency of the numbers in columns called price, cost and the like, such as EUR, or of one
    column as COLUMN=EUR; cells with a sign (€12.50) need none."""
    category_separator: str | None = None
    """Splits several categories in one cell; empty for one category."""
    time_format: str | None = None
    """How times are written, such as %d.%m.%Y; empty for numbers and ISO 8601."""
    id_form: IdForm | None = None
    """What ids of the two files may differ in: exact (nothing), trimmed (spaces around them),
    folded (case too) or number (zeros in front and .0 behind too). The first of them in which the
    files agree best if not given."""
    separator: str | None = None
    """What separates the cells of CSV; found out if not given."""
    encoding: str | None = None
    """Encoding of CSV, such as cp1252; found out if not given."""
    quote: Quote = "double"
    """Whether double quotes hold the cells of CSV and TSV together (double) or are letters like any
    other (none)."""


@dataclass(frozen=True)
class TableSettings(ColumnSettings):
    """Prepare tables (CSV, Parquet or JSON lines) of interactions and items.

    Example:
        incatalog data table --interactions views.csv --items films.csv --out data
    """

    headings: ClassVar[Headings] = {
        "files": "interactions items out",
        "columns of interactions": "",
        "columns of items": "",
        "what is kept": "k_core min_interactions unknown_items",
    }

    interactions: Path
    """File with one row per interaction."""
    items: Path
    """File with one row per item."""
    out: Path
    """Folder for metas.jsonl, category.jsonl and sequential.jsonl; other files in it stay."""
    k_core: int = 0
    """Keep the k-core of users and items; 0 switches it off."""
    min_interactions: int = 3
    """Keep users with at least this many interactions."""
    unknown_items: Literal["ignore", "error"] = "ignore"
    """Leave out and count interactions with items that the table of items has not, such as products
    that are on sale no longer (ignore), or stop at the first (error)."""


@dataclass(frozen=True)
class MiniOneRecSettings(Settings):
    """Prepare the item file and the rows of MiniOneRec.

    Example:
        incatalog data minionerec --items Office.item.json --rows train.csv valid.csv test.csv \
--out data
    """

    items: Path
    """Item file (X.item.json)."""
    rows: tuple[str, ...]
    """Row files in the order of time: train, valid, test (CSV, or .inter)."""
    out: Path
    """Folder for metas.jsonl, category.jsonl and sequential.jsonl."""
    history: Literal["users", "rows"] = "users"
    """Join the rows of a user to one history, or make each row a history that ends in its target:
    with test rows, evaluations ask what the published tables ask."""


@dataclass(frozen=True)
class SampleShopSettings(Settings):
    """Write orders.csv and products.csv of a small invented shop, to try everything with.

    Example:
        incatalog sample shop
    """

    out: Path
    """Folder for the two files."""
    customers: Annotated[int, Bounds(20, 100_000)] = 700
    """Customers; each buys some nine products."""
    seed: NonNegative = 0
    """Seed of everything that is invented."""


@dataclass(frozen=True)
class CheckSettings(Settings):
    """Report on prepared data and say whether it can be trained on.

    Example:
        incatalog data check data
    """

    data: Path
    """Folder with metas.jsonl, category.jsonl and sequential.jsonl."""
    title_field: str = "title"
    """Text field of metas.jsonl by which a model is to know the items."""


@dataclass(frozen=True)
class ToUnirecSettings(Settings):
    """Write prepared data as the files UniRec trains on.

    Example:
        incatalog data to-unirec data --out unirec/shop
    """

    data: Path
    """Folder of prepared data."""
    out: Path
    """Run folder; its name is the name of the data set in UniRec."""
