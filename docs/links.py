"""Reads the links and headings of the pages, and says which links lead nowhere.

Pages are read where they stand, without building the site: a link that works here works where the
repository is shown, and ``docs/pages.py`` lays the same files out as the site.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[1]
# What is a page, beside the files in docs/.
_PAGES = ("*.md", "docs/*.md", "docs/*.ipynb", "recipes/*.md", "benchmarks/results/*.md")
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:")


class Link(NamedTuple):
    """A link or picture of a page, by what stands in its brackets."""

    line: int
    target: str


def pages(root: Path = ROOT) -> list[Path]:
    """Every page, in the order of its path."""
    return sorted(path for pattern in _PAGES for path in root.glob(pattern))


def text_of(page: Path) -> str:
    """The Markdown of a page; of a notebook, that of its cells of text."""
    text = page.read_text(encoding="utf-8")
    if page.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    return "\n\n".join("".join(one["source"]) for one in cells if one["cell_type"] == "markdown")


def links(page: Path) -> list[Link]:
    """All links and pictures of a page that do not lead to another host."""
    found = []
    for block in _parsed(page):
        for token in block.children or ():
            target = token.attrGet("href") or token.attrGet("src")
            if isinstance(target, str) and not ELSEWHERE.match(target):
                found.append(Link(block.map[0] + 1 if block.map else 0, target))
    return found


def anchors(page: Path) -> set[str]:
    """What may stand behind ``#`` in links to a page: its headings, as GitHub names them."""
    seen: dict[str, int] = {}
    found = set()
    for heading in _headings(page):
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        times = seen[name] = seen.get(name, -1) + 1
        found.add(f"{name}-{times}" if times else name)
    return found


def title(page: Path) -> str:
    """The first heading of a page."""
    return next(_headings(page))


def target_file(page: Path, link: str) -> Path:
    """The file that a link of a page leads to."""
    path = unquote(link.split("#")[0])
    return (page.parent / path).resolve() if path else page


def broken(root: Path = ROOT) -> list[str]:
    """A line for each link that leads to no file, to a folder, or to no heading of its page."""
    every = set(pages(root))
    return [
        f"{page.relative_to(root)}:{link.line}: {link.target}: {wrong}"
        for page in sorted(every)
        for link in links(page)
        if (wrong := _wrong(page, link.target, every, root))
    ]


def _wrong(page: Path, link: str, every: set[Path], root: Path) -> str:
    file, anchor = target_file(page, link), link.partition("#")[2]
    if not file.is_relative_to(root):
        return "is outside of the repository"
    if not file.is_file():
        return "is a folder; name a file in it" if file.is_dir() else "no such file"
    if anchor and (file not in every or unquote(anchor) not in anchors(file)):
        return "no such heading"
    return ""


def tight_lists(page: Path) -> list[int]:
    """Lines at which a list begins right below a paragraph.

    GitHub shows a list there, and the site's Markdown goes on with the paragraph.
    """
    lines = text_of(page).splitlines()
    lists = ("bullet_list_open", "ordered_list_open")
    return [
        token.map[0] + 1
        for token in _parsed(page)
        if token.type in lists and token.map and token.level == 0
        if token.map[0] and lines[token.map[0] - 1].strip()
    ]


@cache
def _parsed(page: Path) -> Sequence[Token]:
    return MarkdownIt("commonmark").enable("table").parse(text_of(page))


def _headings(page: Path) -> Iterator[str]:
    tokens = _parsed(page)
    for opening, inline in itertools.pairwise(tokens):
        if opening.type == "heading_open":
            yield "".join(one.content for one in inline.children or ())
