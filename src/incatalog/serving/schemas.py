"""Bodies of requests and answers, in the form of OpenAI's API with fields of our own beside it.

The text of a class and the one below a field are what `/docs` says about them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from incatalog.data.fields import id_problem
from incatalog.web.bodies import Form

Id = Annotated[str, Field(min_length=1, max_length=512)]
# Fails at the first wrong entry: a list of a million of them would be a million error records.
_FIRST = Field(fail_fast=True)
Ids = Annotated[list[Id], _FIRST]
Names = Annotated[list[Annotated[str, Field(max_length=512)]], _FIRST]
# The numbers that `factor_problem` lets pass.
Factor = Annotated[float, Field(ge=1e-9, le=1e9)]
Boosts = dict[Id, Factor]


def _nameable(item_id: str) -> str:
    """Refuses an id that no path could name, so that its item could never be removed."""
    if problem := id_problem(item_id):
        raise PydanticCustomError("id", problem)
    return item_id


# Names of the two forms a value may have; an error is then about the form that was sent.
TEXT, LIST = "[text]", "[list]"
# A value that says that a field is not used.
_Empty = Annotated[list[Any], Field(max_length=0)]
_Zero = Annotated[float, Field(ge=0, le=0)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]


def _form(value: Any) -> str | None:
    return TEXT if isinstance(value, str) else LIST if isinstance(value, list) else None


def _one_of_two(kinds: str) -> Discriminator:
    return Discriminator(_form, "two_forms", f"Expected text or {kinds}")


_Stop = Annotated[
    Annotated[str, Tag(TEXT)] | Annotated[list[str], Field(max_length=4), Tag(LIST)],
    _one_of_two("a list of texts"),
]


class _Strict(Form):
    model_config = ConfigDict(strict=True, extra="forbid")


class TextPart(_Strict):
    """A part of a message; only text is understood."""

    type: Literal["text"]
    text: str
    prompt_cache_breakpoint: Any = None


class NamedItem(_Strict):
    """An item that an earlier answer named, so that the model sees it as one."""

    model_config = ConfigDict(extra="ignore")

    id: Id
    start: Annotated[int, Field(ge=0)]
    """Where its title starts in the content, in characters."""
    end: Annotated[int, Field(ge=0)]
    """Where it ends."""


class ChatMessage(_Strict):
    """One turn of the conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        Annotated[str, Tag(TEXT)] | Annotated[list[TextPart], _FIRST, Tag(LIST)],
        _one_of_two("a list of parts"),
    ]
    name: str | None = None
    items: Annotated[list[NamedItem], _FIRST] | None = None
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


class StreamOptions(_Strict):
    """What a stream tells besides the answer."""

    include_usage: bool = False
    include_obfuscation: bool | None = None


class ItemQuestion(_Strict):
    """What recommendations are about; none of it is in OpenAI's API."""

    domain: str | None = Field(None, max_length=64)
    """Catalog to recommend from; null: no items are named."""
    history: Ids = Field([])
    """Ids of the user's items, oldest first."""
    exclude: Ids = Field([])
    """Ids of items that must not be recommended."""
    categories: Names = Field([])
    """Recommend from these only; all if empty."""
    exclude_seen: bool = True
    """Never recommend items of the history."""
    boost: Boosts = Field({})
    """Factors of items by id: what their weight is multiplied by, beside what the catalog says."""
    guide_weight: float | None = Field(None, ge=0, le=1)
    """How much the guide counts, from 0 (the model alone) to 1; null: as the service is set."""


class ChatRequest(ItemQuestion):
    """A conversation to be continued."""

    model: str = Field(max_length=256)
    """`NAME`, or `NAME/DOMAIN` to name the domain."""
    messages: Annotated[list[ChatMessage], Field(min_length=1, fail_fast=True)]
    k: int | None = Field(None, ge=1)
    """Answer with a list of this many items; null: the model's choice."""
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
    """Oldest messages of the session that were left out, as they were too many."""


class Recommendations(Form):
    """Items, best first."""

    object: Literal["list"] = "list"
    domain: str
    catalog_version: int
    guided: bool | None = None
    """Whether a guide counted in the choice of the items; null where the catalog has none."""
    items: list[AnswerItem]


class Model(Form):
    """A name that requests may give; whether its model was trained on a catalog."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "incatalog"
    domain: str | None = None
    trained: bool = True
    parameters: int | None = None
    """Of its network, in all."""


class Models(Form):
    """All names that requests may give."""

    object: Literal["list"] = "list"
    data: list[Model]


class CatalogInfo(Form):
    """A catalog as it stands."""

    domain: str
    version: int
    items: int
    categories: list[str]
    guided: bool
    """Whether a teacher guides the answers."""
    title_field: str
    """Field by which the model knows the items; people are shown `title`."""


class Catalogs(Form):
    """All catalogs."""

    catalogs: list[CatalogInfo]


class CatalogItem(Form):
    """An item of a catalog, with the `title_field` of the catalog where that is not `title`."""

    model_config = ConfigDict(extra="allow")

    id: str
    title: str
    categories: list[str]
    description: str
    boost: float
    """What its weight is multiplied by."""
    enabled: bool


class CatalogPage(Form):
    """Some items of a catalog."""

    domain: str
    version: int
    total: int
    """Items that match."""
    items: list[CatalogItem]


class NewCatalogItem(_Strict):
    """An item to add, or to put in place of the one with its id.

    Where the `title_field` of the catalog is another one than `title`, the item has that field too.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[str, Field(min_length=1, max_length=2000)]]

    id: Annotated[Id, AfterValidator(_nameable)]
    title: str = Field(min_length=1, max_length=2000)
    description: str = Field("", max_length=20_000)
    categories: Names = Field([], max_length=100)
    boost: Factor = 1.0
    """What its weight is multiplied by."""
    codes: Annotated[list[int], Field(max_length=26)] | None = None
    """Its semantic ID, for a model that writes codes."""
    vector: Annotated[list[_Finite], Field(max_length=65_536, fail_fast=True)] | None = None
    """Its vector, for a model that retrieves."""


class NewCatalogItems(_Strict):
    """Items to add at once: all of them, or none if one does not fit."""

    items: Annotated[list[NewCatalogItem], Field(min_length=1, max_length=10_000, fail_fast=True)]


class ItemSwitch(_Strict):
    """Whether an item may be recommended."""

    enabled: bool


class Removal(_Strict):
    """Items to remove at once: all of them, or none if one is not there."""

    ids: Annotated[Ids, Field(min_length=1, max_length=10_000)]


class Changed(Form):
    """The version of the catalog from which on a change holds."""

    domain: str
    version: int


class ErrorBody(Form):
    """What went wrong, in OpenAI's form."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorAnswer(Form):
    """What is sent in place of an answer."""

    error: ErrorBody
