"""Settings of the commands of `serving`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from incatalog.config import (
    EmptyHistory,
    FractionBelowOne,
    Headings,
    NonNegative,
    Port,
    Positive,
    PositiveFloat,
    Quote,
    Settings,
)


@dataclass(frozen=True)
class ServeSettings(Settings):
    """Chat and recommend over HTTP: an OpenAI-compatible service and its web page.

    Example:
        incatalog serve --model runs/tiny
        incatalog serve --model smollm2 --domain shop=data --guide runs/teacher
    """

    headings: ClassVar[Headings] = {
        "model and catalogs": (
            "model revision domain title_field wording system first_share name device verify"
        ),
        "engine": "engine vllm",
        "guide": "guide guide_weight guide_empty guide_timeout unguided_when_teacher_fails",
        "what is said": "voice encoder",
        "page": "title allow_image",
        "address": "host port allow_origin allow_host trusted_proxy keys",
        "what is kept": "state sessions state_timeout",
        "limits": (
            "rate batch queue max_tokens max_messages max_characters max_history max_k max_body "
            "max_feed timeout"
        ),
        "observation": "trace",
    }

    model: Path
    """Folder of a trained model, its name on the Hugging Face hub (org/name), or a plain chat
    model."""
    domain: tuple[str, ...] = ()
    """Catalogs as NAME=FOLDER, the flag once for each; the model's own if none is given."""
    title_field: tuple[str, ...] = ()
    """Field of metas.jsonl by which the model knows the items; for one of several catalogs as
    NAME=FIELD. That of the model's training if not given, which it remembers; only catalogs other
    than its own may have another one."""
    guide: tuple[str, ...] = ()
    """Teacher that guides the answers: a run folder, the URL of a served one, or off; with several
    catalogs as NAME=TEACHER, the flag once for each. By default the guide in the model's folder, if
    one lies there, for the catalog that lies there."""
    guide_weight: tuple[str, ...] = ()
    """How much the guide counts, from 0 (the model alone) to 1 (the guide alone); with several
    catalogs as NAME=WEIGHT. As fitted if not given, 0.7 (1 for an untrained model) where nothing
    was fitted."""
    guide_empty: EmptyHistory | None = None
    """What a guide says where neither request nor conversation names an item: popularity, or
    nothing (the model answers alone). As fitted if not given, popularity where nothing was fitted
    and the teacher knows it."""
    guide_timeout: PositiveFloat = 5.0
    """Seconds to wait for a served teacher, twice at most."""
    unguided_when_teacher_fails: bool = False
    """Let the model answer alone where the teacher fails, which the answer says; by default that is
    an error (503)."""
    voice: Literal["facts", "model", "auto"] = "auto"
    """Who speaks of the items that a model names which was never trained on the catalog: sentences
    made of what is known (facts), or the model in its own words; auto takes the facts for models
    below a billion parameters."""
    encoder: str = "words"
    """What compares messages with items, so that what is said steers: `minilm` (sentence vectors),
    `words`, the folder of a sentence-transformers model, or off (docs/steering.md)."""
    wording: str | None = None
    """Name of the wording to ask with, such as `test-two-turns-mention` (docs/evaluation.md lists
    them); the model's own if not given."""
    system: str | None = None
    """What a system message says in front of conversations that bring none, an empty one for none;
    the model's own if not given."""
    first_share: FractionBelowOne | None = None
    """How much the ranking of a list's first place counts at the places behind it, in lists and
    chats that no guide weighs; 0 for not at all. The model's own if not given: 0.5 once trained."""
    name: str = "incatalog"
    """Name of the model in requests."""
    title: str = "incatalog"
    """Heading of the web page."""
    allow_image: tuple[str, ...] = ()
    """Web origins that the page may show items' images from, such as https://images.example.com,
    the flag once for each; by default only its own, so that a visit asks nothing elsewhere."""
    host: str = "127.0.0.1"
    """Address to listen on; any but this machine's own needs --keys."""
    port: Port = 8000
    """Port to listen on; 0 takes a free one and says which."""
    device: str = "auto"
    """Device to run on; auto takes CUDA where there is one."""
    verify: bool = True
    """Check the model's files against the checksums recorded when it was trained; false loads huge
    models sooner."""
    engine: Literal["incatalog", "vllm"] = "incatalog"
    """Who computes: the engine of this package, or vLLM in a process of its own, which holds its
    answers to the same catalogs (docs/serving-vllm.md); it wants an environment of its own."""
    vllm: tuple[str, ...] = ()
    """Argument of vLLM's engine as NAME=VALUE, such as tensor-parallel-size=2, the flag once for
    each; with --engine vllm."""
    state: str | None = None
    """Where changes of the catalogs are kept, which several services may share: a SQLite file on
    one machine, postgresql://USER@HOST/DATABASE on several (docs/replicas.md); without it they end
    with the process."""
    sessions: str | None = None
    """Where conversations are kept, for requests that name one: an address as that of --state, or
    the same; none are kept without."""
    state_timeout: PositiveFloat = 5.0
    """Seconds to wait for what is kept: for a connection, for an answer of the database, and for a
    version that a request names."""
    keys: Path | None = None
    """JSON file of the API keys' hashes; without one no key is needed."""
    rate: NonNegative = 0
    """Requests a minute each key (each address, without keys) may send; 0 for any number."""
    allow_origin: tuple[str, ...] = ()
    """Web origins whose pages may send requests from a browser; none by default."""
    allow_host: tuple[str, ...] = ()
    """Names the service is reached by, besides those of this machine."""
    trusted_proxy: tuple[str, ...] = ()
    """Addresses or networks of proxies in front of it, the flag once for each; X-Forwarded-For of a
    proxy's request says where it comes from. None by default."""
    batch: Positive = 64
    """Answers that grow side by side at most."""
    queue: Positive = 256
    """Requests that may wait; beyond them the answer is 429 with Retry-After."""
    max_tokens: Positive = 512
    """Tokens of an answer at most, and where a request does not say."""
    max_messages: Positive = 200
    """Messages of a conversation at most."""
    max_characters: Positive = 100_000
    """Characters of a conversation at most."""
    max_history: Positive = 1000
    """Items of a history, or of exclusions, at most."""
    max_k: Positive = 100
    """Items that may be asked for."""
    max_body: Positive = 1_048_576
    """Bytes of a request at most."""
    max_feed: Positive = 134_217_728
    """Bytes of a whole feed of items at most (PUT of a catalog's items)."""
    timeout: PositiveFloat = 120.0
    """Seconds until an answer is given up (504), or a body that does not arrive (408)."""
    trace: bool = False
    """Tell OpenTelemetry about requests, with what its own environment variables say."""
    revision: str | None = None
    """Branch, tag or commit of a model on the hub; its main branch if not given."""


@dataclass(frozen=True)
class CatalogSyncSettings(Settings):
    """Make the catalog of a running service one of exactly the items of a table, as one version.

    Example:
        incatalog catalog sync products.csv --url http://127.0.0.1:8000 --data runs/shop/data
    """

    items: Path
    """File with one row per item, as `incatalog data table` reads it; columns that no flag names
    become attributes."""
    url: str
    """Address of the service."""
    key_file: Path | None = None
    """File that holds the key of a service that wants one; else INCATALOG_API_KEY of the
    environment."""
    domain: str = ""
    """Name of the catalog; may be left out if there is one."""
    missing: Literal["remove", "disable"] = "remove"
    """What happens to items of the catalog that the table has not; disabled ones come back with a
    later table that has them."""
    data: Path | None = None
    """Folder of prepared data whose columns the table has too; without it, columns are those of the
    flags."""
    item_id_column: str | None = None
    """Column that holds the item id; `item_id` if nothing says otherwise."""
    title_column: str | None = None
    """Column that holds the title; `title` if nothing says otherwise."""
    description_column: str | None = None
    """Column that holds the description; none if nothing says otherwise."""
    category_column: str | None = None
    """Column that holds the category; none if nothing says otherwise."""
    category_separator: str | None = None
    """Splits several categories in one cell."""
    boost_column: str | None = None
    """Column that holds what the shop multiplies an item's weight by."""
    boost_until_column: str | None = None
    """Column that holds the last day (ISO date) of the boost."""
    quote: Quote = "double"
    """Whether double quotes hold the cells of CSV and TSV together (double) or are letters like any
    other (none)."""
