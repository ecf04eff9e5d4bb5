"""From what is asked to a plan of the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from incatalog.assistant.facts import AskedFor
from incatalog.assistant.plan import Act
from incatalog.assistant.voices import Voice
from incatalog.config import ItemDecode
from incatalog.constraint.excluded import ExcludedItems
from incatalog.data.where import EVERYTHING, Where
from incatalog.decoding.request import Request
from incatalog.dialogue.render import Message
from incatalog.steering.wish import Filter, Wish

Count = int | Literal["auto"] | None
"""How many items an answer lists. None is the model's own choice where it was trained on the
catalog, and ``auto`` where it was not: as the conversation asks for."""


@dataclass(frozen=True)
class Enquiry:
    """What is asked of the assistant.

    Attributes:
        messages: The conversation; the last message is the user's.
        history: Ids of the user's items, oldest first.
        k: How many items to list.
        exclude: Ids of items that are not to be named.
        categories: Items of these alone; all if empty.
        where: Conditions that every item fulfils.
        exclude_seen: Whether items of the history and of earlier answers are not named again.
        boost: Factors of items by id.
        guide_weight: How much the guide counts; None for its own.
        unknown: What is done about ids of the history that the catalog has not.
        steer: Whether what is said steers.
        filters_off: Ids of filters that are taken off.
        voice: Who speaks of items; None for the assistant's own.
        max_new_tokens: Tokens of the answer at most; None for as many as a list takes.
        usual_tokens: Tokens of what a model writes freely, where ``max_new_tokens`` does not say.
        most_items: Items of a list at most, however many the conversation asks for.
        temperature, top_p, seed, item_decode: As in :class:`~incatalog.decoding.request.Request`.
    """

    messages: Sequence[Message]
    history: Sequence[str] = ()
    k: Count = None
    exclude: Sequence[str] = ()
    categories: Sequence[str] = ()
    where: Where = EVERYTHING
    exclude_seen: bool = True
    boost: Mapping[str, float] = field(default_factory=dict)
    guide_weight: float | None = None
    unknown: Literal["ignore", "error"] = "ignore"
    steer: bool = True
    filters_off: Sequence[str] = ()
    voice: Voice | None = None
    max_new_tokens: int | None = None
    usual_tokens: int = 512
    most_items: int = 100
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    item_decode: ItemDecode = "search"


@dataclass(frozen=True, eq=False)
class Plan:
    """How a turn is answered.

    Attributes:
        act: What the answer does; ``own`` for a trained model, which writes as it was trained.
        request: What the engine is asked for, but for what weighs the items; None where it is not
            asked.
        messages: The conversation as far as it is looked at.
        places: Which messages of the enquiry these are.
        history: Rows of what the user took, oldest first, as a guide sees them.
        mentioned: Those of them that the conversation named alone.
        excluded: What may not be named.
        count: How many items are listed.
        about: Rows of the items that the message is about.
        named: What the request named.
        wish: What was understood; None where nothing reads the conversation.
        filters: The filters that hold.
        unknown: Ids of the history that the catalog has not.
        voice: Who speaks of items.
        limit: Tokens of the answer at most, where the frame has to keep to a limit.
        nothing_fits: Whether the filters leave no item.
    """

    act: Act | Literal["own"]
    request: Request | None
    messages: Sequence[Message]
    places: Sequence[int]
    history: Sequence[int]
    mentioned: frozenset[int]
    excluded: ExcludedItems | None
    count: int
    about: Sequence[int]
    named: AskedFor
    wish: Wish | None
    filters: Sequence[Filter]
    unknown: Sequence[str]
    voice: Voice
    limit: int | None
    nothing_fits: bool = False

    @property
    def names_items(self) -> bool:
        """Whether the items of the answer are weighed."""
        return self.act in ("recommend", "own") and not self.nothing_fits
