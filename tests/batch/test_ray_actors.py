"""Ray places the processes; what they make is the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest


@pytest.fixture(scope="module")
def flags(model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    pytest.importorskip("ray", reason="needs the extra: pip install 'incatalog[ray]'")
    path = tmp_path_factory.mktemp("users") / "users.parquet"
    rows = [{"user_id": n, "history": [f"i{n % 50}", f"i{7 * n % 50}"]} for n in range(30)]
    pl.DataFrame(rows).write_parquet(path)
    known = ["--model", model, "--histories", path, "--k", "4", "--shard-users", "6"]
    return ["batch", *map(str, known)]


def run(*words: object) -> tuple[int, str]:
    """Exit code of a command, and what it said."""
    command = [sys.executable, "-m", "incatalog.cli", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    return done.returncode, done.stderr


@pytest.mark.long
@pytest.mark.timeout(900)
def test_two_actors_give_the_files_of_one_process(flags: list[str], tmp_path: Path) -> None:
    own = ["--device", "cpu", "--out"]
    assert run(*flags, *own, tmp_path / "alone")[0] == 0
    code, said = run(*flags, *own, tmp_path / "ray", "--on", "ray", "--workers", 2)
    assert code == 0, said
    assert f"wrote: {tmp_path}/ray/shards: lists for 30 users, 5 files\n" in said
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / name / "shards").iterdir()}
        for name in ("alone", "ray")
    ]
    assert files[0] == files[1]
    assert not (tmp_path / "ray" / ".claims").exists()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_what_an_actor_fails_with_is_one_line(flags: list[str], tmp_path: Path) -> None:
    # Only who makes lists looks at the device.
    wrong = ["--device", "cuda:77", "--out", tmp_path / "lists"]
    code, alone = run(*flags, *wrong)
    assert code == 2
    code, said = run(*flags, *wrong, "--on", "ray", "--workers", 1)
    assert (code, said) == (2, alone)
