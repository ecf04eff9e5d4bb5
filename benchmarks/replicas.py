"""Do services that share a state keep what they confirm, whichever is killed?

Three real `incatalog serve` on one state change, answer and talk, and one of them is killed with
`kill -9` every few seconds. Every answer is compared with what was confirmed for its version.

    python -m benchmarks.replicas [--changes 10000] [--kill-every 10] [--on sqlite postgres]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.replica_load import Outcome, under_load
from benchmarks.replica_world import make_model, postgres
from benchmarks.report import markdown, publish

_SERVICES = 3


def measured(kind: str, model: Path, options: argparse.Namespace) -> Outcome:
    """What a run on one kind of state has seen."""
    folder = Path(tempfile.mkdtemp(dir=model.parent))
    load = options.changes, options.kill_every, _SERVICES
    if kind == "sqlite":
        return under_load(folder, model, str(folder / "state.sqlite"), *load)
    with postgres() as server:
        return under_load(folder, model, server.url, *load)


def table(outcomes: dict[str, Outcome]) -> str:
    """What all runs have seen, side by side."""
    names = sorted({name for one in outcomes.values() for name in one.counts})
    rows: list[list[object]] = [
        ["what was confirmed and does not hold", *(len(one.wrong) for one in outcomes.values())],
        [
            "different catalogs at the end",
            *(len(set(one.fingerprints)) - 1 for one in outcomes.values()),
        ],
        *([name, *(f"{one.counts[name]:,}" for one in outcomes.values())] for name in names),
        ["minutes", *(f"{one.seconds / 60:.1f}" for one in outcomes.values())],
    ]
    return markdown(["what", *outcomes], rows)


def main() -> None:
    """Runs it on every kind of state and writes the results down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=10_000)
    parser.add_argument("--kill-every", type=float, default=10.0)
    parser.add_argument("--on", nargs="+", default=["sqlite", "postgres"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="incatalog-replicas-") as scratch:
        model = Path(scratch) / "model"
        make_model(model)
        outcomes = {kind: measured(kind, model, options) for kind in options.on}
    said = [f"* {kind}: {wrong}" for kind, one in outcomes.items() for wrong in one.wrong[:20]]
    question = "Do services that share a state keep what they confirm, whichever is killed?"
    about = (
        f"{_SERVICES} services, {options.changes:,} changes wanted, `kill -9` of one every "
        f"{options.kill_every:g} s or so. 6 threads change items of their own, 3 ask for all "
        "items, 4 hold conversations, two and two the same ones; each asks any service.\n\n"
    )
    publish("replicas", question, about + table(outcomes) + "".join(f"\n{one}" for one in said))
    if any(one.wrong or len(set(one.fingerprints)) != 1 for one in outcomes.values()):
        raise SystemExit("it does not hold")


if __name__ == "__main__":
    main()
