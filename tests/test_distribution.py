"""What is installed: every package that is imported is declared where its command says."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import pytest

from conftest import REPOSITORY
from incatalog.cli import COMMANDS
from incatalog.installation import distribution

PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))
PACKAGE = REPOSITORY / "src" / "incatalog"
FILES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
# In environments of their own, where they bring us: ms-swift loads our plugin.
ELSEWHERE = {"swift"}
# Installed with one that is declared, and never without.
WITH_OTHERS = {"pydantic_core": "pydantic", "llvmlite": "numba"}


class Imported(NamedTuple):
    """A module that a file imports, or from which it imports a name."""

    module: str
    lazily: bool  # within a function
    extra: str = ""  # named by `require`


def declared(extra: str = "") -> set[str]:
    """What is installed with an extra, or without any; those of other extras that it names too."""
    project = PROJECT["project"]
    lines = project["optional-dependencies"][extra] if extra else project["dependencies"]
    found = set()
    for line in lines:
        name, _, of = re.match(r"([\w.-]+)(\[([\w,-]+)\])?", line).groups()
        if name == "incatalog":
            found |= {package for one in of.split(",") for package in declared(one)}
        else:
            found.add(distribution(name))
    return found


def every_line() -> list[str]:
    project = PROJECT["project"]
    extras = project["optional-dependencies"].values()
    return [*project["dependencies"], *(line for lines in extras for line in lines)]


def installed_as(module: str) -> str:
    package = module.partition(".")[0]
    return distribution(WITH_OTHERS.get(package, package))


def third_party(module: str) -> bool:
    package = module.partition(".")[0]
    return package not in sys.stdlib_module_names and package != "incatalog"


@cache
def imports(module: str) -> tuple[Imported, ...]:
    """What a module of ours imports, but for type checkers."""
    return tuple(_imports(ast.parse(FILES[module].read_text("utf-8")).body, lazily=False))


def _imports(body: Any, *, lazily: bool) -> Iterator[Imported]:
    for node in body:
        if isinstance(node, ast.Import):
            yield from (Imported(alias.name, lazily) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield Imported(inner if inner in FILES else str(node.module), lazily)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from _imports(node.orelse, lazily=lazily)
        else:
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "require":
                yield from _required(node)
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(ast.iter_child_nodes(node), lazily=lazily or inside)


def _required(call: ast.Call) -> Iterator[Imported]:
    [name], extra = call.args, ast.literal_eval(call.keywords[0].value)
    if isinstance(name, ast.Constant):
        yield Imported(name.value, True, extra)


def loaded(module: str) -> set[str]:
    """What comes with a module of ours: all that is imported on its way."""
    seen, found, left = set(), set(), [module]
    while left:
        one = left.pop()
        if one in seen:
            continue
        seen.add(one)
        for imported in imports(one):
            if imported.lazily:
                continue
            if third_party(imported.module):
                found.add(imported.module)
            elif imported.module in FILES:
                left.append(imported.module)
    return found


def test_what_is_imported_is_found() -> None:
    """The reader of imports sees what stands in files that are known."""
    assert Imported("jinja2", False) in imports("incatalog.dialogue.skeleton")
    assert Imported("lm_eval", True, "lm-eval") in imports("incatalog.evaluation.general")
    assert not any(one.module.startswith("torch") for one in imports("incatalog"))
    assert {"trl", "torch", "accelerate"} <= loaded("incatalog.grpo.grpo_trainer")
    assert declared("all") >= declared("serve") | declared("train") | declared("items")


def test_every_package_is_declared() -> None:
    every = declared().union(*map(declared, PROJECT["project"]["optional-dependencies"]))
    lacking = {
        f"{module}: {one.module}"
        for module in FILES
        for one in imports(module)
        if third_party(one.module)
        and one.module.partition(".")[0] not in ELSEWHERE
        and installed_as(one.module) not in every
    }
    assert lacking == set()


def test_what_is_required_is_brought_by_the_extra_that_is_named() -> None:
    wrong = {
        f"{module}: {one.module} of {one.extra}"
        for module in FILES
        for one in imports(module)
        if one.extra and installed_as(one.module) not in declared() | declared(one.extra)
    }
    assert wrong == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_loaded_with_its_extra(name: str) -> None:
    """Nothing is missed before the command can say what is missing."""
    command = COMMANDS[name]
    extras = [declared(extra) for extra in command.extra.split(",") if extra]
    brought = declared().union(*extras)
    needed = loaded(command.function.partition(":")[0])
    assert {module for module in needed if installed_as(module) not in brought} == set()
    assert {module for module in command.needs if installed_as(module) not in brought} == set()


def test_the_base_loads_no_extra() -> None:
    for module in ("incatalog.recommender.recommender", "incatalog.constraint.processor"):
        assert {one for one in loaded(module) if installed_as(one) not in declared()} == set()


@pytest.mark.parametrize("package", ["transformers", "trl", "jsonargparse"])
def test_whose_insides_are_used_has_an_upper_bound(package: str) -> None:
    found = [line for line in every_line() if re.match(rf"{package}\b(?!-)", line)]
    assert found
    assert all(",<" in line for line in found)


def test_bounds_hold_what_is_tested() -> None:
    """The tested versions are among those that are allowed."""
    from packaging.requirements import Requirement

    pinned = dict(
        line.split("==")
        for line in (REPOSITORY / "constraints.txt").read_text("utf-8").splitlines()
        if "==" in line
    )
    checked = set()
    for requirement in map(Requirement, every_line()):
        if requirement.name in pinned:
            assert requirement.specifier.contains(pinned[requirement.name]), requirement
            checked.add(requirement.name)
    assert {"torch", "transformers", "trl", "jsonargparse", "polars"} <= checked


def test_the_newest_version_of_the_changelog_is_the_one_of_the_package() -> None:
    text = (REPOSITORY / "CHANGELOG.md").read_text("utf-8")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    released = [heading for heading in headings if heading != "Unreleased"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ \(\d{4}-\d{2}-\d{2}\)", one) for one in released)
    assert released[0].split()[0] == PROJECT["project"]["version"]
    cited = (REPOSITORY / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {PROJECT['project']['version']}\n" in cited
