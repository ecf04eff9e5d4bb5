"""What keeps the package easy to find one's way in."""

from __future__ import annotations

import ast
import re
import runpy
from collections import defaultdict
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_PACKAGE = _ROOT / "src" / "incatalog"
_FILES = sorted(_PACKAGE.rglob("*.py"))
_MOST_LINES = 400
# Their folder says it all.
_REPEATED = {"__init__", "settings"}


def _module(path: Path) -> str:
    parts = path.relative_to(_PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_file_is_long() -> None:
    lines = {path.name: path.read_text(encoding="utf-8").count("\n") for path in _FILES}
    assert {name: count for name, count in lines.items() if count > _MOST_LINES} == {}


def test_no_two_files_have_one_name() -> None:
    found = defaultdict(list)
    for path in _FILES:
        if path.stem not in _REPEATED:
            found[path.stem].append(_module(path))
    assert [modules for modules in found.values() if len(modules) > 1] == []


def test_no_two_classes_have_one_name() -> None:
    found = defaultdict(list)
    for path in _FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(_module(path))
    assert {name: modules for name, modules in found.items() if len(modules) > 1} == {}


def test_no_module_imports_in_a_circle() -> None:
    modules = {_module(path) for path in _FILES}
    imports: dict[str, set[str]] = {}
    for path in _FILES:
        imported = imports[_module(path)] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                for name in node.names:
                    inner = f"{node.module}.{name.name}"
                    imported.add(inner if inner in modules else node.module)
    left = {name: imported & modules - {name} for name, imported in imports.items()}
    # A module without imports that are left cannot be in a circle.
    while free := {name for name, imported in left.items() if not imported}:
        left = {name: imported - free for name, imported in left.items() if name not in free}
    assert left == {}


def test_names_come_from_where_they_are_defined() -> None:
    """No module imports a name from one that only imports it."""
    modules = {_module(path): ast.parse(path.read_text(encoding="utf-8")) for path in _FILES}
    imported_by = {
        module: {
            alias.asname or alias.name
            for node in tree.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        for module, tree in modules.items()
    }
    wrong = [
        f"{module}: {node.module}.{alias.name}"
        for module, tree in modules.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in imported_by
        for alias in node.names
        if alias.name in imported_by[node.module]
    ]
    assert wrong == []


def test_the_page_of_the_architecture_is_true() -> None:
    page = (_ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    folders = {path.name for path in _PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert set(re.findall(r"(?m)^\*\*`(\w+)`\*\*", page)) == folders
    named = set(re.findall(r"`(\w+(?:/\w+)*\.py)`", page))
    missing = {
        name
        for name in named
        if not any(
            (place / name).exists() for place in (_PACKAGE, *map(_PACKAGE.joinpath, folders))
        )
    }
    assert missing == set()


def test_the_picture_of_the_floors_is_that_of_the_code() -> None:
    drawn = runpy.run_path(str(_ROOT / "docs" / "architecture.py"))["draw"]()
    picture = _ROOT / "docs" / "images" / "architecture.svg"
    assert picture.read_text(encoding="utf-8") == drawn, "run python docs/architecture.py"


def test_the_floors_are_those_of_the_folders() -> None:
    floors = runpy.run_path(str(_ROOT / "docs" / "architecture.py"))["floors"]()
    listed = {name for floor in floors for name in floor}
    folders = {path.name for path in _PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert folders <= listed
