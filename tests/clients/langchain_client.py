"""LangChain's chat model for OpenAI, as its users have it."""

from __future__ import annotations

import sys
from typing import Any

import openai
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI

URL = sys.argv[1]
ASKED = "Three films, please."


def model(about: str, **more: Any) -> ChatOpenAI:
    """The model as the service has it."""
    return ChatOpenAI(
        model="incatalog/films",
        base_url=f"{URL}/{about}/v1",
        api_key="none",
        max_tokens=64,
        max_retries=0,
        **more,
    )


def weather(city: str) -> str:
    """Tells the weather of a city."""
    return city


answer = model("chat").invoke(ASKED)
assert answer.content, answer
pieces = list(model("stream", stream_usage=True).stream(ASKED))
assert "".join(str(piece.content) for piece in pieces) == answer.content
assert any(piece.usage_metadata for piece in pieces)
turns = [SystemMessage("Be brief."), HumanMessage(ASKED), answer, HumanMessage("And three more?")]
assert model("turns").invoke(turns).content
parts = HumanMessage([{"type": "text", "text": ASKED}])
assert model("parts").invoke([parts]).content == answer.content
own = model("own", extra_body={"history": ["50", "172"], "k": 3}, temperature=0)
assert own.invoke(ASKED).content.count("\n") >= 2
tools = model("tools").bind_tools([weather]).invoke(ASKED)
assert tools.content == answer.content
assert not tools.tool_calls
for about, asked in (
    ("required", model("required").bind_tools([weather], tool_choice="required")),
    ("structured", model("structured").with_structured_output({"title": "Film", "type": "object",
        "description": "A film.", "properties": {"name": {"type": "string"}}})),
):  # fmt: skip
    refusal = ""
    try:
        asked.invoke(ASKED)
    except openai.BadRequestError as error:
        refusal = str(error)
    assert "found '" in refusal, about
told = model("responses", use_responses_api=True)
first = told.invoke(ASKED)
assert first.text == answer.content, (first, answer)
assert told.invoke([HumanMessage(ASKED), first, HumanMessage("And three more?")]).text
assert "".join(piece.text for piece in told.stream(ASKED)) == answer.content
