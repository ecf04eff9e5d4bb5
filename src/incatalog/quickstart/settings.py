"""Settings of the first runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from incatalog.config import Headings, NonNegative, Port, PositiveFloat, Settings
from incatalog.data.settings import ColumnSettings


@dataclass(frozen=True)
class QuickstartSettings(ColumnSettings):
    """From two files to a chat that recommends: guess, prepare, fit a blend, compare, serve.

    Example:
        incatalog quickstart orders.csv products.csv --out runs/shop
    """

    headings: ClassVar[Headings] = {
        "files": "orders products out",
        "model and service": "model minutes serve port seed",
    }

    orders: Path
    """File with one row per product that a customer ordered: CSV, Parquet or JSON lines."""
    products: Path
    """File with one row per product; all its columns are kept."""
    out: Path = Path("runs/shop")
    """Folder for data, blend and serve.yaml; its name is that of the catalog."""
    model: str = "smollm2"
    """Chat model that talks: smollm2, a folder, or a name on the Hugging Face hub. It needs no
    training: the blend chooses what it names."""
    minutes: PositiveFloat = 1.0
    """Minutes that the network of the blend may train; the rest takes about another."""
    port: Port = 8000
    """Port of the service and its page; 0 takes a free one and says which."""
    serve: bool = True
    """Start the service at the end; without, the command that does is printed."""
    seed: NonNegative = 0
    """Seed of everything."""


@dataclass(frozen=True)
class DemoSettings(Settings):
    """MovieLens-100K: a blend fitted and compared, three conversations with a chat model, its page.

    Example:
        incatalog demo --serve
    """

    out: Path = Path("runs/demo")
    """Folder for data, blend and serve.yaml."""
    source: str = ""
    """MovieLens-100K folder; empty takes the one in the recbole wheel."""
    model: str = "smollm2"
    """Chat model that talks: smollm2, a folder, or a name on the Hugging Face hub."""
    minutes: PositiveFloat = 1.0
    """Minutes that the network of the blend may train."""
    port: Port = 8000
    """Port of the service and its page; 0 takes a free one."""
    serve: bool = False
    """Go on serving at the end; without, the command that does is printed."""
    seed: NonNegative = 0
    """Seed of everything."""


@dataclass(frozen=True)
class StudySettings(Settings):
    """MovieLens-100K: teachers and three trained language models, compared in a report.

    Example:
        incatalog study --budget smoke --out runs/smoke
    """

    out: Path = Path("runs/study")
    """Folder for data, teachers, models and report."""
    source: str = ""
    """MovieLens-100K folder; empty takes the one in the recbole wheel."""
    budget: Literal["smoke", "laptop", "hour"] = "laptop"
    """Size of the training: smoke (a minute, only shows that it runs), laptop (a quarter of an hour
    on two cores) or hour."""
    seed: NonNegative = 0
    """Seed of everything."""


@dataclass(frozen=True)
class RecipesSettings(Settings):
    """The settings of whole trainings that come with the package, for `--config`.

    Example:
        incatalog recipes
        incatalog recipes movielens/cgen
    """

    name: str = ""
    """Recipe whose file is printed, such as movielens/cgen; empty lists all of them."""
