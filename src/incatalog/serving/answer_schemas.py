"""Bodies of answers, in the form of OpenAI's API with fields of our own beside it.

The text of a class and the one below a field are what `/docs` says about them.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from incatalog.serving.attribute_form import Attribute
from incatalog.web.bodies import Form


class AnswerItem(Form):
    """An item in an answer."""

    id: str
    title: str
    categories: list[str]
    rank: int
    """Its place among the items, from 1."""
    score: float
    """Probability the model gave it at its place; guided, the exponential of its score."""
    start: int | None = None
    end: int | None = None
    reason: str | None = None
    """Why it is named, in words, made of what is known; null where nothing is."""
    attributes: list[Attribute] = Field([])


class AnswerFilter(Form):
    """What was understood as a condition that every item fulfils; `filters_off` takes it off."""

    id: str
    field: str
    op: str
    value: Any
    label: str
    phrase: str = ""
    """Its label, or what it is called together with the other end of its range."""


class ItemMention(Form):
    """Where a text names an item besides its `items`, in characters."""

    id: str
    start: int
    end: int


class AnswerMessage(Form):
    """What the assistant said."""

    role: Literal["assistant"] = "assistant"
    content: str
    items: list[AnswerItem] = Field([])
    refusal: None = None


class Choice(Form):
    """The answer."""

    index: int = 0
    message: AnswerMessage
    finish_reason: Literal["stop", "length"]
    logprobs: None = None


class Usage(Form):
    """Tokens of the prompt and of the answer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AnswerFacts(Form):
    """What is known of an answer; none of it is in OpenAI's API."""

    items: list[AnswerItem] = Field([])
    """The items it names, in order."""
    domain: str | None = None
    catalog_version: int | None = None
    """Version of the catalog that the whole answer was written with."""
    guided: bool | None = None
    """Whether a guide counted in the choice of the items; null where the catalog has none."""
    left_out: int = 0
    """Oldest messages that were left out, as they were too many."""
    filters: list[AnswerFilter] = Field([])
    """What was understood as conditions."""
    lacking: list[str] = Field([])
    """What the last message limits and no item of the catalog has, such as `prices`."""
    unknown: list[str] = Field([])
    """Ids of the history that the catalog has not; they were left out."""
    invented: int = 0
    """Names that looked like items and were none. A model that was never trained on the catalog is
    not let say them."""
    mentions: list[ItemMention] = Field([])
    """Where the text names items besides `items`."""
    ignored: list[str] = Field([])
    """Fields of the request that were read and not used, such as `tools`."""


class CompletionHead(Form):
    """An answer as OpenAI's chat completions have it."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class ChatCompletion(AnswerFacts, CompletionHead):
    """An answer; `items` and what follows it are not in OpenAI's API."""


class Recommendations(Form):
    """Items, best first."""

    object: Literal["list"] = "list"
    domain: str
    catalog_version: int
    guided: bool | None = None
    """Whether a guide counted in the choice of the items; null where the catalog has none."""
    items: list[AnswerItem]
    unknown: list[str] = Field([])
    """Ids of the history that the catalog has not; they were left out."""
