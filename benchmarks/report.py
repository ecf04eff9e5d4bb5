"""What every benchmark shares: where real titles lie, timing side by side, the table it writes."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from incatalog.model.backbone import Backbone, load_backbone

RESULTS = Path(__file__).parent / "results"
_PART = "\n<!-- by another command -->\n\n## "


def shared_data() -> Path:
    """The folder of real data: INCATALOG_SHARED_DATA, or shared/data beside the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("INCATALOG_SHARED_DATA", beside))
    if not folder.is_dir():
        sys.exit(f"{folder}: no such folder; set INCATALOG_SHARED_DATA to the folder of real data")
    return folder


def interleaved(
    contenders: Mapping[str, Callable[[], object]], rounds: int, *, warm_up: bool = True
) -> dict[str, list[float]]:
    """Seconds of each contender in each round; a round runs them one after the other."""
    if warm_up:
        for run in contenders.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: Mapping[str, Sequence[float]], name: str, base: str) -> float:
    """Median over the rounds of the time against that of ``base`` in the same round."""
    pairs = zip(seconds[name], seconds[base], strict=True)
    return statistics.median(own / other for own, other in pairs)


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Lets a benchmark run elsewhere than on the CPU."""
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ...")
    parser.add_argument("--dtype", default="float32", help="Type of the weights, as bfloat16.")


def backbone_of(options: argparse.Namespace) -> Backbone:
    """The model of a benchmark, where and as its options say."""
    dtype = getattr(torch, options.dtype)
    backbone = load_backbone(options.model, device=options.device, dtype=dtype)
    backbone.model.eval()
    return backbone


def synchronised(run: Callable[[], object], device: str) -> Callable[[], object]:
    """Ends when the device has done its work, and not when it was told to."""
    if not device.startswith("cuda"):
        return run

    def wait() -> object:
        found = run()
        torch.cuda.synchronize()
        return found

    return wait


def _made_by(name: str) -> str:
    """The command that runs, and on what."""
    arguments = " ".join(sys.argv[1:])
    machine = f"{torch.get_num_threads()} threads, {platform.machine()}, torch {torch.__version__}"
    if "cuda" in arguments:
        machine = f"{torch.cuda.get_device_name()}, {machine}"
    return f"`python -m benchmarks.{name} {arguments}`".rstrip() + f" on {machine}"


def publish(name: str, question: str, body: str) -> None:
    """Prints a result and writes it to ``results/NAME.md`` with the command that made it.

    Parts that other commands have added to it stay.
    """
    text = f"# {question}\n\n{_made_by(name)}\n\n{body}\n"
    print(text)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.md"
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    _, mark, parts = before.partition(_PART)
    path.write_text(text + mark + parts, encoding="utf-8")


def publish_part(name: str, command: str, heading: str, body: str) -> None:
    """Prints a result and puts it behind that of ``NAME``, or where the part of its heading is."""
    text = f"{heading}\n\n{_made_by(command)}\n\n{body}\n"
    print(text)
    path = RESULTS / f"{name}.md"
    first, *others = path.read_text(encoding="utf-8").split(_PART)
    parts = {part.partition("\n")[0]: part for part in others} | {heading: text}
    path.write_text(_PART.join([first, *parts.values()]), encoding="utf-8")
