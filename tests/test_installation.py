"""What is told of the installation: versions, extras of what is missing, a broken torchvision."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import REPOSITORY
from incatalog.errors import InstallationError
from incatalog.installation import missing, telling_broken, version_lines

METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{more}"


def distribution(folder: Path, name: str, version: str, *required: str) -> None:
    """Puts what describes an installed package into a folder of modules."""
    place = folder / f"{name}-{version}.dist-info"
    place.mkdir(parents=True)
    more = "".join(f"Requires-Dist: {line}\n" for line in required)
    (place / "METADATA").write_text(METADATA.format(name=name, version=version, more=more))


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation of the package with a base of two packages, and four extras."""
    distribution(
        tmp_path, "incatalog", "9.8.7",
        "jinja2>=3.1",
        "scikit-learn>=1.5",
        'faiss-cpu>=1.9; extra == "index"',
        'faiss-cpu>=1.10; extra == "items"',
        "sentence-transformers>=5.1; extra == 'items'",
        'accelerate>=1.5; extra == "train"',
        'incatalog[index,items,train]; extra == "all"',
        'prometheus_client>=0.20; extra == "serve"',
    )  # fmt: skip
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize(
    ("module", "extra", "package", "what"),
    [
        ("jinja2", "", "jinja2", "incatalog"),
        ("jinja2.sandbox", "train", "jinja2", "incatalog"),
        ("sklearn.decomposition", "", "sklearn", "incatalog"),
        ("accelerate", "train", "accelerate", "incatalog[train]"),
        ("accelerate.utils", "", "accelerate", "incatalog[train]"),
        ("accelerate", "train,items", "accelerate", "incatalog[train,items]"),
        # Not what the command's own extra brings.
        ("sentence_transformers", "train", "sentence_transformers", "incatalog[items]"),
        ("faiss", "items", "faiss", "incatalog[items]"),
        ("prometheus_client", "", "prometheus_client", "incatalog[serve]"),
        ("nothing_of_ours", "train", "nothing_of_ours", "nothing_of_ours"),
    ],
)
def test_what_is_missing_is_told_with_what_brings_it(
    module: str, extra: str, package: str, what: str
) -> None:
    told = f"{package} is not installed; run: pip install '{what}'"
    assert str(missing(module, extra)) == told


def test_versions_begin_with_ours_and_name_what_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(tmp_path, "incatalog", "9.8.7")
    distribution(tmp_path, "vllm", "0.32.5")
    monkeypatch.syspath_prepend(tmp_path)
    first, python, *others = version_lines()
    assert first == "incatalog 9.8.7"
    assert python.startswith(f"python {platform.python_version()} (")
    assert "vllm 0.32.5" in others
    assert f"torch {importlib.metadata.version('torch')}" in others


def process(*words: str, first: Path) -> subprocess.CompletedProcess[str]:
    """A Python process in which the modules of a folder come first."""
    path = f"{first}{os.pathsep}{REPOSITORY / 'src'}"
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=100,
        env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip


def test_the_version_is_told_without_what_is_slow_to_load(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')\n")
    done = process("-m", "incatalog.cli", "--version", first=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"incatalog {importlib.metadata.version('incatalog')}"


@pytest.fixture
def torchvision(tmp_path: Path) -> Path:
    """A folder with a torchvision of another torch, which fails as such a one does."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("import torchvision.extension\n")
    (tmp_path / "torchvision" / "extension.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')\n"
    )
    distribution(tmp_path, "torchvision", "0.1.2", "numpy", "torch==1.2.3")
    return tmp_path


TOLD = (
    "torchvision 0.1.2 cannot be imported (operator torchvision::nms does not exist); made for "
    f"torch 1.2.3, found {importlib.metadata.version('torch')}; nothing here needs it: "
    "pip uninstall torchvision, or install the one of this torch"
)


@pytest.mark.long
def test_a_broken_torchvision_is_one_line_of_a_command(torchvision: Path, tmp_path: Path) -> None:
    arguments = ["train", "merge", "--run", str(tmp_path), "--out", str(tmp_path / "out")]
    done = process("-m", "incatalog.cli", *arguments, first=torchvision)
    assert (done.returncode, done.stderr) == (2, f"error: {TOLD}\n")


@pytest.mark.long
def test_a_broken_torchvision_is_named_by_an_import(torchvision: Path) -> None:
    done = process("-c", "from incatalog import Recommender", first=torchvision)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"incatalog.errors.InstallationError: {TOLD}"


def test_what_breaks_elsewhere_stays_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError), telling_broken():
        raise ZeroDivisionError
    with pytest.raises(ModuleNotFoundError, match="no_such_module"), telling_broken():
        importlib.import_module("no_such_module")


def test_the_cause_of_an_import_that_hides_it_is_found(
    torchvision: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(torchvision)

    def hidden() -> None:
        try:
            importlib.import_module("torchvision.ops")
        except RuntimeError as error:
            raise ModuleNotFoundError("Could not import module 'Llama'.") from error

    with pytest.raises(InstallationError) as raised, telling_broken():
        hidden()
    assert str(raised.value) == TOLD
    for module in ("torchvision", "torchvision.extension"):
        monkeypatch.delitem(sys.modules, module, raising=False)
