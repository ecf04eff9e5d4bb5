"""Lists for everybody: how fast beside `recommend_batch`, and what kills leave of them.

Made users of a catalog of fifty films and a tiny model that was never trained. Commands run in
forks of a process that has imported everything once, or a kill would mostly hit imports.

* speed: users a second of all that `incatalog batch` does but loading the model, and of one call of
  `recommend_batch` for the same users, in time of the processor, in turn;
* kills: three processes share a folder, and one of them is killed and started again, as often as
  asked for; then the rows have to be those of a run that nothing disturbed.

The exit code is 1 if they are not.

python -m benchmarks.batch_lists [--users 100000] [--kills 20] [--parts speed kills]
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from benchmarks.fault_world import spawn, wait
from benchmarks.report import markdown, publish, publish_part
from pyarrow import parquet
from rich.console import Console

from incatalog.batch.batch_job import BatchJob, JobReport
from incatalog.batch.list_makers import open_lists
from incatalog.batch.settings import BatchSettings
from incatalog.batch.user_table import UserTable
from incatalog.data.catalog import Catalog, Item
from incatalog.data.where import EVERYTHING
from incatalog.model.backbone import create_tiny
from incatalog.model.saved import save_model
from incatalog.model.spec import ModelSpec
from incatalog.model.tiny import TinyConfig
from incatalog.recommender.opening import catalog_of
from incatalog.recommender.recommender import Recommender

_NAME = "batch_lists"
_PROCESSES = 3
_FILMS = 50
_ROUNDS = 3
_SPEED_USERS = 2048
_LIMIT_S = 4 * 3600.0
_SEED = 0


def main() -> int:
    """Measures, kills and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=100_000, help="of the killed run")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--parts", nargs="*", default=["speed", "kills"])
    parser.add_argument("--no-table", action="store_true", help="print, and write no file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        world = Path(place)
        # Threads of libraries do not live on in a fork, so this process starts none.
        _in_fork(lambda: _make_inputs(world, options.users))
        speed, kills, wrong = "", "", 0
        if "speed" in options.parts:
            _in_fork(lambda: _measure(world))
            speed = (world / "speed.md").read_text(encoding="utf-8")
        if "kills" in options.parts:
            kills, wrong = _kill(world, options.users, options.kills)
    if options.no_table:
        print(speed, kills, sep="\n\n")
        return 1 if wrong else 0
    if speed:
        publish(_NAME, "Lists for everybody: how fast, and what do kills leave?", speed)
    if kills:
        publish_part(_NAME, _NAME, "What kills leave", kills)
    return 1 if wrong else 0


def _in_fork(work: Callable[[], None]) -> None:
    """Does something in a process of its own."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        code = 1
        try:
            work()
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        sys.exit(f"{work}: failed")


def _make_inputs(world: Path, users: int) -> None:
    """The model's folder and two tables of users."""
    titles = [f"Story of {number} Rivers ({1950 + number})" for number in range(_FILMS)]
    sizes = TinyConfig(vocab_size=400, hidden=32, inner=64, layers=1, heads=2, seed=_SEED)
    save_model(world / "model", create_tiny(titles, sizes), ModelSpec(base="tiny"))
    Catalog.from_items([Item(f"i{n}", title) for n, title in enumerate(titles)]).save(
        world / "model"
    )
    for name, count in (("users", users), ("few", min(users, _SPEED_USERS))):
        draw = np.random.default_rng(_SEED)
        histories = [draw.permutation(_FILMS)[: draw.integers(0, 11)] for _ in range(count)]
        table = pa.table(
            {
                "user_id": pa.array(range(count)),
                "history": [[f"i{item}" for item in history] for history in histories],
            }
        )
        parquet.write_table(table, world / f"{name}.parquet", row_group_size=max(1, count // 4))


def _settings(world: Path, table: str, out: str, shard_users: int) -> BatchSettings:
    model, path = str(world / "model"), world / f"{table}.parquet"
    return BatchSettings(
        model=model, histories=path, out=world / out, device="cpu", shard_users=shard_users
    )


def _measure(world: Path) -> None:
    """Time of the processor for the same users, both ways in turn."""
    settings = _settings(world, "few", "speed", 512)
    table, catalog = UserTable.open(settings.histories), catalog_of(settings.model, "trained", None)
    rules: dict[str, Any] = {"exclude": [], "categories": [], "where": EVERYTHING}
    maker = open_lists(settings, "trained", catalog, rules)
    recommender = Recommender.from_pretrained(settings.model, device="cpu")
    histories = [list(u.history) for s in table.shards(512) for b in table.rows(s, 64) for u in b]

    def batch() -> None:
        shutil.rmtree(settings.out, ignore_errors=True)
        job = BatchJob.open(settings, "trained", catalog, table)
        job.check()
        with JobReport(job, Console(quiet=True)) as report:
            job.work(maker, report)
        job.finish()

    ways: dict[str, Callable[[], object]] = {
        "recommend_batch": lambda: recommender.recommend_batch(histories, settings.k),
        "incatalog batch": batch,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for run in ways.values():
        run()
    for _ in range(_ROUNDS):
        for name, run in ways.items():
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    base = seconds["recommend_batch"]
    rows = [
        (
            name,
            f"{len(histories) / statistics.median(own):.0f}",
            f"{statistics.median(b / o for b, o in zip(base, own, strict=True)):.2f}",
        )
        for name, own in seconds.items()
    ]
    header = ("how", "users a second", "of recommend_batch")
    (world / "speed.md").write_text(markdown(header, rows), encoding="utf-8")


def _kill(world: Path, users: int, kills: int) -> tuple[str, int]:
    """A folder that nothing disturbs and one that is killed in, and where their rows differ."""
    # Enough of them that every kill has one of its own to hit.
    shard_users = max(1, users // max(100, 5 * kills))
    alone = _start(world, "alone", shard_users, 0)
    draw, began = random.Random(_SEED), time.monotonic()
    children = {n: _start(world, "killed", shard_users, n) for n in range(_PROCESSES)}
    for moment in sorted(draw.uniform(0.02, 0.95) for _ in range(kills)):
        while (share := _share_done(world / "killed", users, shard_users)) < moment:
            time.sleep(0.01)
        # Anywhere in the shards that are being made, and not only where one ends.
        shard_s = (time.monotonic() - began) * _PROCESSES * shard_users / users / share
        time.sleep(draw.uniform(0, shard_s))
        victim = draw.choice(list(children))
        os.kill(children[victim], signal.SIGKILL)
        os.waitpid(children[victim], 0)
        children[victim] = _start(world, "killed", shard_users, victim)
    for number, child in children.items():
        _finish(child, world / f"killed{number}")
    _finish(alone, world / "alone0")
    expected, found = _rows(world / "alone"), _rows(world / "killed")
    ids = found.column("user_id").to_pylist()
    once = len(ids) == len(set(ids)) == users
    unlike = 0 if found.equals(expected) else sum(
        one != other for one, other in zip(found.to_pylist(), expected.to_pylist(), strict=False)
    ) or 1  # fmt: skip
    left = [
        path.name for path in (world / "killed" / "shards").iterdir() if path.suffix != ".parquet"
    ]
    wrong = unlike + len(left) + (not once)
    header = ("users", "processes", "kills", "rows", "that differ", "files left over")
    row = (f"{users:,}", _PROCESSES, kills, f"{len(ids):,}", unlike, len(left))
    return markdown(header, [row]), wrong


def _start(world: Path, out: str, shard_users: int, number: int) -> int:
    settings = _settings(world, "users", out, shard_users)
    flags = ["--model", settings.model, "--histories", settings.histories, "--out", settings.out]
    flags += ["--shard-users", shard_users, "--device", "cpu", "--lease", 60]
    return spawn(["batch", *map(str, flags)], world / f"{out}{number}")


def _finish(child: int, log: Path) -> None:
    """Waits for a command that has to end well."""
    ended = wait(child, log, _LIMIT_S)
    if ended.code:
        sys.exit(f"batch ended with {ended.code}: {ended.said}")


def _share_done(out: Path, users: int, shard_users: int) -> float:
    folder = out / "shards"
    done = len(list(folder.glob("[0-9]*.parquet"))) if folder.is_dir() else 0
    return done * shard_users / users


def _rows(out: Path) -> Any:
    """All lists, by user."""
    files = sorted((out / "shards").glob("*.parquet"))
    tables = [parquet.ParquetFile(file).read(use_threads=False) for file in files]
    return pa.concat_tables(tables).sort_by("user_id").combine_chunks()


if __name__ == "__main__":
    sys.exit(main())
