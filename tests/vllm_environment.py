"""Where the tests find vLLM, which lives in an environment of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).resolve().parents[1]


def vllm_python() -> str:
    """The Python that has vLLM: that of `.venv-vllm`, or of the environment INCATALOG_VLLM."""
    folder = Path(os.environ.get("INCATALOG_VLLM", _REPOSITORY / ".venv-vllm"))
    python = folder / "bin" / "python"
    if not python.exists():
        pytest.skip("no vLLM in .venv-vllm: make test-vllm")
    return str(python)


def vllm_variables() -> dict[str, str]:
    """What its processes are to find: this package, and little memory to keep keys in."""
    paths = [str(_REPOSITORY / "src"), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "VLLM_CPU_KVCACHE_SPACE": "1"}
