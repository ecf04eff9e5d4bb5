"""What is left of a run after kills, full disks and damaged files: the right answer, or one line?

Every stage in a world of thirty items (see `benchmarks.fault_world`):

* killed at a random moment and repeated, it has to end with the result of a run that nothing
  disturbed; a service that is killed amid changes of its catalog has to keep all it confirmed;
* where the disk is full, or files may not grow beyond a size, it has to end with one line and no
  traceback, and with the right result when it is repeated with room;
* with a flipped bit or a truncation in any file of a run folder, whoever reads the folder has to
  end with one line or give the answer it gives without.

The exit code is 1 if anything else was seen.

python -m benchmarks.faults [--kills 110] [--flips 2] [--stages NAME ...] [--parts kills ...]
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.fault_world import (
    Ended,
    Stage,
    killed_after,
    killed_when,
    make_inputs,
    result,
    run,
    spawn,
    stages,
    wait,
    warm_up,
    with_inputs,
)
from benchmarks.report import markdown, publish

_PARTS = ("kills", "disk", "damage")
_FILE_LIMITS = (300, 3_000, 12_000, 30_000)
_DISK_SHARES = (0.05, 0.3, 0.6, 0.9)
# Fewer kills for stages that take long.
_SLOW_S = 5.0


class World:
    """A world in which every stage has been run once, undisturbed."""

    def __init__(self, folder: Path, names: Sequence[str], random: random.Random) -> None:
        self.folder = folder
        self.random = random
        found = stages(folder)
        self.stages = with_inputs(found, names or list(found), folder)
        self.seconds: dict[str, float] = {}
        self.results: dict[str, Any] = {}
        self.wrong: list[str] = []
        make_inputs(folder / "raw")
        for name, stage in self.stages.items():
            # The first run of each pays for what is set up once.
            out = folder / stage.folder
            for _ in range(2):
                if stage.folder:
                    shutil.rmtree(out, ignore_errors=True)
                started = time.perf_counter()
                ended = run(stage.arguments(out), self.log(name))
                self.seconds[name] = time.perf_counter() - started
            if ended.code:
                sys.exit(f"{name}: the world cannot be made: {ended.said[-2000:]}")
            self.results[name] = result(stage, out, ended)

    def log(self, name: str) -> Path:
        """Where a command says what it has to say."""
        return self.folder / "logs" / name

    def scratch(self, name: str) -> Path:
        """A path where nothing is."""
        folder = self.folder / "scratch" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(exist_ok=True)
        return folder

    def same(self, stage: Stage, name: str, out: Path, ended: Ended, what: str) -> bool:
        """Whether a command ended well and with the undisturbed result; notes it if not."""
        if ended.code:
            self.wrong.append(f"{name}, {what}: exit code {ended.code}: {ended.said[-300:]}")
            return False
        found, expected = result(stage, out, ended), self.results[name]
        differing = sorted(
            key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key)
        )
        if differing:
            self.wrong.append(f"{name}, {what}: differs in {', '.join(differing)}")
        return not differing


def kills(world: World, names: list[str], count: int) -> list[list[object]]:
    """Kills stages at random moments and repeats them."""
    share = -(-count // len(names))
    rows: list[list[object]] = []
    for name in names:
        stage, killed, repeats, same = world.stages[name], 0, 0, 0
        print(f"killing {name}", file=sys.stderr)
        wanted = share if world.seconds[name] < _SLOW_S else min(share, 4)
        while killed < wanted:
            out = world.scratch("killed")
            for _ in range(world.random.randint(1, 3)):
                moment = world.random.uniform(0.01, world.seconds[name] * 1.1)
                ended = killed_after(stage.arguments(out), world.log(name), moment)
                killed += ended.code == -signal.SIGKILL
                if ended.code not in (0, -signal.SIGKILL):
                    world.wrong.append(f"{name}, repeated after a kill: {ended.said[-300:]}")
            ended = run(stage.arguments(out), world.log(name))
            repeats += 1
            same += world.same(stage, name, out, ended, "killed and repeated")
        rows.append([f"`{stage.name}`", killed, repeats, same, repeats - same])
    return rows


def killed_service(world: World, count: int) -> list[object]:
    """Kills a service amid changes of its catalog; what it confirmed has to be there again."""
    state, log = world.scratch("state.sqlite"), world.log("serve")
    model = world.folder / "merged"
    arguments = ["serve", "--model", str(model), "--domain", f"films={model}", "--state",
                 str(state), "--device", "cpu", "--port", "0"]  # fmt: skip
    confirmed: dict[str, str] = {}
    changes = lost = killed = 0
    for number in range(count + 1):
        child = spawn(arguments, log)
        try:
            url = _url_of(child, log)
            for item, title in confirmed.items():
                found = _ask(f"{url}/v1/catalogs/films/items/{item}")
                lost += found.get("title") != title
            if number == count:
                break
            moment = world.random.uniform(0.02, 0.6)
            timer = threading.Timer(moment, os.kill, (child, signal.SIGKILL))
            timer.start()
            with contextlib.suppress(OSError, http.client.HTTPException):
                # Until nobody answers any more; the one on its way may count or not.
                while True:
                    item, title = f"new{changes}", f"Change {changes} of the catalog"
                    changes += 1
                    new = {"items": [{"id": item, "title": title}]}
                    if "version" in _ask(f"{url}/v1/catalogs/films/items", new):
                        confirmed[item] = title
            timer.join()
            killed += 1
        except (OSError, RuntimeError) as error:
            world.wrong.append(f"serve: {error}")
        finally:
            os.kill(child, signal.SIGKILL)
            wait(child, log)
    if lost:
        world.wrong.append(f"serve: {lost} confirmed changes lost")
    return [f"`serve`, {len(confirmed)} changes confirmed", killed, count, count - (lost > 0), lost]


def _url_of(child: int, log: Path) -> str:
    for _ in range(6000):
        said = Path(f"{log}.err").read_text() if Path(f"{log}.err").exists() else ""
        if found := re.search(r"http://127\.0\.0\.1:\d+", said):
            return found[0]
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            raise RuntimeError(f"the service did not start: {said[-300:]}")
        time.sleep(0.01)
    raise RuntimeError("the service did not start")


def _ask(url: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return json.load(reply)
    except urllib.error.HTTPError as error:
        return {"status": error.code}


def without_room(world: World, names: list[str]) -> list[list[object]]:
    """Runs stages where files may not grow, and on small disks, and again with room."""
    rows = []
    for name in names:
        stage = world.stages[name]
        if not stage.folder:
            continue
        counts: Counter[str] = Counter()
        print(f"no room for {name}", file=sys.stderr)
        for limit in _FILE_LIMITS:
            out = world.scratch("limited")
            ended = run(stage.arguments(out), world.log(name), file_limit=limit)
            _judge_room(world, name, out, ended, f"files of {limit} bytes", counts)
        size = sum(p.stat().st_size for p in (world.folder / stage.folder).rglob("*"))
        for share in _DISK_SHARES:
            with small_disk(world.scratch("disk"), int(size * share)) as disk:
                if disk is None:
                    counts["no disk"] += 1
                    continue
                ended = run(stage.arguments(disk / "out"), world.log(name))
                subprocess.run(["mount", "-o", "remount,size=256m", str(disk)], check=True)
                what = f"a disk of {int(size * share)} bytes"
                _judge_room(world, name, disk / "out", ended, what, counts)
        rows.append(
            [f"`{stage.name}`", counts["named"] + counts["fits"] + counts["wrong"], counts["named"],
             counts["fits"], counts["repeated"], counts["wrong"]]
        )  # fmt: skip
    return rows


def _judge_room(
    world: World, name: str, out: Path, ended: Ended, what: str, counts: Counter[str]
) -> None:
    stage = world.stages[name]
    if ended.named:
        counts["named"] += 1
        again = run(stage.arguments(out), world.log(name))
        counts["repeated"] += world.same(stage, name, out, again, f"repeated after {what}")
    elif ended.code == 0 and world.same(stage, name, out, ended, what):
        counts["fits"] += 1
    else:
        counts["wrong"] += 1
        world.wrong.append(f"{name}, {what}: exit code {ended.code}: {ended.said[-300:]}")


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path | None]:
    """A file system of so many bytes, or None where none can be mounted."""
    folder.mkdir()
    pages = max(16, size >> 12)
    command = ["mount", "-t", "tmpfs", "-o", f"size={pages << 12}", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def readers(world: World) -> dict[str, tuple[Stage, Path]]:
    """Who reads each run folder: a stage of the copy that is damaged, and where its result goes."""
    cpu = ("--device", "cpu")
    copy = str(world.folder / "scratch" / "copy")
    data = str(world.folder / "data")
    vectors = str(world.folder / "vectors" / "data.emb-minilm-td.npy")
    asked = ("--data", data, "--k", "3", "--bootstrap", "20", *cpu)
    short = world.stages["adapter"].flags
    out = world.folder / "scratch" / "read"
    found = {
        "data": Stage("evaluate recommend", "x", (
            "--model", "popularity", "--data", copy, "--k", "3", "--bootstrap", "20", *cpu)),
        "teacher": Stage("evaluate recommend", "x", ("--model", copy, *asked)),
        "vectors": Stage("items assign", "x", (
            "--data", data, "--model", str(world.folder / "quantizer"), "--vectors",
            f"{copy}/data.emb-minilm-td.npy", *cpu)),
        "quantizer": Stage("items assign", "x", (
            "--data", data, "--model", copy, "--vectors", vectors, *cpu)),
        "codes": Stage("train sft", "x", (
            *short, "--tune", "full", "--method", "token", "--item-form", "codes", "--index",
            copy)),
        "adapter": Stage("train merge", "x", ("--run", copy)),
        "merged": Stage("recommend", "", (
            "--model", copy, "--history", "i1,i2", "--k", "5", "--format", "json", *cpu)),
        "ret": Stage("recommend", "", (
            "--model", copy, "--history", "i1,i2", "--k", "5", "--format", "json", *cpu)),
        "rows": Stage("rewrite apply", "x", (
            "--data", data, "--rows", copy, "--model", str(world.folder / "merged"), "--per-item",
            "1", "--max-tokens", "2", *cpu)),
        "paraphrases": Stage("train sft", "x", (
            *short, "--tune", "full", "--paraphrases", f"{copy}/paraphrases.jsonl")),
        "recommended": Stage("evaluate report", "x", ("--runs", copy)),
        "chat": Stage("evaluate report", "x", ("--runs", copy)),
    }  # fmt: skip
    return {name: (stage, out) for name, stage in found.items()}


def unfinished(world: World) -> dict[str, Callable[[], bool]]:
    """Stages that leave something to go on from, and when they have: their checkpoints."""
    copy = world.folder / "scratch" / "copy"

    def checkpoints() -> bool:
        return len(list(copy.glob("checkpoints/*/complete.json"))) > 1

    def file(name: str) -> Callable[[], bool]:
        return lambda: (copy / name).exists() and (copy / name).stat().st_size > 0

    return {
        "adapter": checkpoints,
        "grpo": checkpoints,
        "rewriter": checkpoints,
        "paraphrases": file("unfinished.jsonl"),
        "teacher": file("checkpoint.safetensors"),
        "quantizer": file("checkpoint.safetensors"),
        "recommended": file("batches-0.jsonl"),
        "retrieval": file("batches-0.jsonl"),
    }


def damage(world: World, names: list[str], flips: int) -> list[list[object]]:
    """Damages each file of finished and of killed run folders, and lets somebody read them."""
    rows = []
    copy, out = world.folder / "scratch" / "copy", world.folder / "scratch" / "read"
    for name, (stage, _) in readers(world).items():
        if name not in names:
            continue
        source = world.folder / world.stages[name].folder
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(source, copy)
        shutil.rmtree(out, ignore_errors=True)
        ended = run(stage.arguments(out), world.log("read"))
        if ended.code:
            sys.exit(f"{name}: cannot be read undamaged: {ended.said[-2000:]}")
        world.results["read"] = result(stage, out, ended)

        def prepare(source: Path = source) -> None:
            for folder in (copy, out):
                shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(source, copy)

        def read(stage: Stage = stage) -> tuple[Ended, dict[str, Any]]:
            ended = run(stage.arguments(out), world.log("read"))
            return ended, {} if ended.code else result(stage, out, ended)

        expected = world.results["read"]
        rows.append(_damaged(world, f"{name}, read by `{stage.name}`", source, flips,
                             prepare, read, expected))  # fmt: skip
    for name, ready in unfinished(world).items():
        if name not in names:
            continue
        stage = world.stages[name]
        shutil.rmtree(copy, ignore_errors=True)
        killed_when(stage.arguments(copy), world.log(name), ready)
        kept = world.scratch("kept")
        shutil.copytree(copy, kept)

        def restore(kept: Path = kept) -> None:
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(kept, copy)

        def resume(stage: Stage = stage, name: str = name) -> tuple[Ended, dict[str, Any]]:
            ended = run(stage.arguments(copy), world.log(name))
            return ended, {} if ended.code else result(stage, copy, ended)

        rows.append(_damaged(world, f"{name}, killed; resumed by `{stage.name}`", kept,
                             1 if world.seconds[name] > _SLOW_S else flips, restore, resume,
                             world.results[name]))  # fmt: skip
    return rows


def _damaged(
    world: World,
    what: str,
    source: Path,
    flips: int,
    prepare: Callable[[], None],
    read: Callable[[], tuple[Ended, dict[str, Any]]],
    expected: dict[str, Any],
) -> list[object]:
    """Damages the files of a folder one after the other; counts how it was taken."""
    print(f"damaging {what}", file=sys.stderr)
    counts: Counter[str] = Counter()
    files = [
        path.relative_to(source)
        for path in sorted(source.rglob("*"))
        if path.is_file() and path.name != ".lock" and path.stat().st_size
    ]
    for file in files:
        for harm in ["flipped"] * flips + ["truncated", "emptied"]:
            prepare()
            path = world.folder / "scratch" / "copy" / file
            content = bytearray(path.read_bytes())
            place = world.random.randrange(len(content))
            if harm == "flipped":
                content[place] ^= 1 << world.random.randrange(8)
            else:
                content = content[: place if harm == "truncated" else 0]
            path.write_bytes(bytes(content))
            ended, found = read()
            if ended.named:
                counts["named"] += 1
            elif ended.code == 0 and found == expected:
                counts["right"] += 1
            else:
                kind = "unnoticed" if ended.code == 0 else "no single line"
                counts[kind] += 1
                where = f" at {place}" if harm != "emptied" else ""
                world.wrong.append(
                    f"{what}: {file} {harm}{where}: {kind}, exit code {ended.code}: "
                    f"{ended.said.strip()[-200:] if ended.code else ''}"
                )
    total = sum(counts.values())
    return [what, len(files), total, counts["named"], counts["right"], counts["unnoticed"],
            counts["no single line"]]  # fmt: skip


def main() -> int:
    """Does its worst and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=110, help="Kills over all stages.")
    parser.add_argument("--flips", type=int, default=2, help="Flipped bits a file.")
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=_PARTS)
    parser.add_argument("--stages", nargs="+", help="Folders of the world; all when omitted.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-table", action="store_true", help="Only print.")
    options = parser.parse_args()
    started = time.perf_counter()
    warm_up()
    rows: list[str] = []
    with tempfile.TemporaryDirectory(prefix="incatalog-faults-") as folder:
        world = World(Path(folder) / "world", options.stages or (), random.Random(options.seed))
        names = [name for name in world.stages if not options.stages or name in options.stages]
        if "kills" in options.parts:
            table = kills(world, names, round(options.kills * 0.9))
            if not options.stages or "serve" in options.stages:
                table.append(killed_service(world, max(2, round(options.kills * 0.1))))
            total = ["all", *(sum(int(str(row[k])) for row in table) for k in range(1, 5))]
            header = ("killed at random moments", "kills", "repeated", "as if never killed",
                      "otherwise")  # fmt: skip
            rows += ["## Kills", markdown(header, [*table, total])]
        if "disk" in options.parts:
            table = without_room(world, names)
            total = ["all", *(sum(int(str(row[k])) for row in table) for k in range(1, 6))]
            header = ("disk full, or files limited", "tries", "one line", "fits",
                      "right when repeated", "otherwise")  # fmt: skip
            rows += ["## No room", markdown(header, [*table, total])]
        if "damage" in options.parts:
            table = damage(world, names, options.flips)
            total = ["all", *(sum(int(str(row[k])) for row in table) for k in range(1, 7))]
            header = ("damaged folder", "files", "tries", "one line", "right answer", "unnoticed",
                      "no single line")  # fmt: skip
            rows += ["## Flipped bits and truncations", markdown(header, [*table, total])]
        for line in world.wrong:
            print(f"wrong: {line}", file=sys.stderr)
        taken = time.perf_counter() - started
        rows.append(f"{len(world.wrong)} wrong, seed {options.seed}, {taken:.0f} s.")
    text = "\n\n".join(rows)
    if options.no_table:
        print(text)
    else:
        publish("faults", "What is left after kills, full disks and damaged files", text)
    return 1 if world.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
