"""The benchmarks are run by hand; that each still fits the package is seen here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


def test_every_benchmark_finds_all_it_imports():
    found = sorted((_ROOT / "benchmarks").glob("*.py"))
    names = [f"benchmarks.{path.stem}" for path in found if not path.stem.startswith("__")]
    assert names
    done = subprocess.run(
        [sys.executable, "-c", f"import {', '.join(names)}"],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
