from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from incatalog.artifacts import read_json, write_json
from incatalog.errors import ArtifactError
from incatalog.training.checkpoints import damage, newest_checkpoint, remove_unusable
from incatalog.training.settings import SftSettings
from incatalog.training.sft import train_sft

SHOTS = (2, 4)


def truncated(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(b"\x93garbage\n" * 40)


def nested(path: Path) -> None:
    path.write_text("[" * 100_000)


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def gone(path: Path) -> None:
    path.unlink()


DAMAGES: tuple[Callable[[Path], None], ...] = (truncated, emptied, garbage, nested, flipped, gone)


@pytest.fixture(scope="module")
def config(
    tmp_path_factory: pytest.TempPathFactory, data: Path, teacher: Path, tiny_folder: Path
) -> SftSettings:
    """A training of eight steps, with dropout, so that the random generators count."""
    return SftSettings(
        model=str(tiny_folder), data=data, out=tmp_path_factory.mktemp("runs") / "whole",
        teacher=str(teacher), tune="lora", lora_r=4, lora_dropout=0.3, history_form="span",
        list_length=3, max_history=4, epochs=4, batch_size=4, max_steps=8, learning_rate=1e-2,
        validate_every=0, checkpoint_every=2, device="cpu",
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(config: SftSettings) -> Path:
    """The run that nothing interrupts."""
    return train_sft(config)


@pytest.fixture(scope="module")
def killed(config: SftSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, killed after its second checkpoint."""
    out = tmp_path_factory.mktemp("killed") / "run"
    program = (
        "import json, os, signal, sys; from pathlib import Path;"
        "from incatalog.training.settings import SftSettings"
        "; from incatalog.training import checkpoints, sft\n"
        "given = json.loads(sys.argv[1])\n"
        "class Killed(checkpoints.TrainerCallback):\n"
        "    def on_step_begin(self, args, state, control, **kwargs):\n"
        "        if state.global_step == 5: os.kill(os.getpid(), signal.SIGKILL)\n"
        "plain = sft.ScopedTrainer\n"
        "sft.ScopedTrainer = lambda **o: plain(**{**o, 'callbacks': [*o['callbacks'], Killed()]})\n"
        "sft.train_sft(SftSettings(**(given | {k: Path(given[k]) for k in ('data', 'out')})))\n"
    )
    given = json.dumps(vars(replace(config, out=out)), default=str)
    done = subprocess.run([sys.executable, "-c", program, given], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    found = sorted(path.name for path in (out / "checkpoints").iterdir())
    assert found == [f"checkpoint-{step}" for step in SHOTS]
    return out


@pytest.fixture
def run(killed: Path, tmp_path: Path) -> Path:
    """A copy of the killed run, to be damaged."""
    return Path(shutil.copytree(killed, tmp_path / "run"))


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = (load_file(folder / "adapter_model.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def files(checkpoint: Path) -> list[str]:
    return sorted(path.name for path in checkpoint.iterdir())


def console() -> tuple[Console, io.StringIO]:
    written = io.StringIO()
    return Console(file=written, width=500), written


@pytest.mark.long
def test_every_file_of_a_checkpoint_is_checked(run: Path) -> None:
    checkpoint = run / "checkpoints" / "checkpoint-4"
    names = files(checkpoint)
    assert {
        "adapter_config.json", "adapter_model.safetensors", "complete.json", "optimizer.pt",
        "rng_state.pth", "scheduler.pt", "trainer_state.json",
    } <= set(names)  # fmt: skip
    assert damage(checkpoint) is None
    kinds = 0
    for name in names:
        path = checkpoint / name
        content = path.read_bytes()
        for harm in DAMAGES:
            if (name, harm) == ("complete.json", gone):
                continue  # then it was never complete
            harm(path)
            found = damage(checkpoint)
            assert found is not None, (name, harm.__name__)
            if name != "complete.json" or harm is not flipped:
                assert str(path) in found
            assert "\n" not in found
            path.write_bytes(content)
            kinds += 1
    assert kinds >= 19
    assert damage(checkpoint) is None


@pytest.mark.parametrize("harm", [truncated, flipped, gone], ids=lambda harm: harm.__name__)
@pytest.mark.parametrize(
    "name", ["optimizer.pt", "adapter_model.safetensors", "trainer_state.json", "rng_state.pth"]
)
def test_a_damaged_checkpoint_is_left_out_by_name(
    run: Path, name: str, harm: Callable[[Path], None]
) -> None:
    damaged = run / "checkpoints" / "checkpoint-4" / name
    harm(damaged)
    shown, written = console()
    remove_unusable(run / "checkpoints", shown)
    newest = newest_checkpoint(run / "checkpoints")
    assert newest is not None
    assert newest.name == "checkpoint-2"
    [line] = written.getvalue().splitlines()
    assert line.startswith(f"notice: {damaged}: ")
    assert line.endswith("the training goes on from the one before it")


@pytest.mark.parametrize(("name", "harm"), [("optimizer.pt", flipped), ("complete.json", nested)])
def test_a_training_goes_on_from_the_one_before_to_the_same_bits(
    config: SftSettings, whole: Path, run: Path, name: str, harm: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    harm(run / "checkpoints" / "checkpoint-4" / name)
    train_sft(replace(config, out=run))
    assert name in capsys.readouterr().err.replace("\n", "")
    assert_same_weights(whole, run)
    assert not (run / "checkpoints").exists()


def test_without_a_whole_checkpoint_nothing_is_done(config: SftSettings, run: Path) -> None:
    for step in SHOTS:
        truncated(run / "checkpoints" / f"checkpoint-{step}" / "scheduler.pt")
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")}
    with pytest.raises(ArtifactError) as caught:
        train_sft(replace(config, out=run))
    message = str(caught.value)
    assert message.startswith(f"{run / 'checkpoints' / 'checkpoint-4' / 'scheduler.pt'}: not as it")
    assert message.endswith(f"delete {run / 'checkpoints'} to start the training anew")
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")} == before
    # The next step that it names works.
    shutil.rmtree(run / "checkpoints")
    train_sft(replace(config, out=run, max_steps=8))
    assert (run / "incatalog.json").exists()


def test_a_checkpoint_needs_the_best_one_it_remembers(run: Path) -> None:
    checkpoints = run / "checkpoints"
    for step in SHOTS:
        path = checkpoints / f"checkpoint-{step}" / "trainer_state.json"
        write_json(path, read_json(path) | {"best_global_step": 2})
        complete = path.with_name("complete.json")
        from incatalog.training.checkpoints import mark_complete

        complete.unlink()
        mark_complete(path.parent)
    flipped(checkpoints / "checkpoint-2" / "adapter_model.safetensors")
    with pytest.raises(ArtifactError, match="which checkpoint-4 needs as the best so far"):
        remove_unusable(checkpoints, console()[0])


def test_half_written_checkpoints_are_removed_without_a_word(run: Path) -> None:
    half = run / "checkpoints" / "checkpoint-6"
    half.mkdir()
    (half / "optimizer.pt").write_bytes(b"")
    shown, written = console()
    remove_unusable(run / "checkpoints", shown)
    assert written.getvalue() == ""
    assert not half.exists()
    newest = newest_checkpoint(run / "checkpoints")
    assert newest is not None
    assert newest.name == "checkpoint-4"


def test_another_number_of_processes_is_refused(config: SftSettings, run: Path) -> None:
    manifest = run / "manifest.json"
    assert read_json(manifest)["processes"] == 1
    write_json(manifest, read_json(manifest) | {"processes": 2})
    with pytest.raises(ArtifactError) as caught:
        train_sft(replace(config, out=run))
    assert "was begun by 2 processes and cannot be resumed by 1" in str(caught.value)
    assert "accelerate launch --num_processes 2" in str(caught.value)
    assert newest_checkpoint(run / "checkpoints") is not None


@pytest.mark.long
def test_the_best_weights_are_found_where_the_run_was_moved_to(
    config: SftSettings, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {
        "tune": "full", "lora_dropout": 0.0, "keep_best": True, "validate_every": 1, "epochs": 4,
        "validation_users": 30, "max_steps": 0, "batch_size": 13, "learning_rate": 0.3,
        "scheduler": "constant", "checkpoint_every": 0, "exclude_seen": True,
    }  # fmt: skip
    first = replace(config, out=tmp_path / "first", **changes)
    whole = train_sft(replace(first, out=tmp_path / "whole"))
    results = read_json(whole / "manifest.json")["results"]
    # The best comes before the last, or this test could not tell them apart.
    assert results["best_step"] < results["steps"]
    program = (
        "import json, sys; from pathlib import Path\n"
        "from incatalog.training.settings import SftSettings;"
        "from incatalog.training.sft import train_sft; given = json.loads(sys.argv[1]);"
        "train_sft(SftSettings(**(given | {k: Path(given[k]) for k in ('data', 'out')})))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, json.dumps(vars(first), default=str)],
        stderr=subprocess.DEVNULL,
    )
    marks = f"checkpoints/checkpoint-{results['best_step'] + 3}/complete.json"
    deadline = time.monotonic() + 120
    while not (first.out / marks).exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert not (first.out / "incatalog.json").exists()
    moved = first.out.rename(tmp_path / "moved")
    train_sft(replace(first, out=moved))
    assert read_json(moved / "manifest.json")["results"]["best_step"] == results["best_step"]
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, moved))
    assert all(torch.equal(one[name], other[name]) for name in one)
