from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from incatalog.artifacts import MANIFEST, read_json
from incatalog.cli import main
from incatalog.data.catalog import Catalog, Item
from incatalog.data.interactions import Histories, leave_one_out
from incatalog.errors import ConfigError, TeacherError
from incatalog.teacher.blend import BlendPart, BlendTeacher
from incatalog.teacher.blending import Ahead, blend_teachers, weigh
from incatalog.teacher.fit import fit_teacher
from incatalog.teacher.knn import ItemKnn
from incatalog.teacher.popularity import Popularity
from incatalog.teacher.settings import TeacherBlendSettings, TeacherFitSettings
from incatalog.teacher.teacher import load_teacher
from incatalog.teacher.teacher_folder import PARTS, teacher_paths
from incatalog.teacher.teacher_validation import VALIDATION_FILE, Validation, validation_metrics

USERS, ITEMS = 400, 30


@pytest.fixture(scope="module")
def validation() -> Validation:
    rng = np.random.default_rng(0)
    histories = [rng.integers(0, ITEMS, size=3) for _ in range(USERS)]
    return Validation(histories, rng.integers(0, ITEMS, USERS), exclude_seen=False)


def sighted(validation: Validation, seed: int, share: float) -> torch.Tensor:
    """Log-probabilities of a teacher that sees the items of some users, and else guesses."""
    rng = np.random.default_rng(seed)
    scores = torch.from_numpy(rng.normal(size=(USERS, ITEMS))).float()
    users = rng.choice(USERS, int(share * USERS), replace=False)
    scores[users, validation.targets[users]] += 4
    return torch.log_softmax(scores, dim=1)


def test_ndcg_of_a_blend_is_that_of_its_order(validation: Validation) -> None:
    logs = [sighted(validation, seed, 0.5) for seed in (1, 2)]
    total = logs[0] + 0.4 * logs[1]
    own = total.gather(1, torch.from_numpy(validation.targets)[:, None])
    places = (total > own).sum(1) + 1
    expected = torch.where(places <= 10, 1 / torch.log2(places + 1.0), 0.0).mean().item()
    ahead = Ahead(validation)
    for log in logs:
        ahead.add(log)
    assert ahead.gains({0: 1.0, 1: 0.4}).mean() == pytest.approx(expected, rel=1e-6)


def test_seen_items_are_not_ahead() -> None:
    seen = Validation([np.array([0, 1])], np.array([2]), exclude_seen=True)
    ahead = Ahead(seen)
    ahead.add(torch.tensor([[-0.1, -0.2, -3.0, -2.0]]))
    assert ahead.gains({0: 1.0}).tolist() == pytest.approx([1 / np.log2(3)])


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), exclude_seen=st.booleans())
def test_gains_are_those_of_the_blend_itself(seed: int, exclude_seen: bool) -> None:
    """Histories repeat items, and the wanted one may be among them."""
    rng = np.random.default_rng(seed)
    catalog = Catalog.from_items([Item(f"i{row}", f"T {row}") for row in range(14)], name="small")
    lists = [rng.integers(0, 14, rng.integers(3, 9)) for _ in range(12)]
    split = leave_one_out(Histories.from_lists([f"u{user}" for user in range(12)], lists))
    validation = Validation.of(split, 14, exclude_seen=exclude_seen, seed=0)
    train = [split.train(user).astype(np.int64) for user in range(12)]
    knn, popular = ItemKnn.from_histories(train, catalog), Popularity.from_histories(train, catalog)
    ahead = Ahead(validation)
    for part in (knn, popular):
        ahead.add(torch.from_numpy(part.log_probabilities(validation.histories)))
    blend = BlendTeacher(
        catalog, popular.counts, [BlendPart(knn, 1.0, 1.0), BlendPart(popular, 0.3, 1.0)]
    )
    scores = blend.scores(validation.histories).astype(np.float64)
    if exclude_seen:
        for line, rows in zip(scores, validation.histories, strict=True):
            line[rows] = -np.inf
    own = scores[np.arange(12), validation.targets]
    gaps = np.abs(scores - np.where(np.isfinite(own), own, 1e9)[:, None])
    gaps[np.arange(12), validation.targets] = 1
    # Nearly equal scores stand in either order, by rounding.
    clear = gaps.min(axis=1) > 1e-4
    places = (scores >= own[:, None]).sum(axis=1)
    expected = np.where((places <= 10) & np.isfinite(own), 1 / np.log2(places + 1), 0)
    found = ahead.gains({0: 1.0, 1: 0.3})
    np.testing.assert_allclose(found[clear], expected[clear], atol=1e-6)
    assert (found[np.isneginf(own)] == 0).all()


def test_the_best_part_comes_first_and_a_useless_one_counts_little(validation: Validation) -> None:
    ahead = Ahead(validation)
    for seed, share in ((1, 0.0), (2, 0.5), (3, 0.6), (4, 0.0)):
        ahead.add(sighted(validation, seed, share))
    found = weigh(ahead, only_helping=True)
    assert found.order[:2] == (2, 1)
    assert found.weights[0] == 1.0
    # What was drawn at random helps by chance or not at all.
    assert all(weight < 0.15 for weight in found.weights[2:])
    assert found.gains.mean() > 1.2 * ahead.gains({2: 1.0}).mean()
    # A part that sees nearly as much weighs nearly as much.
    assert 0.5 < found.weights[1] < 1.5


def test_every_part_that_is_named_stays(validation: Validation) -> None:
    ahead = Ahead(validation)
    for seed, share in ((1, 0.0), (2, 0.3), (3, 0.6), (4, 0.0), (5, 0.5)):
        ahead.add(sighted(validation, seed, share))
    found = weigh(ahead, only_helping=False)
    assert sorted(found.order) == [0, 1, 2, 3, 4]
    assert found.order[0] == 2
    assert min(found.weights) > 0
    # Two weights are free, beside the first; the rest share the second of them.
    assert len(set(found.weights[2:])) == 1


@pytest.mark.parametrize("users", [199, 200])
def test_few_users_decide_no_weights(validation: Validation, users: int) -> None:
    ahead = Ahead(Validation(validation.histories[:users], validation.targets[:users], False))
    for seed, share in ((1, 0.2), (2, 0.5)):
        ahead.add(sighted(validation, seed, share)[:users])
    assert (weigh(ahead, only_helping=True).weights == (1.0, 1.0)) is (users < 200)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, walks: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    sizes = {"max_length": 8, "hidden": 8, "inner": 8, "layers": 1, "epochs": 1, "device": "cpu"}
    return {
        kind: fit_teacher(TeacherFitSettings(walks, folder / kind, kind=kind, **sizes))  # type: ignore[arg-type]
        for kind in ("sasrec", "knn", "words", "popularity")
    }


def test_the_command_joins_runs_into_one_folder(
    runs: dict[str, Path], walks: Path, catalog: Catalog, tmp_path: Path
) -> None:
    copies = [shutil.copytree(runs[kind], tmp_path / kind) for kind in ("knn", "sasrec", "words")]
    arguments = ["teacher", "blend", *map(str, copies), "--data", str(walks), "--exclude-seen"]
    assert main([*arguments, "--out", str(tmp_path / "blend")]) == 0
    for copy in copies:
        shutil.rmtree(copy)
    out = tmp_path / "blend"
    teacher, summary = load_teacher(out, catalog, "cpu"), read_json(out / VALIDATION_FILE)
    assert isinstance(teacher, BlendTeacher)
    assert {part.teacher.kind for part in teacher.parts} == {"knn", "sasrec", "words"}
    assert [part["name"] for part in summary["parts"]] == ["1-knn", "2-sasrec", "3-words"]
    split = leave_one_out(Histories.load(walks, catalog))
    metrics = validation_metrics(teacher, split, exclude_seen=True)
    assert summary["metrics"].items() >= metrics.items()
    assert read_json(out / MANIFEST)["results"]["NDCG@10"] == metrics["NDCG@10"]
    # 60 users are too few to choose weights by.
    assert [part["weight"] for part in summary["parts"]] == [1.0] * 3
    assert len(teacher_paths(out)) == 8


def test_a_blend_is_fitted_in_one_go(
    runs: dict[str, Path], walks: Path, catalog: Catalog, tmp_path: Path
) -> None:
    wanted = TeacherFitSettings(
        walks, tmp_path / "blend", kind="blend", sasrec=str(runs["sasrec"]), exclude_seen=True
    )
    out = fit_teacher(wanted)
    teacher = load_teacher(out, catalog, "cpu")
    assert isinstance(teacher, BlendTeacher)
    assert {part.name for part in teacher.parts} == {"sasrec", "knn", "ease", "words"}
    assert read_json(out / PARTS / "knn" / VALIDATION_FILE)["metrics"]["HR@10"] > 0.9
    logs = teacher.log_probabilities([[3, 4], [], [7]], left_out=[[3, 4, 5], [1], []])
    np.testing.assert_allclose(np.exp(logs).sum(axis=1), 1, rtol=1e-5)
    before = (out / MANIFEST).read_bytes()
    assert fit_teacher(wanted) == out
    assert (out / MANIFEST).read_bytes() == before


def test_parts_of_an_interrupted_blend_are_kept(
    runs: dict[str, Path], walks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = TeacherFitSettings(walks, tmp_path / "blend", kind="blend", sasrec=str(runs["sasrec"]))

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("incatalog.teacher.blending.weigh", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit_teacher(wanted)
    part = wanted.out / PARTS / "knn" / "teacher.safetensors"
    before = part.stat().st_mtime_ns
    fit_teacher(wanted)
    assert part.stat().st_mtime_ns == before


def test_runs_that_cannot_be_blended_are_named(
    runs: dict[str, Path], walks: Path, tmp_path: Path
) -> None:
    def blend(*named: Path) -> None:
        blend_teachers(TeacherBlendSettings(tuple(map(str, named)), walks, tmp_path / "blend"))

    with pytest.raises(ConfigError, match="--runs: names a run twice"):
        blend(runs["knn"], runs["knn"])
    with pytest.raises(ConfigError, match=r"--runs .*nowhere: no such folder"):
        blend(tmp_path / "nowhere")
    with pytest.raises(TeacherError, match=r"holds no teacher\.json"):
        blend(walks)
    with pytest.raises(ConfigError, match=r"--sasrec .*: is of kind knn; expected sasrec"):
        fit_teacher(
            TeacherFitSettings(walks, tmp_path / "b", kind="blend", sasrec=str(runs["knn"]))
        )
    assert not (tmp_path / "blend").exists()
