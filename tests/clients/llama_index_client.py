"""LlamaIndex's model for services like OpenAI's, as its users have it."""

from __future__ import annotations

import sys
from typing import Any

from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

URL = sys.argv[1]
ASKED = ChatMessage(role="user", content="Three films, please.")


def model(about: str, **more: Any) -> OpenAILike:
    """The model as the service has it."""
    return OpenAILike(
        model="incatalog/films",
        api_base=f"{URL}/{about}/v1",
        api_key="none",
        is_chat_model=True,
        max_tokens=64,
        temperature=0,
        max_retries=0,
        **more,
    )


answer = model("chat").chat([ASKED]).message
assert answer.content, answer
pieces = list(model("stream").stream_chat([ASKED]))
assert pieces[-1].message.content == answer.content
system = ChatMessage(role="system", content="Be brief.")
more = ChatMessage(role="user", content="And three more?")
assert model("turns").chat([system, ASKED, answer, more]).message.content
assert model("complete").complete("Three films, please.").text == answer.content
own = model("own", additional_kwargs={"extra_body": {"history": ["50", "172"], "k": 3}})
assert (own.chat([ASKED]).message.content or "").count("\n") >= 2
