from __future__ import annotations

import base64
import json
import shlex
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from browser import Watched, chromium
from incatalog.cli import COMMANDS, main
from incatalog.data.catalog import Catalog, Item
from incatalog.data.interactions import Histories
from incatalog.errors import ArtifactError, ConfigError
from incatalog.evaluation.recommend import evaluate_recommend
from incatalog.evaluation.report import command, conversation_example, evaluate_report
from incatalog.evaluation.settings import EvaluateRecommendSettings, EvaluateReportSettings
from incatalog.flags import parse

if TYPE_CHECKING:
    from incatalog.model.backbone import Backbone

EVIL = "<script>alert('1')</script> & \"co\""


class Page(HTMLParser):
    """Collects what a page is made of."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.marked: list[tuple[str, str]] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self._mark: str | None = None
        self._cell = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.addresses += [given[name] or "" for name in ("src", "href", "action") if name in given]
        self._mark = given.get("class") or "" if tag == "mark" else None
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._cell:
            self.rows[-1][-1] += data
        if self._mark is not None:
            self.marked.append((self._mark, data))
            self._mark = None


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Popularity with seen items and without, on a catalog with a title that is markup."""
    folder = tmp_path_factory.mktemp("data")
    items = [
        Item(f"i{row}", EVIL if row == 0 else f"T{row}", categories=("c",)) for row in range(6)
    ]
    catalog = Catalog.from_items(items)
    catalog.save(folder)
    lists = [[0, 1, 2, 3], [0, 2, 4], [0, 1, 5, 2, 4]]
    Histories.from_lists([f"u{n}" for n in range(3)], lists).save(folder, catalog)
    made = []
    for seen in (False, True):
        out = folder / f"seen{seen}"
        evaluate_recommend(
            EvaluateRecommendSettings(
                "popularity", folder, out, k=3, exclude_seen=seen, bootstrap=20, device="cpu"
            )
        )
        made.append(str(out))
    return made


def test_the_page_holds_everything_and_asks_for_nothing(tmp_path: Path, runs: list[str]) -> None:
    html = evaluate_report(EvaluateReportSettings(tuple(runs), tmp_path, EVIL)).read_text()
    page = Page(html)
    assert "script" not in page.tags
    assert EVIL in page.text
    assert page.addresses
    assert all(address.startswith("data:") for address in page.addresses)
    assert "default-src 'none'" in html
    figures = [a for a in page.addresses if a.startswith("data:image/svg+xml;base64,")]
    # Popularity gives no probabilities, so there is no calibration.
    assert len(figures) == 2
    for figure in figures:
        svg = ElementTree.fromstring(base64.b64decode(figure.split(",")[1]))
        assert svg.tag == "{http://www.w3.org/2000/svg}svg"
    for name in runs:
        assert f"popularity ({Path(name).name})" in page.text
        assert json.loads((Path(name) / "manifest.json").read_text())["data"]
    # The title that is markup is an item like others.
    assert {("item", EVIL), ("hit", "T3")} <= set(page.marked)
    again = evaluate_report(EvaluateReportSettings(tuple(runs), tmp_path / "again", EVIL))
    assert again.read_text() == html


def test_a_browser_opens_the_page_without_complaint_or_request(
    tmp_path: Path, runs: list[str]
) -> None:
    out = tmp_path / "report"
    evaluate_report(EvaluateReportSettings(tuple(runs), out))
    address = (out / "report.html").resolve().as_uri()
    with chromium() as browser:
        watched = Watched(browser, address)
        watched.page.wait_for_load_state("networkidle")
        assert watched.page.locator("table").count() >= 2
        images = watched.page.locator("img")
        assert images.count() >= 1
        for number in range(images.count()):
            assert images.nth(number).evaluate("image => image.naturalWidth") > 100
        assert EVIL in watched.page.locator("body").inner_text()
        assert watched.complaints == []
        assert watched.foreign == []
        watched.close()


def test_the_commands_of_the_page_make_the_same_runs(runs: list[str]) -> None:
    for run in runs:
        manifest = json.loads((Path(run) / "manifest.json").read_text())
        words = shlex.split(command(manifest))
        name = " ".join(words[1:3])
        parsed = parse(name, COMMANDS[name].settings, words[3:])
        assert json.loads(json.dumps(vars(parsed), default=str)) == manifest["config"]


def test_a_command_is_quoted_and_says_what_is_not_the_default() -> None:
    manifest = {
        "stage": "evaluate compare",
        "config": {"runs": ["a b", "c"], "out": None, "metrics": [], "resamples": 5, "seed": 0},
    }
    assert command(manifest) == "incatalog evaluate compare --runs 'a b' c --resamples 5"
    unknown = {"stage": "x y", "config": {"flag": False, "on": True, "path": "p"}}
    assert command(unknown) == "incatalog x y --no-flag --on --path p"


def test_a_conversation_has_its_items_marked() -> None:
    record = {
        "user_id": "u", "target": "i2", "history": ["A", "B"], "question": "q", "reply": "r",
        "example": {"question": "e", "answer": "f"},
        "recommendation": [
            {"text": "1. "}, {"title": "T1", "item": "i1"}, {"title": "T2", "item": "i2"},
            {"title": "X", "item": None},
        ],
    }  # fmt: skip
    turns = conversation_example(record, "cgen", 3)["turns"]
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 3
    assert [(part["kind"], part["text"]) for part in turns[3]["parts"]] == [
        ("text", "1. "), ("item", "T1"), ("hit", "T2"), ("outside", "X")
    ]  # fmt: skip
    assert "A → B" in turns[2]["parts"][0]["text"]


def test_chat_runs_are_reported(tmp_path: Path) -> None:
    run = tmp_path / "chat"
    run.mkdir()
    interval = {"value": 0.25, "low": 0.125, "high": 0.5}
    summary = {
        "method": "cgen", "users": 1, "k": 3, "metrics": {"HR@3": interval, "OOD@3": interval},
        "rounds": {"ExactlyK": interval, "NoControl": interval},
        "free_text": {"titles": 2, "OOD": 0.5}, "perplexity": {},
    }  # fmt: skip
    record = {
        "user_id": "u", "target": "i", "history": [], "question": EVIL, "reply": "r",
        "example": {"question": "e", "answer": "f"}, "recommendation": [{"text": "nothing"}],
    }  # fmt: skip
    manifest = {"stage": "evaluate chat", "status": "finished", "config": {}}
    (run / "manifest.json").write_text(json.dumps(manifest))
    (run / "summary.json").write_text(json.dumps(summary))
    (run / "users.parquet").write_bytes(b"")
    (run / "conversations.jsonl").write_text(json.dumps(record) + "\n")
    assert main(["evaluate", "report", str(run), "--out", str(tmp_path / "report")]) == 0
    page = Page((tmp_path / "report" / "report.html").read_text())
    assert "0.250 (0.125–0.500)" in page.text
    assert EVIL in page.text
    assert "script" not in page.tags


def test_a_broken_constraint_shows_in_the_report(
    tmp_path: Path,
    titles: tuple[str, ...],
    tiny_backbone: Backbone,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from incatalog.items.tokens import ItemTokens
    from incatalog.model.saved import save_model
    from incatalog.model.spec import ModelSpec
    from incatalog.trie.trie import ItemTrie

    data, model = tmp_path / "data", tmp_path / "model"
    catalog = Catalog.from_items([Item(title, title) for title in titles])
    catalog.save(data)
    Histories.from_lists(["u", "v"], [[0, 1, 2, 3], [4, 5, 6]]).save(data, catalog)
    save_model(model, tiny_backbone, ModelSpec(base="tiny"))
    catalog.save(model)

    def evaluate(name: str) -> str:
        config = EvaluateRecommendSettings(
            str(model), data, tmp_path / name, k=3, decode="greedy", bootstrap=20, device="cpu"
        )
        return str(evaluate_recommend(config))

    held = evaluate("held")
    # The switch: the tree that answers are held to knows every title backwards.
    monkeypatch.setattr(
        ItemTokens, "trie", lambda tokens: ItemTrie.build([row[::-1] for row in tokens.rows()])
    )
    broken = evaluate("broken")
    page = Page(
        evaluate_report(EvaluateReportSettings((held, broken), tmp_path / "out")).read_text()
    )
    column = page.rows[0].index("OOD@3")
    shares = {row[0]: float(row[column].split()[0]) for row in page.rows[1:3]}
    assert shares["cgen (held)"] == 0
    assert shares["cgen (broken)"] > 0.5
    outside = [text for kind, text in page.marked if kind == "outside"]
    assert [text for text in outside if text not in titles and text != "not in the catalog"]


def test_what_is_no_finished_run_is_refused(tmp_path: Path, runs: list[str]) -> None:
    with pytest.raises(ConfigError, match="none given"):
        evaluate_report(EvaluateReportSettings((), tmp_path / "out"))
    with pytest.raises(ArtifactError, match=r"holds no manifest\.json"):
        evaluate_report(EvaluateReportSettings((*runs, str(tmp_path)), tmp_path / "out"))
    (tmp_path / "manifest.json").write_text('{"stage": "train sft"}')
    with pytest.raises(ArtifactError, match="holds `incatalog train sft`"):
        evaluate_report(EvaluateReportSettings((str(tmp_path),), tmp_path / "out"))
