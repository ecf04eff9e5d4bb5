"""A part of `benchmarks/faults.py`, and all of it under `slow`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]


def faults(*flags: str, limit: int) -> str:
    """Runs the harness, which has to see nothing but right answers and single lines."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults", "--no-table", *flags],
        cwd=_ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def totals(shown: str) -> list[list[int]]:
    """The last row of each table."""
    rows = re.findall(r"^\| all \|(.*)\|$", shown, re.MULTILINE)
    return [[int(cell) for cell in row.split("|")] for row in rows]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_some_kills_and_full_disks_leave_the_right_answer() -> None:
    shown = faults(
        "--kills", "5", "--parts", "kills", "disk", "--stages", "teacher", "adapter", limit=500,
    )  # fmt: skip
    (killed, repeated, same, otherwise), (tries, named, *_, wrong) = totals(shown)
    assert killed >= 4
    assert repeated == same > 0
    assert otherwise == wrong == 0
    assert tries >= named > 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_stage_stands_kills_full_disks_and_damages() -> None:
    kills, disks, damages = totals(faults("--kills", "110", limit=3600))
    assert kills[0] >= 100
    assert kills[3] == disks[4] == damages[4] == damages[5] == 0
