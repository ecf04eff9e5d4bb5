"""Bodies of requests and answers, in the form of OpenAI's API with fields of our own beside it.

The text of a class and the one below a field are what `/docs` says about them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, Tag, WithJsonSchema
from pydantic_core import PydanticCustomError

from incatalog.data.where import OPS, Where
from incatalog.errors import ConfigError
from incatalog.serving.attribute_form import Attribute
from incatalog.web.bodies import Form

Id = Annotated[str, Field(min_length=1, max_length=512)]
# Fails at the first wrong entry: a list of a million of them would be a million error records.
FIRST = Field(fail_fast=True)
Ids = Annotated[list[Id], FIRST]
Names = Annotated[list[Annotated[str, Field(max_length=512)]], FIRST]
# The numbers that `factor_problem` lets pass.
Factor = Annotated[float, Field(ge=1e-9, le=1e9)]
Boosts = dict[Id, Factor]


def _conditions(given: dict[str, Any]) -> dict[str, Any]:
    """Refuses what are no conditions; whether the catalog has the fields is another question."""
    try:
        Where.parse(given)
    except ConfigError as error:
        why = str(error).removeprefix("where: ")
        raise PydanticCustomError("where", "{why}", {"why": why}) from error
    return given


_SCALAR = {"type": ["boolean", "number", "string"]}
_SCALARS = {"type": "array", "items": _SCALAR, "minItems": 1}
_COMPARISONS = {
    "type": "object",
    "properties": {op: _SCALARS if op in ("in", "not_in") else _SCALAR for op in OPS},
    "additionalProperties": False,
    "minProperties": 1,
}
Conditions = Annotated[
    dict[str, Any],
    AfterValidator(_conditions),
    WithJsonSchema(
        {"type": "object", "additionalProperties": {"anyOf": [_SCALAR, _SCALARS, _COMPARISONS]}}
    ),
]


# Names of the two forms a value may have; an error is then about the form that was sent.
TEXT, LIST, NUMBER = "[text]", "[list]", "[number]"
# A value that says that a field is not used.
_Empty = Annotated[list[Any], Field(max_length=0)]
_Zero = Annotated[float, Field(ge=0, le=0)]


def _form(value: Any) -> str | None:
    return TEXT if isinstance(value, str) else LIST if isinstance(value, list) else None


def _one_of_two(kinds: str) -> Discriminator:
    return Discriminator(_form, "two_forms", f"Expected text or {kinds}")


_Stop = Annotated[
    Annotated[str, Tag(TEXT)] | Annotated[list[str], Field(max_length=4), Tag(LIST)],
    _one_of_two("a list of texts"),
]


def _counted(value: Any) -> str | None:
    return TEXT if isinstance(value, str) else NUMBER


_Count = Annotated[
    Annotated[Literal["auto"], Tag(TEXT)] | Annotated[int, Field(ge=1), Tag(NUMBER)],
    Discriminator(_counted, "two_forms", "Expected a number or auto"),
]
_FEW = Field(max_length=1000)


class StrictForm(Form):
    """A body of which every field is known, and of its type."""

    model_config = ConfigDict(strict=True, extra="forbid")


class TextPart(StrictForm):
    """A part of a message; only text is understood."""

    type: Literal["text"]
    text: str
    prompt_cache_breakpoint: Any = None


class NamedItem(StrictForm):
    """An item that an earlier answer named, so that the model sees it as one."""

    model_config = ConfigDict(extra="ignore")

    id: Id
    start: Annotated[int, Field(ge=0)]
    """Where its title starts in the content, in characters."""
    end: Annotated[int, Field(ge=0)]
    """Where it ends."""


class ChatMessage(StrictForm):
    """One turn of the conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        Annotated[str, Tag(TEXT)] | Annotated[list[TextPart], FIRST, Tag(LIST)],
        _one_of_two("a list of parts"),
    ]
    name: str | None = None
    items: Annotated[list[NamedItem], FIRST] | None = None
    """The `items` of an answer, sent back with it. Not in OpenAI's API."""
    refusal: str | None = None
    annotations: list[Any] | None = None
    # As OpenAI's client prints an answer that has none of them.
    audio: None = None
    function_call: None = None
    tool_calls: _Empty | None = None

    @property
    def text(self) -> str:
        """What is said."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class StreamOptions(StrictForm):
    """What a stream tells besides the answer."""

    include_usage: bool = False
    include_obfuscation: bool | None = None


class ItemQuestion(StrictForm):
    """What recommendations are about; none of it is in OpenAI's API."""

    domain: str | None = Field(None, max_length=64)
    """Catalog to recommend from; null: no items are named."""
    history: Ids = Field([])
    """Ids of the user's items, oldest first."""
    exclude: Ids = Field([])
    """Ids of items that must not be recommended."""
    categories: Names = Field([])
    """Recommend from these only; all if empty."""
    where: Conditions = Field({})
    """Conditions that every item fulfils: a value, a list of values (one of them), or an object of
    `eq`, `ne`, `in`, `not_in`, `lt`, `lte`, `gt`, `gte`, `contains`, by attribute (also `category`,
    `title`, `id`): `{"price": {"lte": 20}, "brand": ["A", "B"], "in_stock": true}`."""
    exclude_seen: bool = True
    """Never recommend items of the history."""
    boost: Boosts = Field({})
    """Factors of items by id: what their weight is multiplied by, beside what the catalog says."""
    guide_weight: float | None = Field(None, ge=0, le=1)
    """How much the guide counts, from 0 (the model alone) to 1; null: as the service is set."""
    unknown: Literal["ignore", "error"] = "ignore"
    """What is done about ids of the history that the catalog has not: they are left out and listed
    in the answer, or they are an error."""

    @property
    def conditions(self) -> Where:
        """What `where` says."""
        return Where.parse(self.where)


class ChatRequest(ItemQuestion):
    """A conversation to be continued."""

    model: str = Field(max_length=256)
    """`NAME`, or `NAME/DOMAIN` to name the domain."""
    messages: Annotated[list[ChatMessage], Field(min_length=1, fail_fast=True)]
    k: _Count | None = None
    """Answer with a list of this many items; `auto`: with as many as the conversation asks for, if
    it asks for any; null: `auto` of a model that was never trained on the catalog, and the model's
    own choice of one that was."""
    steer: bool = True
    """Whether what is said steers which items are named."""
    filters_off: Annotated[list[Annotated[str, Field(max_length=2000)]], FIRST, _FEW] = Field([])
    """Ids of `filters` of earlier answers that are not to hold, whatever the conversation says."""
    voice: Literal["facts", "model"] | None = None
    """Who speaks of the items, of a model that was never trained: sentences made of what is known,
    or the model; null: as the service is set."""
    item_decode: Literal["search", "token"] = "search"
    """`search`: each item is the best of all at its place (at a temperature, drawn with its exact
    probability, whatever `top_p` is); `token`: items are written token by token."""
    session: str | None = Field(None, min_length=1, max_length=128)
    """Conversation that the server keeps, if it keeps any; the messages are added to it."""
    deadline: float | None = Field(None, gt=0)
    """Seconds after which the answer is not wanted any more."""
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=100, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: _Stop | None = None
    n: Literal[1] | None = 1
    # These only describe the request; they are accepted and not used.
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: str | None = None
    # These would change the answer; only the values that mean "not used" are accepted.
    frequency_penalty: _Zero | None = None
    presence_penalty: _Zero | None = None
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None
    logprobs: Literal[False] | None = None
    top_logprobs: Literal[0] | None = None
    parallel_tool_calls: bool | None = None
    tools: _Empty | None = None
    tool_choice: Literal["none", "auto"] | None = None
    functions: _Empty | None = None
    function_call: Literal["none", "auto"] | None = None
    modalities: Annotated[list[Literal["text"]], Field(max_length=1)] | None = None
    audio: None = None
    prediction: None = None
    moderation: None = None
    web_search_options: None = None
    reasoning_effort: Literal["none"] | None = None
    verbosity: Literal["medium"] | None = None
    response_format: dict[Literal["type"], Literal["text"]] | None = None

    @property
    def characters(self) -> int:
        """Characters of the whole conversation."""
        return sum(len(message.text) for message in self.messages)

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts the answer ends before."""
        found = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(text for text in found if text)


class RecommendationRequest(ItemQuestion):
    """Which items follow a history?"""

    domain: str | None = Field(None, max_length=64)
    """May be left out if there is one."""
    k: int = Field(10, ge=1)
    decode: Literal["beam", "list", "greedy"] = "beam"
    """`beam`: by the exact probability of the first place; `list`: written, each item the best one
    at its place; `greedy`: written token by token."""


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


class ChatCompletion(Form):
    """An answer; `items` and what follows it are not in OpenAI's API."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
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
    unknown: list[str] = Field([])
    """Ids of the history that the catalog has not; they were left out."""
    invented: int = 0
    """Names that looked like items and were none. A model that was never trained on the catalog is
    not let say them."""
    mentions: list[ItemMention] = Field([])
    """Where the text names items besides `items`."""


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


class Model(Form):
    """A name that requests may give; whether its model was trained on a catalog."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "incatalog"
    domain: str | None = None
    trained: bool = True
    about: str = ""
    """What the model is, in a sentence."""
    parameters: int | None = None
    """Of its network, in all."""


class Models(Form):
    """All names that requests may give."""

    object: Literal["list"] = "list"
    data: list[Model]


class ErrorBody(Form):
    """What went wrong, in OpenAI's form."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorAnswer(Form):
    """What is sent in place of an answer."""

    error: ErrorBody
