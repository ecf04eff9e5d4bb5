"""The benchmarks are run by hand; that each still fits the package is seen here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_NAMES = sorted(
    path.stem for path in (_ROOT / "benchmarks").glob("*.py") if not path.stem.startswith("__")
)


@pytest.mark.parametrize("name", _NAMES)
def test_benchmark_finds_all_it_imports(name):
    done = subprocess.run(
        [sys.executable, "-c", f"import benchmarks.{name}"],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
