from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from incatalog.artifacts import MANIFEST, read_json
from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories, leave_one_out
from incatalog.data.vectors import save_vectors
from incatalog.errors import ArtifactError, ConfigError, TeacherError, VectorError
from incatalog.teacher.fit import fit_teacher
from incatalog.teacher.fit_counting import choose
from incatalog.teacher.sasrec import WEIGHTS_FILE
from incatalog.teacher.settings import TeacherFitSettings
from incatalog.teacher.teacher import load_teacher
from incatalog.teacher.teacher_validation import VALIDATION_FILE, validation_metrics


def test_choices_are_looked_for_one_after_the_other() -> None:
    asked = []

    def score(choice: dict[str, Any]) -> float:
        asked.append(tuple(choice.values()))
        return -((choice["a"] - 3) ** 2) - 0.2 * (choice["b"] - choice["a"]) ** 2

    axes = {"a": (1, 2, 3), "b": (1, 2, 3), "c": (5,)}
    chosen, tried = choose(axes, score)
    assert chosen == {"a": 3, "b": 3, "c": 5}
    assert len(asked) == len(set(asked)) == len(tried)
    assert {"a": 3, "b": 3, "c": 5, "ndcg": 0.0} in tried


def test_of_equal_choices_the_first_stays_and_one_is_not_looked_for() -> None:
    assert choose({"a": (2, 1, 3)}, lambda _: 0.5)[0] == {"a": 2}
    assert choose({"a": (2,), "b": (4, 4)}, lambda _: pytest.fail("asked")) == (
        {"a": 2, "b": 4},
        [],
    )


@pytest.mark.parametrize("kind", ["knn", "ease", "words", "popularity"])
def test_what_is_reported_is_what_is_saved(
    kind: Any, walks: Path, catalog: Catalog, tmp_path: Path
) -> None:
    settings = TeacherFitSettings(walks, tmp_path / "run", kind=kind, exclude_seen=True)
    out = fit_teacher(settings)
    summary, manifest = read_json(out / VALIDATION_FILE), read_json(out / MANIFEST)
    teacher = load_teacher(out, catalog, "cpu")
    split = leave_one_out(Histories.load(walks, catalog))
    held_out = [split.valid(user) for user in range(len(split))]
    assert summary["method"] == teacher.kind == kind
    assert summary["metrics"] == validation_metrics(teacher, split, exclude_seen=True)
    assert manifest["results"]["NDCG@10"] == summary["metrics"]["NDCG@10"]
    assert teacher.temperature == summary["temperature"]
    logs = teacher.log_probabilities([one.history for one in held_out])
    loss = -logs[np.arange(len(split)), [one.target for one in held_out]].mean()
    assert summary["loss"] == pytest.approx(loss, rel=1e-4)
    # The options are those of the best that was tried.
    scores = [one.pop("ndcg") for one in summary["tried"]]
    for one, score in zip(summary["tried"], scores, strict=True):
        if one.items() <= summary["options"].items():
            assert score == max(scores) == pytest.approx(summary["metrics"]["NDCG@10"])
    assert (len(scores) > 3) is (kind != "popularity")
    if kind in ("knn", "ease"):  # A walk is told from its last item.
        assert summary["metrics"]["HR@5"] > 0.9
    before = (out / WEIGHTS_FILE).stat().st_mtime_ns
    fit_teacher(settings)
    assert (out / WEIGHTS_FILE).stat().st_mtime_ns == before
    fit_teacher(dataclasses.replace(settings, epochs=5, sasrec=""))  # It does not read them.
    if kind != "popularity":
        with pytest.raises(ArtifactError, match=r"other settings \(newest\)"):
            fit_teacher(dataclasses.replace(settings, newest=5))
    assert (out / WEIGHTS_FILE).stat().st_mtime_ns == before


def test_counts_hold_training_items_alone(walks: Path, catalog: Catalog, tmp_path: Path) -> None:
    out = fit_teacher(TeacherFitSettings(walks, tmp_path / "run", kind="knn", window=(1,)))
    teacher = load_teacher(out, catalog, "cpu")
    histories = Histories.load(walks, catalog)
    train = np.concatenate([histories.history(user)[:-2] for user in range(len(histories))])
    np.testing.assert_array_equal(teacher.counts, np.bincount(train, minlength=24))  # type: ignore[attr-defined]


def test_item_vectors_instead_of_texts(walks: Path, catalog: Catalog, tmp_path: Path) -> None:
    # On a circle, so that the neighbours of an item are those before and after it.
    angles = 2 * np.pi * np.arange(24) / 24
    file = tmp_path / "walks.emb-circle-t.npy"
    save_vectors(file, np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32))
    settings = TeacherFitSettings(walks, tmp_path / "run", kind="words", vectors=str(file))
    teacher = load_teacher(fit_teacher(settings), catalog, "cpu")
    assert set(teacher.top_k([[7]], 2)[0].tolist()) == {6, 8}
    save_vectors(file, np.zeros((3, 2), dtype=np.float32))
    with pytest.raises(VectorError, match="holds 3 rows; expected one for each of the 24 items"):
        fit_teacher(dataclasses.replace(settings, out=tmp_path / "other"))


def test_a_catalog_too_large_for_a_dense_matrix(walks: Path, tmp_path: Path) -> None:
    settings = TeacherFitSettings(walks, tmp_path / "run", kind="ease", max_items=23)
    with pytest.raises(TeacherError, match="at most 23 items; use --kind knn"):
        fit_teacher(settings)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"wording": ("t", "x")}, "--wording x: expected some of t, td, tc, tdc"),
        ({"window": ()}, "--window: expected at least one value"),
        ({"recency": (0.5, 2.0)}, "--recency 2.0: expected 0 to 1"),
        ({"regularisation": (0.0,)}, "--regularisation 0.0: expected more than 0"),
        ({"sasrec": "run"}, "--sasrec run: is a part of a blend; add --kind blend"),
        ({"vectors": "v.npy"}, "--vectors v.npy: are compared by words; add --kind words"),
    ],
)
def test_values_that_cannot_work_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        TeacherFitSettings(Path("data"), Path("run"), **changes)
    assert message in str(raised.value)
