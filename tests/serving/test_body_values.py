from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from openai.types.chat import ChatCompletionMessage
from pydantic import ValidationError

from incatalog.serving.answer_schemas import AnswerItem, AnswerMessage
from incatalog.serving.body_values import LenientForm
from incatalog.serving.chat_schemas import ChatRequest
from incatalog.serving.message_schemas import ChatMessage
from incatalog.serving.question_schemas import RecommendationRequest
from incatalog.serving.response_schemas import InputMessage, ResponseRequest

FORMS: dict[type[LenientForm], dict[str, Any]] = {
    ChatRequest: {"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
    ResponseRequest: {"model": "m", "input": "Hi"},
    RecommendationRequest: {},
    ChatMessage: {"role": "user", "content": "Hi"},
    InputMessage: {"role": "user", "content": "Hi"},
}


@pytest.mark.parametrize("form", FORMS)
def test_null_is_as_good_as_nothing_for_every_field_and_the_schema_says_so(
    form: type[LenientForm],
) -> None:
    needed, schema = FORMS[form], form.model_json_schema()
    validator = jsonschema.Draft202012Validator(schema)
    bare = form.model_validate(needed)
    assert set(schema["required"] if needed else []) == set(needed)
    for name in [*form.model_fields.keys() - needed.keys(), "a_field_of_tomorrow"]:
        found = form.model_validate(needed | {name: None})
        assert found == bare
        assert found.model_fields_set == bare.model_fields_set
        if name in form.model_fields:
            validator.validate(needed | {name: None})
    for name in needed:
        with pytest.raises(ValidationError):
            form.model_validate(needed | {name: None})
        with pytest.raises(jsonschema.ValidationError):
            validator.validate(needed | {name: None})
    with pytest.raises(ValidationError):
        form.model_validate(needed | {"a_field_of_tomorrow": []})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("k", 5), ("max_tokens", 64), ("max_completion_tokens", 1), ("seed", -3), ("n", 1),
        ("top_logprobs", 0), ("catalog_version", {"at_least": 2}),
    ],
)  # fmt: skip
def test_a_whole_number_may_be_written_as_a_float(field: str, value: Any) -> None:
    nested = isinstance(value, dict)
    as_float = {name: float(one) for name, one in value.items()} if nested else float(value)
    found = ChatRequest.model_validate(FORMS[ChatRequest] | {field: as_float})
    read = getattr(found, field)
    read = read.at_least if nested else read
    assert read == (value["at_least"] if nested else value)
    assert type(read) is int
    jsonschema.validate(FORMS[ChatRequest] | {field: as_float}, ChatRequest.model_json_schema())
    if field == "k":
        assert RecommendationRequest.model_validate({field: as_float}).k == value


@pytest.mark.parametrize("value", [5.5, float("inf"), float("nan"), True, "5", 0.0, -1.0, 1e30])
@pytest.mark.parametrize("field", ["max_tokens", "seed"])
def test_other_numbers_stay_what_they_are(field: str, value: Any) -> None:
    if field == "seed" and value in (0.0, -1.0):
        return
    if field == "max_tokens" and value == 1e30:
        # The service has a limit of its own.
        return
    with pytest.raises(ValidationError):
        ChatRequest.model_validate(FORMS[ChatRequest] | {field: value})


def test_an_answer_is_taken_back_as_it_is_printed() -> None:
    item = AnswerItem(id="i1", title="Harbour", categories=[], rank=1, score=0.5, start=0, end=7)
    answer = AnswerMessage(content="Harbour", items=[item])
    printed = ChatCompletionMessage.model_validate(answer.model_dump()).model_dump()
    assert {"audio", "function_call", "tool_calls", "refusal", "annotations"} <= printed.keys()
    for sent in (printed, answer.model_dump()):
        found = ChatMessage.model_validate(sent)
        assert found.text == "Harbour"
        assert found.items is not None
        assert [(one.id, one.start, one.end) for one in found.items] == [("i1", 0, 7)]
