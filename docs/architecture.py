"""Draws the floors of the package, from the layers that the linter holds and the imports there are.

Run ``python docs/architecture.py`` to write ``docs/images/architecture.svg`` anew.
"""

from __future__ import annotations

import ast
import tomllib
from html import escape
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_PACKAGE = _ROOT / "src" / "incatalog"
_PICTURE = _ROOT / "docs" / "images" / "architecture.svg"
_WIDTH, _ROW, _BOX, _LEFT, _WIDEST = 1160, 92, 54, 20, 370


def floors() -> list[list[str]]:
    """Folders and files of each floor, the highest first."""
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    return [[name.strip() for name in layer.replace(":", "|").split("|")] for layer in layers]


def about(name: str) -> str:
    """First line of the docstring of a folder or file."""
    folder = _PACKAGE / name
    path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()[0]


def imports() -> set[tuple[str, str]]:
    """Which folder or file imports which other one."""
    found = set()
    for path in sorted(_PACKAGE.rglob("*.py")):
        own = path.relative_to(_PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("incatalog."):
                other = str(node.module).split(".")[1]
                if other != own:
                    found.add((own, other))
    return found


def draw() -> str:
    """The picture: a box for each folder or file, a line where a folder imports another."""
    rows = floors()
    boxes: dict[str, tuple[float, float, float]] = {}
    for level, names in enumerate(rows):
        width = min((_WIDTH - 2 * _LEFT) / len(names), _WIDEST)
        left = (_WIDTH - width * len(names)) / 2
        for place, name in enumerate(names):
            boxes[name] = (left + place * width, 20 + level * _ROW, width - 14)
    lines = []
    for own, other in sorted(imports()):
        if (_PACKAGE / own).is_dir() and (_PACKAGE / other).is_dir():
            (x, y, w), (u, v, t) = boxes[own], boxes[other]
            start, end = (x + w / 2, y + _BOX), (u + t / 2, v)
            bend = (v - y - _BOX) / 2
            lines.append(
                f'<path d="M{start[0]:.0f},{start[1]:.0f} C{start[0]:.0f},{start[1] + bend:.0f} '
                f'{end[0]:.0f},{end[1] - bend:.0f} {end[0]:.0f},{end[1]:.0f}"/>'
            )
    parts = []
    for name, (x, y, w) in boxes.items():
        folder = (_PACKAGE / name).is_dir()
        letters = int(w / 6.1)
        text = about(name).rstrip(".")
        shown = text if len(text) <= letters else text[: letters - 1].rstrip() + "…"
        parts.append(
            f'<g><title>{escape(text)}</title><rect x="{x:.0f}" y="{y:.0f}" width="{w:.0f}" '
            f'height="{_BOX}" rx="6" class="{"folder" if folder else "file"}"/>'
            f'<text x="{x + 10:.0f}" y="{y + 23:.0f}" class="name">{name}{"/" if folder else ".py"}'
            f'</text><text x="{x + 10:.0f}" y="{y + 42:.0f}">{escape(shown)}</text></g>'
        )
    height = 20 + len(rows) * _ROW
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
            'font-family="Helvetica, Arial, sans-serif" font-size="11">',
            "<style>rect{stroke:#345;stroke-width:1}.folder{fill:#e8f0fa}.file{fill:#f6f6f2}"
            "path{fill:none;stroke:#789;opacity:.5}.name{font-size:14px;font-weight:bold}"
            "text{fill:#123}</style>",
            f'<rect width="{_WIDTH}" height="{height}" fill="#fff" style="stroke:none"/>',
            *lines,
            *parts,
            "</svg>",
            "",
        ]
    )


if __name__ == "__main__":
    _PICTURE.write_text(draw(), encoding="utf-8")
