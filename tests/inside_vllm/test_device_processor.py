from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(3600)]


def test_rows_of_the_second_runner_are_those_of_the_loops(
    vllm_python: Path, vllm_environment: dict[str, str], tmp_path: Path
) -> None:
    """Slots that are used again, rows in any order, drafts, prompts in parts, two catalogs."""
    script = shutil.copy(Path(__file__).parent / "device_rows.py", tmp_path)
    done = subprocess.run(
        [vllm_python, script, "60"],
        env=vllm_environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert int(done.stdout.split()[-1]) > 3000
