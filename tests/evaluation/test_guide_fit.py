from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from incatalog import metrics
from incatalog.artifacts import read_json, write_json
from incatalog.data.catalog import Catalog, Item
from incatalog.data.interactions import Histories, leave_one_out
from incatalog.errors import ArtifactError, ConfigError, DataError, TeacherError
from incatalog.evaluation.guide_fit import FittedShare, ShareLog, fit_guide, try_shares
from incatalog.evaluation.recommend import evaluate_recommend
from incatalog.evaluation.settings import EvaluateRecommendSettings, GuideFitSettings
from incatalog.journal import Journal
from incatalog.model.backbone import Backbone
from incatalog.model.saved import save_model
from incatalog.model.spec import ModelSpec
from incatalog.recommender.guide import Guide
from incatalog.recommender.guide_folder import GuideChoice
from incatalog.recommender.recommender import Recommender
from incatalog.teacher.sasrec import SasRec, SasRecSizes, save_network
from incatalog.teacher.teacher import load_teacher
from published_server import published, scores_of
from serving import served

USERS = 12


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, titles: tuple[str, ...]) -> Path:
    """Random histories of fifty films."""
    folder = tmp_path_factory.mktemp("data")
    catalog = Catalog.from_items(Item(f"i{row}", title) for row, title in enumerate(titles))
    random = np.random.default_rng(0)
    lists = [random.choice(50, size=6, replace=False).tolist() for _ in range(USERS)]
    catalog.save(folder)
    Histories.from_lists([f"u{user}" for user in range(USERS)], lists).save(folder, catalog)
    return folder


@pytest.fixture
def model(tmp_path: Path, data: Path, tiny_backbone: Backbone) -> Path:
    save_model(tmp_path / "model", tiny_backbone, ModelSpec(base="tiny"))
    Catalog.load(data).save(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A random network."""
    folder = tmp_path_factory.mktemp("teacher")
    sizes = SasRecSizes(50, max_length=6, hidden=8, inner=16, layers=1, heads=1, dropout=0.0)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = SasRec(sizes)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.6)
    save_network(folder, network.eval(), Catalog.load(data).fingerprint)
    write_json(folder / "manifest.json", {"stage": "teacher fit", "status": "finished"})
    return folder


def bell(best: float) -> Callable[[float], np.ndarray]:
    """A measure that is best at a weight; it fails if it is asked twice for the same."""
    asked: set[float] = set()

    def measure(share: float) -> np.ndarray:
        assert share not in asked
        asked.add(share)
        return np.array([0.5, 0.7]) - (share - best) ** 2

    return measure


@pytest.mark.parametrize(
    ("best", "refinements", "expected"),
    [
        (0.6, 0, {0.0, 0.25, 0.5, 0.75, 1.0}),
        (0.6, 2, {0.375, 0.5625, 0.625, 0.6875}),
        (1.0, 2, {0.875, 0.9375}),
        (0.1, 1, {0.125}),
    ],
)
def test_weights_are_tried_closer_to_the_best(
    best: float, refinements: int, expected: set[float]
) -> None:
    tried = try_shares(bell(best), refinements)
    assert expected <= set(tried)
    found = FittedShare("list", tried).share
    assert abs(found - best) == min(abs(share - best) for share in tried)


def test_of_equal_weights_the_least_counts() -> None:
    tried = try_shares(lambda share: np.array([min(share, 0.5)]), 0)
    assert FittedShare("ranking", tried).share == 0.5


def test_a_verdict_says_when_guiding_adds_nothing() -> None:
    ones, zeros = np.ones(40), np.zeros(40)
    alone = FittedShare("list", {0.0: ones, 0.5: zeros, 1.0: zeros}).verdict(0)
    assert "guiding adds nothing over the model alone" in alone
    taught = FittedShare("list", {0.0: zeros, 0.5: zeros, 1.0: ones}).verdict(0)
    assert "guiding adds nothing over the teacher alone" in taught
    assert "the model alone 0.0000 (+1.0000, +1.0000 to +1.0000)" in taught
    some = np.array([1.0, 0.0] * 20)
    better = FittedShare("list", {0.0: zeros, 0.5: some, 1.0: some - np.eye(40)[0] * 0.5})
    assert better.share == 0.5
    assert better.verdict(0).endswith("do not show a gain over the teacher alone")


def test_an_interrupted_fit_goes_on(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "log")
    first = ShareLog(journal, {"seed": 0})
    measured = first.measured("list", bell(0.5))
    assert measured(0.5).tolist() == measured(0.5).tolist()

    def never(share: float) -> np.ndarray:
        raise AssertionError(share)

    again = ShareLog(journal, {"seed": 0})
    assert again.measured("list", never)(0.5).tolist() == [0.5, 0.7]
    with pytest.raises(AssertionError):
        again.measured("ranking", never)(0.5)
    other = ShareLog(journal, {"seed": 1})
    with pytest.raises(AssertionError):
        other.measured("list", never)(0.5)


def settings(model: Path, teacher: object, data: Path, **more: Any) -> GuideFitSettings:
    return GuideFitSettings(model, str(teacher), data, device="cpu", refinements=0, **more)


def evaluated(out: Path, model: object, data: Path, **more: Any) -> dict[str, Any]:
    how = {"split": "valid", "device": "cpu", "bootstrap": 50, **more}
    evaluate_recommend(EvaluateRecommendSettings(model=str(model), data=data, out=out, **how))
    return dict(json.loads((out / "summary.json").read_text()))


def test_the_fit_is_the_protocol_of_the_evaluation(
    tmp_path: Path, model: Path, teacher: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit_guide(settings(model, teacher, data, exclude_seen=True))
    said = capsys.readouterr().err
    written = read_json(model / "guide.json")
    assert written["fitted"]["users"] == USERS
    assert not (model / ".guide-fit.jsonl").exists()
    card = (model / "README.md").read_text(encoding="utf-8")
    assert f"with the weight {written['ranking']:g} in rankings" in card
    assert not list(model.glob(".*lock*"))
    for kind, decode in (("ranking", "beam"), ("list", "list")):
        assert f"{kind}: weight {written[kind]:g}, NDCG@10" in said
        for share in (0.0, 0.75, 1.0):
            how = {"decode": decode, "guide_weight": share, "exclude_seen": True}
            out = tmp_path / f"{decode}-{share}"
            summary = evaluated(out, model, data, guide=str(teacher), **how)
            assert summary["method"] == "cgen, guided"
            assert summary["guide_weight"] == share
            expected = written["fitted"]["NDCG@10"][kind][f"{share:g}"]
            assert summary["metrics"]["NDCG@10"]["value"] == pytest.approx(expected, abs=1e-6)
    # With the guide that lies in the folder now, nothing needs to be named.
    own = evaluated(tmp_path / "own", model, data)
    assert (own["method"], own["guide_weight"]) == ("cgen, guided", written["ranking"])
    off = evaluated(tmp_path / "off", model, data, guide="off")
    assert off["method"] == "cgen"
    assert "guide_weight" not in off
    assert evaluated(tmp_path / "free", model, data, decode="unconstrained")["method"] == "cgen"
    # The teacher alone is the teacher.
    alone = evaluated(tmp_path / "alone", teacher, data, exclude_seen=True)
    best = read_json(tmp_path / "beam-1.0" / "summary.json")
    assert best["metrics"]["NDCG@10"] == alone["metrics"]["NDCG@10"]


def test_a_guide_changes_what_a_run_is(
    tmp_path: Path, model: Path, teacher: Path, data: Path
) -> None:
    evaluated(tmp_path / "out", model, data)
    fit_guide(settings(model, teacher, data))
    with pytest.raises(ArtifactError, match=r"new input guide\.json"):
        evaluated(tmp_path / "out", model, data)
    for more, message in (
        ({"guide": "nowhere"}, "--guide nowhere: no such folder"),
        ({"guide": str(teacher), "decode": "unconstrained"}, "nothing can be guided"),
        ({"guide": "off", "guide_weight": 0.5}, "--guide-weight 0.5: the guide is off"),
        ({"guide_weight": 1.5}, "--guide-weight 1.5: expected 0 to 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            evaluated(tmp_path / "wrong", model, data, **more)
    with pytest.raises(ConfigError, match="--guide: popularity is no language model"):
        evaluated(tmp_path / "popular", "popularity", data, guide=str(teacher))


def test_a_served_teacher_is_kept_as_its_address(
    tmp_path: Path, model: Path, teacher: Path, data: Path
) -> None:
    catalog = Catalog.load(data)
    fit_guide(settings(model, teacher, data, users=3))
    local = read_json(model / "guide.json")
    with served(load_teacher(teacher, catalog, "cpu"), catalog) as url:
        fit_guide(settings(model, url, data, users=3))
        kept = read_json(model / "guide.json")
        assert kept["teacher"] == url
        assert not (model / "guide").exists()
        assert kept["fitted"] == local["fitted"]
        assert Recommender.from_pretrained(model, "cpu").guide is not None
        summary = evaluated(tmp_path / "out", model, data, guide=url, guide_weight=0.5)
        manifest = read_json(tmp_path / "out" / "manifest.json")
        assert manifest["data"]["guide"]
        assert summary["guide_weight"] == 0.5
    with pytest.raises(TeacherError, match=url):
        GuideChoice(patience=0.5).load(model, catalog)


def test_a_published_server_cannot_guide(
    tmp_path: Path, model: Path, teacher: Path, data: Path
) -> None:
    catalog = Catalog.load(data)
    with published(scores_of(load_teacher(teacher, catalog, "cpu")), catalog) as server:
        needs = rf"{server.url}: needs log-probabilities of all items, which the published"
        with pytest.raises(ConfigError, match=f"--teacher {needs}"):
            fit_guide(settings(model, server.url, data, users=3))
        with pytest.raises(ConfigError, match=f"--guide {needs}"):
            evaluated(tmp_path / "out", model, data, guide=server.url)
    assert not (model / "guide.json").exists()


def test_what_does_not_fit_is_refused(
    tmp_path: Path, model: Path, teacher: Path, data: Path, titles: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError, match="no language model"):
        fit_guide(settings(tmp_path, teacher, data))
    with pytest.raises(TeacherError, match=r"holds no teacher\.json"):
        fit_guide(settings(model, tmp_path, data))
    other = tmp_path / "other"
    catalog = Catalog.from_items(Item(f"x{row}", title) for row, title in enumerate(titles))
    catalog.save(other)
    Histories.from_lists(["u"], [[1, 2, 3, 4]]).save(other, catalog)
    with pytest.raises(DataError, match="is another catalog than that of"):
        fit_guide(settings(model, teacher, other))
    assert not (model / "guide.json").exists()


def test_validation_items_are_those_before_the_last(
    model: Path, teacher: Path, data: Path, tiny_backbone: Backbone
) -> None:
    """The figure of one weight, worked out from the answers of the recommender."""
    fit_guide(settings(model, teacher, data, users=5, seed=3))
    fitted = read_json(model / "guide.json")["fitted"]["NDCG@10"]["list"]["0.5"]
    catalog = Catalog.load(data)
    split = leave_one_out(Histories.load(data, catalog))
    drawn = sorted(np.random.default_rng(3).choice(USERS, size=5, replace=False).tolist())
    guide = Guide(load_teacher(teacher, catalog, "cpu"), catalog, 0.5, 0.5)
    recommender = Recommender(
        tiny_backbone, replace(ModelSpec(base="tiny"), trained=True), catalog, guide=guide
    )
    gains = []
    for user in drawn:
        *seen, target, _ = Histories.load(data, catalog).history(user).tolist()
        assert split.valid(user).target == target
        history = [catalog.item(row).item_id for row in seen]
        found = recommender.recommend(history, exclude_seen=False, decode="list")
        rows = [catalog.row(one.item_id) for one in found]
        gains.append(metrics.ndcg([rows], [{target}], 10)[0])
    assert fitted == pytest.approx(np.mean(gains), abs=1e-6)
