from __future__ import annotations

import copy
import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time
from math import log2
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

from incatalog.artifacts import read_json, write_json
from incatalog.data.catalog import Catalog, Item
from incatalog.data.interactions import Histories, Holdout
from incatalog.errors import ArtifactError, ConfigError, DataError
from incatalog.evaluation.reader import Named
from incatalog.evaluation.recommend import evaluate_recommend, score
from incatalog.evaluation.settings import EvaluateRecommendSettings
from incatalog.teacher.held_out import sample_users
from published_server import published, scores_of
from serving import served

if TYPE_CHECKING:
    from incatalog.model.backbone import Backbone

METRICS = {
    *(f"{name}@{k}" for name in ("HR", "NDCG", "MRR", "Recall") for k in (1, 5, 10)),
    *(f"{name}@10" for name in ("OOD", "Repeats", "InHistory", "RightCount", "TargetCategory")),
    "Novelty@10",
    "Similarity@10",
}


def make_data(folder: Path, titles: tuple[str, ...], users: int = 12, seed: int = 0) -> Path:
    """Prepared data: every third item is a drama, histories are random, 4 to 9 items long."""
    items = [
        Item(f"i{row}", title, categories=("Drama",) if row % 3 == 0 else ("Comedy",))
        for row, title in enumerate(titles)
    ]
    catalog = Catalog.from_items(items)
    random = np.random.default_rng(seed)
    lists = [
        random.choice(len(items), size=int(random.integers(4, 10)), replace=False).tolist()
        for _ in range(users)
    ]
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
    save_model(folder, tiny_backbone, ModelSpec(base="tiny"))
    Catalog.load(data).save(folder)
    return folder


@pytest.fixture(scope="module")
def trained_model(
    tmp_path_factory: pytest.TempPathFactory, data: Path, tiny_backbone: Backbone
) -> Path:
    """A model that has learnt one answer by heart: the items of rows 13, 24 and 47."""
    import torch
    from torch.nn.functional import cross_entropy

    from incatalog.dialogue.tasks import recommend_messages
    from incatalog.dialogue.templates import wordings
    from incatalog.model.saved import save_model
    from incatalog.model.spec import ModelSpec
    from incatalog.recommender.recommender import Recommender

    catalog = Catalog.load(data)
    backbone = copy.deepcopy(tiny_backbone)
    spec = ModelSpec(base="tiny")
    recommender = Recommender(backbone, spec, catalog)
    [wording, *_] = wordings("test")
    random = np.random.default_rng(0)
    model = backbone.model.train().requires_grad_(True)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses: list[float] = []
    while len(losses) < 600 and (len(losses) < 20 or max(losses[-20:]) > 0.01):
        optimiser.zero_grad()
        size = int(random.integers(2, 10))
        history = random.choice(len(catalog), size=size, replace=False).tolist()
        messages = recommend_messages(wording, history, 3, [13, 24, 47], catalog.titles)
        rendered = recommender.renderer.conversation(messages)
        ids = torch.from_numpy(rendered.input_ids).long()
        logits = model(ids[None]).logits[0, :-1]
        mask = torch.from_numpy(rendered.loss_mask)[1:]
        loss = cross_entropy(logits[mask], ids[1:][mask])
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    folder = tmp_path_factory.mktemp("trained")
    save_model(folder, dataclasses.replace(backbone, model=model.eval()), spec)
    catalog.save(folder)
    return folder


def run(
    out: Path, model: object, data: Path, **settings: Any
) -> tuple[dict[str, Any], pl.DataFrame]:
    config = EvaluateRecommendSettings(
        model=str(model), data=data, out=out, device="cpu", **{"bootstrap": 100, **settings}
    )
    assert evaluate_recommend(config) == out
    return json.loads((out / "summary.json").read_text()), pl.read_parquet(out / "users.parquet")


def test_scores_worked_out_by_hand() -> None:
    catalog = Catalog.from_items(
        [
            Item("0", "A", categories=("x",)),
            Item("1", "B", categories=("x", "y")),
            Item("2", "C", categories=("y",)),
            Item("3", "D"),
        ]
    )

    def named(*rows: int | None) -> list[Named]:
        return [Named(f"name {row}", row) for row in rows]

    holdouts = [
        Holdout(np.array([3, 3]), 0),  # third place, behind something unknown and a seen item
        Holdout(np.array([0]), 1),  # first place, then itself again
        Holdout(np.array([1]), 3),  # not named; the target has no category
    ]
    answers = [named(None, 3, 0), named(1, 1, 2), named(2, 0)]
    # Item A is in the training history of 2 of 8 users, B and C of 4; nobody has D.
    scores = score(answers, holdouts, catalog, 3, np.array([2, 4, 4, 0]), 8)
    found = {name: values.tolist() for name, values in scores.items()}
    # A alone has a category in the first answer; {x, y} twice and {y}; {y} and {x}.
    assert np.isnan(found["Similarity@3"][0])
    assert found.pop("Similarity@3")[1:] == [pytest.approx((1 + 1 / 2 + 1 / 2) / 3), 0]
    assert found.pop("Novelty@3") == [(3 + 2) / 2, 1, 1.5]
    assert np.isnan(found["TargetCategory@3"].pop())
    assert found == {
        "HR@1": [0, 1, 0],
        "HR@3": [1, 1, 0],
        "NDCG@1": [0, 1, 0],
        "NDCG@3": [1 / log2(4), 1, 0],
        "MRR@1": [0, 1, 0],
        "MRR@3": [1 / 3, 1, 0],
        "Recall@1": [0, 1, 0],
        "Recall@3": [1, 1, 0],
        "OOD@3": [1 / 3, 0, 0],
        "Repeats@3": [0, 1 / 3, 0],
        "InHistory@3": [1 / 3, 0, 0],
        "RightCount@3": [1, 1, 0],
        "TargetCategory@3": [1 / 3, 1],
    }


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_popularity_is_ranked_by_training_items_only(
    tmp_path: Path, data: Path, exclude_seen: bool
) -> None:
    summary, users = run(tmp_path / "out", "popularity", data, exclude_seen=exclude_seen)
    catalog = Catalog.load(data)
    histories = Histories.load(data, catalog)
    counts = np.zeros(len(catalog))
    for user in range(len(histories)):
        counts[histories.history(user)[:-2]] += 1
    order = sorted(range(len(catalog)), key=lambda row: (-counts[row], row))
    hits = []
    for user in range(len(histories)):
        *seen, target = histories.history(user).tolist()
        expected = [row for row in order if not (exclude_seen and row in seen)][:10]
        record = users.row(user, named=True)
        assert record["items"] == [catalog.item(row).item_id for row in expected]
        assert record["target"] == catalog.item(target).item_id
        assert record["history_length"] == len(seen)
        hits.append(target in expected)
    assert list(summary) == ["method", "users", "k", "metrics", "coverage", "segments"]
    assert summary["coverage"] == len(set().union(*users["items"])) / len(catalog)
    assert (summary["method"], summary["users"], summary["k"]) == ("popularity", 12, 10)
    assert set(summary["metrics"]) == METRICS
    assert summary["metrics"]["HR@10"]["value"] == pytest.approx(np.mean(hits))
    assert summary["metrics"]["RightCount@10"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert summary["metrics"]["OOD@10"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    if exclude_seen:
        assert summary["metrics"]["InHistory@10"]["value"] == 0
    for interval in summary["metrics"].values():
        assert interval["low"] <= interval["value"] <= interval["high"]


def test_validation_split_holds_out_the_item_before(tmp_path: Path, data: Path) -> None:
    _, users = run(tmp_path / "out", "popularity", data, split="valid")
    catalog = Catalog.load(data)
    histories = Histories.load(data, catalog)
    targets = [catalog.item(int(histories.history(u)[-2])).item_id for u in range(len(histories))]
    assert users["target"].to_list() == targets


@pytest.mark.parametrize("kind", ["sasrec", "knn", "ease", "words", "popularity", "blend"])
def test_teacher_is_asked_with_the_whole_history(tmp_path: Path, data: Path, kind: Any) -> None:
    from incatalog.teacher.fit import fit_teacher
    from incatalog.teacher.settings import TeacherFitSettings
    from incatalog.teacher.teacher import load_teacher

    fit_teacher(
        TeacherFitSettings(
            data=data,
            out=tmp_path / "teacher",
            kind=kind,
            epochs=1,
            hidden=8,
            inner=8,
            device="cpu",
        )
    )
    summary, users = run(
        tmp_path / "out", tmp_path / "teacher", data, max_history=1, exclude_seen=True
    )
    assert summary["method"] == kind
    catalog = Catalog.load(data)
    histories = Histories.load(data, catalog)
    seen = [histories.history(user)[:-1].tolist() for user in range(len(histories))]
    expected = load_teacher(tmp_path / "teacher", catalog, "cpu").top_k(seen, 10)
    for items, rows in zip(users["items"], expected, strict=True):
        assert items.to_list() == [catalog.item(row).item_id for row in rows.tolist()]


def test_served_teacher_scores_as_its_folder(tmp_path: Path, data: Path) -> None:
    from incatalog.teacher.fit import fit_teacher
    from incatalog.teacher.settings import TeacherFitSettings
    from incatalog.teacher.teacher import load_teacher

    folder, catalog = tmp_path / "teacher", Catalog.load(data)
    fit_teacher(
        TeacherFitSettings(data=data, out=folder, epochs=1, hidden=8, inner=8, device="cpu")
    )
    with served(load_teacher(folder, catalog, "cpu"), catalog) as url:
        summary, users = run(tmp_path / "served", url, data)
    expected, same_users = run(tmp_path / "local", folder, data)
    assert summary == expected
    assert users.equals(same_users)


def test_a_published_teacher_server_scores_as_the_folder(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from incatalog.teacher.fit import fit_teacher
    from incatalog.teacher.settings import TeacherFitSettings
    from incatalog.teacher.teacher import load_teacher

    folder, catalog = tmp_path / "teacher", Catalog.load(data)
    fit_teacher(
        TeacherFitSettings(data=data, out=folder, epochs=1, hidden=8, inner=8, device="cpu")
    )
    with published(scores_of(load_teacher(folder, catalog, "cpu")), catalog) as server:
        capsys.readouterr()
        summary, users = run(tmp_path / "served", server.url, data)
        assert capsys.readouterr().err.count("a published teacher server: the order") == 1
    expected, same_users = run(tmp_path / "local", folder, data)
    assert summary == expected | {"method": "published"}
    assert users.equals(same_users)


def test_an_evaluation_depends_on_the_parts_of_a_blend(tmp_path: Path, data: Path) -> None:
    from incatalog.teacher.blending import blend_teachers
    from incatalog.teacher.fit import fit_teacher
    from incatalog.teacher.settings import TeacherBlendSettings, TeacherFitSettings

    runs = [
        fit_teacher(TeacherFitSettings(data=data, out=tmp_path / kind, kind=kind))
        for kind in ("knn", "words")
    ]
    blend_teachers(TeacherBlendSettings(tuple(map(str, runs)), data, tmp_path / "blend"))
    run(tmp_path / "out", tmp_path / "blend", data)
    inputs = read_json(tmp_path / "out" / "manifest.json")["data"]
    parts = {f"model/parts/{part}/teacher.safetensors" for part in ("1-knn", "2-words")}
    assert inputs.keys() >= {"model/teacher.json", "model/teacher.safetensors", *parts}


def test_a_model_is_asked_with_as_much_history_as_in_its_training(
    tmp_path: Path, data: Path, model: Path
) -> None:
    spec = read_json(model / "incatalog.json")
    short = shutil.copytree(model, tmp_path / "short")
    write_json(short / "incatalog.json", {**spec, "max_history": 2})
    _, found = run(tmp_path / "found", short, data)
    _, expected = run(tmp_path / "expected", model, data, max_history=2)
    _, longer = run(tmp_path / "longer", model, data)
    assert found["probability"].to_list() == expected["probability"].to_list()
    assert found["probability"].to_list() != longer["probability"].to_list()


def test_a_share_of_the_first_place_is_for_lists(tmp_path: Path, data: Path, model: Path) -> None:
    with pytest.raises(ConfigError, match=r"--first-share 0\.3: is about lists that are written"):
        run(tmp_path / "out", model, data, first_share=0.3)
    alone, listed = (
        run(tmp_path / f"{share}", model, data, decode="list", first_share=share)[1]
        for share in (0.0, 0.9)
    )
    assert alone["items"].to_list() != listed["items"].to_list()


@pytest.mark.parametrize("decode", ["beam", "list"])
def test_grounded_model_names_what_it_recommends(
    tmp_path: Path, data: Path, model: Path, decode: Any
) -> None:
    from incatalog.recommender.recommender import Recommender

    summary, users = run(
        tmp_path / "out", model, data, k=4, max_history=3, exclude_seen=True, decode=decode
    )
    assert summary["method"] == "cgen"
    for name in ("OOD@4", "Repeats@4", "InHistory@4"):
        assert summary["metrics"][name] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert summary["metrics"]["RightCount@4"]["value"] == 1
    catalog = Catalog.load(data)
    histories = Histories.load(data, catalog)
    recommender = Recommender.from_pretrained(model, device="cpu")
    for user in range(3):
        seen = [catalog.item(int(row)).item_id for row in histories.history(user)[:-1]]
        expected = recommender.recommend(seen[-3:], k=4, exclude=seen, decode=decode)
        assert users["items"][user].to_list() == [one.item_id for one in expected]


@pytest.mark.parametrize("decode", ["beam", "list", "unconstrained"])
def test_items_count_once_and_not_their_spellings(
    tmp_path: Path, data: Path, trained_model: Path, decode: Any
) -> None:
    from incatalog.items.aliases import Aliases
    from incatalog.model.saved import load_model, save_model

    catalog = Catalog.load(data)
    # What the model has learnt by heart are now the names of other items, two of them of one.
    names = (catalog.titles[13], catalog.titles[24], catalog.titles[47])
    renamed = [
        dataclasses.replace(item, title=f"{item.title} again", title_t=f"{item.title} again")
        for item in catalog.items
    ]
    folder = tmp_path / "model"
    backbone, spec = load_model(trained_model, "cpu")
    save_model(folder, backbone, dataclasses.replace(spec, aliases=3))
    Catalog.from_items(renamed).save(folder)
    Aliases((5, 5, 9), (names[0], names[1], names[2])).save(folder, catalog)
    own = tmp_path / "data"
    Catalog.from_items(renamed).save(own)
    (own / "sequential.jsonl").write_bytes((data / "sequential.jsonl").read_bytes())
    summary, users = run(tmp_path / "out", folder, own, k=3, decode=decode)
    if decode == "unconstrained":
        # Left to itself it writes all it has learnt, and the second name says nothing new.
        assert summary["metrics"]["OOD@3"]["value"] == 0
        assert summary["metrics"]["Repeats@3"]["value"] == pytest.approx(1 / 3)
        assert {tuple(items) for items in users["items"].to_list()} == {("i5", "i5", "i9")}
        return
    for name in ("OOD@3", "Repeats@3"):
        assert summary["metrics"][name]["value"] == 0
    assert all(len(set(items)) == 3 for items in users["items"].to_list())
    assert all(items[0] == "i5" for items in users["items"].to_list())


def test_results_do_not_depend_on_the_batch_size(tmp_path: Path, data: Path, model: Path) -> None:
    one, users = run(tmp_path / "one", model, data, k=2, batch_size=1)
    five, same_users = run(tmp_path / "five", model, data, k=2, batch_size=5)
    assert one == five
    # Sums of floats over batches of another shape differ in their last bits, and nothing else does.
    assert users.drop("probability").equals(same_users.drop("probability"))
    found, again = (table["probability"].explode().to_numpy() for table in (users, same_users))
    np.testing.assert_allclose(found, again, rtol=1e-5)
    assert sum(entry["entries"] for entry in one["calibration"]["bins"]) == 12 * 2


@pytest.mark.long
def test_a_run_that_was_killed_goes_on_and_ends_with_the_same_bytes(
    tmp_path: Path, data: Path, model: Path
) -> None:
    # So many resamples leave time to kill it between its first batch and its end.
    run(tmp_path / "whole", model, data, k=2, batch_size=3, bootstrap=10_000)
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "incatalog.cli", "evaluate", "recommend"]
    command += ["--model", str(model), "--data", str(data), "--out", str(out), "--k", "2"]
    command += ["--batch-size", "3", "--bootstrap", "10000", "--device", "cpu"]
    log = out / "batches-0.jsonl"
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as killed:
        while killed.poll() is None and not (log.exists() and log.read_text().count("\n") >= 1):
            time.sleep(0.001)
        killed.send_signal(signal.SIGKILL)
    # Whenever the signal came: what is left is one batch, and half of the next.
    first = log.read_text().split("\n")[0]
    log.write_text(f'{first}\n01234567 {{"positions": [3, 4')
    assert not (out / "summary.json").exists()
    run(out, model, data, k=2, batch_size=3, bootstrap=10_000)
    for name in ("summary.json", "users.parquet"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not log.exists()


@pytest.mark.slow
def test_processes_share_the_users_and_write_the_same_bytes(
    tmp_path: Path, data: Path, model: Path
) -> None:
    # No GPU is asked for, and none is needed: the processes have to find one another without.
    run(tmp_path / "alone", model, data, k=2, batch_size=3)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", "2", "-m", "incatalog.cli", "evaluate", "recommend"]
    command += ["--model", str(model), "--data", str(data), "--out", str(tmp_path / "two")]
    command += ["--k", "2", "--batch-size", "3", "--bootstrap", "100"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    # One of them speaks and writes.
    assert done.stderr.count("12 users") == 1
    for name in ("summary.json", "users.parquet"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_unconstrained_model_is_scored_on_what_it_wrote(
    tmp_path: Path, data: Path, trained_model: Path, titles: tuple[str, ...]
) -> None:
    # The second of the three items that the model names has another title here.
    renamed = (*titles[:24], "Something Else", *titles[25:])
    other = make_data(tmp_path / "other", renamed)
    summary, users = run(tmp_path / "free", trained_model, other, k=3, decode="unconstrained")
    assert users["named"].to_list() == [[titles[13], titles[24], titles[47]]] * 12
    assert users["items"].to_list() == [["i13", None, "i47"]] * 12
    assert summary["metrics"]["OOD@3"]["value"] == pytest.approx(1 / 3)
    assert summary["metrics"]["RightCount@3"]["value"] == 1
    hits = users["target"].is_in(["i13", "i47"])
    assert summary["metrics"]["HR@3"]["value"] == pytest.approx(hits.mean())

    held, users = run(tmp_path / "held", trained_model, other, k=3, decode="list")
    assert {text for named in users["named"] for text in named} <= set(renamed)
    assert held["metrics"]["OOD@3"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert held["metrics"]["RightCount@3"]["value"] == 1


def test_a_model_that_names_nothing_has_no_share_of_anything(
    tmp_path: Path, data: Path, model: Path
) -> None:
    summary, users = run(tmp_path / "out", model, data, k=1, users=2, decode="unconstrained")
    assert users["named"].list.len().to_list() == [0, 0]
    assert summary["metrics"]["RightCount@1"]["value"] == 0
    assert not {"OOD@1", "Repeats@1", "InHistory@1", "TargetCategory@1"} & set(summary["metrics"])


def test_another_domain_is_recommended_from(tmp_path: Path, model: Path) -> None:
    other = make_data(tmp_path / "games", tuple(f"Chess {number}" for number in range(15)))
    summary, users = run(tmp_path / "out", model, other, k=3)
    assert summary["metrics"]["OOD@3"]["value"] == 0
    assert all(text.startswith("Chess ") for named in users["named"] for text in named)


def test_more_items_than_the_catalog_has_ends_with_all_of_them(tmp_path: Path, model: Path) -> None:
    small = make_data(tmp_path / "small", tuple(f"Film {number}" for number in range(9)), users=3)
    for method in (model, "popularity"):
        summary, users = run(tmp_path / f"out-{Path(method).name}", method, small, k=11)
        assert users["items"].list.n_unique().to_list() == [9, 9, 9]
        assert summary["metrics"]["RightCount@11"]["value"] == 0
        assert summary["metrics"]["Recall@11"]["value"] == 1


def test_sampled_users_are_reproducible_and_scored_alike(tmp_path: Path, data: Path) -> None:
    _, all_users = run(tmp_path / "all", "popularity", data)
    _, some = run(tmp_path / "some", "popularity", data, users=5, seed=3)
    assert len(some) == 5
    assert some.equals(all_users.filter(pl.col("user_id").is_in(some["user_id"].implode())))
    assert sample_users(12, 5, 3) == sample_users(12, 5, 3) != sample_users(12, 5, 4)
    assert sample_users(12, 0, 0) == sample_users(12, 99, 0) == list(range(12))


def test_category_metric_is_left_out_where_no_target_has_one(
    tmp_path: Path, titles: tuple[str, ...]
) -> None:
    folder = make_data(tmp_path / "data", titles)
    (folder / "category.jsonl").write_text("{}")
    summary, users = run(tmp_path / "out", "popularity", folder)
    assert set(summary["metrics"]) == METRICS - {"TargetCategory@10", "Similarity@10"}
    assert users["TargetCategory@10"].is_nan().all()


def test_finished_run_is_kept_and_other_settings_are_refused(tmp_path: Path, data: Path) -> None:
    out = tmp_path / "out"
    summary, _ = run(out, "popularity", data)
    written = (out / "summary.json").stat().st_mtime_ns
    assert run(out, "popularity", data)[0] == summary
    assert (out / "summary.json").stat().st_mtime_ns == written
    assert json.loads((out / "manifest.json").read_text())["status"] == "finished"
    with pytest.raises(ArtifactError, match=r"other settings \(k\)"):
        run(out, "popularity", data, k=5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "--k 0: expected at least 1"),
        ({"max_history": -1}, "--max-history -1: expected at least 0"),
        ({"batch_size": -1}, "--batch-size -1: expected at least 1"),
        ({"bootstrap": 0}, "--bootstrap 0: expected 1 to 100000"),
        ({"bootstrap": 10**9}, "--bootstrap 1000000000: expected 1 to 100000"),
        ({"k": 10**9}, "--k: found 1000000000; expected at most "),
        ({"users": -1}, "--users -1: expected at least 0"),
        ({"model": "nowhere"}, "--model nowhere: no such folder; expected a trained model"),
        ({"decode": "unconstrained"}, "--decode unconstrained: popularity is no language"),
        ({"wording": "polite"}, "--wording: no wording is named 'polite'"),
        ({"wording": "test-select"}, "--wording test-select: offers candidates"),
        ({"wording": "test-two-turns"}, "--wording test-two-turns: popularity is no language"),
        ({"system": "Be kind."}, "--system Be kind.: popularity is no language model; leave"),
        ({"first_share": 0.0}, "--first-share 0.0: popularity is no language model; leave it out"),
        ({"decode": "unconstrained", "exclude_seen": True}, "--exclude-seen: nothing can be"),
    ],
)
def test_settings_that_cannot_work_are_named_and_nothing_is_written(
    tmp_path: Path, data: Path, settings: dict[str, Any], message: str
) -> None:
    config = EvaluateRecommendSettings(model="popularity", data=data, out=tmp_path / "out")
    with pytest.raises(ConfigError) as raised:
        evaluate_recommend(dataclasses.replace(config, **settings))
    assert str(raised.value).startswith(message)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_model_is_named(tmp_path: Path, data: Path) -> None:
    with pytest.raises(ConfigError, match="neither a trained model"):
        run(tmp_path / "out", data, data)


def test_a_user_with_too_few_items_is_named(tmp_path: Path, titles: tuple[str, ...]) -> None:
    """The test takes the last item after one before it, the validation the one before the last."""
    folder = make_data(tmp_path / "data", titles)
    for split, items in (("test", ["i1"]), ("valid", ["i1", "i2"])):
        (folder / "sequential.jsonl").write_text(json.dumps({"short": items}))
        with pytest.raises(DataError, match="'short'"):
            run(tmp_path / split, "popularity", folder, split=split)
        assert not (tmp_path / split / "summary.json").exists()


def test_a_model_is_asked_in_the_words_of_the_settings(
    tmp_path: Path, data: Path, model: Path
) -> None:
    spec = read_json(model / "incatalog.json")
    other = shutil.copytree(model, tmp_path / "other")
    words = {"wording": "test-two-turns-mention", "system": "You know films."}
    write_json(other / "incatalog.json", {**spec, **words})
    _, found = run(tmp_path / "found", model, data, **words)
    _, expected = run(tmp_path / "expected", other, data)
    _, without = run(tmp_path / "without", other, data, wording=spec["wording"], system="")
    _, usual = run(tmp_path / "usual", model, data)
    assert found["probability"].to_list() == expected["probability"].to_list()
    assert without["probability"].to_list() == usual["probability"].to_list()
    assert found["probability"].to_list() != usual["probability"].to_list()
