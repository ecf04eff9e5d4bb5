from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from incatalog.cli import main
from incatalog.data.catalog import Catalog
from incatalog.recommender.recommender import Recommender
from incatalog.teacher.popularity import Popularity
from incatalog.teacher.teacher_folder import save_teacher

ROOT = Path(__file__).resolve().parents[2]
USERS = 40


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty users in row groups of 16: some without history, some with unknown items."""
    random = np.random.default_rng(5)
    histories = [random.permutation(50)[: random.integers(0, 9)].tolist() for _ in range(USERS)]
    rows = [
        {
            "user_id": 100 + number,
            "history": [f"i{item}" for item in history] + ["gone"] * (number == 7),
            "exclude": ["i1", "i2"] if number % 3 == 0 else [],
            "boost": [{"item_id": "i3", "factor": 9.0}] if number % 5 == 0 else None,
        }
        for number, history in enumerate(histories)
    ]
    path = tmp_path_factory.mktemp("users") / "users.parquet"
    pl.DataFrame(rows).write_parquet(path, row_group_size=16)
    return path


@pytest.fixture
def flags(model: Path, users: Path, tmp_path: Path) -> list[str]:
    known = ["--model", model, "--histories", users, "--out", tmp_path / "lists", "--device", "cpu"]
    return ["batch", *map(str, known), "--k", "5", "--shard-users", "10", "--batch-size", "4"]


def lists(out: Path) -> pl.DataFrame:
    return pl.read_parquet(out / "shards" / "*.parquet").sort("user_id")


def ended(said: str) -> list[str]:
    """What was said at the end, without how far it had come before."""
    return [line for line in said.splitlines() if not line.startswith("lists: ")]


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main(list(map(str, words))) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said.removeprefix("error: ").rstrip()


def test_everybody_gets_the_list_that_recommend_gives(
    flags: list[str], users: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags) == 0
    out = tmp_path / "lists"
    told = capsys.readouterr().err.splitlines()
    assert (
        f"notice: {users}: 1 ids left out, as the catalog has no such item, such as 'gone'" in told
    )
    assert f"wrote: {out}/shards: lists for 40 users, 5 files" in told
    found = lists(out)
    recommender = Recommender.from_pretrained(model, device="cpu")
    assert found["user_id"].to_list() == list(range(100, 140))
    assert set(found["catalog_version"]) == {recommender.catalog.fingerprint}
    for row, user in zip(
        found.iter_rows(named=True), pl.read_parquet(users).iter_rows(named=True), strict=True
    ):
        boost = {one["item_id"]: one["factor"] for one in user["boost"] or ()}
        history = [item for item in user["history"] if item != "gone"]
        expected = recommender.recommend(history, k=5, exclude=user["exclude"], boost=boost)
        assert row["items"] == [one.item_id for one in expected]
        assert row["scores"] == pytest.approx([one.score for one in expected], rel=1e-4)
    assert [path.name for path in sorted(out.iterdir())] == [
        "checked.json",
        "manifest.json",
        "shards",
    ]
    results = json.loads((out / "manifest.json").read_text())["results"]
    assert results == {"users": 40, "shards": 5, "short": 0, "empty": 0, "unknown": 1}


def test_a_repeated_command_makes_what_is_lacking(
    flags: list[str], users: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags) == 0
    before, said = lists(tmp_path / "lists"), capsys.readouterr().err
    files = sorted((tmp_path / "lists" / "shards").iterdir())
    written = {path: path.stat().st_mtime_ns for path in files}
    files[2].unlink()
    # What cannot change a list may be another, and the table may lie elsewhere.
    moved = tmp_path / "moved" / users.name
    moved.parent.mkdir()
    moved.write_bytes(users.read_bytes())
    again = [str(moved) if word == str(users) else word for word in flags]
    assert main([*again, "--batch-size", "7", "--lease", "9"]) == 0
    assert "lists: 30 of 40 users are done\n" in capsys.readouterr().err
    assert lists(tmp_path / "lists").drop("scores").equals(before.drop("scores"))
    changed = {path for path in files if path.stat().st_mtime_ns != written[path]}
    assert changed == {files[2]}
    # Nothing is left, so nothing is loaded.
    (tmp_path / "lists" / ".claims").mkdir()
    assert main(flags) == 0
    assert ended(capsys.readouterr().err) == ended(said)


def test_a_folder_of_something_else_is_refused(
    flags: list[str], users: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags) == 0
    capsys.readouterr()
    out = tmp_path / "lists"
    own = f"--out {out}: holds a run with other settings"
    assert refused(capsys, *flags, "--k", 4).startswith(f"{own} (k); repeat its command")
    assert refused(capsys, *flags, "--shard-users", 9).startswith(f"{own} (shard_users)")
    pl.read_parquet(users).head(20).write_parquet(tmp_path / "few.parquet")
    few = ["--histories", tmp_path / "few.parquet"]
    assert refused(capsys, *flags, *few).startswith(f"{own} (contents of histories)")
    model = Path(flags[2])
    guide, catalog = tmp_path / "guide", Catalog.load(model)
    save_teacher(guide, Popularity(range(len(catalog)), catalog), catalog)
    assert refused(capsys, *flags, "--guide", guide).startswith(f"{own} (contents of guide)")
    lone = ["--model", guide, "--data", model]
    said = refused(capsys, *flags, *lone)
    assert said.startswith(f"{own} (contents of model, contents of guide)")


def test_flags_that_cannot_work(
    flags: list[str], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, *flags, "--workers", 2)
    assert said.startswith("--workers 2: counts actors of Ray; add --on ray, or start the comm")
    for more in (["--lease", 0], ["--shard-users", 0]):
        assert refused(capsys, *flags, *more).startswith(f"{more[0]} {more[1]}")
    assert refused(capsys, *flags, "--guide", "nowhere").startswith(
        "--guide nowhere: no such folder"
    )
    assert "no item" in refused(capsys, *flags, "--exclude", "zzz")
    vllm = ["--engine", "vllm"]
    assert refused(capsys, *flags, *vllm).startswith("--decode beam: searches all items")
    shared = refused(capsys, *flags, *vllm, "--decode", "greedy", "--first-share", "0.3")
    assert shared.startswith("--first-share 0.3: is about items found as a whole")
    assert refused(capsys, *flags, "--vllm", "dtype=auto").endswith(
        "is for --engine vllm; add that"
    )
    assert refused(capsys, *flags, "--data", model).endswith("leave --data out")
    assert not (tmp_path / "lists" / "shards").exists()


def test_what_vllm_needs_is_said_before_any_list(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if find_spec("vllm") is not None:
        pytest.skip("vLLM is installed here")
    greedy = ["--engine", "vllm", "--decode", "greedy"]
    assert "pip install 'incatalog[vllm]'" in refused(capsys, *flags, *greedy)
    assert not (tmp_path / "lists" / "shards").exists()


def test_a_user_of_two_rows_stops_it_before_any_list(
    flags: list[str], users: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twice = pl.read_parquet(users)
    pl.concat([twice, twice[3:4]]).write_parquet(tmp_path / "twice.parquet")
    path = tmp_path / "twice.parquet"
    said = refused(capsys, *flags, "--histories", path)
    assert said == f"{path}: row 41: user 103 stands in row 4 too; expected each user once"
    assert not (tmp_path / "lists" / "shards").exists()
    assert not any((tmp_path / "lists" / ".claims").glob("[!.]*"))


def test_fewer_items_than_wanted_are_told(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*flags, "--where", "id=i1,i3,i4"]) == 0
    found = lists(tmp_path / "lists")
    users = pl.read_parquet(flags[4])
    left = [
        len({"i1", "i3", "i4"} - {*row["history"], *row["exclude"]})
        for row in users.iter_rows(named=True)
    ]
    assert found["items"].list.len().to_list() == left
    few = f"fewer items are left for 40 of 40 users, none at all for {left.count(0)}"
    assert f"notice: --k 5: {few}\n" in capsys.readouterr().err


@pytest.mark.long
def test_processes_share_the_shards(flags: list[str], tmp_path: Path) -> None:
    assert main(flags) == 0
    alone = {path.name: path.read_bytes() for path in (tmp_path / "lists" / "shards").iterdir()}
    out = tmp_path / "shared"
    command = [sys.executable, "-m", "incatalog.cli", *flags, "--out", str(out)]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate(timeout=200)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], said
    assert all(f"wrote: {out}/shards: lists for 40 users, 5 files\n" in one for one in said)
    assert {path.name: path.read_bytes() for path in (out / "shards").iterdir()} == alone
    assert [path.name for path in sorted(out.iterdir())] == [
        "checked.json",
        "manifest.json",
        "shards",
    ]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_kills_leave_each_user_once() -> None:
    words = ["--users", "1500", "--kills", "6", "--parts", "kills", "--no-table"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.batch_lists", *words],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| 1,500 | 3 | 6 | 1,500 | 0 | 0 |" in done.stdout
