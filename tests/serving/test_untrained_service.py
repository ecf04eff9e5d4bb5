"""A chat model that was never trained on the catalog, served with what is popular in its data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from chatting import Server, without_scores
from incatalog import Catalog, Item

PATH = "/v1/chat/completions"
TITLES = ("Star Wars (1977)", "Alien (1979)", "Heat (1995)", "Airplane! (1980)", "Clue (1985)")
KINDS = (("Action", "Sci-Fi"), ("Horror", "Sci-Fi"), ("Crime",), ("Comedy",), ("Comedy",))


@pytest.fixture(scope="module")
def http(
    tmp_path_factory: pytest.TempPathFactory, plain_chat_model: Path
) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("untrained")
    data, model = folder / "data", plain_chat_model
    data.mkdir()
    Catalog.from_items(
        Item(f"f{row}", title, categories=kinds, attributes={"price": 10.0 + row})
        for row, (title, kinds) in enumerate(zip(TITLES, KINDS, strict=True))
    ).save(data)
    # The two items at the end of each history are held out; before them, earlier rows lead.
    taken = {f"u{user}": [f"f{row}" for row in range(5 - user)] for user in range(3)}
    taken = {user: [*items, "f4", "f3"] for user, items in taken.items()}
    taken = {user: list(dict.fromkeys(items)) for user, items in taken.items()}
    (data / "sequential.jsonl").write_text(json.dumps(taken))
    flags = ("--domain", f"films={data}", "--sessions", folder / "s.sqlite")
    with Server(folder / "log", "--model", model, *flags) as running:
        with httpx.Client(base_url=running.url, timeout=120) as client:
            yield client
        assert "Traceback" not in running.said


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def ask(http: httpx.Client, *messages: Any, **body: Any) -> dict[str, Any]:
    reply = http.post(PATH, json={"model": "incatalog/films", "messages": messages} | body)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def test_items_come_with_reasons_and_attributes(http: httpx.Client) -> None:
    answer = ask(http, user("two films please"), history=["f0", "gone"])
    text = answer["choices"][0]["message"]["content"]
    assert len(answer["items"]) == 2
    assert answer["unknown"] == ["gone"]
    for place, item in enumerate(answer["items"], 1):
        assert text[item["start"] : item["end"]] == item["title"]
        assert f"{place}. {item['title']} – {item['reason']}\n" in text
        [price] = item["attributes"]
        assert price["name"] == "price"
    assert "f0" not in [item["id"] for item in answer["items"]]
    assert answer["guided"] is True
    for one in answer["mentions"]:
        assert text[one["start"] : one["end"]] == TITLES[int(one["id"][1:])]
    reply = http.post(PATH, json={
        "model": "incatalog/films", "messages": [user("a film")], "history": ["gone"],
        "unknown": "error",
    })  # fmt: skip
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "history"


def test_a_stream_tells_what_was_understood_first_and_the_rest_last(http: httpx.Client) -> None:
    body = {"model": "incatalog/films", "messages": [user("a comedy please")], "seed": 1}
    whole = ask(http, user("a comedy please"), seed=1)
    lines = http.post(PATH, json=body | {"stream": True}).text.splitlines()
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert [one["id"] for one in chunks[0]["filters"]] == ["category=Comedy"]
    assert chunks[0]["unknown"] == []
    assert chunks[-1]["invented"] == 0
    assert chunks[-1]["mentions"] == whole["mentions"]
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text == whole["choices"][0]["message"]["content"]
    items = [item for chunk in chunks for item in chunk.get("items", ())]
    assert without_scores(items) == without_scores(whole["items"])
    assert {item["id"] for item in items} == {"f3", "f4"}


def test_filters_are_taken_off_and_what_fits_none_is_said(http: httpx.Client) -> None:
    off = ask(http, user("a comedy please"), filters_off=["category=Comedy"])
    assert off["filters"] == []
    assert len(off["items"]) == 5
    none = ask(http, user("a comedy please"), where={"price": {"lt": 11}})
    assert none["items"] == []
    assert "Take one of the filters off" in none["choices"][0]["message"]["content"]
    assert [one["label"] for one in none["filters"]] == ["Comedy"]


def test_ranges_and_limits_of_nothing_are_told(http: httpx.Client) -> None:
    answer = ask(http, user("a film between 11 and 13 euros, at most 90 minutes"))
    assert [(one["id"], one["label"], one["phrase"]) for one in answer["filters"]] == [
        ("price>=11", "price from 11", "price between 11 and 13"),
        ("price<=13", "price up to 13", "price between 11 and 13"),
    ]
    assert answer["lacking"] == ["running times"]
    said = answer["choices"][0]["message"]["content"]
    assert said.startswith("The catalog has no running times, so I could not go by them. ")
    assert {item["id"] for item in answer["items"]} == {"f1", "f2", "f3"}
    body = {"model": "incatalog/films", "messages": [user("at most 90 minutes")], "stream": True}
    first = http.post(PATH, json=body).text.splitlines()[0]
    assert json.loads(first.removeprefix("data: "))["lacking"] == ["running times"]


def test_items_that_fulfil_conditions_are_counted(http: httpx.Client) -> None:
    def asked(where: str) -> httpx.Response:
        return http.get("/v1/catalogs/films/items", params={"where": where})

    page = asked('{"price": {"lte": 12}, "title": {"words": "alien"}}').json()
    assert (page["total"], [one["id"] for one in page["items"]]) == (1, ["f1"])
    for wrong, message in (
        ('{"prise": 1}', "where: catalog films: no field 'prise'; near: 'price'"),
        ("price", "where: found no JSON; expected an object such as"),
        ("[" * 5000, "where: found no JSON; expected an object such as"),
        ("[]", "where: found a list; expected an object such as"),
    ):
        refused = asked(wrong)
        assert refused.status_code == 400
        assert message in refused.json()["error"]["message"]


def test_a_conversation_goes_on_and_slides(http: httpx.Client) -> None:
    first = ask(http, user("two films please"))
    said = first["choices"][0]["message"]
    back = {name: said[name] for name in ("role", "content", "items")}
    why = ask(http, user("two films please"), back, user("why the first one?"))
    assert why["items"] == []
    assert why["choices"][0]["message"]["content"].startswith(f"{first['items'][0]['title']}: ")
    more = ask(http, user("two films please"), back, user("two more films please"))
    assert not {i["id"] for i in more["items"]} & {i["id"] for i in first["items"]}
    long = [turn for _ in range(99) for turn in (
        user("harbour lights " * 12), {"role": "assistant", "content": "Yes."},
    )]  # fmt: skip
    answer = ask(http, *long, user("a film please"), k=1)
    assert answer["left_out"] > 0
    assert len(answer["items"]) == 1


def test_sessions_keep_what_the_assistant_said(http: httpx.Client) -> None:
    first = ask(http, user("two films please"), session="kept")
    why = ask(http, user("why the second one?"), session="kept")
    title = first["items"][1]["title"]
    assert why["choices"][0]["message"]["content"].startswith(f"{title}: ")
    assert len(http.get("/v1/sessions/kept").json()["messages"]) == 4


def test_rankings_leave_unknown_ids_out(http: httpx.Client) -> None:
    body = {"history": ["f0", "gone"], "k": 2}
    found = http.post("/v1/recommendations", json=body).json()
    assert found["unknown"] == ["gone"]
    assert len(found["items"]) == 2
    assert http.post("/v1/recommendations", json=body | {"unknown": "error"}).status_code == 400
