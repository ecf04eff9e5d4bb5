"""The log of a training in a tracker of experiments, and what is wrong before and within one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from incatalog.data.catalog import Catalog, Item
from incatalog.data.interactions import Histories
from incatalog.errors import ConfigError, MissingExtraError, TrackerError
from incatalog.training.trackers import check_trackers, run_name, telling_trackers, trackers


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("mlfow",),
            "--report-to mlfow: expected some of tensorboard, mlflow, wandb, trackio, none",
        ),
        ((), "--report-to: expected some of tensorboard, mlflow, wandb, trackio, none"),
        (("tensorboard", "tensorboard"), "--report-to tensorboard tensorboard: names one twice"),
        (
            ("none", "tensorboard"),
            "--report-to none tensorboard: none stands alone; leave it out, or the others",
        ),
    ],
)
def test_names_that_cannot_be_are_refused(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        check_trackers(names)
    assert str(raised.value) == message


@pytest.mark.parametrize("names", [("tensorboard",), ("none",)])
def test_what_needs_no_tracker_passes(names: tuple[str, ...]) -> None:
    check_trackers(names)
    assert trackers(names) == []


def test_trackers_are_what_transformers_brings() -> None:
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    every = ("tensorboard", "mlflow", "wandb", "trackio")
    assert trackers(every) == ["mlflow", "wandb", "trackio"]
    assert set(every) <= set(INTEGRATION_TO_CALLBACK)


def checked(folder: Path, names: str) -> str:
    """What a process says that checks the trackers, where modules of `folder` come first."""
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(folder)!r})\n"
        "from incatalog.training.trackers import check_trackers\n"
        "try:\n"
        f"    check_trackers({names.split()!r})\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.strip()


def test_a_tracker_that_is_not_installed_is_named(tmp_path: Path) -> None:
    (tmp_path / "trackio.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'trackio'\", name='trackio')\n"
    )
    assert checked(tmp_path, "trackio") == (
        "MissingExtraError --report-to trackio: trackio is not installed; "
        "run: pip install 'incatalog[trackio]'"
    )


def test_a_tracker_that_is_broken_is_named(tmp_path: Path) -> None:
    (tmp_path / "trackio.py").write_text("import a_package_of_trackio\n")
    (tmp_path / "mlflow.py").write_text("raise RuntimeError('of another age\\nmore')\n")
    assert checked(tmp_path, "trackio") == (
        "TrackerError --report-to trackio: lacks a_package_of_trackio; "
        "run: pip install 'incatalog[trackio]'"
    )
    assert checked(tmp_path, "mlflow") == (
        "TrackerError --report-to mlflow: cannot be imported: of another age"
    )


def test_a_folder_of_runs_is_no_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "left_runs").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("incatalog.training.trackers.TRACKERS", ("left_runs",))
    with pytest.raises(MissingExtraError, match=r"left_runs is not installed; run: pip install"):
        check_trackers(["left_runs"])


def test_a_run_is_called_as_the_end_of_its_folder() -> None:
    assert run_name(Path("/work/runs/demo/cgen")) == "demo/cgen"
    assert run_name(Path("/cgen")) == "cgen"
    assert run_name(Path("runs/../cgen")) == f"{Path.cwd().name}/cgen"


def test_what_breaks_within_a_tracker_is_told_as_its_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trackio.py").write_text(
        "def log(value):\n    raise ValueError(f'no room for {value}\\nand more')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "trackio", raising=False)
    import trackio

    with pytest.raises(TrackerError) as raised, telling_trackers(["tensorboard", "trackio"]):
        trackio.log(3)
    assert str(raised.value) == (
        "--report-to trackio: no room for 3; once that is mended the same command goes on from its "
        "newest checkpoint, without the tracker too"
    )
    with pytest.raises(ValueError, match="no room for 4"), telling_trackers(["tensorboard"]):
        trackio.log(4)
    with pytest.raises(ValueError, match="of the training"), telling_trackers(["trackio"]):
        raise ValueError("of the training")
    monkeypatch.delitem(sys.modules, "trackio", raising=False)


@pytest.fixture
def data(tmp_path: Path, titles: tuple[str, ...]) -> Path:
    """Prepared data of twelve users."""
    folder = tmp_path / "data"
    catalog = Catalog.from_items([Item(f"i{row}", title) for row, title in enumerate(titles)])
    catalog.save(folder)
    lists = [[(user + step) % len(titles) for step in range(5)] for user in range(12)]
    Histories.from_lists([f"u{user}" for user in range(12)], lists).save(folder, catalog)
    return folder


def train(data: Path, out: Path, *more: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Four steps of a tiny model, in a process of its own, in the folder of its run."""
    sizes = "--tiny-hidden 32 --tiny-inner 32 --batch-size 4 --max-steps 4 --logging-steps 2"
    words = ["train", "sft", "--model", "tiny", "--data", str(data), "--out", str(out)]
    words += ["--validate-every", "0", "--device", "cpu", *sizes.split(), *more]
    return subprocess.run(
        [sys.executable, "-m", "incatalog.cli", *words], capture_output=True, text=True,
        timeout=200, cwd=data.parent, env=os.environ | variables, check=False,
    )  # fmt: skip


@pytest.mark.long
def test_an_unknown_tracker_is_refused_before_training(data: Path, tmp_path: Path) -> None:
    done = train(data, tmp_path / "run", "--report-to", "tensorboard", "mlfow")
    assert done.returncode == 2
    assert done.stderr == (
        "error: --report-to tensorboard mlfow: expected some of tensorboard, mlflow, wandb, "
        "trackio, none\n"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_mlflow_is_told_what_the_log_has(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="pip install mlflow-skinny")
    store = {
        "MLFLOW_TRACKING_URI": (tmp_path / "store").as_uri(),
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "MLFLOW_EXPERIMENT_NAME": "films",
    }
    out = tmp_path / "runs" / "tiny"
    done = train(data, out, "--report-to", "mlflow", "tensorboard", **store)
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = mlflow.MlflowClient(store["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("films")
    [run] = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "runs/tiny"
    assert run.info.status == "FINISHED"
    assert run.data.params["per_device_train_batch_size"] == "4"
    losses = client.get_metric_history(run.info.run_id, "loss")
    assert [entry.step for entry in losses] == [2, 4]
    assert [entry.value for entry in losses] == pytest.approx(logged(out, "train/loss"), abs=1e-6)


@pytest.mark.long
def test_a_store_that_cannot_be_written_is_one_line(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="pip install mlflow-skinny")
    out = tmp_path / "run"
    unknown = {"MLFLOW_TRACKING_URI": "nowhere://store"}
    done = train(data, out, "--report-to", "mlflow", **unknown)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: --report-to mlflow: ")
    assert "nowhere" in line
    assert line.endswith("from its newest checkpoint, without the tracker too")
    # As the line says: who is told is no part of what is trained.
    done = train(data, out, "--report-to", "none")
    assert done.returncode == 0, done.stderr
    assert not (out / "tensorboard").exists()


def logged(folder: Path, tag: str) -> list[float]:
    """The values of TensorBoard's log."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events: Any = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [event.value for event in events.Scalars(tag)]
