"""Items that a model knows by rewritten titles, from the data to the service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest
import torch

from chatting import Server
from incatalog import Catalog, Item, Recommender
from incatalog.artifacts import read_json
from incatalog.cli import main
from incatalog.data.interactions import Histories
from incatalog.dialogue.render import Renderer
from incatalog.errors import ConfigError
from incatalog.grpo.settings import GrpoSettings
from incatalog.grpo.train_grpo import _read
from incatalog.model.backbone import Backbone
from incatalog.model.saved import save_backbone
from incatalog.recommender.items import ModelItems
from incatalog.teacher.sasrec import SasRec, SasRecSizes, save_network
from incatalog.training.collator import Collator
from incatalog.training.dataset import SftDataset
from incatalog.training.materials import read_materials
from incatalog.training.samples import SampleSource
from incatalog.training.settings import SftSettings

SIZE = 24


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, titles: tuple[str, ...], tiny_backbone: Backbone
) -> Path:
    """Noisy titles, a plain model, paraphrases of all but one item, and a teacher of the titles."""
    folder = tmp_path_factory.mktemp("names")
    items = [
        Item(f"i{row}", f"{title} [Import, Pack of {row}]", categories=("Even", "Odd")[row % 2 :])
        for row, title in enumerate(titles[:SIZE])
    ]
    catalog, random = Catalog.from_items(items, "films"), np.random.default_rng(0)
    lists = [random.permutation(SIZE)[:6].tolist() for _ in range(12)]
    (folder / "data").mkdir()
    catalog.save(folder / "data")
    Histories.from_lists([f"u{n}" for n in range(12)], lists).save(folder / "data", catalog)
    with (folder / "paraphrases.jsonl").open("w") as file:
        for item, title in zip(items[1:], titles[1:], strict=False):
            line = {"item_id": item.item_id, "title": item.title, "paraphrases": [title]}
            file.write(json.dumps(line) + "\n")
    save_backbone(folder / "tiny", tiny_backbone)
    torch.manual_seed(0)
    sizes = SasRecSizes(SIZE, max_length=8, hidden=8, inner=8, layers=1, heads=1, dropout=0.0)
    (folder / "teacher").mkdir()
    save_network(folder / "teacher", SasRec(sizes), catalog.fingerprint)
    return folder


def run(*words: object) -> int:
    return main(list(map(str, words)))


@pytest.fixture(scope="module")
def merged(folder: Path) -> Path:
    """The whole way to a model: renamed, checked, trained, merged."""
    data, renamed, trained = folder / "data", folder / "renamed", folder / "trained"
    assert run("rewrite", "catalog", "--paraphrases", folder / "paraphrases.jsonl",
               "--data", data, "--out", renamed) == 0  # fmt: skip
    assert run("data", "check", renamed, "--title-field", "title_t") == 0
    assert run("train", "sft", *sft(folder, "title_t"), "--out", trained) == 0
    assert run("train", "merge", "--run", trained, "--out", folder / "merged") == 0
    return folder / "merged"


def sft(folder: Path, field: str) -> list[object]:
    sizes = {"max-steps": 2, "batch-size": 4, "list-length": 3, "max-history": 4, "lora-r": 2}
    options = {
        "model": folder / "tiny", "data": folder / "renamed", "title-field": field,
        "teacher": folder / "teacher", "validate-every": 0, "device": "cpu", **sizes,
    }  # fmt: skip
    return [part for name, value in options.items() for part in (f"--{name}", value)]


@pytest.fixture(scope="module")
def recommender(merged: Path) -> Recommender:
    return Recommender.from_pretrained(merged, "cpu")


def named(text: str, catalog: Catalog) -> tuple[int, int]:
    """How many items stand in a prompt by their titles, and by what the model knows them by."""
    rows = range(1, len(catalog))
    return (
        sum(f"'{catalog.titles[row]}'" in text for row in rows),
        sum(f"'{catalog.names[row]}'" in text for row in rows),
    )


def test_the_model_remembers_and_holds_its_field(
    folder: Path, merged: Path, recommender: Recommender, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = recommender.catalog
    renamed = Catalog.load(folder / "renamed", title_field="title_t")
    assert catalog.title_field == "title_t"
    assert catalog.fingerprint == renamed.fingerprint != Catalog.load(folder / "data").fingerprint
    assert catalog.titles == Catalog.load(folder / "data").titles
    # Tokens of names, which are shorter than the titles in which they stand.
    written = [
        recommender.item_tokens.decode(row, recommender.backbone.tokenizer) for row in (1, 5)
    ]
    assert written == [catalog.names[1], catalog.names[5]]
    data, out = folder / "renamed", folder / "other"
    for command in (
        ("recommend", "--model", merged, "--history", "i1"),
        ("evaluate", "recommend", "--model", merged, "--data", data, "--out", out),
        ("guide", "fit", "--model", merged, "--data", data, "--teacher", folder / "teacher"),
        ("serve", "--model", merged, "--port", 0),
        ("serve", "--model", merged, "--port", 0, "--domain", f"films={data}"),
    ):
        capsys.readouterr()
        assert run(*command, "--title-field", "title") == 2
        error = capsys.readouterr().err
        assert error.startswith("error: --title-field title: ")
        assert "by their 'title_t'" in error
    again = SftSettings(model=str(merged), data=data, out=out, device="cpu")
    assert read_materials(again, on_cpu=True).catalog.fingerprint == catalog.fingerprint
    further = GrpoSettings(model=merged, data=data, out=out)
    assert _read(further)[0].fingerprint == catalog.fingerprint
    with pytest.raises(ConfigError, match=r"--title-field title: .* by their 'title_t'"):
        _read(replace(further, title_field="title"))


def batch(folder: Path, field: str, backbone: Backbone) -> Any:
    """The first batch of a training on the renamed data."""
    settings = SftSettings(
        model=str(folder / "tiny"), data=folder / "renamed", out=folder / "none",
        teacher=str(folder / "teacher"), title_field=field, list_length=3, device="cpu",
    )  # fmt: skip
    inputs = read_materials(settings, on_cpu=True)
    items = ModelItems.of(backbone.tokenizer, "titles", inputs.catalog)
    renderer = Renderer(backbone.tokenizer, items.tokens)
    source = SampleSource(
        inputs.split, items.catalog.titles_t, items.tokens, renderer, settings,
        teacher=inputs.teacher,
    )  # fmt: skip
    samples = SftDataset(source, 4, 4, 0)
    collate = Collator(
        items.grounding.trie, eoi_token_id=backbone.eoi_token_id,
        pad_token_id=backbone.eoi_token_id, scope="every",
    )  # fmt: skip
    return collate(samples.__getitems__(list(range(4))))


def test_batches_on_names_and_on_titles_differ(
    folder: Path, recommender: Recommender, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog, backbone = recommender.catalog, recommender.backbone
    texts = {}
    for field in ("title_t", "title"):
        rows = batch(folder, field, backbone)["input_ids"]
        texts[field] = "\n".join(map(str, backbone.tokenizer.batch_decode(rows)))
        # Once, and only where they are not used.
        notices = capsys.readouterr().err.count("have a title_t that differs")
        assert notices == (field == "title")
    shown, known = named(texts["title_t"], catalog)
    assert shown == 0
    assert known > 3
    shown, known = named(texts["title"], catalog)
    assert shown > 3
    assert known == 0


def test_evaluations_ask_by_names_and_report_titles(folder: Path, merged: Path) -> None:
    catalog = Catalog.load(merged)
    tables = {}
    for decode in ("beam", "list"):
        out = folder / f"evaluated-{decode}"
        assert run("evaluate", "recommend", "--model", merged, "--data", folder / "renamed",
                   "--out", out, "--k", 3, "--decode", decode, "--device", "cpu") == 0  # fmt: skip
        assert read_json(out / "summary.json")["metrics"]["OOD@3"]["value"] == 0
        tables[decode] = pl.read_parquet(out / "users.parquet")
        for said, ids in tables[decode].select("named", "items").rows():
            assert said == [catalog.titles[catalog.row(item_id)] for item_id in ids]
    report = folder / "report"
    runs = [folder / f"evaluated-{decode}" for decode in tables]
    assert run("evaluate", "report", *runs, "--out", report) == 0
    page = (report / "report.html").read_text()
    [first, *_] = tables["beam"]["named"].to_list()[0]
    assert first in page
    # By another field the same weights answer otherwise, or names would not be what is read.
    recommender = Recommender.from_pretrained(merged, "cpu")
    by_title = recommender.with_catalog(Catalog.load(folder / "data"))
    history = ["i3", "i9", "i7"]
    scores = [[one.score for one in r.recommend(history)] for r in (recommender, by_title)]
    assert not np.allclose(scores[0], scores[1])


def test_recommend_shows_titles(
    merged: Path, recommender: Recommender, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    flags = ("--history", "i3,i9", "--k", 4, "--format", "json", "--device", "cpu")
    assert run("recommend", "--model", merged, *flags) == 0
    found = json.loads(capsys.readouterr().out)
    catalog = recommender.catalog
    assert len(found) == 4
    assert all(catalog.titles[catalog.row(one["item_id"])] == one["title"] for one in found)


@pytest.fixture(scope="module")
def server(folder: Path, merged: Path) -> Iterator[Server]:
    flags = ("--model", merged, "--domain", f"films={folder / 'renamed'}", "--device", "cpu")
    # What steers knows titles alone, and would weigh items by the one that is said.
    flags = (*flags, "--encoder", "off")
    with Server(folder / "log", *flags, "--state", folder / "state.sqlite") as running:
        yield running
        running.terminate()
        assert running.wait() == 0


@pytest.mark.long
def test_people_are_served_titles(server: Server, recommender: Recommender) -> None:
    catalog = recommender.catalog
    asked = {"role": "user", "content": f"Like {catalog.titles[4]}"}
    body: dict[str, Any] = {"model": "incatalog/films", "messages": [asked], "k": 3, "seed": 0}
    with httpx.Client(base_url=server.url, timeout=60) as client:
        answer = client.post("/v1/chat/completions", json=body).json()
        content, found = answer["choices"][0]["message"]["content"], answer["items"]
        assert len(found) == 3
        for item in found:
            title = catalog.titles[catalog.row(item["id"])]
            assert item["title"] == content[item["start"] : item["end"]] == title
        events = client.post("/v1/chat/completions", json=body | {"stream": True}).text
        chunks = [
            json.loads(line[6:]) for line in events.split("\n\n") if line.startswith("data: {")
        ]
        pieces = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
        assert "".join(pieces) == content
        assert [i["title"] for c in chunks for i in c.get("items", [])] == [
            item["title"] for item in found
        ]
        # Sent back, the items of the answer are items again, and the user's title is a name.
        told = {"role": "assistant", "content": content, "items": found}
        more = body | {"messages": [asked, told, {"role": "user", "content": "More"}]}
        again = client.post("/v1/chat/completions", json=more).json()
        known = asked | {"content": f"Like {catalog.names[4]}"}
        same = client.post(
            "/v1/chat/completions", json=more | {"messages": [known, *more["messages"][1:]]}
        ).json()
        assert [item["id"] for item in again["items"]] == [item["id"] for item in same["items"]]
        scores = [item["score"] for item in same["items"]]
        assert [item["score"] for item in again["items"]] == pytest.approx(scores, rel=1e-4)
        assert again["usage"] == same["usage"]

        def after(content: str) -> dict[str, Any]:
            turns = [asked, {"role": "assistant", "content": content}, more["messages"][2]]
            answer = client.post("/v1/chat/completions", json=more | {"messages": turns}).json()
            return dict(answer["usage"])

        # Titles on the lines of a list are items, marked or not; in a sentence they are text. Each
        # of the three spans has two control tokens, which names in plain text have not.
        assert after(content) == again["usage"]
        sentence = "So " + " ".join(content.split("\n"))
        assert after(sentence)["prompt_tokens"] < again["usage"]["prompt_tokens"]
        ranked = client.post("/v1/recommendations", json={"history": ["i3"], "k": 3}).json()
        assert all(i["title"] == catalog.titles[catalog.row(i["id"])] for i in ranked["items"])


def test_items_join_a_served_catalog_with_their_names(server: Server, folder: Path) -> None:
    path = "/v1/catalogs/films/items"
    with httpx.Client(base_url=server.url, timeout=60) as client:
        assert client.get("/v1/catalogs/films").json()["title_field"] == "title_t"
        shown = client.get(f"{path}/i5").json()
        assert shown["title_t"] == Catalog.load(folder / "merged").names[5] != shown["title"]
        new = {"id": "new", "title": "Moonlight Ferry [DVD, 2 discs]"}
        refused = [
            (new, "items.0.title_t", "expected text"),
            (new | {"title_t": " "}, "items.0.title_t", "expected text"),
            (new | {"title_t": 5}, "items.0.title_t", "string"),
            (new | {"title_t": "x", "colour": "red"}, "items.0.colour", "no such field"),
        ]
        for item, param, message in refused:
            reply = client.post(path, json={"items": [item]})
            error = reply.json()["error"]
            assert (reply.status_code, error["param"]) == (400, param)
            assert message in error["message"]
        new["title_t"] = "Moonlight Ferry"
        assert client.post(path, json={"items": [new]}).status_code == 200
        found = client.get(f"{path}/new").json()
        assert (found["title"], found["title_t"]) == (new["title"], "Moonlight Ferry")
        everyone = {"history": ["i3"], "k": SIZE}
        items = client.post("/v1/recommendations", json=everyone).json()["items"]
        assert new["title"] in [item["title"] for item in items]
        # What a catalog says of an item can be sent to it again.
        body = {key: found[key] for key in new}
        assert client.post(path, json={"items": [body]}).json()["version"] == 2
