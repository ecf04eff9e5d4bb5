"""Settings of the commands of `recommender`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Literal

from incatalog.config import (
    Decode,
    Fraction,
    FractionBelowOne,
    Headings,
    ListForm,
    ListFormat,
    Positive,
    Settings,
)

# In place of a teacher: the guide that lies in the model's folder, if one does; none.
OWN: Final = "own"
OFF: Final = "off"
GUIDE_FILE = "guide.json"
# Said of --first-share where no list is written.
ABOUT_LISTS: Final = "is about lists that are written; add --decode list, or leave it out"


@dataclass(frozen=True)
class AskedSettings(Settings):
    """Which model is asked for lists, and how."""

    headings: ClassVar[Headings] = {
        "whose list": "exclude_seen",
        "which items": "k exclude categories where",
        "model": (
            "model revision data title_field decode first_share wording system guide guide_weight "
            "device verify"
        ),
    }

    model: str
    """Folder of a trained model, of a chat model (with --data) or of a teacher's run, its name on
    the Hugging Face hub (org/name), or smollm2."""
    data: Path | None = None
    """Folder of prepared data for a model that has no catalog of its own; that of a teacher's
    fitting if not given."""
    k: Positive = 10
    """Items to recommend."""
    exclude: tuple[str, ...] = ()
    """Items never to recommend, by id or title, separated by commas."""
    categories: tuple[str, ...] = ()
    """Recommend from these categories only, separated by commas."""
    where: tuple[str, ...] = ()
    """Conditions that items fulfil, all of them, such as 'price<=20', brand=A,B (one of them),
    'brand!=A', title~moon (contains) or in_stock (is true); the flag once for each, or several
    behind it."""
    exclude_seen: bool = True
    """Never recommend items of the history."""
    decode: Decode = "beam"
    """Rank the items the model would write first (beam), or have it write a list of items, each
    searched as a whole (list) or written token by token (greedy)."""
    wording: str | None = None
    """Name of the wording to ask with, such as `test-two-turns-mention` (docs/evaluation.md lists
    them); the model's own if not given."""
    system: str | None = None
    """What a system message says in front, an empty one for none; the model's own if not given."""
    first_share: FractionBelowOne | None = None
    """How much the ranking of a list's first place counts at the places behind it, in lists and
    chats that no guide weighs; 0 for not at all. The model's own if not given: 0.5 once trained."""
    guide: str = OWN
    """Teacher that guides the model: a run folder, the URL of a served one, own (the guide in the
    model's folder, if one lies there) or off."""
    guide_weight: Fraction | None = None
    """How much the guide counts, from 0 (the model alone) to 1 (the guide alone); as fitted if not
    given, 0.7 (1 for an untrained model) where nothing was fitted."""
    revision: str | None = None
    """Branch, tag or commit of a model on the hub; its main branch if not given."""
    title_field: str = ""
    """Field by which the model knows the items; the one of its training, which it remembers, and
    another one is refused."""
    device: str = "auto"
    """Device to run on; auto takes CUDA where there is one."""
    verify: bool = True
    """Check the model's files against the checksums recorded when it was trained; false loads huge
    models sooner."""


@dataclass(frozen=True)
class RecommendSettings(AskedSettings):
    """Recommend items that follow a history.

    Example:
        incatalog recommend --model runs/tiny --history "Toy Story" "Alien (1979)"
        incatalog recommend --model smollm2 --data data --guide runs/teacher --history 1,50 \
--format csv
        incatalog recommend --model runs/teacher --history-file users.jsonl --format json \
--out lists.json
    """

    headings: ClassVar[Headings] = {
        "whose list": "history history_file",
        "which items": "",
        "model": "",
        "output": "format out",
    }

    history: tuple[str, ...] = ()
    """Items by id or title, oldest first, separated by commas; one that holds a comma stands in
    double quotes."""
    history_file: Path | None = None
    """JSON lines with a user and items each: {"user": "7", "history": ["id or title"]}, or a
    sequential.jsonl."""
    format: ListFormat = "auto"
    """Table, JSON or CSV; auto goes by the ending of --out, and is a table otherwise."""
    out: Path | None = None
    """File to write instead of printing."""


@dataclass(frozen=True)
class ModelImportSettings(Settings):
    """Take a chat model that was trained on a catalog elsewhere; then all commands know it.

    Example:
        incatalog model import FOLDER --data data --out runs/imported
    """

    model: Path
    """Merged Hugging Face folder, or its name on the hub (org/name), whose vocabulary has the
    control tokens."""
    data: Path
    """Folder of prepared data; its catalog is that of the model."""
    out: Path
    """Folder for the model as all commands take it: a copy, with the catalog beside it."""
    revision: str | None = None
    """Branch, tag or commit of a model on the hub; its main branch if not given."""
    title_field: str = ""
    """Text field of metas.jsonl by which the model knows the items; `title` if empty."""
    method: Literal["cgen", "token"] = "cgen"
    """How an item is written inside its span: `cgen` by its title, `token` by its codes."""
    index: str = ""
    """For `token`, folder of `{dataset}.index.json` and `{dataset}.item2id`; the data folder if
    empty."""
    soi_token: str = "<SOI>"
    """Token that opens an item span in its vocabulary."""
    eoi_token: str = "<EOI>"
    """Token that closes it."""
    wording: str = "test-single-turn"
    """Name of the wording the model is asked with."""
    system: str = ""
    """What the system message said in its training."""
    history_form: Literal["auto", "title", "span"] = "auto"
    """How its prompts wrote history items, as quoted titles or as item spans; auto takes spans for
    codes and titles otherwise."""
    list_form: ListForm = "numbered"
    """How its answers wrote lists: numbered lines, plain lines, or numbered lines that begin with a
    space from the second on (`indented`, as RecLM-cgen does)."""
    max_history: Positive = 10
    """Newest items of a history its prompts showed."""
    list_length: Positive = 10
    """Items in an answer at most."""
    max_length: Positive = 1024
    """Tokens of a conversation at most; older history items are cut to fit."""
    device: str = "auto"
    """Device to check the model on; auto takes CUDA where there is one."""

    @property
    def index_folder(self) -> Path:
        """Where the index files of codes lie."""
        return Path(self.index) if self.index else self.data
