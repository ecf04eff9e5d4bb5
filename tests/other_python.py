"""The Python of an environment of its own, for what wants other versions than the rest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from conftest import REPOSITORY


def other_python(folder: str, variable: str, lacking: str) -> Path:
    """The Python of a folder of the repository, or of the environment that a variable names.

    The test is skipped, in the words given, where there is none.
    """
    python = Path(os.environ.get(variable, REPOSITORY / folder)) / "bin" / "python"
    if not python.exists():
        pytest.skip(lacking)
    return python
