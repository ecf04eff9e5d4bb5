"""Runs the benchmarks, each in a process of its own, and makes the page of their figures.

python -m benchmarks [NAME ...] [--device cuda] [--dtype bfloat16]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.headlines import page
from benchmarks.report import RESULTS

_HERE = Path(__file__).parent
_SHARED = {"__init__", "__main__", "headlines", "report", "study", "weaknesses", "fault_world"}
_SHARED |= {"steering_requests", "replica_load", "replica_world"}
_SHARED |= {"vllm_contender"}
# They train or serve, and take a quarter of an hour or so; or read raw files that not everyone has.
_LONG = {
    "batch_lists",
    "ablation",
    "grpo_training",
    "amazon",
    "accuracy",
    "chat",
    "paraphrases",
    "remedies",
    "faults",
    "serving_load",
    "half_sent",
    "rankings",
    "door",
    "assistant",
    "steering",
    "quickstart",
    "replicas",
    "prepare",
    "growth",
    "vllm_constraint",
}
_ON_A_DEVICE = {"answer", "scale"}


def main() -> int:
    """Runs the named benchmarks, or all but the long ones; the exit code is the first failure's."""
    known = sorted(path.stem for path in _HERE.glob("*.py") if path.stem not in _SHARED)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    parser.add_argument("--device", default="cpu", help=f"Where {sorted(_ON_A_DEVICE)} run.")
    parser.add_argument("--dtype", default="float32", help="Type of their weights.")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(known)):
        print(f"{', '.join(unknown)}: no such benchmark; there are {', '.join(known)}")
        return 2
    for name in options.names or [name for name in known if name not in _LONG]:
        print(f"== {name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}"]
        if name in _ON_A_DEVICE and (options.device, options.dtype) != ("cpu", "float32"):
            command += ["--device", options.device, "--dtype", options.dtype]
        done = subprocess.run(command, check=False)
        if done.returncode:
            return done.returncode
    join()
    return 0


def join() -> None:
    """Writes the page of all results, ``results/README.md``."""
    (RESULTS / "README.md").write_text(page(RESULTS), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
