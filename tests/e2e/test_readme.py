"""Every command of the README and the docs runs, in the order in which it stands there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from browser import Watched, chromium
from incatalog.evaluation.looks import LOOKS
from incatalog.quickstart.study import METHODS

_ROOT = Path(__file__).resolve().parents[2]
_DOCS = sorted((_ROOT / "docs").glob("*.md"))
_PAGES = (
    "README.md",
    "docs/guide.md",
    "docs/formats.md",
    "docs/your-own-model.md",
    "docs/your-own-data.md",
    "docs/unirec.md",
    "docs/from-reclm-uni.md",
    "docs/from-minionerec.md",
    "docs/semantic-ids.md",
    "docs/teacher.md",
    "docs/serving.md",
    "docs/replicas.md",
    "docs/steering.md",
    "docs/rewrite.md",
    "docs/retrieval.md",
    "docs/grpo.md",
    "docs/evaluation.md",
    "docs/losses.md",
    "docs/terminal.md",
    "docs/assistant.md",
    "docs/python.md",
    "docs/batch.md",
    "docs/hub.md",
    "docs/install.md",
)
_BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# CI itself is `make test`; `make study` runs below, in small, and the demo in test_demo.py.
_RUN_ELSEWHERE = ("make test", "make demo", "make study")


@pytest.fixture(scope="session")
def study_folder(tmp_path_factory, ml100k_source, shared_data):
    """A working folder in which ``make study`` has run with its smallest budget."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "shared").mkdir()
    (folder / "shared" / "data").symlink_to(shared_data)
    (folder / "recipes").symlink_to(_ROOT / "recipes")
    command = ["make", "-C", str(_ROOT), "study", "BUDGET=smoke", f"STUDY={folder / 'runs/study'}"]
    subprocess.run(command, check=True, timeout=200, stdin=subprocess.DEVNULL)
    return folder


def _blocks(page: str) -> list[tuple[str, str]]:
    return _BLOCK.findall((_ROOT / page).read_text(encoding="utf-8"))


def _environment() -> dict[str, str]:
    scripts = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}


# Some pages are a whole pipeline, each command a process of its own.
@pytest.mark.docs
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", _PAGES)
def test_every_block_of_the_page_runs(page, study_folder, tmp_path):
    shutil.copytree(study_folder, tmp_path / "work", symlinks=True)
    blocks = _blocks(page)
    assert blocks, f"{page}: no command in it"
    for language, code in blocks:
        if language == "bash":
            lines = [line for line in code.splitlines() if not line.startswith(_RUN_ELSEWHERE)]
            command = ["bash", "-euo", "pipefail", "-c", "\n".join(lines)]
        else:
            command = [sys.executable, "-c", code]
        done = subprocess.run(
            command,
            cwd=tmp_path / "work",
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert done.returncode == 0, f"{page}:\n{code}\n{done.stdout}\n{done.stderr}"
        for sign, promise in _PROMISES:
            if sign in code:
                promise(done.stdout, tmp_path / "work")


def _items(folder):
    """Title of each item of the study, by its id."""
    metas = json.loads((folder / "runs" / "study" / "data" / "metas.jsonl").read_text("utf-8"))
    return {item_id: item["title"] for item_id, item in metas.items()}


def _holds_a_title(said, folder):
    spans = re.findall("<SOI>(.*?)<EOI>", said)
    assert spans, said
    assert set(spans) <= {"Alien (1979)", "Aliens (1986)", "Brazil (1985)"}, said


def _ranks_five_of_the_genre(said, folder):
    metas = json.loads((folder / "runs" / "study" / "data" / "category.jsonl").read_text("utf-8"))
    titles = {_items(folder)[item_id] for item_id in metas["Sci-Fi"]}
    found = re.findall(r"^([1-5]) (.*) 0\.\d\d$", said, re.MULTILINE)
    assert [rank for rank, _ in found] == ["1", "2", "3", "4", "5"], said
    assert len({title for _, title in found} & titles) == 5, said


def _answers_with_items(said, folder):
    """Every JSON answer that names items names some of the study's catalog, by its titles."""
    known = _items(folder)
    decoder = json.JSONDecoder()
    answers = [decoder.raw_decode(said, place.start())[0] for place in _ANSWER.finditer(said)]
    named = [item for answer in answers for item in answer["items"]]
    assert named, said
    assert all(known[item["id"]] == item["title"] for item in named), said


def _streams_five_items(said, folder):
    named = re.findall(r"\[([^][]+), [01]\.\d\d\]", said)
    assert len(set(named)) == 5, said
    assert set(named) <= set(_items(folder)), said


_ANSWER = re.compile(r'\{"(?:id":"chatcmpl|object":"list","domain)')


# What a block says that it prints, by something that stands in it.
def _names_three_products(said, folder):
    metas = json.loads((folder / "runs" / "shop" / "data" / "metas.jsonl").read_text("utf-8"))
    answer, _ = json.JSONDecoder().raw_decode(said, said.index('{"id"'))
    items = answer["items"]
    assert len({item["id"] for item in items}) == 3, said
    assert all(metas[item["id"]]["title"] == item["title"] for item in items), said
    assert all(item["reason"] for item in items), said


_PROMISES = (
    ("My favourite is<SOI>", _holds_a_title),
    ('categories=["Sci-Fi"]', _ranks_five_of_the_genre),
    ("/v1/recommendations", _answers_with_items),
    ("Five movies, please.", _streams_five_items),
    ('"incatalog/shop"', _names_three_products),
)


@pytest.mark.docs
def test_the_study_ends_with_a_report_that_a_browser_opens(study_folder):
    page = study_folder / "runs" / "study" / "report" / "report.html"
    text = page.read_text(encoding="utf-8")
    assert all(f"<bdi>{LOOKS[method].label}</bdi></th>" in text for method in METHODS)
    with chromium() as browser:
        watched = Watched(browser, page.resolve().as_uri())
        watched.page.wait_for_load_state("networkidle")
        assert watched.page.locator("article.card li").count() > 0
        assert (watched.complaints, watched.foreign) == ([], [])
        watched.close()


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{p.name}" for p in _DOCS)])
def test_pictures_of_the_page_exist(page):
    path = _ROOT / page
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / picture).is_file(), picture


def test_the_readme_shows_the_report_of_the_study():
    text = (_ROOT / "README.md").read_text(encoding="utf-8")
    assert "runs/study/report/report.html" in text
    assert "![A figure of the report" in text


def test_make_targets_named_by_the_readme_exist():
    targets = set(re.findall(r"make ([a-z-]+)", (_ROOT / "README.md").read_text(encoding="utf-8")))
    makefile = (_ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets >= {"demo", "study", "test"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
