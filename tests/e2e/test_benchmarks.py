"""The benchmarks are run by hand; that each still fits the package is seen here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.long
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


def test_the_page_of_all_figures_is_that_of_the_files():
    program = (
        "from benchmarks.headlines import page; from benchmarks.report import RESULTS\n"
        "print(page(RESULTS), end='')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=_ROOT, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    shown = (_ROOT / "benchmarks" / "results" / "README.md").read_text(encoding="utf-8")
    assert shown == done.stdout, "run python -c 'from benchmarks.__main__ import join; join()'"
