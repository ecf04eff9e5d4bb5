from __future__ import annotations

import httpx
import openai
import pytest

from chatting import Server


@pytest.mark.long
def test_each_name_is_told_alone_as_in_the_list(server: Server) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    listed = list(client.models.list())
    assert [one.id for one in listed] == ["incatalog", "incatalog/films", "incatalog/books"]
    for one in listed:
        assert client.models.retrieve(one.id) == one
    # The client writes the slash as %2F; others leave it.
    reply = httpx.get(f"{server.url}/v1/models/incatalog/films")
    assert reply.json()["domain"] == "films"


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("incatalog/film", ", did you mean incatalog/films?"),
        ("Incatalog", ", did you mean incatalog?"),
        ("gpt-5", ""),
        ("x" * 5000, ""),
    ],
)
def test_an_unknown_name_is_not_found_in_openais_form(server: Server, name: str, hint: str) -> None:
    error = httpx.get(f"{server.url}/v1/models/{name}")
    assert error.status_code == 404
    assert error.json()["error"] == {
        "message": f"model: no model '{name[:256]}'{hint}; see /v1/models",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }
    body = {"model": name[:256], "messages": [{"role": "user", "content": "Hi"}]}
    chatting = httpx.post(f"{server.url}/v1/chat/completions", json=body)
    if not name.startswith("incatalog/"):
        assert chatting.status_code == 404
        assert chatting.json() == error.json()
