from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types.responses import Response

from chatting import Server, without_scores
from incatalog import Recommender
from incatalog.serving.catalogs import Domain
from incatalog.serving.service import ChatService
from incatalog.serving.settings import ServeSettings
from incatalog.serving.store import CatalogStore

NAMED_BY_CHANCE = {"id", "created_at"}


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def respond(client: openai.OpenAI, asked: Any = "Hello", **more: Any) -> Any:
    standard = {"model": "incatalog/films", "max_output_tokens": 50} | more
    own = {name: standard.pop(name) for name in ("k", "history") if name in standard}
    return client.responses.create(input=asked, extra_body=own, **standard)


def told(response: Any) -> dict[str, Any]:
    """All of a response but its names."""
    found = response.model_dump()
    found["items"] = without_scores(found["items"])
    for message in found["output"]:
        message.pop("id")
        message["items"] = without_scores(message["items"])
    return {name: one for name, one in found.items() if name not in NAMED_BY_CHANCE}


@pytest.mark.long
def test_a_response_is_the_answer_of_a_chat(client: openai.OpenAI) -> None:
    chatting: Any = {"model": "incatalog/films", "messages": [{"role": "user", "content": "Hello"}]}
    expected: Any = client.chat.completions.create(**chatting, max_tokens=50)
    found = respond(client)
    assert found.output_text == expected.choices[0].message.content
    assert found.items == found.output[0].items
    assert without_scores(found.items) == without_scores(expected.items)
    assert found.items
    assert found.usage.input_tokens == expected.usage.prompt_tokens
    assert found.usage.output_tokens == expected.usage.completion_tokens == 50
    assert found.usage.total_tokens == expected.usage.total_tokens
    assert (found.status, found.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert found.output[0].status == "incomplete"
    # The client reads what it is sent without a look; its own types are strict.
    Response.model_validate(found.model_dump(warnings=False))
    listed = respond(client, k=3, history=["i3"])
    assert (listed.status, listed.incomplete_details) == ("completed", None)
    assert len(listed.items) == 3
    asked = client.chat.completions.create(
        model="incatalog/films",
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        max_tokens=50,
    )
    briefly = respond(client, "Hi", instructions="Be brief.")
    assert briefly.output_text == asked.choices[0].message.content


@pytest.mark.long
def test_events_tell_what_the_whole_response_does(client: openai.OpenAI) -> None:
    for fields in ({}, {"k": 3}):
        whole = respond(client, **fields)
        events = list(respond(client, stream=True, **fields))
        kinds = [event.type for event in events]
        deltas = [event for event in events if event.type == "response.output_text.delta"]
        assert kinds == [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            *["response.output_text.delta"] * len(deltas),
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            f"response.{whole.status}",
        ]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert "".join(event.delta for event in deltas) == whole.output_text
        named = [(event.delta, item) for event in deltas for item in getattr(event, "items", [])]
        assert without_scores(item for _, item in named) == without_scores(whole.items)
        assert [text for text, _ in named] == [item["title"] for item in whole.items]
        assert told(events[-1].response) == told(whole)
        assert events[0].response.output == []
        assert events[-4].text == whole.output_text
        names = {event.item_id for event in events if hasattr(event, "item_id")}
        assert names == {events[-1].response.output[0].id}


@pytest.mark.long
def test_the_output_of_a_response_is_taken_back_as_the_client_prints_it(
    client: openai.OpenAI,
) -> None:
    first = respond(client)
    user = {"role": "user", "content": "Hello"}
    more = {"role": "user", "content": "More"}
    answer = first.output[0]
    chatted: Any = [
        user,
        {"role": "assistant", "content": first.output_text, "items": answer.items},
        more,
    ]
    expected = client.chat.completions.create(
        model="incatalog/films", messages=chatted, max_tokens=50
    )
    for sent in (answer, answer.model_dump(), answer.model_dump(exclude_none=True)):
        again = respond(client, [user, sent, more])
        assert again.output_text == expected.choices[0].message.content


@pytest.mark.long
@pytest.mark.parametrize(
    ("fields", "param", "code", "words"),
    [
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
         "input.0.content.0.type", "unsupported_value", "found 'input_image'; expected"),
        ({"input": [{"type": "function_call_output", "call_id": "1", "output": "x"}]},
         "input.0.type", "unsupported_value", "found 'function_call_output'"),
        ({"input": [{"role": "user", "content": "x"}] * 201}, "input", None, "expected 200 at"),
        ({"input": "x" * 90_000}, "input", "context_length_exceeded", "tokens"),
        ({"input": [{"role": "assistant", "content": "x"}]}, "input", None, "one from the user"),
        ({"previous_response_id": "resp_1"}, "previous_response_id", "unsupported_value", "send"),
        ({"tools": [{"type": "function", "name": "f"}], "tool_choice": "required"},
         "tool_choice", "unsupported_value", "no tool is called here"),
        ({"text": {"format": {"type": "json_object"}}}, "text.format", "unsupported_value", "text"),
        ({"model": "incatalg"}, "model", "model_not_found", "did you mean incatalog?"),
        ({"outputs": 1}, "outputs", "form", "no such field"),
    ],
    ids=str,
)  # fmt: skip
def test_a_response_that_cannot_be_had_says_why(
    server: Server, fields: dict[str, Any], param: str, code: str | None, words: str
) -> None:
    body = {"model": "incatalog/films", "input": "Hi"} | fields
    reply = httpx.post(f"{server.url}/v1/responses", json=body, timeout=60)
    error = reply.json()["error"]
    assert reply.status_code == (404 if param == "model" else 400)
    assert (error["param"], error["code"]) == (param, code)
    assert error["message"].startswith(f"{param}: ")
    assert words in error["message"]


@pytest.mark.long
def test_a_conversation_too_long_is_cut_or_refused(client: openai.OpenAI) -> None:
    turn = [{"role": "user", "content": "x" * 900}, {"role": "assistant", "content": "y" * 900}]
    asked = [*turn * 45, {"role": "user", "content": "Hello"}]
    cut = respond(client, asked, max_output_tokens=5)
    assert cut.left_out > 0
    assert respond(client, asked, max_output_tokens=5, truncation="auto").left_out == cut.left_out
    with pytest.raises(openai.BadRequestError, match="oldest messages do not fit"):
        respond(client, asked, truncation="disabled")
    assert respond(client, truncation="disabled", max_output_tokens=5).truncation == "disabled"


def test_a_response_that_fails_on_its_way_ends_in_an_event(
    recommender: Recommender, tmp_path: Path
) -> None:
    domains = {"films": Domain("films", recommender, CatalogStore(tmp_path / "state.sqlite"))}
    service = ChatService(recommender, domains, ServeSettings(Path("nowhere")))
    real, passes = recommender.engine.model.forward, 0

    def broken(*given: Any) -> Any:
        nonlocal passes
        passes += 1
        if passes > 20:
            raise RuntimeError("out of memory")
        return real(*given)

    async def ask() -> str:
        transport = httpx.ASGITransport(service.app(), raise_app_exceptions=False)
        service.worker.start()
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            body = {"model": "incatalog", "input": "Hi", "stream": True}
            reply = await client.post("/v1/responses", json=body, timeout=60)
        await asyncio.to_thread(service.worker.close)
        return reply.text

    recommender.engine.model.forward = broken  # type: ignore[method-assign]
    try:
        said = asyncio.run(ask())
    finally:
        recommender.engine.model.forward = real  # type: ignore[method-assign]
    events = [json.loads(line[6:]) for line in said.splitlines() if line.startswith("data: ")]
    assert events[0]["type"] == "response.created"
    assert any(event["type"] == "response.output_text.delta" for event in events)
    assert events[-1]["type"] == "response.failed"
    failed = events[-1]["response"]
    assert (failed["status"], failed["error"]["code"]) == ("failed", "server_error")
    assert "memory" not in said
