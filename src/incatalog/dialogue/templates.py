"""Wordings of recommendation requests, as data.

All but one are those published with RecLM-cgen (arXiv 2505.03336), from
``RecLM-cgen/train_utils/template.py`` of https://github.com/microsoft/RecAI, (c) Microsoft
Corporation, MIT licence. Not a letter of them is changed, a missing space included, so that results
compare.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from incatalog.errors import ConfigError

Stage = Literal["train", "test"]

_MENTION = (
    " Each item should be enclosed by <SOI> and <EOI>. <SOI> should be generated before item "
    "title, and <EOI> should be generated after item title."
)
_HISTORY = "The historical interactions are provided as follows: {history}. "
_CANDIDATES = "The candidate items are: {candidates}. "
_GENERATE = "Please generate a recommendation list with {item_count} different items."
_SELECT = (
    "Please select a recommendation list with {item_count} different items from candidate items."
)
_ASK = "Could you recommend me a list {item_count} different items?"
_AGREED = "Ok, I will consider user's preference. "
_NEED = (
    "You need to generate a recommendation list considering user's preference from historical "
    "interactions."
)


@dataclass(frozen=True)
class Wording:
    """One way to ask for recommendations.

    The instruction has the fields ``{history}``, ``{item_count}`` and possibly ``{candidates}``;
    ``<SOI>`` and ``<EOI>`` stand for the control tokens, whatever a model calls them.
    """

    name: str  # as run records have it
    instruction: str
    opening: tuple[str, str] | None = None  # what user and assistant say before

    @property
    def mentions_control_tokens(self) -> bool:
        """Whether the instruction tells the model about ``<SOI>`` and ``<EOI>``."""
        return "<SOI>" in self.instruction

    @property
    def offers_candidates(self) -> bool:
        """Whether the instruction lists the items to choose from."""
        return "{candidates}" in self.instruction


TRAIN_WORDINGS = (
    Wording(
        "train-generate",
        "Your task is generating a recommendation list according user's preference from "
        f"historical interactions.{_HISTORY}{_GENERATE}",
    ),
    Wording(
        "train-select",
        "Your task is selecting a recommendation list according user's preference from "
        f"historical interactions.{_HISTORY}{_CANDIDATES}{_SELECT}",
    ),
    Wording("train-generate-mention", f"{_NEED}{_HISTORY}{_GENERATE}{_MENTION}"),
    Wording(
        "train-select-mention",
        "You need to select a recommendation list considering user's preference from historical "
        f"interactions.{_HISTORY}{_CANDIDATES}{_SELECT}{_MENTION}",
    ),
)

TEST_WORDINGS = (
    Wording("test-single-turn", f"{_NEED} {_HISTORY}{_ASK} "),
    Wording("test-two-turns", f"{_HISTORY}{_ASK}", (_NEED, _AGREED)),
    Wording("test-as-trained", TRAIN_WORDINGS[0].instruction),
    Wording(
        "test-select",
        f"{_HISTORY}{_CANDIDATES}{_SELECT} ",
        (f"{_NEED} ", "Ok, I will do it considering user's preference and candidate items. "),
    ),
    Wording("test-single-turn-mention", f"{_NEED} {_HISTORY}{_ASK}{_MENTION}"),
    Wording("test-two-turns-mention", f"{_HISTORY}{_ASK}{_MENTION}", (_NEED, _AGREED)),
)


# Our own, for chat models that were never trained on any of those above.
PLAIN_WORDING = Wording(
    "plain-titles",
    "Someone took these items in this order: {history}. Recommend {item_count} other items that "
    "this person would take next. Answer with a numbered list alone: on each line the title of one "
    "item and nothing else.",
)


@dataclass(frozen=True)
class AlignmentWording:
    """One way to practise what the codes of an item mean.

    The tasks are those of LC-Rec (arXiv 2311.09049); the wordings are our own. The instruction has
    the field ``{text}`` (title and description of the item) or ``{item}`` (its span), the answer
    ``{item}`` or ``{title}``.
    """

    name: str
    instruction: str
    answer: str

    @property
    def shows_text(self) -> bool:
        """Whether the item is to be named by its text, rather than the other way round."""
        return "{text}" in self.instruction


ALIGNMENT_WORDINGS = (
    AlignmentWording(
        "text-to-item", "Which item does the following text describe?\n{text}", "{item}"
    ),
    AlignmentWording("item-of-text", "{text}\n\nWhich item of the catalog is this?", "{item}"),
    AlignmentWording("item-to-title", "What is the title of the item {item}?", "{title}"),
    AlignmentWording("title-of-item", "The user looks at {item}. What is it called?", "{title}"),
)


def wordings(
    stage: Stage, *, mention_control_tokens: bool = False, candidates: bool = False
) -> tuple[Wording, ...]:
    """Wordings to train or to evaluate with; those that mention control tokens come last."""
    stock = TRAIN_WORDINGS if stage == "train" else TEST_WORDINGS
    found = (wording for wording in stock if wording.offers_candidates == candidates)
    return tuple(one for one in found if mention_control_tokens or not one.mentions_control_tokens)


def asking_wording(name: str) -> Wording:
    """The wording that ``--wording`` names, to ask a model with.

    Raises:
        ConfigError: There is none, or it offers candidates.
    """
    try:
        found = wording_named(name)
    except ConfigError as error:
        raise ConfigError(f"--wording: {error}") from error
    if found.offers_candidates:
        raise ConfigError(f"--wording {name}: offers candidates, which nobody gives it")
    return found


def wording_named(name: str) -> Wording:
    """The wording with a name."""
    stock = (*TRAIN_WORDINGS, *TEST_WORDINGS, PLAIN_WORDING)
    named = {wording.name: wording for wording in stock}
    if name in named:
        return named[name]
    raise ConfigError(f"no wording is named {name!r}; expected one of {', '.join(named)}")
