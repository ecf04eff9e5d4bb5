"""Settings of the commands of `terminal`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from incatalog.config import (
    FractionBelowOne,
    Headings,
    NonNegative,
    NonNegativeFloat,
    Positive,
    Settings,
)


@dataclass(frozen=True)
class ChatSettings(Settings):
    """Talk in the terminal with a model, or with a running service.

    Example:
        incatalog chat --model runs/tiny
        incatalog chat --model smollm2 --domain shop=data --guide runs/teacher
        incatalog chat --url http://127.0.0.1:8000
    """

    headings: ClassVar[Headings] = {
        "who answers": "model revision url key_file device verify",
        "catalogs": "domain guide guide_weight title_field",
        "answers": "history voice encoder max_tokens temperature seed wording system first_share",
    }

    model: str = ""
    """Folder of a trained model, its name on the Hugging Face hub (org/name), of a chat model (with
    --domain), or smollm2."""
    url: str = ""
    """Address of a running `incatalog serve`, in place of a model."""
    key_file: Path | None = None
    """File that holds the key of a service that wants one; else INCATALOG_API_KEY of the
    environment."""
    domain: tuple[str, ...] = ()
    """Catalogs as NAME=FOLDER, the flag once for each; the model's own if none is given. With --url
    the name of the one to begin with."""
    guide: tuple[str, ...] = ()
    """Teacher that guides the answers: a run folder, the URL of a served one, or off; with several
    catalogs as NAME=TEACHER. By default the guide in the model's folder, if one lies there."""
    guide_weight: float | None = None
    """How much the guide counts, from 0 to 1; as fitted if not given, 0.7 (1 for an untrained
    model) where nothing was fitted."""
    revision: str | None = None
    """Branch, tag or commit of a model on the hub; its main branch if not given."""
    title_field: str = ""
    """Field of metas.jsonl by which the model knows the items of --domain; that of its training if
    not given."""
    history: tuple[str, ...] = ()
    """Items to begin with, by id or title, oldest first, separated by commas."""
    voice: Literal["facts", "model", "auto"] = "auto"
    """Who speaks of items where the model was never trained: sentences made of what is known
    (facts), or the model itself; auto takes facts below a billion parameters."""
    encoder: str = "words"
    """What reads what is said, so that it steers the items: minilm, words, off, or the folder of a
    sentence-transformers model (docs/steering.md)."""
    max_tokens: Positive = 512
    """Tokens of what the model writes freely at most."""
    temperature: NonNegativeFloat = 0.0
    """Divides the scores before sampling; 0 always takes the best."""
    seed: NonNegative = 0
    """Seed of the samples."""
    wording: str | None = None
    """Name of the wording to ask with; the model's own if not given."""
    system: str | None = None
    """What a system message says in front, an empty one for none; the model's own if not given."""
    first_share: FractionBelowOne | None = None
    """How much the ranking of a list's first place counts at the places behind it, in lists and
    chats that no guide weighs; 0 for not at all. The model's own if not given: 0.5 once trained."""
    device: str = "auto"
    """Device to run on; auto takes CUDA where there is one."""
    verify: bool = True
    """Check the model's files against the checksums recorded when it was trained; false loads huge
    models sooner."""
