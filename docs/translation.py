"""Makes the tables of the pages for those who come from a published system.

Run ``python docs/translation.py`` to write anew what stands between the marks of
``docs/from-reclm-uni.md`` and ``docs/from-minionerec.md``. The rows are those by which
``incatalog`` answers a flag that it does not know: ``src/incatalog/translation.toml``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from incatalog.translation import PAGES, Translation, published_scripts

_ROOT = Path(__file__).resolve().parents[1]
_MARKED = re.compile(r"(?s)(<!-- made by docs/translation.py: (\w+) -->\n).*?(<!-- end -->)")


def table() -> dict[str, Any]:
    """Everything in the file of the rows."""
    path = _ROOT / "src" / "incatalog" / "translation.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


def page(system: str) -> str:
    """The page of a system with its marked parts made anew."""
    parts = {
        "commands": lambda: commands(table()["step"]),
        "sections": lambda: "\n".join(map(section, table()["step"])),
        "flags": lambda: flags(system),
        "files": lambda: rows(("theirs", "here", "what to know"), pairs(table()["files"])),
        "ports": lambda: rows(("theirs", "here", "what to know"), pairs(table()["ports"])),
    }
    text = (_ROOT / PAGES[system]).read_text(encoding="utf-8")
    return _MARKED.sub(lambda found: f"{found[1]}{parts[found[2]]()}{found[3]}", text)


def commands(steps: Sequence[Mapping[str, str]]) -> str:
    """One line a section: their command, ours, and whether ours is run with this page."""
    lines = []
    for step in steps:
        also = f" (cgen: {step['cgen']})" if step["cgen"] else ""
        anchor = re.sub(r"[^\w -]", "", step["section"].lower()).replace(" ", "-")
        ran = f"untried: {step['untried']}" if "untried" in step else "with this page"
        name = f"[{step['section']}](#{anchor}){also}"
        ours = code(step["here"]) if "code" in step else step["here"]
        lines.append([name, code(step["theirs"]), ours, ran])
    return rows(("section of their README", "theirs", "here", "run"), lines)


def section(step: Mapping[str, str]) -> str:
    """Their command, ours as it is run, and what differs."""
    lines = [f"### {step['section']}", "", f"Theirs: {code(step['theirs'])}.", ""]
    if "code" in step:
        lines += [f"```{step.get('language', 'bash')}", step["code"].strip("\n"), "```", ""]
    else:
        lines += [f"Untried: {step['untried']}.", ""]
    return "\n".join([*lines, step["differs"].strip("\n"), ""])


def flags(system: str) -> str:
    """A table for each group of scripts of a system."""
    parts = []
    for script in published_scripts():
        if script.system == system:
            head = f"### {', '.join(map(code, script.names))}\n"
            lines = [[code(one.flag), here(one), told(one.note)] for one in script.flags]
            parts.append(f"{head}\n{rows(('theirs', 'here', 'what to know'), lines)}")
    return "\n".join(parts)


def here(row: Translation) -> str:
    """What stands for a flag, as a cell."""
    return ", ".join(map(code, row.here)) or "none"


def told(note: str) -> str:
    """A note in which control tokens do not look like tags."""
    return re.sub(r"<[A-Z]+>", lambda found: code(found[0]), note)


def pairs(found: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Rows of files or ports."""
    return [[code(name), ours, note] for name, (ours, note) in found.items()]


def code(text: str) -> str:
    """Text as code."""
    return f"`{text}`"


def rows(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    every = [header, ["---"] * len(header), *lines]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in every)


if __name__ == "__main__":
    for name, path in PAGES.items():
        (_ROOT / path).write_text(page(name), encoding="utf-8")
