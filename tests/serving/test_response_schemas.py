from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from incatalog.serving.chat_schemas import ChatRequest
from incatalog.serving.response_schemas import ResponseRequest


def test_a_response_is_asked_for_as_a_chat() -> None:
    tool = {"type": "function", "name": "weather"}
    own = {
        "domain": "films",
        "k": 3,
        "history": ["a"],
        "where": {"price": {"lt": 3}},
        "boost": {"a": 2.0},
    }
    asked = ResponseRequest.model_validate(
        {
            "model": "m",
            "instructions": "Be brief.",
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
                {
                    "type": "message",
                    "id": "msg_1",
                    "status": "completed",
                    "role": "assistant",
                    "content": [
                        {"type": "output_text", "text": "Har", "annotations": [], "logprobs": []},
                        {"type": "output_text", "text": "bour", "annotations": []},
                    ],
                    "items": [{"id": "a", "start": 0.0, "end": 7, "title": "Harbour"}],
                },
                {"role": "user", "content": "More"},
            ],
            "max_output_tokens": 64.0,
            "temperature": 0.5,
            "tools": [tool],
        }
        | own
    )
    expected = ChatRequest.model_validate(
        {
            "model": "m",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hi"},
                {
                    "role": "assistant",
                    "content": "Harbour",
                    "items": [{"id": "a", "start": 0, "end": 7}],
                },
                {"role": "user", "content": "More"},
            ],
            "max_completion_tokens": 64,
            "temperature": 0.5,
            "tools": [tool],
        }
        | own
    )
    assert asked.chat == expected
    assert "item_decode" not in asked.chat.model_fields_set
    assert asked.chat.ignored == ["tools"]


def test_a_text_is_what_the_user_says() -> None:
    [message] = ResponseRequest(model="m", input="Hi").chat.messages
    assert (message.role, message.text) == ("user", "Hi")


@pytest.mark.parametrize(
    ("fields", "place", "words"),
    [
        ({"input": [{"type": "function_call_output", "call_id": "1", "output": "x"}]},
         ("input", "[list]", 0, "type"), "found 'function_call_output'; expected 'message'"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
         ("input", "[list]", 0, "content", "[list]", 0, "type"), "found 'input_image'; expected"),
        ({"input": []}, ("input", "[list]"), "at least 1 item"),
        ({"input": 7}, ("input",), "Expected text or a list of messages"),
        ({"previous_response_id": "resp_1"}, ("previous_response_id",), "send all messages"),
        ({"tool_choice": "required"}, ("tool_choice",), "found 'required'"),
        ({"text": {"format": {"type": "json_schema"}}}, ("text", "format"), "found 'json_schema'"),
        ({"background": True}, ("background",), "False"),
        ({"reasoning": {"effort": "high"}}, ("reasoning", "effort"), "none"),
        ({"include": ["message.output_text.logprobs"]}, ("include",), "0 items"),
        ({"metadata": {"a": 1}}, ("metadata", "a"), "string"),
        ({"metadata": {"a": "\ud800"}}, ("metadata", "a"), "unicode"),
        ({"instructions": "\ud800"}, ("instructions",), "unicode"),
        ({"session": "s"}, ("session",), "not permitted"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_text_is_refused_by_name(
    fields: dict[str, Any], place: tuple[Any, ...], words: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        ResponseRequest.model_validate({"model": "m", "input": "Hi"} | fields)
    error = refused.value.errors()[0]
    assert error["loc"] == place
    assert words in error["msg"]
