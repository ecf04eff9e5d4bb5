"""Where the tests find vLLM, which lives in an environment of its own."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

from conftest import REPOSITORY
from other_python import other_python


def vllm_python() -> str:
    """The Python that has vLLM: that of `.venv-vllm`, or of the environment INCATALOG_VLLM."""
    lacking = "no vLLM in .venv-vllm: make test-vllm"
    return str(other_python(".venv-vllm", "INCATALOG_VLLM", lacking))


def vllm_variables(folder: Path) -> dict[str, str]:
    """What its processes are to find: this package, its entry points, little memory for keys.

    The entry points are written into a folder, as the package need not be installed there.
    """
    described = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    known = folder / "incatalog-0.dist-info"
    known.mkdir(parents=True)
    (known / "METADATA").write_text("Metadata-Version: 2.1\nName: incatalog\nVersion: 0\n")
    groups = described["project"]["entry-points"].items()
    lines = (
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in own.items())
        for group, own in groups
    )
    (known / "entry_points.txt").write_text("".join(lines))
    paths = [str(REPOSITORY / "src"), str(folder), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "VLLM_CPU_KVCACHE_SPACE": "1"}
