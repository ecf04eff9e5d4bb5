"""Messages of a conversation, as bodies of requests hold them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Tag

from incatalog.serving.body_values import FIRST, LIST, TEXT, Id, LenientForm, Place, text_or
from incatalog.serving.unused_values import NoCalls, text_kinds


class TextPart(LenientForm):
    """A part of a message; only text is understood."""

    type: Annotated[str, *text_kinds("text")]
    text: str
    prompt_cache_breakpoint: Any = None


class SentItem(LenientForm):
    """An item that an earlier answer named, so that the model sees it as one."""

    model_config = ConfigDict(extra="ignore")

    id: Id
    start: Place
    """Where its title starts in the content, in characters."""
    end: Place
    """Where it ends."""


class ProviderFields(LenientForm):
    """Where LiteLLM keeps what OpenAI's API has not."""

    model_config = ConfigDict(extra="ignore")

    items: Annotated[list[SentItem], FIRST] | None = None


class ChatMessage(LenientForm):
    """One turn of the conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        Annotated[str, Tag(TEXT)] | Annotated[list[TextPart], FIRST, Tag(LIST)],
        text_or("a list of parts"),
    ]
    name: str | None = None
    items: Annotated[list[SentItem], FIRST] | None = None
    """The `items` of an answer, sent back with it. Not in OpenAI's API."""
    provider_specific_fields: ProviderFields | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    # As OpenAI's client prints an answer that has none of them.
    audio: None = None
    function_call: None = None
    tool_calls: NoCalls | None = None

    @property
    def named(self) -> list[SentItem]:
        """The items it names, as far as they are sent with it."""
        provided = self.provider_specific_fields
        return self.items or (provided and provided.items) or []

    @property
    def text(self) -> str:
        """What is said."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)
