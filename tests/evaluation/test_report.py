from __future__ import annotations

import json
import re
import shlex
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from browser import Watched, chromium, violations
from incatalog.cli import COMMANDS, main
from incatalog.data.catalog import Catalog, Item
from incatalog.data.interactions import Histories
from incatalog.errors import ArtifactError, ConfigError
from incatalog.evaluation.looks import LOOKS
from incatalog.evaluation.recommend import evaluate_recommend
from incatalog.evaluation.report import command, evaluate_report
from incatalog.evaluation.settings import EvaluateRecommendSettings, EvaluateReportSettings
from incatalog.flags import parse
from scored import MISSED, scored_run

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
        if tag != "bdi":
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
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert "default-src 'none'" in html
    # Places that links lead to are there.
    leads = {address[1:] for address in page.addresses if address.startswith("#")}
    assert leads <= set(re.findall(r'\bid="([^"]+)"', html))
    # Popularity gives no probabilities, so there is no calibration.
    svgs = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    labels = [ElementTree.fromstring(svg).attrib["aria-label"] for svg in svgs]
    assert [label.split(":")[0] for label in labels] == [
        "NDCG@3", "HR@3", "HR@3, tail item (3 users)", "HR@3, history of 1–5 (3 users)"
    ]  # fmt: skip
    for name in runs:
        assert f"popularity ({Path(name).name})" in page.text
        assert json.loads((Path(name) / "manifest.json").read_text())["data"]
    # The title that is markup is an item like others, beside the page's own two titles.
    assert page.text.count(EVIL) > 2
    assert ("hit", "T3") in page.marked
    again = evaluate_report(EvaluateReportSettings(tuple(runs), tmp_path / "again", EVIL))
    assert again.read_text() == html


def interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value / 2, "high": value * 1.5}


@pytest.fixture(scope="module")
def boss_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a report on all kinds of runs, with all of its parts."""
    folder = tmp_path_factory.mktemp("boss")
    segments = [
        {"by": by, "segment": segment, "users": 20, "metrics": {"HR@3": interval(0.25)}}
        for by, segment in (("target", "head"), ("target", "tail"), ("history", "1–5"))
    ]
    bins = [{"probability": 0.01, "hits": 0.02}, {"probability": 0.2, "hits": 0.125}]
    ranked = {"decode": "beam", "calibration": {"ECE": 0.01, "bins": bins}}
    guide = {"model/teacher.json": "same"}
    runs = []
    for number, (method, places, more) in enumerate([
        ("popularity", [MISSED] * 20, {}),
        ("sasrec", [3] * 20, {}),
        ("blend", [1] * 19 + [MISSED], {"inputs": guide}),
        ("cgen", [2] * 10 + [MISSED] * 10, ranked),
        ("cgen", [3] * 10 + [MISSED] * 10, {"decode": "list"}),
        ("cgen, guided", [1] * 19 + [MISSED],
         {"decode": "list", "guide_weight": 1.0, "inputs": {"guide/teacher.json": "same"}}),
        ("ret", [MISSED] * 20, ranked),
        ("untrained", [MISSED] * 20, {"decode": "free text", "outside": 2}),
    ]):  # fmt: skip
        run = scored_run(folder / f"run-{number}", method, places, segments=segments,
                         coverage=number / 8, **more)  # fmt: skip
        summary = run.folder / "summary.json"
        found = json.loads(summary.read_text())
        others = ("MRR", "RightCount", "InHistory", "Novelty", "Similarity")
        found["metrics"] |= {f"{name}@3": interval(0.125 + number) for name in others}
        summary.write_text(json.dumps(found))
        runs.append(str(run.folder))
    out = folder / "report"
    evaluate_report(EvaluateReportSettings(tuple(runs), out, "For the boss", resamples=100))
    return (out / "report.html").resolve().as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


def test_a_browser_opens_the_page_without_complaint_or_request(
    browser: Any, tmp_path: Path, runs: list[str]
) -> None:
    out = tmp_path / "report"
    evaluate_report(EvaluateReportSettings(tuple(runs), out))
    watched = Watched(browser, (out / "report.html").resolve().as_uri())
    watched.page.wait_for_load_state("networkidle")
    assert watched.page.locator("table").count() >= 2
    figures = watched.page.locator("figure svg")
    assert figures.count() == 4
    for number in range(figures.count()):
        assert figures.nth(number).bounding_box()["width"] > 100
    assert EVIL in watched.page.locator("body").inner_text()
    assert watched.complaints == []
    assert watched.foreign == []
    watched.close()


def test_the_first_thing_to_read_are_three_sentences(browser: Any, boss_page: str) -> None:
    watched = Watched(browser, boss_page)
    found = watched.page.locator(".headline dd").all_inner_texts()
    said = [sentence.replace("\u00a0", " ") for sentence in found]
    assert [sentence.count(". ") for sentence in said] == [0, 0, 0]
    assert said[0].startswith(
        "The base line popularity, the teachers blend and SASRec, and the language models cgen, "
        "ret and untrained recommended 3 items to each of 20 users of shop in 8 runs; "
    )
    # 19 of 20 users with NDCG 1 are 0.950, and SASRec's are 1 / log2(4).
    assert said[1].startswith("At the top blend and cgen (guided list) tie; blend has NDCG@3 0.950")
    assert ", 0.450 (" in said[1]
    assert " above SASRec, the next" in said[1]
    assert "the right item is among its 3 for 95.0 % of users" in said[1]
    # Ten hits at the second place are 10 / log2(3) / 20 = 0.315, which is 0.635 below 0.950.
    assert (
        "scores the same, as the guide decides alone; without a guide the best, cgen, is 0.635"
        in said[2]
    )
    assert "none of the 240 items it named is outside the catalog" in said[2]
    assert "in free text 40 of the 60 items it named (66.7 %) are outside" in said[2]
    terms = watched.page.locator(".glossary dt").all_inner_texts()
    assert {"HR@3", "NDCG@3", "OOD@3", "interval", "guided", "list", "ranking", "SASRec", "blend",
            "cgen", "ret"} <= set(terms)  # fmt: skip
    assert not {"token", "EASE", "perplexity"} & set(terms)
    cards = watched.page.locator("article.card")
    assert cards.count() == 2
    assert cards.nth(0).locator("h3").inner_text() == "User u0: 5 of 8 found the item"
    assert cards.nth(0).locator("li mark.hit").all_inner_texts() == ["Title iu0"] * 5
    assert cards.nth(0).locator("h4").nth(1).inner_text() == "blend"
    watched.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_every_column_can_be_reached(browser: Any, boss_page: str, width: int) -> None:
    watched = Watched(browser, boss_page, viewport={"width": width, "height": 850})
    page = watched.page
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    tables = page.locator(".scroll")
    assert tables.count() == 4
    for number in range(tables.count()):
        table = tables.nth(number)
        fits = table.evaluate("one => one.scrollWidth <= one.clientWidth")
        hint = page.locator(".sideways").nth(number)
        assert fits == (width == 1280)
        assert hint.is_visible() == (not fits)
        table.evaluate("one => one.scrollTo(one.scrollWidth, 0)")
        last, frame = table.locator("thead th").last.bounding_box(), table.bounding_box()
        assert last["x"] + last["width"] <= frame["x"] + frame["width"] + 1
        # The name of the run stays in sight.
        assert table.locator("tbody th").first.bounding_box()["x"] >= frame["x"]
    watched.close()


@pytest.mark.long
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("dark", 390)])
def test_light_and_dark_are_accessible_and_a_method_has_one_colour(
    browser: Any, boss_page: str, scheme: str, width: int
) -> None:
    size = {"width": width, "height": 850}
    watched = Watched(browser, boss_page, color_scheme=scheme, viewport=size)
    page = watched.page
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert violations(page) == []
    for method, look in LOOKS.items():
        name = f"--method-{look.light[1:]}"
        painted = page.evaluate(
            """name => {
              const found = {};
              for (const svg of document.querySelectorAll('figure svg')) {
                const own = [...svg.querySelectorAll('path, use')]
                  .filter(one => one.getAttribute('style')?.includes(name));
                if (own.length) found[svg.getAttribute('aria-label')] =
                  [...new Set(own.map(one => getComputedStyle(one).stroke))];
              }
              for (const mark of document.querySelectorAll('.mark'))
                if (mark.getAttribute('style').includes(name)) {
                  const style = getComputedStyle(mark);
                  found['table ' + mark.className] = [mark.classList.contains('ring')
                    ? style.borderTopColor : style.backgroundColor];
                }
              return found;
            }""",
            name,
        )
        if method in ("popularity", "sasrec", "blend", "cgen", "ret", "untrained"):
            expected = look.light if scheme == "light" else look.dark
            channels = [int(expected[at : at + 2], 16) for at in (1, 3, 5)]
            assert len(painted) >= 6
            assert {colour for own in painted.values() for colour in own} == {
                f"rgb({', '.join(map(str, channels))})"
            }
        else:
            assert painted == {}
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(247, 247, 244)", "dark": "rgb(20, 22, 20)"}[scheme]
    # On paper it is light, without what can only be clicked.
    page.emulate_media(media="print", color_scheme=scheme)
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(28, 29, 27)"
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light"
    widths = page.locator(".lists > div").evaluate_all("all => all.map(one => one.clientWidth)")
    assert max(widths) - min(widths) <= 1
    assert not page.locator("nav").is_visible()
    assert page.locator(".headline").is_visible()
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
    manifest = {"stage": "evaluate chat", "status": "finished", "config": {"data": "d"}}
    (run / "manifest.json").write_text(json.dumps(manifest))
    (run / "summary.json").write_text(json.dumps(summary))
    (run / "users.parquet").write_bytes(b"")
    (run / "conversations.jsonl").write_text(json.dumps(record) + "\n")
    assert main(["evaluate", "report", str(run), "--out", str(tmp_path / "report")]) == 0
    page = Page((tmp_path / "report" / "report.html").read_text())
    assert ["".join(cell.split()) for cell in page.rows[-1][:2]] == ["cgen", "0.2500.125–0.500"]
    assert "Nobody wins, as nothing was ranked." in page.text
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
    [head] = [row for row in page.rows if row and row[0] == "run" and "OOD@3" in "".join(row)]
    [column] = [at for at, name in enumerate(head) if "OOD@3" in name]
    body = page.rows[page.rows.index(head) + 1 :][:2]
    shares = {row[0]: float(row[column].split()[0]) for row in body}
    assert shares["cgen (greedy list, held)"] == 0
    assert shares["cgen (greedy list, broken)"] > 0.5
    outside = [text for kind, text in page.marked if kind == "outside"]
    assert [text for text in outside if text not in titles and text != "not in the catalog"]
    assert "none of the" not in page.text


def test_runs_that_cannot_be_compared_are_reported_without_a_winner(tmp_path: Path) -> None:
    runs = [
        scored_run(tmp_path / f"{method}-{number}", method, places, k=k)
        for number, (method, places, k) in enumerate(
            [("sasrec", [1, 1], 3), ("knn", [1, 1], 2), ("ease", [1], 2)]
        )
    ]
    for which, why in (([0, 1], "sasrec-0: has no NDCG@2;"), ([1, 2], "scored on other users")):
        out = tmp_path / str(which)
        chosen = tuple(str(runs[one].folder) for one in which)
        page = Page(evaluate_report(EvaluateReportSettings(chosen, out)).read_text())
        assert f"{why} " in page.text
        assert "Nobody wins, as the runs differ" in page.text


def test_what_is_no_finished_run_is_refused(tmp_path: Path, runs: list[str]) -> None:
    with pytest.raises(ConfigError, match="none given"):
        evaluate_report(EvaluateReportSettings((), tmp_path / "out"))
    with pytest.raises(ArtifactError, match=r"holds no manifest\.json"):
        evaluate_report(EvaluateReportSettings((*runs, str(tmp_path)), tmp_path / "out"))
    (tmp_path / "manifest.json").write_text('{"stage": "train sft"}')
    with pytest.raises(ArtifactError, match="holds `incatalog train sft`"):
        evaluate_report(EvaluateReportSettings((str(tmp_path),), tmp_path / "out"))
