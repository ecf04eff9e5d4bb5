from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from damage import flip_bit
from incatalog.artifacts import MANIFEST, read_json
from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories, leave_one_out
from incatalog.data.movielens import prepare_movielens
from incatalog.data.settings import MovieLensSettings
from incatalog.errors import ArtifactError, ConfigError, DataError
from incatalog.teacher import fit
from incatalog.teacher.fit import (
    fit_teacher,
    full_softmax_loss,
    interaction_windows,
    plateau_rate,
    training_windows,
)
from incatalog.teacher.sasrec import TEACHER_FILE, WEIGHTS_FILE, SasRec
from incatalog.teacher.settings import TeacherFitSettings
from incatalog.teacher.teacher import load_teacher
from incatalog.teacher.teacher_validation import VALIDATION_FILE

SMALL = {
    "max_length": 8,
    "hidden": 16,
    "inner": 32,
    "layers": 2,
    "heads": 2,
    "dropout": 0.1,
    "batch_size": 16,
    "learning_rate": 1e-2,
    "device": "cpu",
}


def small(data: Path, out: Path, **changes: object) -> TeacherFitSettings:
    return TeacherFitSettings(data=data, out=out, **(SMALL | changes))  # type: ignore[arg-type]


def test_learns_the_walk(walks: Path, catalog: Catalog, tmp_path: Path) -> None:
    out = fit_teacher(small(walks, tmp_path / "run", epochs=40))
    teacher = load_teacher(out, catalog, "cpu")
    found = teacher.top_k([[row, row + 1, row + 2] for row in range(20)], 1)
    assert (found[:, 0] == np.arange(20) + 3).mean() >= 0.9

    summary = read_json(out / VALIDATION_FILE)
    assert summary["metrics"]["HR@1"] >= 0.9
    assert summary["epochs"] == len(summary["history"]) <= 40
    assert sorted(p.name for p in out.iterdir()) == sorted(
        [MANIFEST, TEACHER_FILE, WEIGHTS_FILE, VALIDATION_FILE]
    )
    assert read_json(out / MANIFEST)["status"] == "finished"


def test_reported_metrics_are_those_of_the_saved_weights(
    walks: Path, catalog: Catalog, tmp_path: Path
) -> None:
    config = small(walks, tmp_path / "run", epochs=6, learning_rate=3e-2, exclude_seen=True)
    out = fit_teacher(config)
    summary = read_json(out / VALIDATION_FILE)
    split = leave_one_out(Histories.load(walks, catalog))
    teacher = load_teacher(out, catalog, "cpu")
    found = teacher.top_k([split.valid(user).history for user in range(len(split))], 10)
    places = [
        np.flatnonzero(rows == split.valid(user).target).tolist() for user, rows in enumerate(found)
    ]
    assert summary["metrics"]["HR@10"] == pytest.approx(sum(map(len, places)) / len(split))
    ndcg = sum(1 / np.log2(place[0] + 2) for place in places if place) / len(split)
    assert summary["metrics"]["NDCG@10"] == pytest.approx(ndcg)
    best = max(entry["NDCG@10"] for entry in summary["history"])
    assert summary["metrics"]["NDCG@10"] == best


def test_the_temperature_is_that_of_the_least_validation_loss(
    walks: Path, catalog: Catalog, tmp_path: Path
) -> None:
    out = fit_teacher(small(walks, tmp_path / "run", epochs=6))
    summary, teacher = read_json(out / VALIDATION_FILE), load_teacher(out, catalog, "cpu")
    assert (
        teacher.temperature
        == summary["temperature"]
        == read_json(out / TEACHER_FILE)["temperature"]
    )
    split = leave_one_out(Histories.load(walks, catalog))
    held_out = [split.valid(user) for user in range(len(split))]
    users, targets = np.arange(len(split)), [one.target for one in held_out]

    def loss(temperature: float) -> float:
        teacher.temperature = temperature
        logs = teacher.log_probabilities([one.history for one in held_out])
        return float(-logs[users, targets].mean())

    best = loss(summary["temperature"])
    assert best == pytest.approx(summary["loss"], rel=1e-4)
    assert best < min(loss(summary["temperature"] * factor) for factor in (0.7, 0.9, 1.1, 1.4))


def test_a_run_without_a_temperature_has_one(run: Path, catalog: Catalog, tmp_path: Path) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    described = read_json(folder / TEACHER_FILE)
    del described["temperature"]
    (folder / TEACHER_FILE).write_text(json.dumps(described))
    assert load_teacher(folder, catalog, "cpu").temperature == 1.0


def test_stops_when_validation_does_not_improve(walks: Path, tmp_path: Path) -> None:
    out = fit_teacher(small(walks, tmp_path / "run", epochs=500, patience=2, validate_every=2))
    summary = read_json(out / VALIDATION_FILE)
    assert summary["stopped_by"] == "patience"
    assert summary["epochs"] == summary["best_epoch"] + 2 * 2
    assert [e["epoch"] for e in summary["history"] if "NDCG@10" in e] == list(
        range(2, summary["epochs"] + 1, 2)
    )


def test_stops_at_the_time_limit_with_the_best_weights(walks: Path, tmp_path: Path) -> None:
    config = small(walks, tmp_path / "run", epochs=500, max_minutes=1e-4)
    summary = read_json(fit_teacher(config) / VALIDATION_FILE)
    assert summary["stopped_by"] == "max_minutes"
    assert summary["epochs"] == 1


def test_leaves_the_generator_of_the_caller_alone(walks: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    fit_teacher(small(walks, tmp_path / "run", epochs=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_finished_run_is_not_repeated(walks: Path, tmp_path: Path) -> None:
    config = small(walks, tmp_path / "run", epochs=2)
    weights = fit_teacher(config) / WEIGHTS_FILE
    before = weights.stat().st_mtime_ns
    fit_teacher(config)
    assert weights.stat().st_mtime_ns == before
    with pytest.raises(ArtifactError, match="other settings"):
        fit_teacher(dataclasses.replace(config, seed=1))


def test_a_run_may_live_inside_its_data(walks: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(walks, data)
    config = small(data, data / "teacher", epochs=1)
    weights = fit_teacher(config) / WEIGHTS_FILE
    before = weights.stat().st_mtime_ns
    assert fit_teacher(config) / WEIGHTS_FILE == weights
    assert weights.stat().st_mtime_ns == before


def test_other_histories_are_other_data(walks: Path, catalog: Catalog, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(walks, data)
    config = small(data, tmp_path / "run", epochs=1)
    fit_teacher(config)
    Histories.from_lists(["a"], [[0, 1, 2, 3, 4]]).save(data, catalog)
    with pytest.raises(ArtifactError, match=r"contents of sequential\.jsonl"):
        fit_teacher(config)


def test_the_seed_decides(walks: Path, tmp_path: Path) -> None:
    weights = [
        (
            fit_teacher(small(walks, tmp_path / name, epochs=2, seed=seed)) / WEIGHTS_FILE
        ).read_bytes()
        for name, seed in [("a", 1), ("b", 1), ("c", 2)]
    ]
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


RUN = """
import json, sys
from pathlib import Path
from incatalog.teacher.settings import TeacherFitSettings
from incatalog.teacher.fit import fit_teacher
options = json.loads(sys.argv[1])
for out in sys.argv[3:]:
    fit_teacher(TeacherFitSettings(data=Path(sys.argv[2]), out=Path(out), **options))
"""


@pytest.mark.long
def test_a_killed_run_ends_with_the_same_weights(walks: Path, tmp_path: Path) -> None:
    options = json.dumps(SMALL | {"epochs": 30, "patience": 30, "dropout": 0.3})
    command = [sys.executable, "-c", RUN, options, str(walks)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    checkpoint = killed / "checkpoint.safetensors"

    process = subprocess.Popen([*command, str(killed)], env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert checkpoint.exists()
    assert read_json(killed / MANIFEST)["status"] == "running"
    assert not (killed / TEACHER_FILE).exists()

    finished = subprocess.run(
        [*command, str(killed), str(whole)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert "resuming after epoch" in finished.stderr
    assert (killed / WEIGHTS_FILE).read_bytes() == (whole / WEIGHTS_FILE).read_bytes()
    histories = [read_json(run / VALIDATION_FILE)["history"] for run in (killed, whole)]
    assert histories[0] == histories[1]
    assert {p.name for p in killed.iterdir()} == {p.name for p in whole.iterdir()}


def test_a_damaged_checkpoint_is_named(
    walks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(walks, tmp_path / "run", epochs=2)
    with monkeypatch.context() as patch:
        patch.setattr(fit, "save_network", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit_teacher(config)
    checkpoint = config.out / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-10])
    with pytest.raises(ArtifactError, match=r"checkpoint\.safetensors: damaged checkpoint"):
        fit_teacher(config)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "--epochs 0: expected at least 1"),
        ({"max_length": 0}, "--max-length 0: expected at least 1"),
        ({"heads": 3}, "--hidden 16: expected a multiple of --heads"),
        ({"dropout": 1.0}, "--dropout 1.0"),
        ({"learning_rate": 0.0}, "--learning-rate 0.0"),
        ({"seed": -1}, "--seed -1: expected at least 0"),
        ({"max_minutes": -1.0}, "--max-minutes -1.0: expected at least 0"),
        ({"plateau_factor": 0.0}, "--plateau-factor 0.0: expected more than 0 and at most 1"),
    ],
)
def test_values_that_cannot_work_are_named(
    walks: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        fit_teacher(small(walks, tmp_path / "run", **changes))
    assert message in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_histories_without_a_training_pair_are_refused(catalog: Catalog, tmp_path: Path) -> None:
    catalog.save(tmp_path / "data")
    histories = Histories.from_lists(["a", "b"], [[0, 1, 2], [3, 4, 5]])
    histories.save(tmp_path / "data", catalog)
    with pytest.raises(DataError, match="no history has the 4 items"):
        fit_teacher(small(tmp_path / "data", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@given(
    lengths=st.lists(st.integers(0, 25), max_size=6),
    max_length=st.integers(1, 9),
    seed=st.integers(0, 100),
)
def test_each_item_is_a_target_once(lengths: list[int], max_length: int, seed: int) -> None:
    # Rows of user u are 100 u, 100 u + 1, …, so that pairs tell where they come from.
    histories = [100 * user + np.arange(length) for user, length in enumerate(lengths)]
    windows = training_windows(histories, max_length, np.random.default_rng(seed))
    pairs = [pair for w in windows for pair in zip(w.items, w.targets, strict=True)]
    expected = [pair for rows in histories for pair in itertools.pairwise(rows)]
    assert sorted(pairs) == sorted(expected)
    assert all(1 <= len(w.items) <= max_length for w in windows)
    assert all((np.diff(w.items) == 1).all() for w in windows)


@given(lengths=st.lists(st.integers(0, 25), max_size=6), max_length=st.integers(1, 9))
def test_each_interaction_is_a_sequence_of_its_own(lengths: list[int], max_length: int) -> None:
    histories = [100 * user + np.arange(length) for user, length in enumerate(lengths)]
    windows = interaction_windows(histories, max_length)
    assert [window.targets.tolist() for window in windows] == [
        [row] for rows in histories for row in rows
    ]
    for window in windows:
        before = int(window.targets[0]) % 100
        # Nothing is before the first item: -1 has the number of padding.
        first = int(window.targets[0]) - min(before, max_length)
        expected = list(range(first, int(window.targets[0]))) or [-1]
        assert window.items.tolist() == expected


def test_interactions_take_a_step_for_each_batch_of_them(
    walks: Path, catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = leave_one_out(Histories.load(walks, catalog))
    interactions = sum(len(split.train(user)) for user in range(len(split)))
    labels: list[int] = []

    def counted(*given: torch.Tensor, **how: bool) -> float:
        assert (given[2][:, :-1] == 0).all()
        labels.append(int((given[2] != 0).sum()))
        return full_softmax_loss(*given, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(fit, "full_softmax_loss", counted)
    fit_teacher(small(walks, tmp_path / "run", epochs=1, sequences="interactions", batch_size=64))
    assert len(labels) == -(-interactions // 64)
    assert sum(labels) == interactions


def test_the_learning_rate_falls_where_validations_stop_to_rise(
    walks: Path, tmp_path: Path
) -> None:
    config = small(walks, tmp_path, learning_rate=0.8, plateau_factor=0.5)
    scores = [0.1, 0.2, 0.2, 0.3, 0.3, 0.29, 0.3, 0.3, 0.4]
    rates = [plateau_rate(config, scores[:count]) for count in range(len(scores) + 1)]
    # One validation that is no better is borne, the second in a row halves the rate.
    assert rates == pytest.approx([0.8] * 6 + [0.4, 0.4, 0.2, 0.2])
    assert plateau_rate(dataclasses.replace(config, plateau_factor=1.0), scores) == 0.8
    config = dataclasses.replace(config, plateau_patience=0)
    assert plateau_rate(config, scores[:3]) == pytest.approx(0.4)


def test_the_history_tells_the_learning_rates(walks: Path, tmp_path: Path) -> None:
    changes = {"epochs": 8, "plateau_factor": 0.5, "plateau_patience": 0, "warmup_steps": 0}
    out = fit_teacher(small(walks, tmp_path / "run", learning_rate=0.05, **changes))
    history = read_json(out / VALIDATION_FILE)["history"]
    rates = [epoch["learning_rate"] for epoch in history]
    assert rates[0] == 0.05
    assert min(rates) < 0.05
    best, expected = 0.0, 0.05
    for epoch in history:
        assert epoch["learning_rate"] == pytest.approx(expected)
        if epoch["NDCG@10"] <= best * (1 + 1e-4):
            expected /= 2
        else:
            best = epoch["NDCG@10"]


def test_blocks_of_logits_add_up(network: SasRec, monkeypatch: pytest.MonkeyPatch) -> None:
    items = network.pad([np.array([1, 2, 3]), np.array([4]), np.array([7, 7])])
    targets = network.pad([np.array([2, 3, 4]), np.array([5]), np.array([7, 8])])
    labelled = targets != 0
    expected = functional.cross_entropy(
        network.item_scores(network(items))[labelled], targets[labelled] - 1
    )
    wanted = torch.autograd.grad(expected, list(network.parameters()), allow_unused=True)
    for cells in (1, 24 * 4, 1 << 24):
        monkeypatch.setattr(fit, "_LOGIT_CELLS", cells)
        network.zero_grad()
        assert full_softmax_loss(network, items, targets) == pytest.approx(expected.item())
        for parameter, gradient in zip(network.parameters(), wanted, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, atol=1e-6, rtol=1e-4)


def test_what_was_seen_has_no_part_of_the_softmax(
    network: SasRec, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The third history takes its first item again: what is to be predicted is never left out.
    histories = [[1, 2, 3, 4], [4, 5], [7, 9, 7]]
    items = network.pad([np.array(rows[:-1]) for rows in histories])
    targets = network.pad([np.array(rows[1:]) for rows in histories])
    scores = network.item_scores(network(items))
    terms = []
    for line, rows in enumerate(histories):
        first = items.shape[1] - len(rows) + 1
        for place, wanted in enumerate(rows[1:]):
            own = scores[line, first + place].clone()
            own[sorted(set(rows[: place + 1]) - {wanted})] = -torch.inf
            terms.append(own.logsumexp(0) - own[wanted])
    expected = torch.stack(terms).mean()
    wanted = torch.autograd.grad(expected, list(network.parameters()), allow_unused=True)
    for cells in (1, 1 << 24):
        monkeypatch.setattr(fit, "_LOGIT_CELLS", cells)
        network.zero_grad()
        found = full_softmax_loss(network, items, targets, unseen_only=True)
        assert found == pytest.approx(expected.item())
        for parameter, gradient in zip(network.parameters(), wanted, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, atol=1e-6, rtol=1e-4)
    assert full_softmax_loss(network, items, targets) > expected.item()


@pytest.mark.slow
def test_movielens_is_learned_within_minutes(ml100k_source: Path, tmp_path: Path) -> None:
    data = prepare_movielens(MovieLensSettings(source=ml100k_source, out=tmp_path / "data"))
    out = fit_teacher(
        TeacherFitSettings(data=data, out=tmp_path / "run", exclude_seen=True, max_minutes=1.5)
    )
    catalog = Catalog.load(data)
    split = leave_one_out(Histories.load(data, catalog))
    tests = [split.test(user) for user in range(len(split))]
    ranks = load_teacher(out, catalog).ranking(
        [test.history for test in tests], [[test.target] for test in tests], exclude_seen=True
    )
    assert np.mean(np.concatenate(ranks) <= 10) >= 0.15


def test_a_flipped_bit_of_a_teacher_is_named(walks: Path, catalog: Catalog, tmp_path: Path) -> None:
    out = fit_teacher(small(walks, tmp_path / "run", epochs=1))
    load_teacher(out, catalog, "cpu")
    weights = out / WEIGHTS_FILE
    flip_bit(weights, weights.stat().st_size - 4)
    with pytest.raises(ArtifactError, match=f"{WEIGHTS_FILE}: is not as it was written"):
        load_teacher(out, catalog, "cpu")
