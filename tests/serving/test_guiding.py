from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from chatting import Server
from incatalog import Catalog, Recommender
from incatalog.errors import ConfigError, TeacherError
from incatalog.recommender.guide import Guide
from incatalog.recommender.guide_folder import GuideChoice, save_guide
from incatalog.serving.catalogs import load_domains
from incatalog.serving.engine_telemetry import EngineTelemetry
from incatalog.serving.guiding import GuideChoices, Guiding
from incatalog.serving.problems import ApiError
from incatalog.serving.question_schemas import RecommendationRequest
from incatalog.serving.server import _recommender
from incatalog.serving.settings import ServeSettings
from incatalog.serving.store import CatalogStore
from incatalog.teacher.popularity import Popularity
from incatalog.teacher.sasrec import SasRec, SasRecSizes, save_network
from incatalog.teacher.teacher import load_teacher
from incatalog.teacher.teacher_folder import save_teacher
from serving import served

SHARE = 0.6


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """A random teacher of the films."""
    folder = tmp_path_factory.mktemp("teacher")
    sizes = SasRecSizes(40, max_length=6, hidden=8, inner=16, layers=1, heads=1, dropout=0.0)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = SasRec(sizes)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.7)
    save_network(folder, network.eval(), Catalog.load(model).fingerprint)
    return folder


@pytest.fixture(scope="module")
def guided(model: Path, teacher: Path) -> Recommender:
    """The same in this process: what the service has to say."""
    return Recommender.from_pretrained(model, "cpu", guide=teacher, guide_weight=SHARE)


class Taught:
    """A service of two domains, of which the films are guided by a teacher of another service."""

    def __init__(self, folder: Path, model: Path, books: Path, teacher: Path) -> None:
        self._catalog, self._stack = Catalog.load(model), ExitStack()
        self._teacher = load_teacher(teacher, self._catalog, "cpu")
        self._teaching = ExitStack()
        self.url = self.teach()
        flags = ("--model", model, "--domain", f"films={model}", "--domain", f"books={books}")
        flags += ("--guide", f"films={self.url}", "--guide-weight", f"films={SHARE}")
        # What is said is not to steer here as well.
        flags += ("--guide-empty", "nothing", "--guide-timeout", "2", "--encoder", "off")
        self.server = self._stack.enter_context(Server(folder / "log", *flags))
        self.http = httpx.Client(base_url=self.server.url, timeout=30)

    def teach(self, port: int = 0) -> str:
        return self._teaching.enter_context(served(self._teacher, self._catalog, port=port))

    def stop_teaching(self) -> None:
        self._teaching.close()

    def close(self) -> None:
        self._stack.close()
        self._teaching.close()


@pytest.fixture(scope="module")
def taught(
    tmp_path_factory: pytest.TempPathFactory, model: Path, books: Path, teacher: Path
) -> Iterator[Taught]:
    running = Taught(tmp_path_factory.mktemp("guided"), model, books, teacher)
    yield running
    running.close()


@pytest.fixture
def http(taught: Taught) -> httpx.Client:
    return taught.http


def said(*contents: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content} for content in contents]


def post(http: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    reply = http.post(path, json=body)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def ranked(http: httpx.Client, **body: Any) -> dict[str, Any]:
    return post(http, "/v1/recommendations", {"domain": "films", "k": 6, **body})


def chat(http: httpx.Client, *contents: str, **body: Any) -> dict[str, Any]:
    asked = {"model": "incatalog/films", "messages": said(*contents), **body}
    return post(http, "/v1/chat/completions", asked)


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["id"] for item in answer["items"]]


@pytest.mark.parametrize("decode", ["beam", "list"])
def test_recommendations_are_guided(
    http: httpx.Client, guided: Recommender, recommender: Recommender, decode: Any
) -> None:
    history = ["i7", "i3"]

    def expected(model: Recommender, **how: Any) -> list[str]:
        return [one.item_id for one in model.recommend(history, 6, decode=decode, **how)]

    answer = ranked(http, history=history, decode=decode)
    assert answer["guided"] is True
    assert ids(answer) == expected(guided)
    assert ids(answer) != expected(recommender)
    alone = ranked(http, history=history, decode=decode, guide_weight=0)
    assert alone["guided"] is False
    assert ids(alone) == expected(recommender)
    taught = ranked(http, history=history, decode=decode, guide_weight=1)
    assert ids(taught) == expected(guided, guide_weight=1.0)
    boost = {"i11": 1e6, "i12": 1e-6}
    boosted = ranked(http, history=history, decode=decode, boost=boost)
    assert ids(boosted) == expected(guided, boost=boost)
    assert ids(boosted)[0] == "i11"
    unknown = ranked(http, history=[], decode=decode)
    assert unknown["guided"] is False
    assert ids(unknown) == [o.item_id for o in recommender.recommend([], 6, decode=decode)]


def test_what_cannot_weigh_is_refused(http: httpx.Client) -> None:
    for body, param in (
        ({"boost": {"i1": 0}}, "boost.i1"),
        ({"boost": {"i1": -2}}, "boost.i1"),
        ({"boost": {"i1": 1e10}}, "boost.i1"),
        ({"boost": ["i1"]}, "boost"),
        ({"boost": {"nothing": 2}}, "boost"),
        ({"guide_weight": 1.5}, "guide_weight"),
        ({"guide_weight": "all"}, "guide_weight"),
        ({"domain": "books", "guide_weight": 0.5}, "guide_weight"),
    ):
        reply = http.post("/v1/recommendations", json={"domain": "films", **body})
        assert reply.status_code == 400, body
        assert reply.json()["error"]["param"] == param, reply.text
    many = {f"x{number}": 2 for number in range(1001)}
    reply = http.post("/v1/recommendations", json={"domain": "films", "boost": many})
    assert "boost: 1001 entries; expected 1000 at most" in reply.text
    body = {"model": "incatalog", "messages": said("Hi"), "boost": {"i1": 2}}
    reply = http.post("/v1/chat/completions", json=body)
    assert "boost: needs a domain to recommend from" in reply.text


def test_a_catalog_without_a_guide_says_so(http: httpx.Client) -> None:
    answer = ranked(http, domain="books", history=["b/1"], k=2)
    assert answer["guided"] is None
    boosted = ranked(http, domain="books", history=["b/1"], k=1, boost={"b/0": 1e9})
    assert ids(boosted) == ["b/0"]
    assert boosted["guided"] is None
    catalogs = http.get("/v1/catalogs").json()["catalogs"]
    assert {one["domain"]: one["guided"] for one in catalogs} == {"films": True, "books": False}
    plain = post(
        http,
        "/v1/chat/completions",
        {"model": "incatalog", "messages": said("Hi"), "max_tokens": 4},
    )
    assert plain["guided"] is None


def test_a_chat_is_guided_by_the_history_of_the_request(
    http: httpx.Client, guided: Recommender
) -> None:
    history = [7, 3]
    excluded = guided.excluded(history=history, exclude_seen=True)
    [weights] = guided.weights([history], [excluded], "list")
    how: Any = {"history": history, "k": 4, "excluded": excluded, "weights": weights}
    request = guided.chat_request(said("Four films, and not Zebra"), **how)
    [done] = guided.engine.complete([request])
    answer = chat(http, "Four films, and not Zebra", history=["i7", "i3"], k=4)
    assert answer["guided"] is True
    assert ids(answer) == [f"i{row}" for row in done.items]


def test_a_chat_is_guided_by_what_the_conversation_names(
    http: httpx.Client, guided: Recommender, recommender: Recommender
) -> None:
    titles = guided.catalog.titles
    text = f"I liked {titles[12]} and {titles[3]}."
    named = [12, 3]
    excluded = guided.excluded(history=named, exclude_seen=True)
    [weights] = guided.weights([named], [excluded], "list")
    request = guided.chat_request(said(text), k=4, excluded=excluded, weights=weights)
    [done] = guided.engine.complete([request])
    answer = chat(http, text, k=4)
    assert answer["guided"] is True
    assert ids(answer) == [f"i{row}" for row in done.items]
    # Items of an earlier answer are named too.
    first = answer["choices"][0]["message"]
    spoken = [*said(text), first, *said("And more?")]
    body = {"model": "incatalog/films", "messages": spoken, "k": 4}
    more = post(http, "/v1/chat/completions", body)
    assert more["guided"] is True
    assert not {*ids(more)} & {"i12", "i3", *ids(answer)}
    again = post(http, "/v1/chat/completions", body | {"exclude_seen": False})
    assert again["guided"] is True
    # Where nothing is named, the model answers alone, as the service was told.
    nothing = chat(http, "Four films", k=4)
    assert nothing["guided"] is False
    [alone] = recommender.engine.complete([recommender.chat_request(said("Four films"), k=4)])
    assert ids(nothing) == [f"i{row}" for row in alone.items]


def test_the_library_reads_a_conversation_as_the_service_does(
    http: httpx.Client, guided: Recommender
) -> None:
    text = f"Films like {guided.catalog.titles[12]}, please"
    answer = chat(http, text, max_tokens=60)
    expected = guided.chat(said(text), max_new_tokens=60)
    assert answer["choices"][0]["message"]["content"] == expected.text
    assert ids(answer) == [one.item_id for one in expected.items]
    assert ids(answer)
    assert "i12" not in ids(answer)
    pieces = list(guided.stream(said(text), max_new_tokens=60))
    assert "".join(p if isinstance(p, str) else p.title for p in pieces) == expected.text


def test_streams_say_whether_they_are_guided(http: httpx.Client) -> None:
    for weight, guided in ((None, True), (0, False)):
        body = {"model": "incatalog/films", "messages": said("Two"), "k": 2, "stream": True}
        body |= {"history": ["i7"], "guide_weight": weight}
        with http.stream("POST", "/v1/chat/completions", json=body) as reply:
            lines = [line.removeprefix("data: ") for line in reply.iter_lines() if line]
        chunks = [json.loads(line) for line in lines[:-1]]
        assert {chunk["guided"] for chunk in chunks} == {guided}


def test_catalog_changes_reach_the_guide(http: httpx.Client, guided: Recommender) -> None:
    new = {"id": "sale", "title": "Moonlight Ferry (2001)", "categories": ["Sale"], "boost": 1e9}
    try:
        assert post(http, "/v1/catalogs/films/items", {"items": [new]})["version"]
        answer = ranked(http, history=["i7", "sale"], exclude_seen=False)
        assert answer["guided"] is True
        assert ids(answer)[0] == "sale"
        item = http.get("/v1/catalogs/films/items/sale").json()
        assert item["boost"] == 1e9
        # A history that the teacher knows nothing of is none.
        assert ranked(http, history=["sale"])["guided"] is False
        gone = http.delete("/v1/catalogs/films/items/i9")
        assert gone.status_code == 200
        assert "i9" not in ids(ranked(http, history=["i7"], k=100))
    finally:
        http.delete("/v1/catalogs/films/items/sale")
        old = guided.catalog.item(guided.catalog.row("i9"))
        back = {"id": "i9", "title": old.title, "description": old.description}
        http.post(
            "/v1/catalogs/films/items",
            json={"items": [back | {"categories": list(old.categories)}]},
        )
    everything = ranked(http, history=["i7"], k=100)
    expected = guided.recommend(["i7"], k=100)
    assert sorted(ids(everything)) == sorted(one.item_id for one in expected)


def test_a_teacher_that_fails_is_an_error_or_an_answer_that_says_so(
    taught: Taught, guided: Recommender, recommender: Recommender, tmp_path: Path
) -> None:
    http = taught.http
    body = {"domain": "films", "k": 3, "history": ["i7"]}
    talk = {"model": "incatalog/films", "messages": said("Hi"), "k": 3, "history": ["i7"]}
    remote = GuideChoice(taught.url, SHARE, patience=2).load(tmp_path, recommender.catalog)
    taught.stop_teaching()
    for path, asked in (("/v1/recommendations", body), ("/v1/chat/completions", talk)):
        reply = http.post(path, json=asked)
        assert reply.status_code == 503
        error = reply.json()["error"]
        assert (error["code"], error["type"]) == ("teacher_failed", "server_error")
        assert reply.headers["Retry-After"] == "5"
        assert taught.url not in reply.text
        assert post(http, path, asked | {"guide_weight": 0})["guided"] is False
        assert post(http, path, asked | {"boost": {"i5": 1e9}, "guide_weight": 0})
    assert "incatalog_teacher_failures_total 2.0" in http.get("/metrics").text
    assert "no answer after 2 tries" in taught.server.said
    # Where the operator has chosen so, the model answers alone, with what else weighs.
    asked = RecommendationRequest(history=["i7"], boost={"i5": 1e9})
    model = recommender.with_guide(remote)
    for strict in (True, False):
        settings = ServeSettings(tmp_path, unguided_when_teacher_fails=not strict)
        guiding = Guiding(settings, EngineTelemetry())
        weighing = guiding.weigh(model, asked, [7], None, "ranking")
        if strict:
            with pytest.raises(ApiError, match="the teacher that guides the answers failed"):
                asyncio.run(weighing)
            continue
        found = asyncio.run(weighing)
        assert found.guided is False
        assert found.weights is not None
        assert found.weights.model == 1
        slot = model.slot([7], 3, weights=found.weights)
        how: Any = {"k": 3, "exclude_seen": False, "boost": asked.boost}
        expected = [one.item_id for one in recommender.recommend(["i7"], **how)]
        rows = model.beam.top_items([slot], 3)[0].rows.tolist()
        assert [f"i{row}" for row in rows] == expected
        guiding.close()
    taught.teach(int(taught.url.rsplit(":", 1)[1]))
    assert post(http, "/v1/recommendations", body)["guided"] is True


def choices(model: Path, *domains: str, **flags: Any) -> GuideChoices:
    settings = replace(ServeSettings(model), device="cpu", **flags)
    return GuideChoices(settings, domains, True, Catalog.load(model).fingerprint)


def test_flags_name_the_guides_of_the_domains(model: Path, books: Path, teacher: Path) -> None:
    films, other = Catalog.load(model), Catalog.load(books)
    run = str(teacher)
    only = choices(model, "films", guide=(run,), guide_weight=("0.25",)).load("films", films)
    assert only is not None
    # A network alone knows nothing of a user without history.
    assert (only.ranking, only.listing, only.empty) == (0.25, 0.25, "nothing")
    several = choices(model, "films", "books", guide=(f"films={run}", "books=off"))
    found = several.load("films", films)
    assert found is not None
    assert found.listing == 0.7
    assert several.load("books", other) is None
    assert choices(model, "films").load("films", films) is None
    untrained = replace(choices(model, "films", guide=(run,)), trained=False)
    alone = untrained.load("films", films)
    assert alone is not None
    assert alone.listing == 1.0
    for flags, message in (
        ({"guide": (run,)}, "expected NAME=… with one of the domains films, books"),
        ({"guide": (f"films={run}", f"films={run}")}, "given twice for domain films"),
        ({"guide": ("films=nowhere",)}, "--guide nowhere: no such folder"),
        (
            {"guide": (f"films={run}",), "guide_empty": "popularity"},
            "--guide-empty popularity: hist",
        ),
        ({"guide_weight": ("films=2",)}, "--guide-weight 2: expected 0 to 1"),
        ({"guide_weight": ("films=x",)}, "--guide-weight x: expected 0 to 1"),
        ({"guide_weight": ("films=0.5",)}, "--guide-weight 0.5: the guide is lacking"),
    ):
        with pytest.raises(ConfigError, match=message):
            choices(model, "films", "books", **flags).load("films", films)
    with pytest.raises(ConfigError, match="domain books has no guide; name one with --guide"):
        choices(model, "films", "books", guide_weight=("books=0.5",)).load("books", other)
    with pytest.raises(TeacherError, match="was fitted on another catalog"):
        choices(model, "films", "books", guide=(f"books={run}",)).load("books", other)


def test_the_own_guide_is_for_the_own_catalog(
    tmp_path: Path, model: Path, books: Path, teacher: Path
) -> None:
    copied = tmp_path / "films"
    shutil.copytree(model, copied)
    save_guide(copied, str(teacher), ranking=0.3, listing=0.8, empty="nothing", fitted={})
    own = choices(copied, "films", "books")
    found = own.load("films", Catalog.load(model))
    assert isinstance(found, Guide)
    assert (found.ranking, found.listing, found.empty) == (0.3, 0.8, "nothing")
    assert own.load("books", Catalog.load(books)) is None
    lighter = choices(copied, "films", guide_weight=("0.1",)).load("films", Catalog.load(model))
    assert lighter is not None
    assert (lighter.ranking, lighter.listing, lighter.empty) == (0.1, 0.1, "nothing")
    assert choices(copied, "films", guide=("off",)).load("films", Catalog.load(model)) is None


def test_without_history_a_teacher_that_counts_says_popularity(tmp_path: Path, model: Path) -> None:
    catalog = Catalog.load(model)
    popular = Popularity([float(row == 6) for row in range(40)], catalog)
    save_teacher(tmp_path, popular, catalog)
    for empty, expected in ((None, "popularity"), ("nothing", "nothing")):
        found = choices(model, "films", guide=(str(tmp_path),), guide_empty=empty)
        guide = found.load("films", catalog)
        assert guide is not None
        assert guide.empty == expected


def test_lists_of_a_chat_model_that_was_never_trained_are_those_of_the_teacher(
    tmp_path: Path, model: Path, plain_chat_model: Path, teacher: Path
) -> None:
    settings = ServeSettings(
        plain_chat_model, (f"films={model}",), guide=(str(teacher),), device="cpu"
    )
    plain = _recommender(settings, {"films": model}, {})
    assert plain.spec.trained is False
    own = plain.catalog.fingerprint
    guides = GuideChoices(settings, ["films"], plain.spec.trained, own)
    with closing(CatalogStore(tmp_path / "state.sqlite")) as store:
        domains = load_domains(plain, {"films": model}, store, guides.load)
    served_model = domains["films"].version.recommender
    best = load_teacher(teacher, served_model.catalog, "cpu").top_k([[7, 3]], 8)[0].tolist()
    for decode in ("beam", "list"):
        how: Any = {"k": 8, "decode": decode}
        found = served_model.recommend(["i7", "i3"], **how)
        assert [one.item_id for one in found] == [f"i{row}" for row in best]
