from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from browser import Watched
from chatting import HOSTILE, Server
from incatalog import Catalog, Item
from incatalog.model.backbone import create_tiny
from incatalog.model.saved import save_model
from incatalog.model.spec import ModelSpec
from incatalog.model.tiny import TinyConfig
from page_acts import CHAT, choose_length, find, ready, say, titles, violations

pytestmark = pytest.mark.long

PAGE = Path(__file__).parents[2] / "src" / "incatalog" / "serving" / "page"
# Tokens of an answer that no one stops.
LONGEST = 900
MOST_LINES = 400


def test_conversation_with_picks_streams_cards(watched: Watched) -> None:
    page = watched.page
    assert find(page, "harbour li").count() == 2
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.locator("#picks li").inner_text().startswith("Harbour Lights (1991)")
    choose_length(page, "5")
    answer = say(page, "What fits these?")
    shown = titles(answer)
    assert len(set(shown)) == 5
    assert "Harbour Lights (1991)" not in shown
    # A list is its cards: no title stands in the text as well, and no reason is a rank.
    assert answer.locator(".text").count() == 0
    text = answer.inner_text()
    assert [text.count(f"{title}\n") for title in shown] == [1] * 5
    assert "%" not in text
    assert "Harbour Lights (1991)" in text
    # A second turn, to which the first is known.
    assert say(page, "And others?").locator(".card").count() == 5
    assert page.locator(".said").count() == 2
    # Only the last answer can be asked for again.
    assert page.get_by_role("button", name="Answer again").count() == 1


def test_refused_item_fades_and_another_takes_its_place(watched: Watched) -> None:
    page = watched.page
    choose_length(page, "5")
    answer = say(page, "Hello")
    before = titles(answer)
    slot = answer.locator(".slot").first
    slot.get_by_role("button", name=f"Not for me: {before[0]}").click()
    slot.locator(".card h2").wait_for()
    after = titles(answer)
    assert after[1:] == before[1:]
    assert after[0] not in before
    assert slot.locator(".strip").inner_text().startswith(before[0])
    assert before[0] in page.locator("#excluded").inner_text()
    # Taken back, it is as it was, and the focus is where the click was.
    slot.get_by_role("button", name=f"Undo: {before[0]}").click()
    assert titles(answer) == before
    assert page.locator("#excluded li").count() == 0
    assert page.evaluate("document.activeElement.closest('.slot') !== null")
    # Refused for good, it does not come again.
    slot.get_by_role("button", name=f"Not for me: {before[0]}").click()
    slot.locator(".card h2").wait_for()
    page.get_by_role("button", name="Answer again").click()
    page.wait_for_selector(".answer[aria-busy=false] .retry")
    assert page.locator(".answer").count() == 1
    assert before[0] not in titles(page.locator(".answer"))


def test_item_that_is_liked_says_so_and_updates_the_list(watched: Watched) -> None:
    page = watched.page
    choose_length(page, "5")
    first = titles(say(page, "Hello"))[0]
    page.get_by_role("button", name=f"More like {first}").click()
    card = page.locator(".slot").first
    assert "Added to your picks" in card.inner_text()
    assert first in page.locator("#picks").inner_text()
    card.get_by_role("button", name="Undo").click()
    assert page.locator("#picks li").count() == 0
    page.get_by_role("button", name=f"More like {first}").click()
    card.get_by_role("button", name="Update the list").click()
    page.wait_for_selector(".answer[aria-busy=false] .retry")
    assert page.locator(".answer").count() == 1
    assert first not in titles(page.locator(".answer"))


def test_categories_hold(watched: Watched) -> None:
    page = watched.page
    page.locator('#categories input[value="Crime"]').check(force=True)
    choose_length(page, "10")
    answer = say(page, "Hello")
    assert answer.locator(".card").count() == 10
    assert set(answer.locator(".tags li").all_inner_texts()) == {"Crime"}


def test_title_with_html_is_shown_and_not_run(watched: Watched) -> None:
    page = watched.page
    page.select_option("#domain", "books")
    choose_length(page, "5")
    answer = say(page, "Hello")
    assert HOSTILE in titles(answer)
    assert page.locator(".answer img, .answer b").count() == 0
    find(page, "bold")
    page.keyboard.press("Enter")
    assert HOSTILE in page.locator("#picks").inner_text()
    assert page.title() == "incatalog"


def test_domain_has_conversations_of_its_own(watched: Watched) -> None:
    page = watched.page
    choose_length(page, "5")
    shown = titles(say(page, "Hello"))
    page.select_option("#domain", "books")
    page.get_by_text("Find something in books").wait_for()
    assert page.locator(".answer").count() == 0
    page.select_option("#domain", "films")
    page.wait_for_selector(".answer")
    assert titles(page.locator(".answer")) == shown
    # The model is a tiny one, and says so: it has nothing to say without a catalog.
    assert "tiny model" in page.locator("#about").inner_text()
    assert page.locator("#domain option").all_inner_texts() == ["films", "books"]


def test_waiting_says_what_happens_and_stop_leaves_what_was_said(watched: Watched) -> None:
    page = watched.page
    held: list[Any] = []
    page.route(CHAT, lambda route: held.append(route))
    page.fill("#message", "Hello")
    page.keyboard.press("Enter")
    page.get_by_text("Choosing from 40 titles").wait_for()
    page.click("#stop")
    page.get_by_text("Stopped before anything was said.").wait_for()
    assert page.locator(".waiting").count() == 0
    assert page.evaluate("document.activeElement.id") == "message"
    page.unroute(CHAT)
    choose_length(page, "5")
    # The question without an answer is not sent along.
    with page.expect_request(CHAT) as asked:
        answer = say(page, "Hello again")
    assert len(asked.value.post_data_json["messages"]) == 1
    assert len(titles(answer)) == 5


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory, titles: tuple[str, ...]) -> Iterator[Server]:
    """A service that takes its time, and whose answers end at their longest length only."""
    folder = tmp_path_factory.mktemp("endless")
    model = folder / "films"
    model.mkdir()
    sizes = TinyConfig(vocab_size=512, hidden=512, inner=1024, layers=12, heads=8, seed=0)
    backbone = create_tiny([*titles, "A long story, please."], sizes)
    network: Any = backbone.model
    torch.manual_seed(1)
    with torch.no_grad():
        weight = torch.randn_like(network.get_output_embeddings().weight)
        # Among hundreds of scores around zero, one of exactly zero is never the highest.
        weight[backbone.tokenizer.all_special_ids] = 0
        network.lm_head.weight = torch.nn.Parameter(weight)
    save_model(model, backbone, ModelSpec(base="tiny"))
    Catalog.from_items([Item(f"i{n}", title) for n, title in enumerate(titles)]).save(model)
    flags = ("--model", model, "--max-tokens", str(LONGEST), "--title", "Story time")
    with Server(folder / "log", *flags) as running:
        yield running


def metric(server: Server, name: str) -> float:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


def test_stop_ends_the_stream_and_the_work(browser: Any, endless: Server) -> None:
    watched = Watched(browser, endless.url)
    page = watched.page
    ready(page)
    assert page.title() == page.locator("#title").inner_text() == "Story time"
    page.select_option("#domain", "")
    assert page.locator("#settings").is_hidden()
    page.fill("#message", "A long story, please.")
    page.keyboard.press("Enter")
    page.wait_for_selector(".answer .text:not(:empty)")
    page.click("#stop")
    page.wait_for_selector(".answer[aria-busy=false]")
    assert "Stopped." in page.locator(".answer").inner_text()
    assert "nothing to say" not in page.locator(".answer").inner_text()
    shown = page.locator(".answer .text").inner_text()
    deadline = time.monotonic() + 30
    while metric(endless, "incatalog_active_answers"):
        assert time.monotonic() < deadline
    # It ended because it was stopped, and nothing is written any longer.
    written = metric(endless, "incatalog_tokens_total")
    assert 0 < written < LONGEST
    page.wait_for_timeout(300)
    assert metric(endless, "incatalog_tokens_total") == written
    assert page.locator(".answer .text").inner_text() == shown
    assert page.locator("#send").is_visible()
    watched.close()
    assert watched.complaints == []


def test_items_come_and_go(browser: Any, tmp_path: Path, model: Path) -> None:
    flags = ("--model", model, "--domain", f"films={model}", "--max-messages", "5")
    with Server(tmp_path / "log", *flags) as running:
        watched = Watched(browser, running.url)
        page = watched.page
        page.wait_for_selector("#categories input", state="attached")
        # One catalog and no plain talk: there is nothing to choose.
        assert page.locator("#domain-field").is_hidden()
        items = f"{running.url}/v1/catalogs/films/items"
        new = [
            {"id": f"new-{n}", "title": f"Brand New {n}", "categories": ["Fresh"]} for n in (1, 2)
        ]
        httpx.post(items, json={"items": new}).raise_for_status()
        page.reload()
        page.wait_for_selector('#categories input[value="Fresh"]', state="attached")
        page.locator('#categories input[value="Fresh"]').check(force=True)
        choose_length(page, "5")
        assert set(titles(say(page, "Hello"))) == {"Brand New 1", "Brand New 2"}
        httpx.delete(f"{items}/new-1").raise_for_status()
        assert titles(say(page, "And now?")) == ["Brand New 2"]
        # What was picked and has left the catalog is dropped, and the page says so.
        page.locator('#categories input[value="Fresh"]').uncheck(force=True)
        find(page, "brand new 2")
        page.keyboard.press("Enter")
        httpx.delete(f"{items}/new-2").raise_for_status()
        watched.complaints.clear()
        answer = say(page, "And with my pick?")
        assert answer.locator(".card").count() == 5
        note = "Brand New 2 is no longer in the catalog; it was taken out of your picks."
        assert note in answer.inner_text()
        assert page.locator("#picks li").count() == 0
        # What a browser says of an answer that is none is all that was complained about.
        assert all("400" in one or "404" in one for one in watched.complaints)
        watched.complaints.clear()
        # Beyond five messages the oldest are left out, which is said once.
        long = "This conversation has grown long"
        assert long not in answer.inner_text()
        assert long in say(page, "More").inner_text()
        assert long not in say(page, "And more").inner_text()
        assert watched.complaints == []
        watched.close()


def test_errors_are_told_and_can_be_tried_again(browser: Any, server: Server) -> None:
    watched = Watched(browser, server.url)
    page = watched.page
    ready(page)
    refusal = {"error": {"message": "more than 2 requests a minute", "type": "", "code": ""}}
    page.route(
        CHAT,
        lambda route: route.fulfill(
            status=429, headers={"Retry-After": "1"}, content_type="application/json",
            body=json.dumps(refusal),
        ),
    )  # fmt: skip
    page.fill("#message", "Hello")
    page.keyboard.press("Enter")
    alert = page.get_by_role("alert").filter(has_text="more than 2 requests a minute")
    alert.wait_for()
    assert "in 1 s" in alert.get_by_role("button").inner_text()
    page.unroute(CHAT)
    alert.get_by_role("button", name="Try again", exact=True).click()
    page.wait_for_selector(".answer .retry")
    assert page.get_by_role("alert").filter(has_text="more than").count() == 0
    watched.close()


def test_key_is_asked_for(browser: Any, tmp_path: Path, model: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"a": {"sha256": hashlib.sha256(b"sesame").hexdigest()}}))
    with Server(tmp_path / "log", "--model", model, "--keys", keys) as running:
        watched = Watched(browser, running.url)
        page = watched.page
        for key, opens in (("wrong", False), ("sesame", True)):
            page.wait_for_selector("#key-dialog[open]")
            page.fill("#key", key)
            page.keyboard.press("Enter")
            if not opens:
                page.get_by_text("no such API key").wait_for()
        ready(page)
        choose_length(page, "5")
        assert say(page, "Hello").locator(".card").count() == 5
        watched.close()


@pytest.mark.parametrize(("width", "scheme"), [(320, "light"), (390, "dark"), (1440, "dark")])
def test_page_fits_and_every_control_has_a_name(
    browser: Any, server: Server, scheme: str, width: int
) -> None:
    size = {"width": width, "height": 740}
    # Colours that are still fading in are not those to be judged.
    watched = Watched(
        browser, server.url, viewport=size, color_scheme=scheme, reduced_motion="reduce"
    )
    page = watched.page

    def fits() -> bool:
        return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))

    ready(page)
    page.locator("#starters button").first.click()
    assert fits()
    assert violations(page) == []
    if width < 800:
        assert page.locator("#panel").is_hidden()
        page.click("#panel-toggle")
        # The panel takes the conversation's place, and the page still has its landmarks.
        assert page.locator("#composer").is_hidden()
    choose_length(page, "5")
    chosen = page.locator(".segments input:checked + span")
    others = page.locator(".segments input:not(:checked) + span").first
    look = "node => getComputedStyle(node).backgroundColor"
    assert chosen.evaluate(look) != others.evaluate(look)
    find(page, "harbuor")
    assert fits()
    assert violations(page) == []
    page.keyboard.press("Escape")
    if width < 800:
        page.click("#panel-done")
    answer = say(page, "Hello")
    page.get_by_role("button", name="Not for me").first.click()
    page.get_by_role("button", name="More like").last.click()
    answer.locator(".strip + .card h2").wait_for()
    page.click("#talks-toggle")
    assert fits()
    assert violations(page) == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (dark == "rgb(20, 22, 20)") == (scheme == "dark")
    for other in (320, 600, 768, 1024, 1440):
        page.set_viewport_size({"width": other, "height": 740})
        assert fits()
    assert watched.complaints == []
    assert watched.foreign == []
    watched.close()


def test_reference_of_the_api_is_a_page(browser: Any, server: Server) -> None:
    watched = Watched(browser, server.url)
    page = watched.page
    page.goto(f"{server.url}/docs")
    page.get_by_text("POST /v1/chat/completions").wait_for()
    assert "catalog_version" in page.locator("#reference").inner_text()
    assert watched.complaints == []
    assert watched.foreign == []
    watched.close()


def test_page_names_nothing_of_another_origin_and_has_no_long_file() -> None:
    for path in PAGE.iterdir():
        text = path.read_text(encoding="utf-8")
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in text
        assert "innerHTML" not in text
        assert text.count("\n") <= MOST_LINES
