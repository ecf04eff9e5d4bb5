"""What would one pick otherwise? Titles held by vLLM's structured outputs, and by this package.

Each contender runs in a process of its own, on SmolLM2 with two tokens more, and writes one title
of a catalog for users each of whom has items that may not be named:

- ``plain``: vLLM, held to nothing: the model's own step.
- ``xgrammar``, ``guidance``: vLLM's ``structured_outputs`` with all titles as choices, but for
  those of the user.
- ``grammar``: the grammar of this package in vLLM, as `incatalog serve --engine vllm` has it.
- ``engine``: the engine of this package.

One that crashes, takes too long or too much memory is a row that says so.

    python -m benchmarks.vllm_constraint --vllm .venv-vllm/bin/python
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.report import markdown, publish, shared_data
from benchmarks.vllm_contender import CONTENDERS, ROWS

from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories
from incatalog.model.backbone import load_backbone
from incatalog.model.saved import save_model
from incatalog.model.spec import ModelSpec
from incatalog.recommender.recommender import Recommender

_SCRIPT = Path(__file__).with_name("vllm_contender.py")
_SOURCE = Path(__file__).resolve().parents[1] / "src"
_USERS = 2 * max(ROWS) + 1
_OURS = ("engine",)  # runs in this environment too
_HELD = ("xgrammar", "guidance", "grammar", "engine")
_WITH_SOURCE = ("grammar", "engine")
_STAGES = {
    "": "while it started",
    "started": "while it prepared the catalog",
    "prepared": "for another user",
    "another": "for the same user again",
    "again": "at 1 row",
    "rows 1": "at 8 rows",
}


def main() -> None:
    """Runs all contenders, and writes ``results/vllm_constraint.md``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vllm", default=".venv-vllm/bin/python", help="Python that has vLLM.")
    parser.add_argument("--catalogs", nargs="+", default=["office", "games"])
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS))
    parser.add_argument("--seconds", type=float, default=240, help="Of each contender at most.")
    parser.add_argument(
        "--clock",
        choices=["wall", "processor"],
        default="wall",
        help="What seconds are: processor where others use the machine too.",
    )
    parser.add_argument("--megabytes", type=float, default=6000, help="Likewise.")
    options = parser.parse_args()
    table = []
    with tempfile.TemporaryDirectory(prefix="incatalog-bench-") as folder:
        for name in options.catalogs:
            job, items = prepared(name, Path(folder) / name, options.clock)
            for contender in options.contenders:
                python = sys.executable if contender in _OURS else options.vllm
                most = options.seconds, options.megabytes
                told, failure = watched(python, contender, job, *most, options.clock)
                if contender in _HELD:
                    failure = no_titles(told, set(json.loads(job.read_text())["titles"])) or failure
                row = (contender, f"{items:,}", *figures(told, failure))
                print(*row, flush=True)
                table.append(row)
    header = (
        "contender",
        "titles",
        "prepare, s",
        "MB",
        "another user, s",
        "ms a step, 1 row",
        "8 rows",
        "item, s, 1 row",
        "8 items, s",
    )
    publish(
        "vllm_constraint",
        "What holds titles in vLLM, and at what price?",
        markdown(header, table)
        + "\n\nSmolLM2-135M in float32, greedy. *Prepare* is the time from the titles to a first "
        "token, the rest of the start apart, and *MB* the memory that it takes and keeps. *Another "
        "user* is the time to the first token of a user with other items left out. A *step* is the "
        "median of those behind the first. An *item* is a whole answer of one title, by users who "
        "were not seen before. Structured outputs take no weights, name an item twice in a list, "
        "and get every title anew with every request. Each contender had "
        f"{options.seconds:.0f} s and {options.megabytes:,.0f} MB in all."
        + (
            " Seconds are those of the processor, all threads together: others used the machine."
            if options.clock == "processor"
            else ""
        ),
    )


def prepared(name: str, folder: Path, clock: str) -> tuple[Path, int]:
    """The job of a catalog, with a model that knows it, and the number of titles."""
    source = shared_data() / name
    catalog = Catalog.load(source)
    folder.mkdir(parents=True)
    backbone = load_backbone("smollm2", device="cpu")
    save_model(folder, backbone, ModelSpec(base="smollm2"))
    catalog.save(folder)
    recommender = Recommender(backbone, ModelSpec(base="smollm2"), catalog)
    histories = Histories.load(source, recommender.catalog)
    users = np.random.default_rng(0).choice(len(histories), _USERS, replace=False)
    shown = [histories.history(int(user)).tolist() for user in users]
    asked = [
        {"prompt": list(recommender.list_request(own[-10:], 1).prompt_ids), "excluded": own}
        for own in shown
    ]
    tries = folder / "tries"
    tries.mkdir()
    titles = list(dict.fromkeys(recommender.catalog.titles_t))
    job = {"model": str(folder), "tries": str(tries), "titles": titles, "users": asked}
    job["clock"] = clock
    path = folder / "job.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    return path, len(titles)


def watched(
    python: str, contender: str, job: Path, seconds: float, megabytes: float, clock: str
) -> tuple[dict[str, Any], str]:
    """What a contender told of its stages, and why it came no further, if it did not."""
    # With its plugin vLLM refuses all other structured outputs of a model that was trained here; an
    # installation for editing leaves the entry points of the plugin beside the source.
    known = [plugin(job.parent / "plugin")] if contender == "grammar" else []
    paths = os.pathsep.join(map(str, [_SOURCE, *known] if contender in _WITH_SOURCE else []))
    errors = job.with_name(f"{contender}.log")
    told: dict[str, Any] = {}
    began, took, last = time.monotonic(), 0.0, ""
    with errors.open("w") as log:
        process = subprocess.Popen(
            [python, "-P", str(_SCRIPT), contender, str(job)],
            stdout=subprocess.PIPE,
            stderr=log,
            stdin=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"PYTHONPATH": paths},
            start_new_session=True,
        )
        assert process.stdout is not None
        with selectors.DefaultSelector() as waiting:
            waiting.register(process.stdout, selectors.EVENT_READ)
            failure = ""
            while not failure:
                if waiting.select(timeout=0.5):
                    line = process.stdout.readline()
                    if not line:
                        break
                    if line.startswith('{"stage"'):
                        found = json.loads(line)
                        last = found["stage"]
                        told[last] = found
                        print(f"  {contender}: {line.rstrip()[:200]}", flush=True)
                took = time.monotonic() - began if clock == "wall" else _busy(process.pid)
                if took > seconds:
                    failure = f"no end after {seconds:.0f} s"
                elif (held := _resident(process.pid)) > megabytes:
                    failure = f"{held:,.0f} MB after {took:.0f} s"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
    if not failure and code != 0:
        failure = f"{_reason(errors)} after {took:.0f} s"
    where = _STAGES.get(last, "")
    return told, f"{failure} {where}" if failure else ""


def no_titles(told: dict[str, Any], titles: set[str]) -> str:
    """What was written in the place of a title, if anything; how long that took says nothing."""
    for rows in ROWS:
        for text in told.get(f"rows {rows}", {}).get("texts", ()):
            spans = re.findall(r"<SOI>(.*?)<EOI>", text) or [text]
            if any(span.strip() not in titles for span in spans):
                for all_rows in ROWS:
                    told.pop(f"rows {all_rows}", None)
                return f"wrote {text[:40]!r}, which is no title, with {rows} rows"
    return ""


def plugin(folder: Path) -> Path:
    """A folder by which vLLM finds the entry points of this package."""
    described = tomllib.loads((_SOURCE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    known = folder / "incatalog-0.dist-info"
    if not known.exists():
        known.mkdir(parents=True)
        (known / "METADATA").write_text("Metadata-Version: 2.1\nName: incatalog\nVersion: 0\n")
        lines = []
        for group, own in described["project"]["entry-points"].items():
            lines += [f"[{group}]", *(f"{name} = {value}" for name, value in own.items())]
        (known / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return folder


def _busy(pid: int) -> float:
    """Seconds of processors that a process has taken."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")


def _resident(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def _reason(log: Path) -> str:
    """The error at the end of a log."""
    lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    named = [line for line in lines if "Error" in line.split(":")[0]]
    return (named or lines or ["it ended"])[-1].strip()[:120]


def figures(told: dict[str, Any], failure: str) -> Sequence[str]:
    """Cells of a row; the first that is missing says why."""
    cells: list[str | None] = [
        _cell(told, "prepared", "seconds", "{:.2f}"),
        _cell(told, "prepared", "megabytes", "{:.0f}"),
        _cell(told, "another", "seconds", "{:.2f}"),
        *(_cell(told, f"rows {rows}", "ms", "{:.0f}") for rows in ROWS),
        *(_cell(told, f"rows {rows}", "item", "{:.2f}") for rows in ROWS),
    ]
    missing = [number for number, cell in enumerate(cells) if cell is None]
    if missing:
        cells[missing[0]] = f"**fails**: {failure or 'it told nothing'}".replace("|", "/")
    return ["" if cell is None else cell for cell in cells]


def _cell(told: dict[str, Any], stage: str, field: str, form: str) -> str | None:
    return form.format(told[stage][field]) if stage in told else None


if __name__ == "__main__":
    main()
