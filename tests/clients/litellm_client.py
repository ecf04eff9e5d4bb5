"""LiteLLM, as its users have it."""

from __future__ import annotations

import sys
from typing import Any

import litellm

URL = sys.argv[1]
ASKED = [{"role": "user", "content": "Three films, please."}]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def complete(about: str, messages: list[Any], **more: Any) -> Any:
    """An answer of the service."""
    return litellm.completion(
        model="openai/incatalog/films",
        api_base=f"{URL}/{about}/v1",
        api_key="none",
        max_tokens=64,
        messages=messages,
        **more,
    )


answer = complete("chat", ASKED).choices[0].message
assert answer.content, answer
options = {"include_usage": True}
chunks = list(complete("stream", ASKED, stream=True, stream_options=options))
text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
assert text == answer.content
more = {"role": "user", "content": "And three more?"}
assert complete("turns", [*ASKED, answer, more]).choices[0].message.content
assert complete("printed", [*ASKED, answer.model_dump(), more]).choices[0].message.content
own = complete("own", ASKED, extra_body={"history": ["50", "172"], "k": 3}).choices[0].message
assert own.content.count("\n") >= 2
called = complete("tools", ASKED, tools=[TOOL], tool_choice="auto").choices[0].message
assert called.content == answer.content
refusal = ""
try:
    complete("required", ASKED, tools=[TOOL], tool_choice="required")
except litellm.BadRequestError as error:
    refusal = str(error)
assert "found 'required'" in refusal, refusal
how: Any = {"model": "openai/incatalog/films", "api_base": f"{URL}/responses/v1", "api_key": "none"}
response = litellm.responses(input="Three films, please.", max_output_tokens=64, **how)
assert response.output[0].content[0].text == answer.content, response
events = list(litellm.responses(input=ASKED, max_output_tokens=64, stream=True, **how))
said = "".join(one.delta for one in events if one.type == "response.output_text.delta")
assert said == answer.content
listing = {"custom_llm_provider": "openai", "api_key": "none", "api_base": f"{URL}/models"}
names = litellm.get_valid_models(check_provider_endpoint=True, **listing)
assert any("incatalog/films" in name for name in names), names
