"""The service in front of vLLM: what it says is what the engine of this package would say."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from chatting import Server
from incatalog import Catalog, Item, Recommender, SpanReader
from incatalog.data.where import Where
from incatalog.model.backbone import create_tiny
from incatalog.model.saved import save_model
from incatalog.model.spec import ModelSpec
from incatalog.model.tiny import TinyConfig
from vllm_environment import vllm_python, vllm_variables

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1800)]
TITLE = "Moonlight Ferry (2001)"
CHAT = "Hello! I would like a film for a rainy evening. What would you recommend?"


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory, titles: tuple[str, ...]) -> Path:
    """A random model that likes to open item spans, of a width that vLLM knows on a CPU."""
    sizes = TinyConfig(vocab_size=512, hidden=64, inner=64, layers=2, heads=2, seed=0)
    backbone = create_tiny([*titles, CHAT], sizes)
    network: Any = backbone.model
    torch.manual_seed(1)
    with torch.no_grad():
        weight = torch.randn_like(network.get_output_embeddings().weight)
        network.lm_head.weight = torch.nn.Parameter(weight)
        network.lm_head.weight[backbone.soi_token_id] *= 4
    folder = tmp_path_factory.mktemp("served") / "films"
    folder.mkdir()
    save_model(folder, backbone, ModelSpec(base="tiny", list_form="plain"))
    genres = ("Drama", "Comedy", "Crime")
    Catalog.from_items(
        Item(f"i{row}", title, "", (genres[row % 3],), attributes={"price": row / 2})
        for row, title in enumerate(titles[:40])
    ).save(folder)
    return folder


@pytest.fixture(scope="module")
def own(films: Path) -> Recommender:
    """The same model in this process."""
    return Recommender.from_pretrained(films, device="cpu", encoder="words")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, films: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("service")
    flags = ("--engine", "vllm", "--model", films, "--domain", f"films={films}")
    more = ("--domain", f"changing={films}", "--sessions", folder / "sessions.sqlite")
    how = {"python": vllm_python(), **vllm_variables(folder / "plugin")}
    running = Server(folder / "log", *flags, *more, "--batch", "8", "--encoder", "words", **how)
    yield running
    running.terminate()
    assert running.wait(patience=300) == 0
    assert "Traceback" not in running.said


@pytest.fixture(scope="module")
def http(server: Server) -> httpx.Client:
    return httpx.Client(base_url=server.url, timeout=600)


def said(content: str = "Hello") -> list[dict[str, str]]:
    return [{"role": "user", "content": content}]


def asked(http: httpx.Client, content: str = "Hello", **fields: Any) -> Any:
    body = {"model": "incatalog/films", "messages": said(content), **fields}
    reply = http.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def request_of(own: Recommender, content: str, **how: Any) -> Any:
    return own.chat_request(said(content), item_decode="token", **how)


def expected(own: Recommender, request: Any) -> tuple[str, list[str]]:
    """The text and the items that the engine of this package makes of a request."""
    text = own.answer_text()
    for event in own.engine.generate([request]):
        for _ in text.feed(event):
            pass
    answer = text.answer()
    return answer.text, [one.item_id for one in answer.items]


def text_of(answer: Any) -> str:
    return str(answer["choices"][0]["message"]["content"])


def test_answers_are_those_of_the_engine(http: httpx.Client, own: Recommender) -> None:
    named = 0
    for content in ("Hello", "Two films, please.", "Été"):
        answer = asked(http, content, max_tokens=60, steer=False)
        text, items = expected(own, request_of(own, content, max_new_tokens=60))
        assert text_of(answer) == text
        assert [one["id"] for one in answer["items"]] == items
        assert answer["choices"][0]["finish_reason"] == "length"
        # A span that is still open at the end is no item, and its tokens do not count.
        assert 50 < answer["usage"]["completion_tokens"] <= 60
        for one in answer["items"]:
            assert text[one["start"] : one["end"]] == one["title"]
        named += len(items)
    assert named


def test_a_stream_is_the_answer_in_pieces(http: httpx.Client) -> None:
    whole = asked(http, max_tokens=50)
    body = {"model": "incatalog/films", "messages": said(), "max_tokens": 50, "stream": True}
    with http.stream("POST", "/v1/chat/completions", json=body) as reply:
        lines = [line[6:] for line in reply.iter_lines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    text = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])
    items = [item for chunk in chunks for item in chunk.get("items", ())]
    assert text == text_of(whole)
    # Scores differ by the rounding of what is read from the prefix cache.
    assert [one["id"] for one in items] == [one["id"] for one in whole["items"]]


def test_lists_obey_every_rule(http: httpx.Client, own: Recommender) -> None:
    rules: dict[str, Any] = {"history": ["i3", "i6"], "exclude": ["i9"], "categories": ["Drama"]}
    where = {"price": {"gte": 2}}
    answer = asked(http, "", k=6, **rules, where=where)
    found = [one["id"] for one in answer["items"]]
    assert len(set(found)) == 6
    assert not {"i0", "i3", "i6", "i9"} & set(found)
    assert all(one["categories"] == ["Drama"] for one in answer["items"])
    body = {"domain": "films", "k": 6, **rules, "where": where}
    ranked = http.post("/v1/recommendations", json=body)
    assert ranked.status_code == 200, ranked.text
    same = own.recommend(
        ["i3", "i6"], 6, ["i9"], ["Drama"], decode="greedy", where=Where.parse(where)
    )
    items = ranked.json()["items"]
    assert [one["id"] for one in items] == [one.item_id for one in same]
    assert [one["score"] for one in items] == pytest.approx([one.score for one in same], rel=1e-3)
    # All that are left, and no more.
    assert len(asked(http, "", k=40, history=["i3"])["items"]) == 39


def test_weights_count_as_in_the_engine(http: httpx.Client, own: Recommender) -> None:
    boost = {"i12": 1e6, "i17": 1e4, "i30": 1e-6}
    body = {"domain": "films", "k": 5, "boost": boost, "decode": "greedy"}
    found = http.post("/v1/recommendations", json=body).json()["items"]
    same = own.recommend([], 5, decode="greedy", boost=boost)
    assert [one["id"] for one in found] == [one.item_id for one in same]
    plain = own.recommend([], 5, decode="greedy")
    assert [one.item_id for one in plain] != [one.item_id for one in same]


def test_what_vllm_cannot_do_is_an_error_that_names_who_can(http: httpx.Client) -> None:
    for decode in ("beam", "list"):
        body = {"domain": "films", "k": 3, "decode": decode}
        reply = http.post("/v1/recommendations", json=body)
        assert reply.status_code == 400
        assert "--engine incatalog" in reply.json()["error"]["message"]
    body = {"model": "incatalog/films", "messages": said(), "item_decode": "search"}
    reply = http.post("/v1/chat/completions", json=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "item_decode"
    assert "--engine incatalog" in reply.json()["error"]["message"]


def test_without_a_domain_no_item_is_named(http: httpx.Client) -> None:
    answer = asked(http, model="incatalog", max_tokens=60)
    assert answer["items"] == []
    assert "<SOI>" not in text_of(answer)


def test_samples_name_items_alone(http: httpx.Client, own: Recommender) -> None:
    # On a CPU vLLM knows no seeds of requests.
    how = {"max_tokens": 60, "temperature": 1.5, "top_p": 0.9}
    answers = [asked(http, seed=seed, **how) for seed in (1, 2, 3)]
    assert len(set(map(text_of, answers))) > 1
    known = set(own.catalog.titles)
    assert {one["title"] for answer in answers for one in answer["items"]} <= known


def test_answers_side_by_side_are_those_of_one_at_a_time(
    http: httpx.Client, own: Recommender
) -> None:
    contents = [f"Number {number}" for number in range(6)]
    found: dict[str, Any] = {}

    def ask(content: str) -> None:
        found[content] = asked(http, content, max_tokens=30)

    threads = [threading.Thread(target=ask, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for content in contents:
        text, items = expected(own, request_of(own, content, max_new_tokens=30))
        assert text_of(found[content]) == text
        assert [one["id"] for one in found[content]["items"]] == items


def counted(http: httpx.Client, name: str) -> float:
    lines = http.get("/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"incatalog_{name} "))


def test_a_client_that_goes_away_frees_its_place(http: httpx.Client, server: Server) -> None:
    body = {"model": "incatalog/films", "messages": said(), "max_tokens": 500, "stream": True}
    with (
        httpx.Client(base_url=server.url, timeout=600) as other,
        other.stream("POST", "/v1/chat/completions", json=body) as reply,
    ):
        next(reply.iter_lines())
        assert counted(http, "active_answers") >= 1
    deadline = time.monotonic() + 60
    while counted(http, "active_answers") and time.monotonic() < deadline:
        time.sleep(0.2)
    assert counted(http, "active_answers") == 0
    before = counted(http, "tokens_total")
    time.sleep(2)
    assert counted(http, "tokens_total") == before
    assert text_of(asked(http, max_tokens=5))


def test_the_catalog_changes_while_it_is_served(http: httpx.Client) -> None:
    def listed(**fields: Any) -> set[str]:
        answer = asked(http, "", model="incatalog/changing", k=60, **fields)
        return {one["id"] for one in answer["items"]}

    before = listed()
    assert len(before) == 40
    new = {"id": "new/1", "title": TITLE, "categories": ["Romance"]}
    reply = http.post("/v1/catalogs/changing/items", json={"items": [new]})
    assert reply.json() == {"domain": "changing", "version": 1}
    assert listed() == before | {"new/1"}
    assert listed(categories=["Romance"]) == {"new/1"}
    assert http.delete("/v1/catalogs/changing/items/i7").json()["version"] == 2
    assert listed() == (before | {"new/1"}) - {"i7"}
    off = http.patch("/v1/catalogs/changing/items/i8", json={"enabled": False})
    assert off.json()["version"] == 3
    assert listed() == (before | {"new/1"}) - {"i7", "i8"}
    # The other domain has the items it had.
    assert len(asked(http, "", k=60)["items"]) == 40


def test_a_session_is_kept(http: httpx.Client) -> None:
    asked(http, "Hello", session="mine", max_tokens=5)
    asked(http, "And now?", session="mine", max_tokens=5)
    kept = http.get("/v1/sessions/mine").json()
    assert [one["role"] for one in kept["messages"]] == ["user", "assistant"] * 2


def test_what_cannot_start_says_why(films: Path, tmp_path: Path) -> None:
    python, variables = vllm_python(), vllm_variables(tmp_path / "plugin")
    flags = ("--engine", "vllm", "--model", films, "--vllm", "speculative-config={}")
    with pytest.raises(AssertionError, match="the drafts are what the catalog forces"):
        Server(tmp_path / "log", *flags, python=python, **variables)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, films: Path) -> Iterator[str]:
    """`vllm serve` as anyone starts it, on a model of this package."""
    folder = tmp_path_factory.mktemp("plain")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = ["--model", films, "--port", port, "--dtype", "float32", "--served-model-name", "films"]
    how = ["--max-num-seqs", "8", "--enforce-eager", "--host", "127.0.0.1"]
    variables = vllm_variables(folder / "plugin")
    log = (folder / "log").open("w+")
    process = subprocess.Popen(
        [vllm_python(), "-m", "vllm.entrypoints.openai.api_server", *map(str, [*flags, *how])],
        env=os.environ | {"OMP_NUM_THREADS": "1", **variables},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd=folder,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/health", timeout=30).status_code == 200:
                    break
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=120)
        log.close()


def test_items_of_plain_vllm_are_read_from_its_text(
    plain: str, films: Path, own: Recommender
) -> None:
    body = {
        "model": "films",
        "messages": said("Two films, please."),
        "max_tokens": 60,
        "temperature": 0,
        "skip_special_tokens": False,
    }
    reply = httpx.post(f"{plain}/v1/chat/completions", json=body, timeout=600)
    assert reply.status_code == 200, reply.text
    found = SpanReader.from_pretrained(films).read(text_of(reply.json()))
    request = request_of(own, "Two films, please.", max_new_tokens=60)
    _, items = expected(own, request)
    assert [one.item_id for one in found.items] == items
    assert items
    assert [found.text[one.start : one.end] for one in found.items] == [
        one.title for one in found.items
    ]
