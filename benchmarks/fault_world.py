"""A tiny world in which every stage takes a second: its inputs, its stages, and how to run them.

Commands run in forks of a process that has imported everything once, or a kill would mostly hit
imports; each is a process of its own, with what it says in a file.
"""

from __future__ import annotations

import csv
import importlib
import json
import os
import re
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from incatalog.cli import COMMANDS, main

_HEAVY = ("trl", "peft", "accelerate", "datasets", "sentence_transformers", "matplotlib.figure",
          "torch.utils.tensorboard", "faiss", "uvicorn", "fastapi", "jinja2", "rapidfuzz",
          "incatalog.grpo.grpo_trainer", "incatalog.rewrite.rewrite_trainer",
          "incatalog.serving.service")  # fmt: skip
_LIMIT_S = 120.0
# What differs between two runs of one command without being a result.
_PLACES = {"manifest.json", ".lock"}
_TIMES = {"seconds", "versions"}


@dataclass(frozen=True)
class Stage:
    """A command of the world.

    Attributes:
        name: The verb.
        folder: Name of its run folder; empty for a command that prints its result.
        flags: Its flags, without ``--out``.
    """

    name: str
    folder: str
    flags: tuple[str, ...]

    def arguments(self, out: Path) -> list[str]:
        """The command line."""
        place = ["--out", str(out)] if self.folder else []
        return [*self.name.split(), *self.flags, *place]


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: Exit code; that of the signal, negative, if it was killed.
        said: What it wrote to standard error.
        output: What it wrote to standard output.
    """

    code: int
    said: str
    output: str

    @property
    def named(self) -> bool:
        """Whether it ended with one line that tells of an error, and no traceback."""
        errors = [line for line in self.said.splitlines() if line.startswith("error: ")]
        return self.code == 2 and len(errors) == 1 and "Traceback" not in self.said


def warm_up() -> None:
    """Imports all that commands need, and starts none of its threads."""
    torch.set_num_threads(1)
    for command in COMMANDS.values():
        importlib.import_module(command.function.split(":")[0])
    for module in _HEAVY:
        importlib.import_module(module)


def spawn(arguments: Sequence[str], log: Path, file_limit: int = 0) -> int:
    """Starts a command in a fork; its process id."""
    log.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".out", ".err"):
        # What the one before it said must not be taken for its own.
        Path(f"{log}{suffix}").unlink(missing_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setpgid(0, 0)
        for stream, suffix in ((1, ".out"), (2, ".err")):
            os.dup2(os.open(f"{log}{suffix}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), stream)
        if file_limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
        code = main(list(arguments))
    except BaseException:
        traceback.print_exc()
    finally:
        for written in (sys.stdout, sys.stderr):
            try:
                written.flush()
            except OSError:
                code = code or 1
        os._exit(code)


def wait(child: int, log: Path, limit_s: float = _LIMIT_S) -> Ended:
    """Waits for a command; one that takes too long is killed."""
    deadline = time.monotonic() + limit_s
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)
    texts = [Path(f"{log}{suffix}").read_text(errors="replace") if Path(f"{log}{suffix}").exists()
             else "" for suffix in (".err", ".out")]  # fmt: skip
    return Ended(os.waitstatus_to_exitcode(status), *texts)


def run(arguments: Sequence[str], log: Path, file_limit: int = 0) -> Ended:
    """Runs a command to its end."""
    return wait(spawn(arguments, log, file_limit), log)


def make_inputs(folder: Path) -> None:
    """Raw tables of thirty items and forty users, and questions."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    with (folder / "items.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["item_id", "title", "genre"])
        for row in range(30):
            rows.writerow(
                [
                    f"i{row}",
                    f"Story of {row} Rivers ({1960 + row})",
                    "Drama" if row % 2 else "Crime",
                ]
            )
    with (folder / "interactions.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["user_id", "item_id", "timestamp"])
        for user in range(40):
            for time_, item in enumerate(random.permutation(30)[: random.integers(5, 12)]):
                rows.writerow([f"u{user}", f"i{item}", 1000 * user + time_])
    (folder / "scorers.yaml").write_text(f"tokens: {{model: {folder.parent}/merged}}\n")
    with (folder / "questions.jsonl").open("w") as stream:
        for number in range(4):
            line = {"question": f"How much is {number} and 4?", "answer": str(number + 4)}
            stream.write(json.dumps(line) + "\n")


def stages(world: Path) -> dict[str, Stage]:
    """Every stage by the name of its folder, in an order in which each finds its inputs."""
    raw, data = world / "raw", str(world / "data")
    vectors = str(world / "vectors" / "data.emb-minilm-td.npy")
    cpu = ("--device", "cpu")
    tiny = ("--model", "tiny", "--data", data, "--tiny-hidden", "16", "--tiny-inner", "32",
            "--tiny-layers", "1", "--tiny-heads", "2", "--tiny-vocab", "400", "--batch-size", "4",
            "--list-length", "3", "--max-history", "4", "--max-steps", "8", "--learning-rate",
            "0.01", "--validate-every", "0", "--checkpoint-every", "2", *cpu)  # fmt: skip
    asked = ("--data", data, "--k", "3", "--bootstrap", "200", *cpu)
    merged, ret = str(world / "merged"), str(world / "ret")
    found = (
        Stage("data table", "data", (
            "--interactions", str(raw / "interactions.csv"), "--items", str(raw / "items.csv"),
            "--category-column", "genre")),
        Stage("teacher fit", "teacher", (
            "--data", data, "--hidden", "16", "--inner", "16", "--layers", "1", "--epochs", "8",
            "--batch-size", "8", "--max-length", "8", *cpu)),
        Stage("items embed", "vectors", ("--data", data, *cpu)),
        Stage("items quantize", "quantizer", (
            "--vectors", vectors, "--codebooks", "4", "4", "4", "--sinkhorn-eps", "0", "0", "0.003",
            "--layers", "16", "--e-dim", "8", "--epochs", "20", "--validate-every", "2", *cpu)),
        Stage("items assign", "codes", (
            "--data", data, "--model", str(world / "quantizer"), "--vectors", vectors, *cpu)),
        Stage("train sft", "adapter", (*tiny, "--tune", "lora", "--lora-r", "2")),
        Stage("train merge", "merged", ("--run", str(world / "adapter"))),
        Stage("train sft", "ret", (
            *tiny, "--tune", "full", "--method", "ret", "--vectors", vectors)),
        Stage("train grpo", "grpo", (
            "--model", merged, "--data", data, "--num-generations", "4", "--batch-size", "8",
            "--max-steps", "6", "--tune", "full", "--reward", "rule", "--validation-users", "8",
            "--checkpoint-every", "2", "--learning-rate", "0.01", *cpu)),
        Stage("evaluate recommend", "recommended", (
            "--model", merged, "--batch-size", "4", *asked)),
        Stage("evaluate chat", "chat", (
            "--model", merged, "--questions", str(raw / "questions.jsonl"), "--batch-size", "4",
            "--users", "12", "--max-new-tokens", "24", *asked)),
        Stage("evaluate retrieval", "retrieval", ("--model", ret, "--batch-size", "4", *asked)),
        Stage("rewrite data", "rows", (
            "--data", data, "--vectors", vectors, "--groups", "8", "--max-history", "3")),
        Stage("rewrite train", "rewriter", (
            "--data", str(world / "rows"), "--model", merged, "--scorers",
            str(raw / "scorers.yaml"), "--reward", "length", "--num-generations", "2",
            "--batch-size", "4", "--max-steps", "6", "--max-tokens", "4", "--learning-rate", "0.01",
            "--checkpoint-every", "2", *cpu)),
        Stage("rewrite apply", "paraphrases", (
            "--data", data, "--rows", str(world / "rows"), "--model", str(world / "rewriter"),
            "--per-item", "2", "--max-tokens", "4", "--batch-size", "4", *cpu)),
        Stage("recommend", "", ("--model", merged, "--history", "i1,i2", "--k", "5", "--format",
                                "json", *cpu)),
    )  # fmt: skip
    return {stage.folder or stage.name: stage for stage in found}


def with_inputs(found: dict[str, Stage], names: Sequence[str], world: Path) -> dict[str, Stage]:
    """The named stages, and before them those whose folders they read."""
    wanted = set(names)
    for name, stage in reversed(found.items()):
        if name in wanted:
            read = {Path(flag) for flag in stage.flags if flag.startswith(str(world))}
            folders = {place for path in read for place in (path, *path.parents)}
            wanted |= {other for other in found if world / other in folders}
    return {name: stage for name, stage in found.items() if name in wanted}


def result(stage: Stage, out: Path, ended: Ended) -> dict[str, Any]:
    """What a command has made, so that two results can be compared by `==`."""
    if not stage.folder:
        return {"output": ended.output}
    return {
        path.relative_to(out).as_posix(): _content(path, out)
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in _PLACES and "tensorboard" not in path.parts
    }


def _content(path: Path, out: Path) -> Any:
    if path.suffix == ".safetensors":
        tensors = load_file(path)
        return {k: (str(v.dtype), v.reshape(-1).view(torch.uint8).numpy().tobytes())
                for k, v in tensors.items()}  # fmt: skip
    if path.suffix == ".json":
        return _without_times(json.loads(path.read_text().replace(str(out), "OUT")))
    if path.name == "README.md":
        # A card is called as its folder.
        called = rf"^(# |.*name: ){re.escape(out.name)}$"
        return re.sub(called, r"\1OUT", path.read_text(), flags=re.MULTILINE)
    return path.read_bytes()


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if k not in _TIMES}
    return [_without_times(one) for one in value] if isinstance(value, list) else value


def killed_after(arguments: Sequence[str], log: Path, seconds: float) -> Ended:
    """Runs a command and kills it after a while, if it still runs."""
    child = spawn(arguments, log)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return wait(child, log)


def killed_when(
    arguments: Sequence[str], log: Path, ready: Callable[[], bool], limit_s: float = 60
) -> Ended:
    """Runs a command and kills it as soon as something is so."""
    child = spawn(arguments, log)
    deadline = time.monotonic() + limit_s
    while not ready() and time.monotonic() < deadline:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    return wait(child, log)
