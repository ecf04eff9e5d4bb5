from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import completion_create_params as openai_params

from chatting import HOSTILE, Server, without_scores
from incatalog import Recommender
from incatalog.data.where import Where
from incatalog.serving.catalogs import Domain
from incatalog.serving.service import ChatService
from incatalog.serving.settings import ServeSettings
from incatalog.serving.store import CatalogStore


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def http(server: Server) -> httpx.Client:
    return httpx.Client(base_url=server.url, timeout=30)


def said(content: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content}]


def chat(client: openai.OpenAI, content: str = "Hello", **extra: Any) -> Any:
    standard = {
        name: extra.pop(name)
        for name in ("stream", "stop", "max_tokens", "temperature", "seed", "stream_options")
        if name in extra
    }
    model = extra.pop("model", "incatalog/films")
    return client.chat.completions.create(
        model=model, messages=said(content), extra_body=extra, **standard
    )


def check_items(items: list[dict[str, Any]], text: str) -> None:
    for item in items:
        assert text[item["start"] : item["end"]] == item["title"]


def test_answer_is_that_of_the_model_in_this_process(
    client: openai.OpenAI, recommender: Recommender
) -> None:
    for content in ("Hello", "Two films, please.", "Été"):
        answer = chat(client, content, max_tokens=60)
        expected = recommender.chat(said(content), max_new_tokens=60)
        assert answer.choices[0].message.content == expected.text
        assert [item["id"] for item in answer.items] == [one.item_id for one in expected.items]
        assert answer.items
        check_items(answer.items, answer.choices[0].message.content)
        assert "<SOI>" not in expected.text
        # The tokens of a span in which an answer is cut are not told.
        assert 60 - recommender.items.longest_span < answer.usage.completion_tokens <= 60
        assert answer.choices[0].finish_reason == "length"
        assert answer.catalog_version == 0


def test_stream_is_the_answer_in_pieces(client: openai.OpenAI) -> None:
    whole = chat(client, max_tokens=50)
    text, items, reasons = "", [], []
    usage = None
    options = {"include_usage": True}
    for chunk in chat(client, max_tokens=50, stream=True, stream_options=options):
        usage = chunk.usage or usage
        items += getattr(chunk, "items", [])
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reasons += [choice.finish_reason] if choice.finish_reason else []
    assert text == whole.choices[0].message.content
    assert without_scores(items) == without_scores(whole.items)
    assert reasons == ["length"]
    assert usage == whole.usage


def test_a_stream_says_what_was_ignored_and_tells_tokens_last(http: httpx.Client) -> None:
    tools = [{"type": "function", "function": {"name": "weather"}}]
    body = {"model": "incatalog", "messages": said("Hi"), "max_tokens": 5, "stream": True}
    more: dict[str, Any] = {"tools": tools, "stream_options": {"include_usage": True}}
    for fields in ({}, more):
        reply = http.post("/v1/chat/completions", json=body | fields)
        lines = [line[6:] for line in reply.text.splitlines() if line.startswith("data: {")]
        chunks = [json.loads(line) for line in lines]
        assert chunks[0].get("ignored") == (["tools"] if fields else None)
        assert all(("usage" in chunk) is bool(fields) for chunk in chunks)
        assert not any(chunk.get("usage") for chunk in chunks[:-1])
    assert chunks[-1]["usage"]["completion_tokens"] == 5


def test_without_a_domain_no_item_is_named(client: openai.OpenAI, recommender: Recommender) -> None:
    answer = chat(client, model="incatalog", max_tokens=60)
    assert answer.items == []
    assert answer.domain is None
    with pytest.raises(openai.BadRequestError, match="needs a domain"):
        chat(client, model="incatalog", k=3)


def test_list_of_k_items_obeys_every_rule(client: openai.OpenAI, recommender: Recommender) -> None:
    answer = chat(client, "", k=6, history=["i3", "i6"], exclude=["i9"], categories=["Drama"])
    found = [item["id"] for item in answer.items]
    assert len(set(found)) == 6
    assert not {"i3", "i6", "i9"} & set(found)
    assert all(item["categories"] == ["Drama"] for item in answer.items)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.items[0]["rank"] == 1
    expected = recommender.recommend(["i3", "i6"], 6, ["i9"], ["Drama"], decode="list")
    assert found == [one.item_id for one in expected]
    seen_again = chat(client, "", k=40, history=["i3"], exclude_seen=False)
    assert "i3" in {item["id"] for item in seen_again.items}
    fewer = chat(client, "", k=40, history=["i3"])
    assert len(fewer.items) == 39


def test_recommendations_are_those_of_the_library(
    http: httpx.Client, recommender: Recommender
) -> None:
    body: dict[str, Any] = {"domain": "films", "history": ["i1", "i2"], "k": 5}
    unknown = http.post("/v1/recommendations", json=body | {"exclude": ["i998"]})
    assert unknown.status_code == 400
    assert unknown.json()["error"]["message"].startswith("exclude: ")
    for decode in ("beam", "list"):
        reply = http.post("/v1/recommendations", json=body | {"decode": decode})
        assert reply.status_code == 200
        found = reply.json()["items"]
        expected = recommender.recommend(["i1", "i2"], 5, decode=decode)  # type: ignore[arg-type]
        assert [item["id"] for item in found] == [one.item_id for one in expected]
        scores = [one.score for one in expected]
        assert [item["score"] for item in found] == pytest.approx(scores, rel=1e-3)
    everything = [f"i{row}" for row in range(40)]
    for decode in ("beam", "list"):
        nothing = {"exclude": everything, "decode": decode}
        reply = http.post("/v1/recommendations", json=body | nothing)
        assert reply.status_code == 400
        assert reply.json()["error"]["code"] == "no_item_left"


def test_answers_obey_conditions(
    client: openai.OpenAI, http: httpx.Client, recommender: Recommender
) -> None:
    where = {"price": {"lte": 10, "gt": 1.5}, "studio": ["a"], "in_stock": True}
    wanted = {f"i{row}" for row in range(4, 21, 2) if row % 5}
    body = {"domain": "films", "k": 40, "where": where}
    reply = http.post("/v1/recommendations", json=body)
    found = [item["id"] for item in reply.json()["items"]]
    assert set(found) == wanted
    expected = recommender.recommend([], 40, where=Where.parse(where))
    assert found == [one.item_id for one in expected]
    answer = chat(client, "", k=40, where=where)
    assert {item["id"] for item in answer.items} == wanted
    answer = chat(client, where=where, max_tokens=60)
    assert answer.items
    assert {item["id"] for item in answer.items} <= wanted
    told = recommender.chat(said("Hello"), max_new_tokens=60, where=Where.parse(where))
    assert [item["id"] for item in answer.items] == [one.item_id for one in told.items]


@pytest.mark.parametrize(
    ("where", "code", "message"),
    [
        ({"prize": 3}, None, "where: catalog films: no field 'prize'; near: 'price'"),
        ({"price": {"less": 3}}, "form", "where: price: no condition 'less'; expected one of eq"),
        ({"studio": {"lt": 3}}, None, "where: studio: lt: found 3, and items of films have texts"),
        ({"price": {"lt": 0}}, "no_item_left", "no item left to recommend"),
        (["price"], "form", "where: input should be a valid dictionary"),
    ],
)
def test_a_wrong_condition_names_its_field(
    http: httpx.Client, where: Any, code: str | None, message: str
) -> None:
    asked = {"domain": "films", "where": where}
    chatting = {"model": "incatalog/films", "messages": said("Hello"), "k": 2, "where": where}
    for path, body in (("recommendations", asked), ("chat/completions", chatting)):
        reply = http.post(f"/v1/{path}", json=body)
        error = reply.json()["error"]
        assert reply.status_code == 400
        assert error["message"].startswith(message)
        assert error["code"] == code
        assert error["param"] == ("exclude" if code == "no_item_left" else "where")


def test_another_domain_has_other_items(client: openai.OpenAI, http: httpx.Client) -> None:
    answer = chat(client, "", domain="books", model="incatalog", k=4)
    assert {item["id"] for item in answer.items} == {"b/0", "b/1", "b/2", "b/3"}
    # A title is data: it comes as it was given, and the text has it as the item's title.
    assert HOSTILE in answer.choices[0].message.content
    check_items(answer.items, answer.choices[0].message.content)
    assert http.get("/v1/catalogs/books/items/b/3").json()["title"] == HOSTILE


def test_models_name_the_domains(client: openai.OpenAI) -> None:
    assert [m.id for m in client.models.list()] == [
        "incatalog",
        "incatalog/films",
        "incatalog/books",
    ]


def test_stop_ends_the_answer_before_it(client: openai.OpenAI) -> None:
    whole = chat(client, model="incatalog", max_tokens=60).choices[0].message.content
    stop = whole[20:23]
    answer = chat(client, model="incatalog", max_tokens=60, stop=[stop, "never said"])
    assert answer.choices[0].message.content == whole[: whole.index(stop)]
    assert answer.choices[0].finish_reason == "stop"
    pieces = [
        chunk.choices[0].delta.content or ""
        for chunk in chat(client, model="incatalog", max_tokens=60, stop=stop, stream=True)
    ]
    assert "".join(pieces) == whole[: whole.index(stop)]


def test_samples_depend_on_the_seed_alone(client: openai.OpenAI) -> None:
    def sample(seed: int) -> str:
        answer = chat(client, max_tokens=40, temperature=1.0, seed=seed)
        return str(answer.choices[0].message.content)

    assert sample(1) == sample(1)
    assert len({sample(seed) for seed in range(4)}) > 1


def test_items_of_an_earlier_answer_stay_items(
    client: openai.OpenAI, recommender: Recommender
) -> None:
    first = chat(client, max_tokens=40)
    told = {
        "role": "assistant",
        "content": first.choices[0].message.content,
        "items": [{k: item[k] for k in ("id", "start", "end")} for item in first.items],
    }
    answer = client.chat.completions.create(
        model="incatalog/films",
        messages=[*said("Hello"), told, *said("More")],  # type: ignore[list-item]
        max_tokens=40,
    )
    before = recommender.chat(said("Hello"), max_new_tokens=40)
    user = said("Hello")[0]
    expected = recommender.chat([user, before.message, said("More")[0]], max_new_tokens=40)
    assert answer.choices[0].message.content == expected.text


def test_prompt_that_leaves_no_room_is_told_apart(http: httpx.Client) -> None:
    body = {"model": "incatalog", "messages": said("x" * 90_000)}
    error = http.post("/v1/chat/completions", json=body).json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert error["param"] == "messages"


def test_model_that_fails_is_an_error_in_the_common_form(
    recommender: Recommender, tmp_path: Path
) -> None:
    domains = {"films": Domain("films", recommender, CatalogStore(tmp_path / "state.sqlite"))}
    service = ChatService(recommender, domains, ServeSettings(Path("nowhere")))

    def broken(rows: Any) -> Any:
        raise RuntimeError("out of memory")

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(service.app(), raise_app_exceptions=False)
        service.worker.start()
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            body = {"model": "incatalog", "messages": said("Hi")}
            reply = await client.post("/v1/chat/completions", json=body)
        await asyncio.to_thread(service.worker.close)
        return reply

    real, recommender.engine.model.forward = recommender.engine.model.forward, broken  # type: ignore[method-assign]
    try:
        reply = asyncio.run(ask())
    finally:
        recommender.engine.model.forward = real  # type: ignore[method-assign]
    assert reply.status_code == 500
    assert reply.json()["error"]["code"] == "internal"
    assert "memory" not in reply.text


def test_session_is_kept_and_forgotten(client: openai.OpenAI, http: httpx.Client) -> None:
    first = chat(client, "Hello", session="s1", max_tokens=30)
    second = chat(client, "More", session="s1", max_tokens=30)
    kept = http.get("/v1/sessions/s1").json()["messages"]
    assert [message["role"] for message in kept] == ["user", "assistant"] * 2
    assert kept[1]["content"] == first.choices[0].message.content
    assert kept[3]["content"] == second.choices[0].message.content
    assert (
        second.choices[0].message.content
        != chat(client, "More", max_tokens=30).choices[0].message.content
    )
    assert http.delete("/v1/sessions/s1").json()["deleted"] is True
    assert http.get("/v1/sessions/s1").status_code == 404


@pytest.mark.parametrize("letter", list("\n\r\t\0\x1f\x7f\x85\u2028"))
def test_an_id_that_no_path_can_name_is_not_added(http: httpx.Client, letter: str) -> None:
    before = http.get("/v1/catalogs/films").json()
    good = {"id": "x", "title": "New"}
    body = {"items": [good, {"id": f"a{letter}b", "title": "New"}]}
    reply = http.post("/v1/catalogs/films/items", json=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["message"] == (
        "items.1.id: expected an id without line breaks and control characters"
    )
    assert http.get("/v1/catalogs/films").json() == before


def test_catalog_is_searched_by_words(http: httpx.Client) -> None:
    page = http.get("/v1/catalogs/films/items", params={"query": "LIGHTS harbour"}).json()
    assert [item["title"] for item in page["items"]] == [
        "Harbour Lights (1991)",
        "Harbour Lights II (1994)",
    ]
    assert page["total"] == 2
    # Accents and capitals do not count, and what begins with the words comes first.
    page = http.get("/v1/catalogs/films/items", params={"query": "ete a"}).json()
    assert page["items"][0]["title"] == "Été à Nîmes (1993)"
    page = http.get("/v1/catalogs/films/items", params={"category": "Crime", "limit": 3}).json()
    assert page["total"] == 13
    assert len(page["items"]) == 3
    info = http.get("/v1/catalogs/films").json()
    assert info["items"] == 40
    assert info["categories"] == ["Comedy", "Crime", "Drama"]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"model": "gpt"}, 404, "no model 'gpt'"),
        ({"model": "incatalog/toys"}, 404, "no such catalog"),
        ({"model": "incatalog/films", "domain": "books"}, 400, "says another"),
        ({"domain": "../../etc"}, 404, "no such catalog"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "assistant", "content": "Hi"}]}, 400,
         "messages: the last message is from the assistant; expected one from the user"),
        ({"messages": [{"role": "tool", "content": "Hi"}]}, 400, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 7}]}, 400, "messages.0.content"),
        ({"messages": [{"role": "user", "content": "x" * 90_000}]}, 400, "tokens"),
        ({"messages": said("Hi") * 201}, 400, "expected 200 at most"),
        ({"history": ["i9"], "domain": "books", "unknown": "error"}, 400, "no item with id 'i9'"),
        ({"k": "many", "domain": "films"}, 400, "k: "),
        ({"k": 1.5, "domain": "films"}, 400, "k: "),
        ({"voice": "loud", "domain": "films"}, 400, "voice: "),
        ({"filters_off": ["a"]}, 400, "needs a domain"),
        ({"exclude": [3], "domain": "films"}, 400, "exclude.0"),
        ({"exlude": ["i3"], "domain": "films"}, 400, "exlude: no such field"),
        ({"categories": ["Dramma"], "domain": "films"}, 400, "near: 'Drama'"),
        ({"k": 0, "domain": "films"}, 400, "k: "),
        ({"k": 101, "domain": "films"}, 400, "100 at most"),
        ({"max_tokens": 0}, 400, "max_tokens: "),
        ({"n": 2}, 400, "n: "),
        ({"tools": [{}], "tool_choice": "required"}, 400, "tool_choice: found 'required'; "
         "expected 'none' or 'auto', as no tool is called here: answers are text and items"),
        ({"temperature": -1}, 400, "temperature"),
        ({"temperature": "hot"}, 400, "temperature"),
        ({"top_p": 0}, 400, "top_p"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_says_why(
    http: httpx.Client, body: dict[str, Any], status: int, message: str
) -> None:
    whole = {"model": "incatalog", "messages": said("Hi"), "max_tokens": 5} | body
    reply = http.post("/v1/chat/completions", json=whole)
    assert reply.status_code == status
    error = reply.json()["error"]
    assert message in error["message"]
    assert "\n" not in error["message"]
    assert len(error["message"]) < 500
    assert set(error) == {"message", "type", "param", "code"}


@pytest.mark.long
def test_more_tokens_than_the_service_lets_are_the_most_it_lets(http: httpx.Client) -> None:
    body = {"model": "incatalog", "messages": said("Hi")}
    expected = http.post("/v1/chat/completions", json=body).json()
    for field in ("max_tokens", "max_completion_tokens"):
        answer = http.post("/v1/chat/completions", json=body | {field: 100_000}).json()
        assert answer["choices"] == expected["choices"]
        assert answer["usage"] == expected["usage"]
        assert answer["usage"]["completion_tokens"] <= 512


UNUSED = {
    name: None
    for name in openai_params.CompletionCreateParamsBase.__annotations__
    if name not in ("messages", "model")
}


@pytest.mark.parametrize("name", UNUSED)
def test_field_of_openai_that_is_null_is_not_used(client: openai.OpenAI, name: str) -> None:
    fields: Any = {"model": "incatalog", "messages": said("Hello"), "max_completion_tokens": 30}
    expected = client.chat.completions.create(**fields)
    answer = client.chat.completions.create(**fields | {name: None})
    assert expected.choices[0].message.content
    if name != "max_completion_tokens":
        assert answer.choices == expected.choices


@pytest.mark.parametrize(
    "field",
    [
        {"frequency_penalty": 0}, {"frequency_penalty": 0.0}, {"presence_penalty": 0.0},
        {"function_call": "none"}, {"functions": []}, {"logit_bias": {}}, {"logprobs": False},
        {"modalities": ["text"]}, {"n": 1}, {"tools": []}, {"tool_choice": "auto"},
        {"top_logprobs": 0}, {"stop": []}, {"stop": ""}, {"reasoning_effort": "none"},
        {"verbosity": "medium"}, {"response_format": {"type": "text"}}, {"metadata": {}},
        {"prompt_cache_retention": "24h"}, {"prompt_cache_options": {"mode": "implicit"}},
        {"stream_options": {}}, {"parallel_tool_calls": True}, {"service_tier": "auto"},
        {"n": 1.0}, {"max_tokens": 5.0}, {"seed": 3.0}, {"store": False}, {"user": "u"},
        {"history": None}, {"steer": None}, {"where": None}, {"a_field_of_tomorrow": None},
        {"tools": [{"type": "function", "function": {"name": "f"}}]}, {"functions": [{}]},
    ],
    ids=str,
)  # fmt: skip
def test_neutral_value_of_a_field_that_is_not_used_is_taken(
    http: httpx.Client, field: dict[str, Any]
) -> None:
    body = {"model": "incatalog", "messages": said("Hi"), "max_tokens": 5}
    expected = http.post("/v1/chat/completions", json=body).json()["choices"]
    reply = http.post("/v1/chat/completions", json=body | field)
    assert reply.status_code == 200, reply.text
    assert reply.json()["choices"] == expected


@pytest.mark.parametrize(
    "field",
    [
        {"frequency_penalty": 0.5}, {"function_call": {"name": "f"}}, {"tool_choice": "required"},
        {"logit_bias": {"5": 1}}, {"logprobs": True}, {"modalities": ["text", "audio"]},
        {"modalities": ["audio"]}, {"top_logprobs": 3}, {"audio": {}}, {"prediction": {}},
        {"reasoning_effort": "high"}, {"verbosity": "low"}, {"web_search_options": {}},
        {"response_format": {"type": "json_object"}}, {"moderation": {"model": "x"}},
    ],
    ids=str,
)  # fmt: skip
def test_value_that_would_change_the_answer_is_refused(
    http: httpx.Client, field: dict[str, Any]
) -> None:
    [name] = field
    body = {"model": "incatalog", "messages": said("Hi"), "max_tokens": 5} | field
    reply = http.post("/v1/chat/completions", json=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"].split(".")[0] == name


@pytest.mark.parametrize("exclude_none", [False, True])
@pytest.mark.parametrize("domain", [None, "films"])
def test_own_answer_is_taken_back_as_the_client_prints_it(
    client: openai.OpenAI, http: httpx.Client, domain: str | None, exclude_none: bool
) -> None:
    asked: list[Any] = said("Three films, please.")
    body: dict[str, Any] = {} if domain is None else {"domain": domain, "k": 3}
    own = {"model": "incatalog", "max_tokens": 60, "extra_body": body}
    first = client.chat.completions.create(messages=asked, **own).choices[0].message
    printed: Any = first.model_dump(exclude_none=exclude_none)
    assert exclude_none or {"audio", "function_call", "tool_calls"} <= set(printed)
    more: list[Any] = [*asked, printed, *said("More")]
    second = client.chat.completions.create(messages=more, **own).choices[0].message
    # The same as with nothing but what says something.
    plain = {name: printed[name] for name in ("role", "content", "items") if name in printed}
    again = client.chat.completions.create(messages=[*asked, plain, *said("More")], **own)
    assert again.choices[0].message.content == second.content
    assert second.content


@pytest.mark.parametrize(
    ("message", "param", "words"),
    [
        ({"content": 7}, "messages.0.content", "expected text or a list of parts"),
        ({"content": None}, "messages.0.content", "expected text or a list of parts"),
        ({"content": {}}, "messages.0.content", "expected text or a list of parts"),
        ({"content": [7]}, "messages.0.content.0", "dictionary"),
        ({"content": [{"type": "text"}]}, "messages.0.content.0.text", "required"),
        ({"content": [{"type": "text", "text": 7}]}, "messages.0.content.0.text", "string"),
        (
            {"content": [{"type": "text", "text": ""}, {"type": "image_url", "text": ""}]},
            "messages.0.content.1.type", "'text'",
        ),
        ({"content": "x", "tool_calls": [{}]}, "messages.0.tool_calls", "found 1; expected none"),
        ({"content": "x", "audio": {"id": "a"}}, "messages.0.audio", ""),
        ({"content": "x", "items": [{"id": 7}]}, "messages.0.items.0.id", "string"),
    ],
    ids=str,
)  # fmt: skip
def test_error_names_the_field_that_is_wrong(
    http: httpx.Client, message: dict[str, Any], param: str, words: str
) -> None:
    whole = {"model": "incatalog", "messages": [{"role": "user"} | message]}
    error = http.post("/v1/chat/completions", json=whole).json()["error"]
    assert error["param"] == param
    assert error["message"].startswith(f"{param}: ")
    assert words in error["message"]


@pytest.mark.parametrize(
    ("stop", "param"),
    [(7, "stop"), ({}, "stop"), (["a", 7], "stop.1"), (["a"] * 5, "stop")],
)
def test_error_names_the_stop_that_is_wrong(http: httpx.Client, stop: Any, param: str) -> None:
    whole = {"model": "incatalog", "messages": said("Hi"), "stop": stop}
    error = http.post("/v1/chat/completions", json=whole).json()["error"]
    assert error["param"] == param


def test_client_that_goes_away_frees_its_place(server: Server, http: httpx.Client) -> None:
    def metric(name: str) -> float:
        lines = http.get("/metrics").text.splitlines()
        [found] = [line for line in lines if line.startswith(f"{name} ")]
        return float(found.split()[1])

    def idle() -> None:
        deadline = time.monotonic() + 10
        while metric("incatalog_active_answers") and time.monotonic() < deadline:
            time.sleep(0.01)
        assert metric("incatalog_active_answers") == 0

    body = {"model": "incatalog", "messages": said("Hello"), "max_tokens": 500, "stream": True}
    url = f"{server.url}/v1/chat/completions"
    written = []
    for _ in range(10):
        before = metric("incatalog_tokens_total")
        with httpx.stream("POST", url, json=body) as reply:
            next(reply.iter_lines())
        idle()
        written.append(metric("incatalog_tokens_total") - before)
    # On a busy machine an answer may be there before its reader can leave; never all of them.
    assert min(written) < 500
    # Without a stream, the client closes the connection while it waits.
    written = []
    for _ in range(10):
        before = metric("incatalog_tokens_total")
        with httpx.Client(timeout=0.05) as impatient, contextlib.suppress(httpx.ReadTimeout):
            impatient.post(url, json=body | {"stream": False})
        idle()
        written.append(metric("incatalog_tokens_total") - before)
    assert min(written) < 500


def test_deadline_ends_an_answer_with_an_error(http: httpx.Client) -> None:
    body = {"model": "incatalog", "messages": said("Hi"), "max_tokens": 500, "deadline": 0.001}
    reply = http.post("/v1/chat/completions", json=body)
    assert reply.status_code == 504
    assert reply.json()["error"]["code"] == "deadline"


def test_answers_side_by_side_are_those_of_one_at_a_time(
    server: Server, recommender: Recommender
) -> None:
    contents = [f"Film number {number}, please." for number in range(24)]
    expected = [recommender.chat(said(content), max_new_tokens=40) for content in contents]
    found: dict[str, tuple[str, list[str]]] = {}

    def ask(content: str) -> None:
        body = {
            "model": "incatalog/films", "messages": said(content), "max_tokens": 40, "stream": True
        }  # fmt: skip
        text, items = "", []
        with httpx.stream(
            "POST", f"{server.url}/v1/chat/completions", json=body, timeout=60
        ) as reply:
            for line in reply.iter_lines():
                if line.startswith("data: {"):
                    chunk = json.loads(line.removeprefix("data: "))
                    text += chunk["choices"][0]["delta"].get("content", "")
                    items += [item["id"] for item in chunk.get("items", [])]
        found[content] = text, items

    threads = [threading.Thread(target=ask, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for content, answer in zip(contents, expected, strict=True):
        assert found[content] == (answer.text, [one.item_id for one in answer.items])


def test_metrics_and_schema(http: httpx.Client, client: openai.OpenAI) -> None:
    chat(client, max_tokens=20)
    text = http.get("/metrics").text
    for name in (
        "incatalog_tokens_total",
        "incatalog_items_total",
        "incatalog_first_token_seconds_count",
    ):
        [line] = [line for line in text.splitlines() if line.startswith(f"{name} ")]
        assert float(line.split()[1]) > 0
    assert 'incatalog_catalog_items{domain="films"} 40.0' in text
    assert http.get("/readyz").json() == {"status": "ready"}
    assert "/v1/chat/completions" in http.get("/openapi.json").json()["paths"]
    reply = http.get("/healthz")
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert len(reply.headers["x-request-id"]) == 16
