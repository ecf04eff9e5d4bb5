from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

from incatalog.artifacts import MANIFEST, fingerprint, open_run, read_json
from incatalog.errors import ArtifactError
from incatalog.locks import LOCK_FILE, lock_folder


@dataclass(frozen=True)
class StageConfig:
    out: Path
    steps: int = 3


class Holder:
    """Another process that opens a run and keeps it until it is told to go on."""

    def __init__(self, folder: Path, then: str = "", forks: bool = False) -> None:
        program = textwrap.dedent(
            f"""
            import os, sys, time
            from dataclasses import dataclass
            from pathlib import Path
            from incatalog.artifacts import open_run
            @dataclass(frozen=True)
            class StageConfig:
                out: Path
                steps: int = 3
            run = open_run(Path(sys.argv[1]), "stage", StageConfig(Path(sys.argv[1])))
            if {forks} and os.fork() == 0:
                time.sleep(60)
                os._exit(0)
            print("open", flush=True)
            sys.stdin.readline()
            {then}
            """
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "open\n"

    def end(self) -> None:
        self.process.communicate("\n")
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def kill_all(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def start(folder: Path, steps: int = 3):
    return open_run(folder, "stage", StageConfig(folder, steps))


def test_a_second_process_is_refused_by_the_first_ones_number(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    holder = Holder(folder)
    with pytest.raises(ArtifactError) as caught:
        start(folder)
    assert str(caught.value) == (
        f"--out {folder}: process {holder.process.pid} is writing into it; wait until it is done, "
        "or name another folder"
    )
    # The manifest of the run that goes on is as it was.
    assert read_json(folder / MANIFEST)["status"] == "running"
    holder.end()
    assert start(folder).resumed


def test_what_kills_a_run_gives_its_folder_back(tmp_path: Path) -> None:
    holder = Holder(tmp_path / "run")
    holder.kill()
    run = start(tmp_path / "run")
    assert run.resumed
    assert (tmp_path / "run" / LOCK_FILE).read_text() == str(os.getpid())


def test_forked_workers_of_a_killed_run_do_not_keep_its_folder(tmp_path: Path) -> None:
    holder = Holder(tmp_path / "run", forks=True)
    with pytest.raises(ArtifactError, match="is writing into it"):
        start(tmp_path / "run")
    holder.kill()
    try:
        assert start(tmp_path / "run").resumed
    finally:
        holder.kill_all()


def test_a_worker_that_ends_leaves_the_lock_to_its_run(tmp_path: Path) -> None:
    run = start(tmp_path / "run")
    child = os.fork()
    if child == 0:
        # As a worker does that lets go of all it knows.
        del run
        os._exit(0)
    os.waitpid(child, 0)
    refused = subprocess.run(
        [sys.executable, "-c", "import sys; from pathlib import Path;"
         "from incatalog.locks import lock_folder; lock_folder(Path(sys.argv[1]))",
         str(tmp_path / "run")], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert f"process {os.getpid()} is writing into it" in refused.stderr
    assert run.lock is not None


def test_a_finished_run_is_open_to_all_and_holds_no_lock(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    holder = Holder(folder, then="run.finish(value=1); print('done', flush=True); "
                    "sys.stdin.readline()")  # fmt: skip
    process = holder.process
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"
    assert start(folder).finished
    assert [path.name for path in folder.iterdir()] == [MANIFEST]
    holder.end()


def test_a_stage_that_failed_may_be_repeated_in_its_process(tmp_path: Path) -> None:
    def fails() -> None:
        run = start(tmp_path / "run")
        raise RuntimeError(run)

    with pytest.raises(RuntimeError) as caught:
        fails()
    # Its first try is still known by the traceback.
    again = start(tmp_path / "run")
    assert again.resumed
    assert caught.value.args[0].lock is again.lock


def test_processes_of_one_run_share_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = Holder(tmp_path / "run")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert start(tmp_path / "run").resumed
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ArtifactError, match="is writing into it"):
        start(tmp_path / "run")
    holder.end()


def test_a_folder_of_something_else_is_not_locked(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=r"no manifest\.json"):
        start(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    other = tmp_path / "other"
    start(other)
    with pytest.raises(ArtifactError, match="other settings"):
        start(other, steps=4)
    assert not (other / LOCK_FILE).exists()


def test_the_lock_is_no_content_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("1")
    before = fingerprint([tmp_path])
    lock = lock_folder(tmp_path)
    assert (tmp_path / LOCK_FILE).exists()
    assert fingerprint([tmp_path]) == before
    assert lock is not None
    lock.release()
    lock.release()
    assert not (tmp_path / LOCK_FILE).exists()


def test_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    start(folder)
    (folder / ".weights.12ab.partial").write_text("half")
    (folder / ".codes.12ab.partial").mkdir()
    (folder / ".codes.12ab.partial" / "x").write_text("half")
    (folder / ".kept").write_text("whole")
    start(folder)
    assert sorted(path.name for path in folder.iterdir()) == [".kept", MANIFEST]
