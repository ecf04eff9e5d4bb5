"""The docs as a site, built strictly and looked at in a browser, and the notebook run anew."""

from __future__ import annotations

import functools
import http.server
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from browser import Watched, chromium
from conftest import REPOSITORY

pytestmark = [pytest.mark.docs, pytest.mark.timeout(600)]


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="pip install 'incatalog[docs]'")
    folder = tmp_path_factory.mktemp("site")
    run = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert run.returncode == 0, run.stderr
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    handler = functools.partial(_Silent, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_every_page_of_the_repository_is_one_of_the_site(site: Path) -> None:
    pages = [path for path in (REPOSITORY / "docs").iterdir() if path.suffix in (".md", ".ipynb")]
    assert {f"{path.stem}.html" for path in pages} <= {path.name for path in site.iterdir()}
    figures = (REPOSITORY / "benchmarks" / "results").glob("*.md")
    shown = {path.stem for path in (site / "benchmarks" / "results").glob("*.html")}
    assert {path.stem for path in figures} - {"README"} == shown - {"index"}
    assert (site / "recipes.html").is_file()
    assert (site / "deploy" / "incatalog.service").read_bytes() == (
        REPOSITORY / "deploy" / "incatalog.service"
    ).read_bytes()


# By their tags, what GitHub's Markdown and the site's could take for something else.
_TAGS = ("li", "ol", "tr", "td", "pre", "code", "h2", "h3", "em", "strong", "img", "blockquote")


def test_the_site_shows_what_the_repository_shows(site: Path) -> None:
    soup = pytest.importorskip("bs4", reason="pip install 'incatalog[docs]'").BeautifulSoup
    reader = MarkdownIt("commonmark").enable("table")
    shown = {"README.md": "start", "recipes/README.md": "recipes", "CHANGELOG.md": "changelog"}
    pages = {REPOSITORY / page: site / f"{name}.html" for page, name in shown.items()}
    pages |= {page: site / f"{page.stem}.html" for page in (REPOSITORY / "docs").glob("*.md")}
    # Its sections are made for the site alone.
    del pages[REPOSITORY / "docs" / "python.md"]
    for page, built in pages.items():
        here = soup(reader.render(page.read_text(encoding="utf-8")), "html.parser")
        there = soup(built.read_text(encoding="utf-8"), "html.parser").find("article")
        counts = [{tag: len(found.find_all(tag)) for tag in _TAGS} for found in (here, there)]
        assert (page.name, counts[0]) == (page.name, counts[1])


def test_the_names_have_their_sections(site: Path) -> None:
    page = (site / "python.html").read_text(encoding="utf-8")
    for name in ("recommender.recommender.Recommender.chat", "teacher.teacher.Teacher.top_k"):
        assert f'id="incatalog.{name}"' in page
    assert "Never answer an item of the history" in page
    assert ":meth:" not in page


def test_the_notebook_is_a_page_with_what_it_printed(site: Path) -> None:
    page = (site / "notebook.html").read_text(encoding="utf-8")
    assert "the service is ready" in page
    assert 'href="guide.html"' in page
    assert '<a href="notebook.ipynb" download>' in page
    kept = (REPOSITORY / "docs" / "notebook.ipynb").read_bytes()
    assert (site / "notebook.ipynb").read_bytes() == kept


def test_no_page_asks_for_anything_elsewhere_or_complains(site: Path, address: str) -> None:
    with chromium() as browser:
        watched = Watched(browser, address)
        for path in sorted(site.rglob("*.html")):
            where = path.relative_to(site).as_posix()
            assert watched.page.goto(address + where).ok, where
            wide = watched.page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert (where, wide) == (where, 0)
        assert (watched.complaints, watched.foreign) == ([], [])
        watched.close()


def test_the_search_finds_a_page_by_its_words(address: str) -> None:
    with chromium() as browser:
        watched = Watched(browser, address)
        watched.page.click(".md-search__input")
        watched.page.keyboard.type("catalog sync")
        found = watched.page.locator(".md-search-result__link").first
        found.wait_for()
        assert "sync" in found.inner_text()
        assert (watched.complaints, watched.foreign) == ([], [])
        watched.close()


def test_the_notebook_runs_and_names_only_products(tmp_path: Path) -> None:
    pytest.importorskip("nbclient", reason="pip install 'incatalog[docs]'")
    pytest.importorskip("ipykernel", reason="pip install 'incatalog[docs]'")
    ran = tmp_path / "ran.ipynb"
    script = REPOSITORY / "docs" / "notebook.py"
    run = subprocess.run(
        [sys.executable, str(script), str(ran)], capture_output=True, text=True, timeout=500
    )
    assert run.returncode == 0, run.stderr
    kept = json.loads((REPOSITORY / "docs" / "notebook.ipynb").read_text(encoding="utf-8"))
    new = json.loads(ran.read_text(encoding="utf-8"))
    assert new["metadata"] == kept["metadata"]
    # What does not depend on the machine: which columns were taken, and what filters say.
    for sign in ("its name and its cells", "['price<=40', 'category=Kitchen']", "ended with 0"):
        assert sign in _printed(new)
        assert sign in _printed(kept)
    titles = set(re.findall(r"(?m)^\d\. (.+?) – ", _printed(new)))
    assert len(titles) >= 3
    subprocess.run(
        [sys.executable, "-m", "incatalog.cli", "sample", str(tmp_path / "shop")], check=True
    )
    products = (tmp_path / "shop" / "products.csv").read_text(encoding="utf-8")
    assert {title for title in titles if title not in products} == set()


def _printed(notebook: dict) -> str:
    outputs = [out for cell in notebook["cells"] for out in cell.get("outputs", ())]
    return "".join("".join(out.get("text", "")) for out in outputs)
