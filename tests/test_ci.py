"""Under CI nothing is skipped without a reason that is written down."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import MAY_BE_MISSING, REPOSITORY

TESTS = """
import pytest

def test_lacks_a_tool():
    pytest.skip("no hammer on the path: apt-get install hammer")

@pytest.fixture
def nails():
    pytest.skip("pip install nails")

def test_lacks_a_fixture(nails): ...

@pytest.mark.skipif(True, reason="no saw")
def test_is_marked(): ...

@pytest.mark.xfail(reason="known")
def test_is_known_to_fail():
    assert False

def test_lacks_data():
    pytest.skip("no real data at /nowhere; set INCATALOG_SHARED_DATA to its folder")

def test_works(): ...
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("holes")
    (made / "test_several.py").write_text(TESTS)
    (made / "test_module.py").write_text(
        "import pytest\npytest.importorskip('no_such_tool', reason='pip install no-such-tool')\n"
    )
    return made


def counts(folder: Path, ci: str) -> tuple[int, str]:
    run = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "conftest",
            "--continue-on-collection-errors",
            "--rootdir", str(folder), "-c", "/dev/null", str(folder),
        ],
        env=os.environ | {"CI": ci, "PYTHONPATH": f"{REPOSITORY / 'tests'}:{REPOSITORY / 'src'}"},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return run.returncode, run.stdout


def test_skips_are_failures_under_ci_unless_listed(folder: Path) -> None:
    code, said = counts(folder, "true")
    assert code == 1
    assert "1 failed, 1 passed, 1 skipped, 1 xfailed, 3 errors" in said
    for reason in ("no hammer", "pip install nails", "no saw", "pip install no-such-tool"):
        assert f"skipped under CI: {reason}" in said


@pytest.mark.parametrize("ci", ["", "false"])
def test_skips_are_skips_elsewhere(folder: Path, ci: str) -> None:
    code, said = counts(folder, ci)
    assert code == 0
    assert "1 passed, 5 skipped, 1 xfailed" in said


def test_what_is_listed_is_skipped_for_somewhere_and_says_why() -> None:
    source = "".join(
        path.read_text() for path in (REPOSITORY / "tests").rglob("*.py") if path != Path(__file__)
    ).replace((REPOSITORY / "tests" / "conftest.py").read_text().split("def hole")[0], "")
    for reason, why in MAY_BE_MISSING.items():
        assert reason in source
        assert len(why) > 20
