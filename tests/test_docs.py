"""The pages hold together without being built: links, names, quoted errors, the kept notebook."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

import incatalog
from conftest import REPOSITORY

DOCS = REPOSITORY / "docs"
LINKS = runpy.run_path(str(DOCS / "links.py"))


def test_every_link_leads_somewhere() -> None:
    assert LINKS["broken"](REPOSITORY) == []


def test_lists_are_lists_on_the_site_too() -> None:
    found = {page.name: LINKS["tight_lists"](page) for page in LINKS["pages"](REPOSITORY)}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A small repository of pages."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy" / "unit").touch()
    (tmp_path / "docs" / "other.md").write_text("# A `k` – B's\n\n## Twice\n\n## Twice\n")
    return tmp_path


def _broken(book: Path, text: str) -> list[str]:
    (book / "docs" / "page.md").write_text(f"# Page\n\n## Own\n\n{text}\n", encoding="utf-8")
    # Pages are read once, and this one is written anew.
    LINKS["_parsed"].cache_clear()
    return LINKS["broken"](book)


@pytest.mark.parametrize(
    "link",
    [
        "other.md",
        "../docs/other.md",
        "other.md#a-k--bs",
        "other.md#twice",
        "other.md#twice-1",
        "#own",
        "../deploy/unit",
        "https://example.com/missing.md",
        "mailto:a@example.com",
    ],
)
def test_links_that_lead_somewhere_pass(book: Path, link: str) -> None:
    assert _broken(book, f"See [there]({link}) and `[code](nowhere.md)`.") == []


@pytest.mark.parametrize(
    ("link", "wrong"),
    [
        ("missing.md", "no such file"),
        ("../deploy", "is a folder; name a file in it"),
        ("../../elsewhere.md", "is outside of the repository"),
        ("other.md#thrice", "no such heading"),
        ("other.md#twice-2", "no such heading"),
        ("#other", "no such heading"),
        ("../deploy/unit#line", "no such heading"),
    ],
)
def test_links_that_lead_nowhere_are_told_with_their_line(
    book: Path, link: str, wrong: str
) -> None:
    assert _broken(book, f"See [there]({link}).") == [f"docs/page.md:5: {link}: {wrong}"]
    assert _broken(book, f"| a |\n|---|\n| ![b]({link}) |") == [f"docs/page.md:7: {link}: {wrong}"]


def test_links_of_notebooks_are_read_in_their_text(book: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "\n", "[a](missing.md)"]},
        {"cell_type": "code", "source": ["'[b](missing.md)'"], "outputs": []},
    ]
    (book / "docs" / "note.ipynb").write_text(json.dumps({"cells": cells}))
    assert _broken(book, "[c](note.ipynb#title)") == ["docs/note.ipynb:3: missing.md: no such file"]


def test_a_list_right_below_a_paragraph_is_told(book: Path) -> None:
    _broken(book, "Text:\n* one\n* two\n\nMore (x\n+ 1).\n\n* fine\n")
    assert LINKS["tight_lists"](book / "docs" / "page.md") == [6, 10]


def test_the_navigation_has_every_page_once() -> None:
    listed = list(_leaves(_navigation()))
    assert len(listed) == len(set(listed))
    pages = {page.relative_to(REPOSITORY).as_posix() for page in LINKS["pages"](REPOSITORY)}
    # docs/pages.py lists the figures.
    assert set(listed) == {page for page in pages if not page.startswith("benchmarks/results/")}


def _navigation() -> Any:
    loader = type("Loader", (yaml.SafeLoader,), {})
    loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
    return yaml.load((REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"), loader)["nav"]


def _leaves(found: Any) -> Any:
    if isinstance(found, str):
        yield found
    else:
        for one in found.values() if isinstance(found, dict) else found:
            yield from _leaves(one)


def test_the_index_leads_to_every_page() -> None:
    index = DOCS / "index.md"
    reached = {LINKS["target_file"](index, link.target) for link in LINKS["links"](index)}
    assert {*DOCS.glob("*.md"), *DOCS.glob("*.ipynb")} - reached == {index}


def test_the_page_of_names_has_the_public_ones_where_they_are_defined() -> None:
    text = (DOCS / "python.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| \[`(\w+)`\]\(\.\./src/([\w/]+\.py)\)", text)
    assert {name for name, _ in rows} >= set(incatalog.__all__)
    for name, path in rows:
        tree = ast.parse((REPOSITORY / "src" / path).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}


def test_errors_that_are_explained_exist() -> None:
    """What stands as code in the first column of an explanation is said by the package."""
    sources = (REPOSITORY / "src").rglob("*.py")
    said = "".join(path.read_text(encoding="utf-8") for path in sources)
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    tables = page.split("## What is left")[0]
    quoted = re.findall(r"`([^`]+)`", " ".join(re.findall(r"(?m)^\| (.*?) \|", tables)))
    ours = [one for one in quoted if one not in _OF_OTHERS]
    assert len(ours) > 20
    parts = {part.strip(" '[]") for one in ours for part in one.split("…")}
    # Codes of one family are put together.
    missing = {part for part in parts if part.removeprefix("state_") not in said}
    assert missing == set()


# Python's, the system's and the web framework's own.
_OF_OTHERS = {
    "No module named 'fcntl'",
    "Killed",
    "Invalid host header",
    "--port 8000 on 127.0.0.1: Address already in use",
}


def test_the_kept_notebook_shows_what_its_code_printed() -> None:
    kept = json.loads((DOCS / "notebook.ipynb").read_text(encoding="utf-8"))
    code = [cell for cell in kept["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] for cell in code)
    assert not [out for cell in code for out in cell["outputs"] if out["output_type"] == "error"]
    # As docs/notebook.py writes it; the name of no machine or user is left in it.
    assert "/root" not in json.dumps(kept)
    assert "/tmp" not in json.dumps(kept)
    joined = "\n\n".join("".join(cell["source"]) for cell in code)
    found = hashlib.sha256(joined.encode()).hexdigest()
    assert kept["metadata"]["incatalog"]["sources"] == found, "run make notebook"


PAGES = sorted(
    page
    for page in LINKS["pages"](REPOSITORY)
    if page.suffix == ".md" and "results" not in str(page)
)
# What these pages name in other programs is not ours.
FOREIGN_PAGES = {"CHANGELOG.md", "from-reclm-uni.md", "from-minionerec.md", "unirec.md"}
OUR_PAGES = [page for page in PAGES if page.name not in FOREIGN_PAGES]
FOREIGN_FLAGS = {
    *("--fail", "--request", "--retry", "--retry-connrefused", "--retry-delay", "--silent"),  # curl
    *("--cpu", "--multi_gpu", "--num_processes"),  # accelerate
    *("--additional-config", "--kv-transfer-config", "--speculative-config"),  # vLLM
    *("--strict", "--logdir", "--no-deps", "--install", "--local-dir"),
    *("--constraint", "--index-url"),  # pip
    *("--domains", "--seeds"),  # benchmarks
    *("--teacher_port", "--use_scope_mask"),  # the published scripts
    *("--config", "--help", "--quiet", "--print-config", "--version"),  # of every command
}


@pytest.mark.parametrize("page", OUR_PAGES, ids=lambda page: page.name)
def test_what_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    package = REPOSITORY / "src" / "incatalog"
    folders = [path.name for path in package.iterdir() if path.is_dir()]
    top = "|".join(["tests", "benchmarks", "deploy", "docs", "recipes", *folders])
    places = (REPOSITORY, package)
    named = re.findall(rf"`((?:{top})/[\w/-]+\.\w+)`", text)
    assert [one for one in named if not any((at / one).exists() for at in places)] == []
    modules = re.findall(r"python -m benchmarks\.(\w+)", text)
    assert [one for one in modules if not (REPOSITORY / "benchmarks" / f"{one}.py").exists()] == []
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"`make ([a-z-]+)", text)
    assert [one for one in targets if not re.search(rf"(?m)^{one}:", makefile)] == []


@pytest.mark.parametrize("page", OUR_PAGES, ids=lambda page: page.name)
def test_flags_of_a_page_are_those_of_the_commands(page: Path) -> None:
    commands = json.loads((REPOSITORY / "tests" / "flags.json").read_text(encoding="utf-8"))
    known = {f"--{flag.lstrip('-').replace('_', '-')}" for one in commands.values() for flag in one}
    known |= {flag.replace("--", "--no-", 1) for flag in known} | FOREIGN_FLAGS
    text = page.read_text(encoding="utf-8")
    # ms-swift's, which stands on a page with ours.
    text = re.sub(r"(?s)## With ms-swift.*", "", text)
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text))
    assert named - known == set()
