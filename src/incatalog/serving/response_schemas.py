"""Conversations in the form of OpenAI's responses, as far as they are text and items.

The text of a class and the one below a field are what `/docs` says about them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, Tag

from incatalog.serving.answer_schemas import AnswerFacts, AnswerItem
from incatalog.serving.body_values import FIRST, LIST, TEXT, LenientForm, Positive, text_or
from incatalog.serving.chat_schemas import ChatRequest, ConversationRequest
from incatalog.serving.message_schemas import ChatMessage, SentItem
from incatalog.serving.unused_values import PlainText, refuse, text_kinds
from incatalog.web.bodies import Form

# What is told again in the answer; a length has pydantic look whether it is text that can be sent.
_TOLD = Field(max_length=10_000_000)
_Notes = dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]]


class InputText(LenientForm):
    """A part of a message; only text is understood."""

    type: Annotated[str, *text_kinds("input_text", "output_text", "text")]
    text: str
    # As OpenAI's client prints the text of an answer.
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None
    prompt_cache_breakpoint: Any = None


class InputMessage(LenientForm):
    """One turn of the conversation; an earlier answer's `output` may be sent back as it is."""

    type: Annotated[str, *text_kinds("message")] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        Annotated[str, Tag(TEXT)] | Annotated[list[InputText], FIRST, Tag(LIST)],
        text_or("a list of parts"),
    ]
    items: Annotated[list[SentItem], FIRST] | None = None
    """The `items` of an answer, sent back with it. Not in OpenAI's API."""
    id: str | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None
    phase: str | None = None

    @property
    def said(self) -> ChatMessage:
        """The message as chats have it."""
        parts = self.content
        text = parts if isinstance(parts, str) else "".join(part.text for part in parts)
        return ChatMessage(role=self.role, content=text, items=self.items)


class TextForm(LenientForm):
    """How the text of an answer is to be."""

    format: PlainText | None = None
    verbosity: Literal["medium"] | None = None


class Reasoning(LenientForm):
    """How much is thought before the answer: nothing."""

    effort: Literal["none"] | None = None
    summary: None = None
    generate_summary: None = None


class ResponseStreamOptions(LenientForm):
    """What a stream of a response tells besides the answer."""

    include_obfuscation: bool | None = None


def _kept(given: str) -> str:
    refuse(f"found {given[:60]!r}; expected null, as no response is kept: send all messages")


class ResponseRequest(ConversationRequest):
    """A conversation to be continued, in the form of OpenAI's responses."""

    input: Annotated[
        Annotated[str, Tag(TEXT)]
        | Annotated[list[InputMessage], Field(min_length=1, fail_fast=True), Tag(LIST)],
        text_or("a list of messages"),
    ]
    """What the user says, or all messages."""
    instructions: Annotated[str, _TOLD] | None = None
    """A system message in front of them."""
    max_output_tokens: Positive | None = None
    """The service has a limit of its own, which counts where it is lower."""
    truncation: Literal["auto", "disabled"] | None = None
    """`disabled`: a conversation that is too long is refused; otherwise its oldest messages are
    left out."""
    stream_options: ResponseStreamOptions | None = None
    metadata: Annotated[_Notes, Field(max_length=16)] | None = None
    """Told again in the answer."""
    # Nothing is called.
    max_tool_calls: Positive | None = None
    # These would change the answer; only the values that mean "not used" are accepted.
    text: TextForm | None = None
    reasoning: Reasoning | None = None
    include: Annotated[list[str], Field(max_length=0)] | None = None
    background: Literal[False] | None = None
    background_options: None = None
    previous_response_id: Annotated[str, AfterValidator(_kept)] | None = None
    conversation: None = None
    prompt: None = None
    context_management: Annotated[list[Any], Field(max_length=0)] | None = None
    access_programs: None = None
    image: None = None

    @property
    def chat(self) -> ChatRequest:
        """The same conversation as a chat."""
        asked = self.input
        messages = [] if self.instructions is None else [_said("system", self.instructions)]
        messages += [_said("user", asked)] if isinstance(asked, str) else [m.said for m in asked]
        shared = self.model_fields_set & ConversationRequest.model_fields.keys()
        fields = {name: getattr(self, name) for name in shared}
        return ChatRequest(
            messages=messages, max_completion_tokens=self.max_output_tokens, **fields
        )


def _said(role: Literal["system", "user"], text: str) -> ChatMessage:
    return ChatMessage(role=role, content=text)


class OutputText(Form):
    """The text of an answer."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[Any] = Field(default=[])
    logprobs: list[Any] = Field(default=[])


class OutputMessage(Form):
    """What the assistant said."""

    type: Literal["message"] = "message"
    id: str
    role: Literal["assistant"] = "assistant"
    status: Literal["in_progress", "completed", "incomplete"]
    content: list[OutputText]
    items: list[AnswerItem] = Field(default=[])
    """The items it names, in order. Not in OpenAI's API."""


class InputTokens(Form):
    """What is known of the tokens of a prompt."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputTokens(Form):
    """What is known of the tokens of an answer."""

    reasoning_tokens: int = 0


class ResponseUsage(Form):
    """Tokens of the prompt and of the answer."""

    input_tokens: int
    input_tokens_details: InputTokens = InputTokens()
    output_tokens: int
    output_tokens_details: OutputTokens = OutputTokens()
    total_tokens: int


class Incomplete(Form):
    """Why an answer ends before its end."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"


class ResponseFault(Form):
    """Why an answer that had begun could not go on."""

    code: str
    message: str


class ResponseHead(Form):
    """An answer as OpenAI's responses have it."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    error: ResponseFault | None = None
    incomplete_details: Incomplete | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    metadata: dict[str, str]
    model: str
    output: list[OutputMessage]
    parallel_tool_calls: bool = True
    previous_response_id: None = None
    store: Literal[False] = False
    temperature: float | None = None
    text: dict[str, Any] = Field(default={"format": {"type": "text"}})
    tool_choice: Literal["auto", "none"] = "auto"
    tools: list[Any] = Field(default=[])
    top_p: float | None = None
    truncation: Literal["auto", "disabled"] = "auto"
    usage: ResponseUsage | None = None


class ResponseAnswer(AnswerFacts, ResponseHead):
    """An answer; `items` and what follows it are not in OpenAI's API."""
