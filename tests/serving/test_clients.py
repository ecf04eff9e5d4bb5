"""Requests of real clients (`tests/clients/record.py`), sent to a real service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai.types import Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from chatting import Server

RECORDED = Path(__file__).parents[1] / "clients" / "recorded"
CLIENTS = {"langchain", "litellm", "llama_index", "open_webui"}
_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def recorded() -> list[Any]:
    return [
        pytest.param(request, id=f"{path.stem}-{place}-{request['about']}")
        for path in sorted(RECORDED.glob("*.json"))
        for place, request in enumerate(json.loads(path.read_text(encoding="utf-8"))["requests"])
    ]


def test_the_clients_are_recorded_with_their_versions() -> None:
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in RECORDED.iterdir()}
    assert set(found) == CLIENTS
    for one in found.values():
        assert all(version[0].isdigit() for version in one["versions"].values())
        assert {200} <= {request["status"] for request in one["requests"]} <= {200, 400}


@pytest.mark.long
@pytest.mark.parametrize("request_sent", recorded())
def test_the_service_answers_a_request_of_a_real_client(
    server: Server, request_sent: dict[str, Any]
) -> None:
    body = request_sent.get("body")
    # Items of the catalog that was recorded with are unknown here, and left out.
    reply = httpx.request(
        request_sent["method"], f"{server.url}{request_sent['path']}", json=body, timeout=120
    )
    assert reply.status_code == request_sent["status"], reply.text
    if reply.status_code == 400:
        error = reply.json()["error"]
        assert error["code"] == "unsupported_value"
        assert error["message"].startswith(f"{error['param']}: found '")
        assert error["param"] in (body or {})
        return
    if body is None:
        names = [Model.model_validate(one).id for one in reply.json()["data"]]
        assert "incatalog/films" in names
        return
    responses = request_sent["path"].endswith("/responses")
    if not body.get("stream"):
        whole = reply.json()
        read: Any = (Response if responses else ChatCompletion).model_validate(whole)
        text = read.output_text if responses else read.choices[0].message.content
        assert text
        assert whole["ignored"] == (["tools"] if body.get("tools") else [])
        return
    assert reply.headers["content-type"].startswith("text/event-stream")
    lines = [line[6:] for line in reply.text.splitlines() if line.startswith("data: ")]
    if responses:
        events = [_EVENT.validate_json(line) for line in lines]
        assert events[-1].response.output_text
        return
    assert lines.pop() == "[DONE]"
    chunks = [ChatCompletionChunk.model_validate_json(line) for line in lines]
    assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)
    if (body.get("stream_options") or {}).get("include_usage"):
        assert chunks[-1].usage is not None
        assert all("usage" in json.loads(line) for line in lines)
        assert [one.usage for one in chunks[:-1]] == [None] * (len(chunks) - 1)
