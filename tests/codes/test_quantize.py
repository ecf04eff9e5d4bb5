from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from damage import drop_tensor, edit_json
from incatalog.artifacts import MANIFEST, read_json
from incatalog.codes import codebooks
from incatalog.codes.quality import code_use
from incatalog.codes.quantize import HISTORY_FILE, PICTURE_FILE, quantize_items
from incatalog.codes.quantizer import CODEBOOKS_FILE, QUANTIZER_FILE, load_quantizer, weights_file
from incatalog.codes.rqvae_fit import RqVaeFit, learning_rate, mean_and_scale
from incatalog.codes.settings import QuantizeSettings
from incatalog.errors import ArtifactError, ConfigError, SemanticIdError, VectorError

SMALL = {
    "codebooks": (16, 8),
    "sinkhorn_eps": (0.0, 0.01),
    "layers": (16,),
    "e_dim": 4,
    "batch_size": 64,
    "epochs": 12,
    "warmup_epochs": 2,
    "validate_every": 4,
    "learning_rate": 5e-3,
    "restart_after": 2,
    "device": "cpu",
}
WEIGHTS = [weights_file("collision"), weights_file("reconstruction")]


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 vectors of width 12 around 20 centres."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(20, 12))
    rows = centres[rng.integers(20, size=200)] + 0.3 * rng.normal(size=(200, 12))
    path = tmp_path_factory.mktemp("vectors") / "toys.npy"
    np.save(path, rows.astype(np.float32))
    return path


def small(vectors: Path, out: Path, **changes: object) -> QuantizeSettings:
    return QuantizeSettings(vectors=vectors, out=out, **(SMALL | changes))  # type: ignore[arg-type]


def test_leaves_the_best_by_collisions_and_by_reconstruction(vectors: Path, tmp_path: Path) -> None:
    out = quantize_items(small(vectors, tmp_path / "run", epochs=20, validate_every=2))
    history = read_json(out / HISTORY_FILE)
    assert [entry["epoch"] for entry in history] == list(range(1, 21))
    checked = [entry for entry in history if "collision_rate" in entry]
    assert [entry["epoch"] for entry in checked] == list(range(2, 21, 2))
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]
    rows = np.load(vectors)
    for best, key in (("collision", "collision_rate"), ("reconstruction", "unexplained")):
        quantizer = load_quantizer(out, best, torch.device("cpu"))
        codes = quantizer.codes(rows)
        found = {**code_use(codes, (16, 8)), "unexplained": quantizer.unexplained(rows, codes)}
        assert found[key] == min(entry[key] for entry in checked)
        entry = read_json(out / QUANTIZER_FILE)["best"][best]
        for name, value in found.items():
            assert entry[name] == pytest.approx(value)
    assert found["unexplained"] < 0.6
    assert (out / PICTURE_FILE).read_bytes().startswith(b"\x89PNG")
    assert any((out / "tensorboard").iterdir())
    expected = {MANIFEST, QUANTIZER_FILE, HISTORY_FILE, PICTURE_FILE, "tensorboard", *WEIGHTS}
    assert {path.name for path in out.iterdir()} == expected
    assert read_json(out / MANIFEST)["status"] == "finished"


def test_tensorboard_has_every_epoch(vectors: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = quantize_items(small(vectors, tmp_path / "run", epochs=4))
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    history = read_json(out / HISTORY_FILE)
    losses = [event.value for event in events.Scalars("loss")]
    assert losses == pytest.approx([entry["loss"] for entry in history])
    assert [event.step for event in events.Scalars("perplexity/level 2")] == [4]


def test_the_seed_decides(vectors: Path, tmp_path: Path) -> None:
    runs = [
        quantize_items(small(vectors, tmp_path / name, epochs=4, seed=seed, dropout=0.2))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    for name in WEIGHTS:
        weights = [(run / name).read_bytes() for run in runs]
        assert weights[0] == weights[1]
        assert weights[0] != weights[2]


def test_leaves_the_generator_of_the_caller_alone(vectors: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    quantize_items(small(vectors, tmp_path / "run", epochs=1))
    assert torch.equal(torch.get_rng_state(), before)


RUN = """
import json, sys
from pathlib import Path
from incatalog.codes.settings import QuantizeSettings
from incatalog.codes.quantize import quantize_items
options = json.loads(sys.argv[1])
for name in ("codebooks", "layers", "sinkhorn_eps"):
    options[name] = tuple(options[name])
for out in sys.argv[3:]:
    quantize_items(QuantizeSettings(vectors=Path(sys.argv[2]), out=Path(out), **options))
"""


@pytest.mark.long
def test_a_killed_run_ends_with_the_same_bits(vectors: Path, tmp_path: Path) -> None:
    options = SMALL | {"epochs": 40, "validate_every": 5, "dropout": 0.2, "batch_norm": True}
    command = [sys.executable, "-c", RUN, json.dumps(options), str(vectors)]
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
    assert not (killed / QUANTIZER_FILE).exists()

    finished = subprocess.run(
        [*command, str(killed), str(whole)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert "resuming after epoch" in finished.stderr
    for name in (*WEIGHTS, HISTORY_FILE, QUANTIZER_FILE, PICTURE_FILE):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    assert not checkpoint.exists()


def test_a_finished_run_is_not_repeated(vectors: Path, tmp_path: Path) -> None:
    config = small(vectors, tmp_path / "run", epochs=1)
    weights = quantize_items(config) / WEIGHTS[0]
    before = weights.stat().st_mtime_ns
    quantize_items(config)
    assert weights.stat().st_mtime_ns == before
    with pytest.raises(ArtifactError, match="other settings"):
        quantize_items(dataclasses.replace(config, seed=1))


def test_a_damaged_checkpoint_is_named(
    vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(vectors, tmp_path / "run")
    save = RqVaeFit._save

    def save_and_stop(fit: RqVaeFit, path: Path) -> None:
        save(fit, path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RqVaeFit, "_save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            quantize_items(config)
    checkpoint = config.out / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-10])
    with pytest.raises(ArtifactError, match=r"checkpoint\.safetensors: damaged checkpoint"):
        quantize_items(config)


def test_unused_codes_start_anew(vectors: Path, tmp_path: Path) -> None:
    # Codes far from everything are used by nothing until they are restarted.
    used = {}
    for after in (0, 1):
        config = small(
            vectors,
            tmp_path / str(after),
            restart_after=after,
            sinkhorn_eps=(0.0, 0.0),
            kmeans_init=False,
        )
        with torch.random.fork_rng():
            fit = RqVaeFit(config, np.load(vectors), torch.device("cpu"))
            with torch.no_grad():
                fit.network.codebooks[0][4:] = 1e3
            fit.run()
        used[after] = fit.history[-1]["used"][0]
    assert used[0] <= 4 < used[1]


def test_a_restarted_code_stands_at_a_residual(vectors: Path, tmp_path: Path) -> None:
    config = small(vectors, tmp_path, restart_after=2, codebooks=(2,), sinkhorn_eps=(0.0,))
    with torch.random.fork_rng():
        fit = RqVaeFit(config, np.load(vectors), torch.device("cpu"))
        fit._step(fit._batch(np.arange(8)))
    residuals = torch.arange(12.0).reshape(1, 3, 4)
    used, codebook = [torch.tensor([5, 0])], fit.network.codebooks[0]
    kept = codebook[0].clone()
    rng = np.random.default_rng(0)
    fit._restart_unused(used, residuals, rng)
    assert fit.extra["idle.0"].tolist() == [0, 1]
    fit._restart_unused(used, residuals, rng)
    assert fit.extra["idle.0"].tolist() == [0, 0]
    assert torch.equal(codebook[0], kept)
    assert codebook[1].tolist() in residuals[0].tolist()
    moments = fit.optimiser.state[codebook]["exp_avg_sq"]
    assert moments[0].abs().sum() > 0
    assert not moments[1].any()


def test_schedules_by_hand(vectors: Path, tmp_path: Path) -> None:
    config = small(vectors, tmp_path, learning_rate=1.0, warmup_epochs=2, epochs=10)
    assert [learning_rate(config, at) for at in (0.5, 1, 2, 6, 10)] == [0.25, 0.5, 1, 1, 1]
    linear = dataclasses.replace(config, scheduler="linear")
    assert [learning_rate(linear, at) for at in (0.5, 2, 6, 10)] == [0.25, 1, 0.5, 0]


def test_mean_and_scale_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codebooks, "ROWS_AT_ONCE", 7)
    rows = np.random.default_rng(0).normal(3, 2, size=(50, 4)).astype(np.float32)
    mean, scale = mean_and_scale(rows)
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-5)
    assert scale == pytest.approx(np.sqrt(rows.var(0).mean()), rel=1e-5)
    assert mean_and_scale(np.ones((3, 2), np.float32))[1] == 1


def test_code_use_by_hand() -> None:
    codes = np.array([[0, 1], [0, 1], [1, 1], [2, 1]], dtype=np.int32)
    use = code_use(codes, (4, 2))
    # Shares 1/2, 1/4, 1/4: the entropy is 1.5 bits.
    assert use == {"collision_rate": 0.25, "used": [3, 1], "perplexity": [2.83, 1.0]}


def test_residual_kmeans(vectors: Path, tmp_path: Path) -> None:
    runs = [
        quantize_items(small(vectors, tmp_path / name, method="rqkmeans", kmeans_sample=150))
        for name in ("a", "b")
    ]
    assert (runs[0] / CODEBOOKS_FILE).read_bytes() == (runs[1] / CODEBOOKS_FILE).read_bytes()
    assert (runs[0] / PICTURE_FILE).read_bytes().startswith(b"\x89PNG")
    history = read_json(runs[0] / HISTORY_FILE)
    assert [entry["level"] for entry in history] == [1, 2]
    assert history[1]["unexplained"] < history[0]["unexplained"] < 1
    quantizer = load_quantizer(runs[0], "collision", torch.device("cpu"))
    rows = np.load(vectors)
    codes = quantizer.codes(rows)
    books = [book.numpy() for book in quantizer.codebooks]
    first = np.square(rows[:, None] - books[0]).sum(2).argmin(1)
    left = rows - books[0][first]
    second = np.square(left[:, None] - books[1]).sum(2).argmin(1)
    assert np.array_equal(codes, np.stack([first, second], 1))
    error = np.square(left - books[1][second]).sum() / np.square(rows - rows.mean(0)).sum()
    assert quantizer.unexplained(rows, codes) == pytest.approx(error, rel=1e-4)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros(8, np.float32), r"shape \(8,\); expected real numbers \[items, hidden\]"),
        (np.zeros((15, 4), np.float32), "15 items for 16 codes at a level"),
        (np.full((20, 4), np.nan, np.float32), "row 0 holds NaN or infinity"),
        (np.zeros((20, 4), np.int64), "holds int64"),
        (np.full((20, 4), 1e39), r"row 0 holds too large a number, 1e\+39"),
        (np.eye(20, 4, dtype=np.float32) * 1e30, r"row 0 holds too large a number, 1e\+30 \(4 of"),
        (np.eye(20, 4, dtype=np.float32) * 3e38, "row 0 holds too large a number, 3e"),
    ],
)
def test_vectors_that_cannot_be_quantised(rows: np.ndarray, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", rows)
    for method in ("rqvae", "rqkmeans"):
        with pytest.raises(VectorError, match=message):
            quantize_items(small(tmp_path / "x.npy", tmp_path / "run", method=method))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codebooks": (16, 0)}, "--codebooks 0: expected at least 1"),
        ({"codebooks": (16,)}, "--sinkhorn-eps: 2 values for 1 levels of --codebooks"),
        ({"codebooks": (2,) * 27}, "--codebooks: 27 levels; expected at most 26"),
        ({"sinkhorn_eps": (0.0, -1.0)}, "--sinkhorn-eps -1.0: expected at least 0"),
        ({"layers": (0,)}, "--layers 0"),
        ({"dropout": 1.0}, "--dropout 1.0"),
        ({"learning_rate": 0.0}, "--learning-rate 0.0: expected more than 0"),
        ({"kmeans_sample": 4}, "--kmeans-sample 4: expected at least 16"),
        ({"beta": float("nan")}, "--beta nan"),
        ({"device": "abacus"}, "--device abacus: not usable"),
    ],
)
def test_values_that_cannot_work_are_named(
    vectors: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        quantize_items(small(vectors, tmp_path / "run", **changes))
    assert message in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_a_training_that_diverges_is_stopped(vectors: Path, tmp_path: Path) -> None:
    config = small(vectors, tmp_path / "run", learning_rate=1e30, clip_norm=0.0, warmup_epochs=0)
    with pytest.raises(SemanticIdError, match=r"the loss is (nan|inf).*lower --learning-rate"):
        quantize_items(config)


def test_a_contrastive_loss_keeps_reconstructions_apart(vectors: Path, tmp_path: Path) -> None:
    runs = {}
    for weight in (0.0, 1.0):
        out = tmp_path / str(weight)
        config = small(vectors, out, contrastive_weight=weight, epochs=12, kmeans_init=False)
        runs[weight] = read_json(quantize_items(config) / HISTORY_FILE)[-1]
    assert runs[1.0]["loss"] > runs[1.0]["reconstruction_loss"] + runs[1.0]["quantisation_loss"]
    assert runs[0.0]["loss"] == pytest.approx(
        runs[0.0]["reconstruction_loss"] + runs[0.0]["quantisation_loss"]
    )
    assert runs[1.0]["collision_rate"] != runs[0.0]["collision_rate"]


def test_foreign_and_damaged_quantizers_are_named(vectors: Path, tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    with pytest.raises(ArtifactError, match=r"quantizer\.json: no such file; expected a finished"):
        load_quantizer(tmp_path, "collision", cpu)
    out = quantize_items(small(vectors, tmp_path / "run", epochs=1))
    with pytest.raises(VectorError, match=r"5 numbers a row; expected 12"):
        load_quantizer(out, "collision", cpu).codes(np.zeros((3, 5), np.float32))
    weights = out / WEIGHTS[0]
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(ArtifactError, match=r"best-collision\.safetensors: is not as it was wr"):
        load_quantizer(out, "collision", cpu)
    # A folder without its manifest holds no checksums.
    (out / MANIFEST).unlink()
    with pytest.raises(ArtifactError, match=r"best-collision\.safetensors: not the weights"):
        load_quantizer(out, "collision", cpu)
    (out / QUANTIZER_FILE).write_text("[]")
    with pytest.raises(ArtifactError, match="not the description of a quantizer"):
        load_quantizer(out, "collision", cpu)


@pytest.mark.parametrize("method", ["rqvae", "rqkmeans"])
@pytest.mark.filterwarnings("error::RuntimeWarning", "error::UserWarning")
def test_the_largest_numbers_are_quantised(method: str, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).uniform(-1e12, 1e12, size=(40, 64)).astype(np.float32)
    np.save(tmp_path / "x.npy", rows)
    run = quantize_items(small(tmp_path / "x.npy", tmp_path / "run", method=method))
    last = json.loads((run / HISTORY_FILE).read_text())[-1]
    assert 0 < last["unexplained"] < 2
    assert load_quantizer(run, "collision", torch.device("cpu")).codes(rows).shape == (40, 2)


def test_a_missing_level_or_tensor_is_named(vectors: Path, tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    flat = quantize_items(small(vectors, tmp_path / "flat", method="rqkmeans"))
    deep = quantize_items(small(vectors, tmp_path / "deep", epochs=1))
    for out in (flat, deep):
        # Without it the checksums are not looked at.
        (out / MANIFEST).unlink()
    levels = len(load_quantizer(flat, "collision", cpu).sizes)
    drop_tensor(flat / CODEBOOKS_FILE, str(levels - 1))
    with pytest.raises(ArtifactError, match=f"not the weights of this quantizer .*{levels - 1}"):
        load_quantizer(flat, "collision", cpu)
    name = drop_tensor(deep / weights_file("collision"), "decoder")
    with pytest.raises(ArtifactError, match=f"not the weights of this quantizer .*{name}"):
        load_quantizer(deep, "collision", cpu)
    edit_json(deep / QUANTIZER_FILE, lambda found: found["sizes"].update(width=0))
    with pytest.raises(ArtifactError, match="not the weights of this quantizer"):
        load_quantizer(deep, "collision", cpu)
