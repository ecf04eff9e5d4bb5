"""Lays the files of the repository out as a site: the hooks of ``mkdocs.yml``.

The site has no texts of its own. Its pages are the files that the repository shows, by their paths
there, so that every relative link means the same in both; what a page links to beside pages (a
recipe, a picture, a file of ``deploy/``) goes along. Made here are the list of the results in the
navigation, the notebook as a page, and the reference behind the names of ``docs/python.md``.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import links
import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter

_RESULTS = "benchmarks/results"
_NOTEBOOK = "notebook.ipynb"
_STYLE = "docs/site.css"
_ROLES = re.compile(r":(?:meth|class|func|attr|mod):(?=<code>)")
# Pages whose address is not that of their path.
_ADDRESSES = {"README.md": "start.html", "recipes/README.md": "recipes.html"}
# `Name` at the beginning of a row, and the file that defines it.
_NAMED = re.compile(r"^\| \[`(\w+)`\]\(\.\./src/([\w/]+)\.py\)", re.MULTILINE)


class SiteFile(File):
    """A file of the repository at its place on the site; notebooks are pages too."""

    def is_documentation_page(self) -> bool:
        """Whether it is rendered, not copied."""
        return super().is_documentation_page() or self.src_uri.endswith(".ipynb")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lists every page of figures below the last heading of the navigation."""
    figures = sorted((links.ROOT / _RESULTS).glob("*.md"))
    listed = [_uri(path) for path in figures if path.name != "README.md"]
    assert config.nav is not None
    section = next(one for one in config.nav if "Figures" in one)
    section["Figures"] = [f"{_RESULTS}/README.md", *listed]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Puts the pages of the repository, and what they link to, in the place of one folder's."""
    pages = links.pages()
    shown = {links.target_file(page, link.target) for page in pages for link in links.links(page)}
    themed = [file for file in files if file.src_dir != config.docs_dir]
    shown.add(links.ROOT / _STYLE)
    repository = [_site_file(path, config) for path in sorted({*pages, *shown})]
    return Files([*themed, *repository])


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Writes what only the site shows."""
    if page.file.src_uri.endswith(".ipynb"):
        return notebook(markdown)
    if page.file.src_uri == "docs/python.md":
        return reference(markdown)
    return markdown


def on_page_content(html: str, page: Page, **_: Any) -> str:
    """Takes the roles of names in docstrings away, which Markdown does not know."""
    return _ROLES.sub("", html) if page.file.src_uri == "docs/python.md" else html


def on_post_build(config: MkDocsConfig) -> None:
    """Lays the notebook beside its page, to be taken along."""
    shutil.copy(links.ROOT / "docs" / _NOTEBOOK, Path(config.site_dir) / _NOTEBOOK)


def reference(markdown: str) -> str:
    """The page with a section for every name of its tables, made from its docstrings."""
    parts = re.split(r"(?m)^(?=## )", markdown)
    return "".join(
        part + "".join(_section(*name) for name in _NAMED.findall(part)) for part in parts
    )


def _section(name: str, module: str) -> str:
    return f"\n::: {module.replace('/', '.')}.{name}\n\n"


def notebook(text: str) -> str:
    """A notebook as Markdown, with the outputs that it was kept with."""
    exporter = MarkdownExporter()
    body, _ = exporter.from_notebook_node(nbformat.reads(text, as_version=4))
    # A link to the notebook would be one to its page.
    taken = f'<a href="{_NOTEBOOK}" download>this notebook</a>'
    return body.replace(f"[this notebook]({_NOTEBOOK})", taken)


def _uri(path: Path) -> str:
    return path.relative_to(links.ROOT).as_posix()


def _site_file(path: Path, config: MkDocsConfig) -> File:
    uri = _uri(path)
    file = SiteFile(uri, None, config.site_dir, use_directory_urls=False)
    file.abs_src_path = str(path)
    if file.is_documentation_page():
        name = _ADDRESSES.get(uri, Path(uri).with_suffix(".html").as_posix().lower())
        file.dest_uri = name.removeprefix("docs/").replace("/readme.html", "/index.html")
    else:
        # It is asked for as the settings name it.
        file.dest_uri = uri if uri == _STYLE else uri.removeprefix("docs/")
    return file
