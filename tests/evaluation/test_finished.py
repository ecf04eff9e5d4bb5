from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from incatalog.artifacts import write_json
from incatalog.errors import ArtifactError
from incatalog.evaluation.finished import read_finished, read_lines, read_users

STAGES = ("evaluate recommend", "evaluate chat")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_json(tmp_path / "manifest.json", {"stage": STAGES[0], "status": "finished"})
    write_json(tmp_path / "summary.json", {"method": "cgen", "k": 3})
    pl.DataFrame({"user_id": ["a", "b"], "HR@3": [0.0, 1.0]}).write_parquet(
        tmp_path / "users.parquet"
    )
    (tmp_path / "conversations.jsonl").write_text('{"a": 1}\n{"b": 2}\n')
    return tmp_path


def test_a_finished_run_is_read(run: Path) -> None:
    manifest, summary = read_finished(run, STAGES)
    assert manifest["stage"] == "evaluate recommend"
    assert summary == {"method": "cgen", "k": 3}
    assert read_users(run / "users.parquet")["HR@3"].to_list() == [0.0, 1.0]
    assert read_lines(run / "conversations.jsonl", 1) == [{"a": 1}]
    assert read_lines(run / "conversations.jsonl", 9) == [{"a": 1}, {"b": 2}]
    assert read_lines(run / "conversations.jsonl", 0) == []


@pytest.mark.parametrize("name", ["manifest.json", "summary.json"])
@pytest.mark.parametrize("content", ["", "[" * 100_000, "[]", '{"a"', "\udcff", "{}", "null"])
def test_a_damaged_record_is_one_line(run: Path, name: str, content: str) -> None:
    (run / name).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ArtifactError) as caught:
        read_finished(run, STAGES)
    assert str(run) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [0, 1, 12, 100, -1])
def test_a_damaged_table_is_one_line(run: Path, kept: int) -> None:
    path = run / "users.parquet"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ArtifactError, match=r"users\.parquet: cannot be read \(.*evaluate again"):
        read_users(path)
    path.unlink()
    with pytest.raises(ArtifactError, match=r"users\.parquet: cannot be read"):
        read_users(path)


@pytest.mark.parametrize("second", [b"{", b"\xff", b"[" * 100_000, b"1" * 5000])
def test_a_damaged_line_is_named(run: Path, second: bytes) -> None:
    path = run / "conversations.jsonl"
    path.write_bytes(b'{"a": 1}\n' + second + b"\n")
    with pytest.raises(ArtifactError, match=r"conversations\.jsonl:2: damaged line"):
        read_lines(path, 2)
    path.write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"conversations\.jsonl: is empty"):
        read_lines(path, 2)
    path.unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_lines(path, 2)


def test_other_and_unfinished_runs_are_named(run: Path) -> None:
    with pytest.raises(ArtifactError, match="holds `incatalog evaluate recommend`; expected"):
        read_finished(run, ("evaluate chat",))
    manifest = json.loads((run / "manifest.json").read_text())
    write_json(run / "manifest.json", manifest | {"status": "running"})
    with pytest.raises(ArtifactError, match="is not finished"):
        read_finished(run, STAGES)
