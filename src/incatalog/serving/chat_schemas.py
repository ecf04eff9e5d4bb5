"""A conversation to be continued, in the form of OpenAI's API with fields of our own beside it.

The text of a class and the one below a field are what `/docs` says about them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from incatalog.serving.body_values import (
    FIRST,
    LIST,
    NUMBER,
    TEXT,
    WHOLE,
    LenientForm,
    Positive,
    text_or,
)
from incatalog.serving.message_schemas import ChatMessage
from incatalog.serving.question_schemas import ItemQuestion
from incatalog.serving.unused_values import (
    Definitions,
    NoBias,
    NoMore,
    Once,
    PlainText,
    ToolChoice,
    Zero,
)

_Stop = Annotated[
    Annotated[str, Tag(TEXT)] | Annotated[list[str], Field(max_length=4), Tag(LIST)],
    text_or("a list of texts"),
]


def _counted(value: Any) -> str | None:
    return TEXT if isinstance(value, str) else NUMBER


_Count = Annotated[
    Annotated[Literal["auto"], Tag(TEXT)] | Annotated[Positive, Tag(NUMBER)],
    Discriminator(_counted, "two_forms", "Expected a number or auto"),
]
_FEW = Field(max_length=1000)


class StreamOptions(LenientForm):
    """What a stream tells besides the answer."""

    include_usage: bool = False
    include_obfuscation: bool | None = None


class ConversationRequest(ItemQuestion):
    """What all requests to continue a conversation may say, whatever their form."""

    model: str = Field(max_length=256)
    """`NAME`, or `NAME/DOMAIN` to name the domain."""
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
    deadline: float | None = Field(None, gt=0)
    """Seconds after which the answer is not wanted any more."""
    stream: bool | None = False
    temperature: float | None = Field(None, ge=0, le=100, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1)
    # These only describe the request; they are accepted and not used.
    user: str | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: str | None = None
    parallel_tool_calls: bool | None = None
    tools: Definitions | None = None
    """Read and not used, as answers are text and items; the answer says so in `ignored`."""
    tool_choice: ToolChoice | None = None
    """`none` or `auto`; what demands a call is refused."""
    # These would change the answer; only the values that mean "not used" are accepted.
    top_logprobs: NoMore | None = None
    moderation: None = None

    @property
    def ignored(self) -> list[str]:
        """Fields that say something, and are not used."""
        return [name for name in ("tools", "functions") if getattr(self, name, None)]


class ChatRequest(ConversationRequest):
    """A conversation to be continued."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, fail_fast=True)]
    session: str | None = Field(None, min_length=1, max_length=128)
    """Conversation that the server keeps, if it keeps any; the messages are added to it."""
    stream_options: StreamOptions | None = None
    max_tokens: Positive | None = None
    """The service has a limit of its own, which counts where it is lower."""
    max_completion_tokens: Positive | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63), WHOLE] | None = None
    stop: _Stop | None = None
    n: Once | None = 1
    metadata: dict[str, Any] | None = None
    functions: Definitions | None = None
    """As `tools`, of old clients."""
    function_call: ToolChoice | None = None
    # These would change the answer; only the values that mean "not used" are accepted.
    frequency_penalty: Zero | None = None
    presence_penalty: Zero | None = None
    logit_bias: NoBias | None = None
    logprobs: Literal[False] | None = None
    modalities: Annotated[list[Literal["text"]], Field(max_length=1)] | None = None
    audio: None = None
    prediction: None = None
    web_search_options: None = None
    reasoning_effort: Literal["none"] | None = None
    verbosity: Literal["medium"] | None = None
    response_format: PlainText | None = None

    @property
    def characters(self) -> int:
        """Characters of the whole conversation."""
        return sum(len(message.text) for message in self.messages)

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts the answer ends before."""
        found = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(text for text in found if text)
