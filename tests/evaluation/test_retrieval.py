from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from math import log2
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
import torch

from incatalog.data.catalog import Catalog, Item
from incatalog.data.interactions import Histories, leave_one_out
from incatalog.data.vectors import save_vectors
from incatalog.errors import ConfigError, VectorError
from incatalog.evaluation.recommend import evaluate_recommend
from incatalog.evaluation.retrieval import Places, evaluate_retrieval, look_at
from incatalog.evaluation.settings import EvaluateRecommendSettings, EvaluateRetrievalSettings
from incatalog.journal import Journal
from incatalog.model.head import RetrievalHead
from incatalog.recommender.recommender import Recommender

if TYPE_CHECKING:
    from incatalog.model.backbone import Backbone

DIM = 6


def make_data(folder: Path, titles: tuple[str, ...], users: int = 6) -> Path:
    catalog = Catalog.from_items([Item(f"i{row}", title) for row, title in enumerate(titles)])
    random = np.random.default_rng(1)
    lists = [random.permutation(len(titles))[: 4 + user].tolist() for user in range(users)]
    catalog.save(folder)
    Histories.from_lists([f"u{user}" for user in range(users)], lists).save(folder, catalog)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, titles: tuple[str, ...]) -> Path:
    return make_data(tmp_path_factory.mktemp("data"), titles)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, data: Path, tiny_backbone: Backbone) -> Path:
    from incatalog.model.saved import save_model
    from incatalog.model.spec import ModelSpec

    folder = tmp_path_factory.mktemp("model")
    catalog = Catalog.load(data)
    vectors = np.random.default_rng(0).standard_normal((len(catalog), DIM)).astype(np.float32)
    head = RetrievalHead.create(32, vectors, origin="incatalog items embed --model minilm")
    backbone = dataclasses.replace(tiny_backbone, head=head)
    save_model(folder, backbone, ModelSpec(base="tiny", method="ret"))
    catalog.save(folder)
    return folder


def settings(model: Path, data: Path, out: Path, **changes: Any) -> EvaluateRetrievalSettings:
    return EvaluateRetrievalSettings(
        model=str(model), data=data, out=out, device="cpu", bootstrap=50, k=4, **changes
    )


def test_ranks_equal_sorting_by_the_state_of_the_text_before_each_item(
    tmp_path: Path, data: Path, model: Path
) -> None:
    config = settings(model, data, tmp_path / "out", exclude_seen=True, batch_size=4, cutoff=7)
    assert evaluate_retrieval(config) == config.out
    summary = json.loads((config.out / "summary.json").read_text())
    table = pl.read_parquet(config.out / "places.parquet")
    recommender = Recommender.from_pretrained(model, "cpu")
    language, head = recommender.backbone.model, recommender.backbone.head
    assert head is not None
    split = leave_one_out(Histories.load(data, Catalog.load(data)))
    ranks = np.zeros((6, 4))
    cosines = np.zeros((6, 4, 4))
    for user in range(6):
        holdout = split.test(user)
        history = holdout.history.tolist()
        excluded = recommender.excluded(history=history, exclude_seen=True)
        request = recommender.list_request(history, 4, excluded)
        [answer] = recommender.engine.complete([request])
        states = []
        for place in range(4):
            opened = [n for n, t in enumerate(answer.token_ids)
                      if t == recommender.backbone.soi_token_id][place]  # fmt: skip
            ids = torch.tensor([[*request.prompt_ids, *answer.token_ids[:opened]]])
            with torch.no_grad():
                output = language(ids, output_hidden_states=True)
                states.append(output.hidden_states[-1][0, -1])
                scores = head(states[-1][None])[0].tolist()
            free = [row for row in range(50) if row not in history]
            order = sorted(free, key=lambda row: (-scores[row], row))
            ranks[user, place] = 1 + order.index(holdout.target)
        for one in range(4):
            for other in range(4):
                cosine = torch.nn.functional.cosine_similarity(states[one], states[other], dim=0)
                cosines[user, one, other] = cosine.item()
    assert table["rank"].to_list() == ranks.reshape(-1).astype(int).tolist()
    assert table["place"].to_list() == [1, 2, 3, 4] * 6
    for place, row in enumerate(summary["places"]):
        here = ranks[:, place]
        assert (row["place"], row["users"]) == (place + 1, 6)
        assert row["Recall@7"]["value"] == pytest.approx((here <= 7).mean())
        gains = [1 / log2(rank + 1) if rank <= 7 else 0 for rank in here]
        assert row["NDCG@7"]["value"] == pytest.approx(np.mean(gains))
    np.testing.assert_allclose(summary["similarity"], cosines.mean(0), atol=1e-5)
    np.testing.assert_allclose(np.load(config.out / "similarity.npy"), cosines.mean(0), atol=1e-5)
    assert (config.out / "similarity.png").read_bytes().startswith(b"\x89PNG")

    written = (config.out / "summary.json").stat().st_mtime_ns
    evaluate_retrieval(config)  # finished: nothing to do
    assert (config.out / "summary.json").stat().st_mtime_ns == written


@pytest.mark.long
def test_a_run_that_was_killed_goes_on_and_ends_with_the_same_bytes(
    tmp_path: Path, titles: tuple[str, ...], model: Path
) -> None:
    data = make_data(tmp_path / "data", titles, users=12)
    # So many resamples leave time to kill it between its first batch and its end.
    options: dict[str, Any] = {"batch_size": 2}
    evaluate_retrieval(settings(model, data, tmp_path / "whole", **options))
    out = tmp_path / "killed"
    command = [
        sys.executable,
        "-m",
        "incatalog.cli",
        "evaluate",
        "retrieval",
        "--model",
        str(model),
    ]
    command += ["--data", str(data), "--out", str(out), "--k", "4", "--batch-size", "2"]
    command += ["--bootstrap", "50", "--device", "cpu"]
    log = out / "batches-0.jsonl"
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as killed:
        while killed.poll() is None and not (log.exists() and log.stat().st_size):
            time.sleep(0.001)
        killed.kill()
    assert not (out / "summary.json").exists()
    # What is left is one batch and half of the next; the first is not looked at again, or a sign
    # of its own in its place would be lost.
    [first, *_] = Journal(log).records()
    assert first["positions"] == [0, 1]
    first["results"][0][0][0] = 49.0
    log.unlink()
    Journal(log).append(first)
    with log.open("ab") as stream:
        stream.write(b'01234567 {"positions": [2, 3')
    evaluate_retrieval(settings(model, data, out, **options))
    ranks = pl.read_parquet(out / "places.parquet")["rank"].to_list()
    expected = pl.read_parquet(tmp_path / "whole" / "places.parquet")["rank"].to_list()
    assert ranks == [49, *expected[1:]]
    for name in ("similarity.npy", "similarity.png"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not log.exists()


def test_answers_that_are_too_short_have_no_further_places(tmp_path: Path, model: Path) -> None:
    recommender = Recommender.from_pretrained(model, "cpu")
    catalog = Catalog.from_items([Item(f"b{row}", f"Book {row}") for row in range(6)])
    vectors = np.random.default_rng(2).standard_normal((6, DIM)).astype(np.float32)
    books = recommender.with_catalog(catalog, vectors=vectors)
    histories = Histories.from_lists(["u"], [[0, 1, 2, 3]])
    holdout = leave_one_out(histories).test(0)
    config = settings(model, tmp_path, tmp_path / "out", exclude_seen=True)
    places: Places = look_at(books, [holdout], config)
    assert np.isnan(places.rank).tolist() == [[False, False, False, True]]
    assert np.isfinite(places.similarity[0]).sum() == 9


def test_another_catalog_is_served_with_its_vectors(tmp_path: Path, model: Path) -> None:
    data = make_data(tmp_path / "books", tuple(f"Book {row}" for row in range(20)))
    path = tmp_path / "books.npy"
    save_vectors(path, np.random.default_rng(5).standard_normal((20, DIM)).astype(np.float32))
    with pytest.raises(VectorError, match="incatalog items embed --model minilm --data"):
        evaluate_retrieval(settings(model, data, tmp_path / "without"))
    config = settings(model, data, tmp_path / "with", vectors=str(path))
    evaluate_retrieval(config)
    assert json.loads((config.out / "summary.json").read_text())["users"] == 6
    for decode in ("beam", "list"):
        out = tmp_path / decode
        evaluate_recommend(
            EvaluateRecommendSettings(
                model=str(model), data=data, out=out, vectors=str(path), k=4, decode=decode,
                device="cpu", bootstrap=20, exclude_seen=True,
            )
        )  # fmt: skip
        found = json.loads((out / "summary.json").read_text())
        assert found["method"] == "ret"
        for name in ("OOD@4", "Repeats@4", "InHistory@4"):
            assert found["metrics"][name]["value"] == 0


def test_settings_that_cannot_work_are_named(tmp_path: Path, data: Path, model: Path) -> None:
    other = tmp_path / "plain"
    for changes, message in (
        ({"cutoff": 0}, "--cutoff 0: expected at least 1"),
        ({"users": -1}, "--users -1: expected at least 0"),
        ({"vectors": "nowhere.npy"}, r"--vectors nowhere\.npy: no such file"),
        ({"vectors": str(model / "incatalog.json")}, "has those of this catalog; leave it out"),
    ):
        with pytest.raises(ConfigError, match=message):
            evaluate_retrieval(settings(model, data, tmp_path / str(changes), **changes))
    with pytest.raises(ConfigError, match="no language model"):
        evaluate_retrieval(settings(other, data, tmp_path / "out"))


def test_model_that_writes_titles_has_no_head_to_score(
    tmp_path: Path, data: Path, tiny_backbone: Backbone
) -> None:
    from incatalog.model.saved import save_model
    from incatalog.model.spec import ModelSpec

    save_model(tmp_path / "cgen", tiny_backbone, ModelSpec(base="tiny"))
    Catalog.load(data).save(tmp_path / "cgen")
    with pytest.raises(ConfigError, match="method cgen does not retrieve"):
        evaluate_retrieval(settings(tmp_path / "cgen", data, tmp_path / "out"))
