from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from incatalog.serving.chat_schemas import ChatRequest
from incatalog.serving.unused_values import UNSUPPORTED

WHOLE: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {}}}


def allowed(mode: Any) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [TOOL]}}


@pytest.mark.parametrize(
    "choice", ["none", "auto", None, allowed("auto"), {"type": "allowed_tools", "mode": "auto"}]
)
def test_tools_that_need_not_be_called_are_ignored_by_name(choice: Any) -> None:
    asked = ChatRequest.model_validate(WHOLE | {"tools": [TOOL], "tool_choice": choice})
    assert asked.ignored == ["tools"]
    old = {"functions": [TOOL["function"]], "function_call": choice}
    assert ChatRequest.model_validate(WHOLE | old).ignored == ["functions"]
    assert ChatRequest.model_validate(WHOLE | {"tools": [], "functions": []}).ignored == []


@pytest.mark.parametrize(
    ("field", "value", "found"),
    [
        ("tool_choice", "required", "found 'required'; expected 'none' or 'auto'"),
        ("tool_choice", {"type": "function", "function": {"name": "weather"}},
         "found 'function' 'weather'; expected"),
        ("tool_choice", {"type": "function", "name": "weather"}, "found 'function' 'weather'"),
        ("tool_choice", {"type": "custom", "custom": {"name": "x"}}, "found 'custom'; expected"),
        ("tool_choice", allowed("required"), "found 'required'; expected"),
        ("tool_choice", allowed([]), "found another form; expected"),
        ("tool_choice", {"type": "allowed_tools", "allowed_tools": 7}, "found another form"),
        ("tool_choice", {}, "found 'function'; expected"),
        ("tool_choice", 7, "found another form; expected"),
        ("tool_choice", "x" * 10_000, "found 'xxx"),
        ("function_call", {"name": "weather"}, "found 'function' 'weather'; expected"),
        ("response_format", {"type": "json_object"}, "found 'json_object'; expected 'text'"),
        ("response_format", {"type": "json_schema", "json_schema": {}}, "found 'json_schema'"),
        ("response_format", {"type": ["text"]}, "found another form"),
        ("response_format", {}, "found another form"),
    ],
    ids=str,
)  # fmt: skip
def test_what_demands_more_than_text_is_refused_by_name(field: str, value: Any, found: str) -> None:
    with pytest.raises(ValidationError) as refused:
        ChatRequest.model_validate(WHOLE | {"tools": [TOOL], field: value})
    [error] = refused.value.errors()
    assert error["loc"] == (field,)
    assert error["type"] == UNSUPPORTED
    assert error["msg"].startswith(found)
    assert error["msg"].endswith("answers are text and items")
    assert len(error["msg"]) < 300


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file", "refusal", "input_text"])
def test_a_part_that_is_no_text_is_named(kind: str) -> None:
    parts = [{"type": "text", "text": "Hi"}, {"type": kind, kind: {"url": "https://a.example"}}]
    with pytest.raises(ValidationError) as refused:
        ChatRequest.model_validate(WHOLE | {"messages": [{"role": "user", "content": parts}]})
    error = refused.value.errors()[0]
    assert error["loc"][-4:] == ("content", "[list]", 1, "type")
    assert error["msg"] == f"found '{kind}'; expected 'text', as only text is understood"
    assert error["type"] == UNSUPPORTED
