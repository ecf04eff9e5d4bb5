"""Two files made of Office become a service whose chats are as good as its blend."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_answers_over_http_are_as_good_as_the_blend_and_better_than_popularity(
    shared_data, smollm2_folder, tmp_path
):
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.quickstart", "--data", str(shared_data / "office")]
    subprocess.run(
        [*command, "--users", "200", "--out", str(tmp_path / "shop"), "--json", str(figures)],
        cwd=_ROOT,
        check=True,
        timeout=3500,
    )
    found = json.loads(figures.read_text())
    assert found["users"] == 200
    assert found["chat over HTTP"]["value"] >= 0.95 * found["blend"]["value"]
    assert found["chat less popularity"]["low"] > 0
