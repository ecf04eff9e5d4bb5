from __future__ import annotations

import json
import os
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training_fixtures import (
    catalog,
    data,
    histories,
    index,
    semantic_ids,
    teacher,
    tiny_folder,
)
from vllm_environment import vllm_python as vllm_environment_python

__all__ = ["catalog", "data", "histories", "index", "semantic_ids", "teacher", "tiny_folder"]

REPOSITORY = Path(__file__).resolve().parents[2]
Jobs = list[dict[str, Any]]


@pytest.fixture(scope="session")
def vllm_python() -> Path:
    """The Python of an environment that has vLLM."""
    return Path(vllm_environment_python())


@pytest.fixture(scope="session")
def vllm_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a program with vLLM is started with: this checkout, found by its entry points."""
    place = tmp_path_factory.mktemp("plugin")
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = place / f"incatalog-{project['version']}.dist-info"
    info.mkdir()
    about = f"Metadata-Version: 2.1\nName: incatalog\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(about, encoding="utf-8")
    lines = []
    for group, named in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in named.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    paths = [str(REPOSITORY / "src"), str(place)]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_USE_V2_MODEL_RUNNER": "0",
        # So that what a test counts or changes lies in one process.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": "WARNING",
    }


@pytest.fixture(scope="session")
def answer(
    vllm_python: Path, vllm_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Jobs]:
    """Runs jobs of `vllm_answers.py` in one process."""

    def run(jobs: Jobs, **environment: str) -> Jobs:
        folder = tmp_path_factory.mktemp("jobs")
        asked, told = folder / "jobs.json", folder / "told.json"
        asked.write_text(json.dumps(jobs), encoding="utf-8")
        program = Path(__file__).parent / "vllm_answers.py"
        # The same file elsewhere: beside the tests, `vllm` would be their folder.
        script = shutil.copy(program, folder)
        done = subprocess.run(
            [vllm_python, script, asked, told],
            env=vllm_environment | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        found: Jobs = json.loads(told.read_text(encoding="utf-8")) if told.exists() else []
        assert len(found) == len(jobs), done.stdout[-2000:] + done.stderr[-4000:]
        return found

    return run
