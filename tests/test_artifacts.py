from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from incatalog.artifacts import (
    MANIFEST,
    atomic_folder,
    atomic_path,
    fingerprint,
    open_run,
    open_shared_run,
    read_json,
    versions,
    write_json,
)
from incatalog.errors import ArtifactError, DataError
from incatalog.locks import LOCK_FILE


@dataclass(frozen=True)
class StageConfig:
    data: Path
    out: Path
    steps: int = 3
    sizes: tuple[int, ...] = (1, 2)
    workers: int = 0
    seed: int = 7


class InterruptedWriteError(Exception):
    pass


# Atomic writes


def test_a_written_file_replaces_the_old_one(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    for text in ("old", "new"):
        with atomic_path(path) as partial:
            partial.write_text(text)
            assert partial.parent == path.parent
    assert path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_a_file_gets_the_permissions_of_any_new_file(tmp_path):
    with atomic_path(tmp_path / "a") as partial:
        partial.write_text("")
    (tmp_path / "b").write_text("")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write():
        with atomic_path(path) as partial:
            partial.write_text("half of the n")
            raise InterruptedWriteError

    with pytest.raises(InterruptedWriteError):
        write()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_a_written_folder_replaces_the_old_one(tmp_path):
    target = tmp_path / "deep" / "folder"
    for name in ("old", "new"):
        with atomic_folder(target) as partial:
            (partial / name).write_text(name)
    assert [p.name for p in target.iterdir()] == ["new"]
    assert [p.name for p in target.parent.iterdir()] == ["folder"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o755


def test_an_interrupted_folder_leaves_the_old_one(tmp_path):
    target = tmp_path / "folder"
    target.mkdir()
    (target / "old").write_text("old")

    def write():
        with atomic_folder(target) as partial:
            (partial / "new").write_text("half of it")
            raise InterruptedWriteError

    with pytest.raises(InterruptedWriteError):
        write()
    assert [p.name for p in target.iterdir()] == ["old"]
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_folder_that_cannot_take_its_place_leaves_the_old_one(tmp_path):
    target = tmp_path / "folder"
    target.mkdir()
    (target / "old").write_text("old")

    def write():
        with atomic_folder(target) as partial:
            partial.rmdir()

    with pytest.raises(FileNotFoundError):
        write()
    assert [p.name for p in target.iterdir()] == ["old"]


def test_a_killed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    program = textwrap.dedent(
        """
        import os, signal, sys
        from incatalog.artifacts import atomic_path
        with atomic_path(sys.argv[1]) as partial:
            partial.write_text("half of the n")
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    killed = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


# JSON


def test_json_keeps_values_and_letters(tmp_path):
    value = {"title": "Été 漢字", "numbers": [1, 2.5, None, True]}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert "Été 漢字" in (tmp_path / "a.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1,\n "b": }', r"a\.json:2: not valid JSON: Expecting value"),
        (b"", r"a\.json:1: not valid JSON"),
        (b'{"a": "\xff"}', r"a\.json:1: not UTF-8 text"),
    ],
)
def test_bad_json_is_named_by_file_and_line(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_json(tmp_path / "a.json")
    assert "\n" not in str(caught.value)


def test_missing_or_unreadable_json_is_named(tmp_path):
    with pytest.raises(DataError, match=r"a\.json: no such file"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").mkdir()
    with pytest.raises(DataError, match=r"a\.json: is a folder; expected a file"):
        read_json(tmp_path / "a.json")


# Fingerprints


def written(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_fingerprint_follows_names_and_contents_but_not_the_place(tmp_path):
    files = {"a.txt": "one", "sub/b.txt": "two"}
    one = fingerprint([written(tmp_path / "1", files)])
    assert fingerprint([written(tmp_path / "2", files)]) == one
    for number, other in enumerate(
        (
            {"a.txt": "one", "sub/b.txt": "twe"},
            {"a.txt": "one", "sub/c.txt": "two"},
            {"a.txt": "one", "other/b.txt": "two"},
            {"a.txt": "one"},
            {"a.txt": "onesub", "b.txt": "two"},
        )
    ):
        assert fingerprint([written(tmp_path / f"other{number}", other)]) != one


def test_fingerprint_tells_contents_from_names(tmp_path):
    one = written(tmp_path / "1", {"a": "xb", "c": "y"})
    two = written(tmp_path / "2", {"a": "x", "bc": "y"})
    assert fingerprint([one]) != fingerprint([two])


def test_fingerprint_of_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(DataError, match="gone: no such file or folder"):
        fingerprint([tmp_path / "gone"])


# Runs


@pytest.fixture
def config(tmp_path):
    data = written(tmp_path / "data", {"metas.jsonl": "{}"})
    return StageConfig(data=data, out=tmp_path / "runs" / "one")


def start(config, stage="train sft", **options):
    return open_run(config.out, stage, config, inputs={"data": config.data}, **options)


def test_a_fresh_run_records_what_it_depends_on(config):
    run = start(config)
    assert (run.resumed, run.finished) == (False, False)
    manifest = read_json(run.folder / MANIFEST)
    assert manifest["stage"] == "train sft"
    assert manifest["config"] == {
        "data": str(config.data),
        "out": str(config.out),
        "steps": 3,
        "sizes": [1, 2],
        "workers": 0,
        "seed": 7,
    }
    assert manifest["seed"] == 7
    assert manifest["data"] == {"data": fingerprint([config.data])}
    assert manifest["versions"] == versions()
    assert {"python", "incatalog", "torch", "transformers"} <= versions().keys()
    assert manifest["status"] == "running"


def test_the_same_command_resumes_then_finds_its_run_finished(config):
    start(config)
    run = start(config)
    assert (run.resumed, run.finished) == (True, False)
    run.finish(loss=0.5)
    run = start(config)
    assert (run.resumed, run.finished) == (True, True)
    assert read_json(run.folder / MANIFEST)["results"] == {"loss": 0.5}


def test_other_settings_or_data_are_refused_by_name(config):
    start(config)
    changed = StageConfig(data=config.data, out=config.out, steps=4, workers=2)
    with pytest.raises(ArtifactError, match=r"other settings \(steps, workers\)"):
        start(changed)
    with pytest.raises(ArtifactError, match=r"other settings \(steps\)"):
        start(changed, free_fields=("workers",))
    (config.data / "metas.jsonl").write_text("{ }")
    with pytest.raises(ArtifactError, match=r"other settings \(contents of data\)"):
        start(config)


def test_inputs_that_vanished_or_came_are_named(config, tmp_path):
    inputs = {name: written(tmp_path / name, {"x": name}) for name in ("data", "chat", "teacher")}

    def start_with(*names):
        kept = {name: inputs[name] for name in names}
        return open_run(config.out, "train sft", config, inputs=kept)

    start_with("data", "chat")
    for names, message in (
        (("data",), "missing input chat"),
        (("data", "chat", "teacher"), "new input teacher"),
        (("data", "teacher"), "new input teacher, missing input chat"),
    ):
        with pytest.raises(ArtifactError, match=rf"other settings \({message}\)"):
            start_with(*names)
    start_with("chat", "data").finish()
    with pytest.raises(ArtifactError, match="missing input chat"):
        start_with("data")
    assert start_with("data", "chat").finished


def test_a_served_teacher_that_is_gone_is_named(config):
    start(config, identities={"teacher": "12ab"})
    with pytest.raises(ArtifactError, match="missing input teacher"):
        start(config)
    with pytest.raises(ArtifactError, match="contents of teacher"):
        start(config, identities={"teacher": "34cd"})


def test_another_number_of_processes_is_refused_until_the_run_is_finished(config):
    run = start(config, processes=2)
    with pytest.raises(ArtifactError, match="begun by 2 processes and cannot be resumed by 1"):
        start(config, processes=1)
    assert read_json(run.folder / MANIFEST)["processes"] == 2
    assert start(config, processes=2).resumed
    start(config, processes=2).finish()
    assert start(config, processes=1).finished


def test_a_moved_run_is_still_the_same_run(config, tmp_path):
    start(config)
    config.out.rename(tmp_path / "moved")
    assert start(StageConfig(data=config.data, out=tmp_path / "moved")).resumed


def test_another_stage_is_refused(config):
    start(config)
    with pytest.raises(
        ArtifactError, match="holds a run of `incatalog train sft`; expected an empty"
    ):
        start(config, stage="teacher fit")


def test_foreign_files_are_left_alone(config):
    written(config.out, {"notes.txt": "keep me"})
    with pytest.raises(ArtifactError, match=r"holds files but no manifest\.json"):
        start(config)
    assert [p.name for p in config.out.iterdir()] == ["notes.txt"]


def test_an_out_that_is_a_file_is_refused(config):
    config.out.parent.mkdir()
    config.out.write_text("")
    with pytest.raises(ArtifactError, match="is a file; expected an empty or new folder"):
        start(config)


def test_an_empty_folder_and_one_killed_at_its_manifest_start_fresh(config):
    config.out.mkdir(parents=True)
    assert not start(config).resumed
    (config.out / MANIFEST).rename(config.out / f".{MANIFEST}.abc.partial")
    assert not start(config).resumed


def test_what_killed_writers_left_is_removed_on_resuming(config):
    run = start(config)
    assert run.lock is not None
    run.lock.release()
    # Of an atomic write of ours, and of safetensors.
    for name in (".a.json.x1y2.partial", ".tmpgYjPod"):
        (config.out / name).write_text("half")
    (config.out / ".tmp").write_text("somebody's")
    assert start(config).resumed
    assert {path.name for path in config.out.iterdir()} - {LOCK_FILE} == {MANIFEST, ".tmp"}


@pytest.mark.parametrize(
    "content",
    [
        '{"stage": "train',
        "[]",
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"seed": ' + "1" * 5_000 + "}",
        '{"stage": "train sft", "config": []}',
        '{"stage": "train sft", "config": {}, "data": "x"}',
        "\x00\x01",
        "",
    ],
    ids=range(9),
)
def test_a_damaged_manifest_is_refused(config, content):
    start(config)
    (config.out / MANIFEST).write_text(content)
    with pytest.raises(ArtifactError, match="name another folder"):
        start(config)


def test_missing_data_is_refused_before_anything_is_written(config, tmp_path):
    with pytest.raises(DataError, match="gone: no such file or folder"):
        start(StageConfig(data=tmp_path / "gone", out=config.out))
    assert not config.out.exists()


def share(config: StageConfig, model: str = "a"):
    same = {"identities": {"model": model}, "free_fields": ("workers", "data")}
    return open_shared_run(config.out, "batch", config, **same)


def test_a_shared_run_is_open_to_all_who_want_the_same(config):
    assert not share(config).resumed
    # At the same time as the first, from other data that is known by its contents.
    second = share(replace(config, workers=9, data=config.data / "elsewhere"))
    assert second.resumed
    assert not second.finished
    assert [path.name for path in config.out.iterdir()] == [MANIFEST]
    with pytest.raises(ArtifactError, match=r"other settings \(contents of model\); repeat its"):
        share(config, "b")
    with pytest.raises(ArtifactError, match=r"other settings \(steps\)"):
        share(replace(config, steps=4))
    second.finish(lists=3)
    again = share(config)
    assert again.finished
    # As the first of them does too.
    again.finish(lists=3)
    assert read_json(config.out / MANIFEST)["results"] == {"lists": 3}


def test_of_many_that_begin_a_shared_run_one_writes_the_manifest(config):
    gate, found = threading.Barrier(8), []

    def begin(number: int) -> None:
        gate.wait()
        try:
            share(replace(config, steps=number))
            found.append(number)
        except ArtifactError:
            pass

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [read_json(config.out / MANIFEST)["config"]["steps"]]
    assert [path.name for path in config.out.iterdir()] == [MANIFEST]


def test_importing_stays_light():
    program = (
        "import incatalog, incatalog.artifacts, incatalog.config, incatalog.errors, sys, json;"
    )
    program += (
        "print(json.dumps([m for m in ('torch', 'transformers', 'polars') if m in sys.modules]))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, env=os.environ
    )
    assert json.loads(found.stdout) == []
