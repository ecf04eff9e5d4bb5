"""The log of a training in a tracker of experiments, and what is wrong before and within one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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
        "run: pip install 'trackio' anew"
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
