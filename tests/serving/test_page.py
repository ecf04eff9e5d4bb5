from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from browser import Watched, chromium
from chatting import HOSTILE, Server
from incatalog import Catalog, Item
from incatalog.model.backbone import create_tiny
from incatalog.model.saved import save_model
from incatalog.model.spec import ModelSpec
from incatalog.model.tiny import TinyConfig

PAGE = Path(__file__).parents[2] / "src" / "incatalog" / "serving" / "page"
# Tokens of an answer that no one stops.
LONGEST = 900


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture
def watched(browser: Any, server: Server) -> Iterator[Watched]:
    """The page, which must not complain, and must not ask elsewhere."""
    page = Watched(browser, server.url)
    page.page.wait_for_selector("#domain:not([disabled])")
    yield page
    page.close()
    assert page.complaints == []
    assert page.foreign == []


def say(page: Any, text: str) -> Any:
    """Sends a message and waits for its answer."""
    before = page.locator(".answer").count()
    page.fill("#message", text)
    page.keyboard.press("Enter")
    answer = page.locator(".answer").nth(before)
    answer.locator("xpath=self::*[@aria-busy='false']").wait_for()
    return answer


def violations(page: Any) -> list[str]:
    """What axe-core finds wrong with the page as it stands."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python"
    )
    return [
        f"{one['id']}: {one['help']}: {one['nodes'][0]['html']}"
        for one in axe.Axe().run(page).response["violations"]
    ]


def choose_length(page: Any, length: str) -> None:
    page.locator(f'input[name="length"][value="{length}"]').check(force=True)


def test_conversation_with_picks_streams_text_and_cards(watched: Watched) -> None:
    page = watched.page
    page.fill("#search", "harbour li")
    page.wait_for_selector("#found [role=option]")
    assert page.locator("#found [role=option]").count() == 2
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.locator("#picks li").inner_text().startswith("Harbour Lights (1991)")
    choose_length(page, "5")
    answer = say(page, "What fits these?")
    titles = answer.locator(".card h2").all_inner_texts()
    assert len(set(titles)) == 5
    assert answer.locator("mark").all_inner_texts() == titles
    assert "Harbour Lights (1991)" not in titles
    for why in answer.locator(".why").all_inner_texts():
        assert "like Harbour Lights (1991)" in why or "of 40 titles" in why
    # A second turn, to which the first is known.
    assert say(page, "And others?").locator(".card").count() == 5
    assert page.locator(".said").count() == 2


def test_item_that_is_refused_does_not_come_again(watched: Watched) -> None:
    page = watched.page
    choose_length(page, "5")
    answer = say(page, "Hello")
    title = answer.locator(".card h2").first.inner_text()
    answer.get_by_role("button", name=f"Not for me: {title}").click()
    assert title in page.locator("#excluded").inner_text()
    again = say(page, "Hello")
    assert title not in again.locator(".card h2").all_inner_texts()
    again.get_by_role("button", name="Answer again").click()
    page.wait_for_selector(".answer[aria-busy=false] .retry")
    assert page.locator(".answer").count() == 2


def test_categories_hold(watched: Watched, recommender: Any) -> None:
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
    assert HOSTILE in answer.locator(".card h2").all_inner_texts()
    assert HOSTILE in answer.locator("mark").all_inner_texts()
    assert page.locator(".answer img, .answer b").count() == 0
    page.fill("#search", "bold")
    page.wait_for_selector("#found [role=option]")
    page.keyboard.press("Enter")
    assert HOSTILE in page.locator("#picks").inner_text()
    assert page.title() == "incatalog"


def test_domain_starts_a_conversation_of_its_own(watched: Watched) -> None:
    page = watched.page
    choose_length(page, "5")
    say(page, "Hello")
    page.select_option("#domain", "")
    assert page.locator(".answer").count() == 0
    assert page.locator("#settings").is_hidden()
    answer = say(page, "Hello")
    assert answer.locator(".card").count() == 0
    assert answer.locator(".text").inner_text()


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
    flags = ("--model", model, "--max-tokens", str(LONGEST))
    with Server(folder / "log", *flags) as running:
        yield running


def metric(server: Server, name: str) -> float:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


def test_stop_ends_the_stream_and_the_work(browser: Any, endless: Server) -> None:
    watched = Watched(browser, endless.url)
    page = watched.page
    page.wait_for_selector("#domain:not([disabled])")
    page.select_option("#domain", "")
    page.fill("#message", "A long story, please.")
    page.keyboard.press("Enter")
    page.wait_for_selector(".answer .text:not(:empty)")
    page.click("#stop")
    page.wait_for_selector(".answer[aria-busy=false]")
    assert "Stopped." in page.locator(".answer").inner_text()
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


def test_item_that_is_added_is_recommended_and_a_removed_one_never_again(
    browser: Any, tmp_path: Path, model: Path
) -> None:
    with Server(tmp_path / "log", "--model", model, "--domain", f"films={model}") as running:
        watched = Watched(browser, running.url)
        page = watched.page
        page.wait_for_selector("#categories input")
        items = f"{running.url}/v1/catalogs/films/items"
        new = [{"id": f"new-{n}", "title": f"Brand New {n}", "categories": ["New"]} for n in (1, 2)]
        httpx.post(items, json={"items": new}).raise_for_status()
        page.reload()
        page.wait_for_selector('#categories input[value="New"]', state="attached")
        page.locator('#categories input[value="New"]').check(force=True)
        choose_length(page, "5")
        shown = say(page, "What is new?").locator(".card h2").all_inner_texts()
        assert set(shown) == {"Brand New 1", "Brand New 2"}
        httpx.delete(f"{items}/new-1").raise_for_status()
        for _ in range(3):
            shown = say(page, "And now?").locator(".card h2").all_inner_texts()
            assert shown == ["Brand New 2"]
        assert watched.complaints == []
        watched.close()


def test_errors_are_told_and_can_be_tried_again(browser: Any, server: Server) -> None:
    watched = Watched(browser, server.url)
    page = watched.page
    page.wait_for_selector("#domain:not([disabled])")
    refusal = {"error": {"message": "more than 2 requests a minute", "type": "", "code": ""}}
    page.route(
        "**/v1/chat/completions",
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
    page.unroute("**/v1/chat/completions")
    alert.get_by_role("button", name="Try again", exact=True).click()
    page.wait_for_selector(".answer .retry")
    assert page.get_by_role("alert").filter(has_text="more than").count() == 0
    watched.close()


def test_key_is_asked_for(browser: Any, tmp_path: Path, model: Path) -> None:
    import hashlib

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
        page.wait_for_selector("#domain:not([disabled])")
        choose_length(page, "5")
        assert say(page, "Hello").locator(".card").count() == 5
        watched.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_page_fits_and_every_control_has_a_name(
    browser: Any, server: Server, scheme: str, width: int
) -> None:
    size = {"width": width, "height": 740}
    # Colours that are still fading in are not those to be judged.
    watched = Watched(
        browser, server.url, viewport=size, color_scheme=scheme, reduced_motion="reduce"
    )
    page = watched.page
    page.wait_for_selector("#domain:not([disabled])")
    say(page, "Hello")
    if width < 800:
        assert page.locator("#panel").is_hidden()
        page.click("#panel-toggle")
    choose_length(page, "10")
    if width < 800:
        # The panel takes the conversation's place, and the page still has its landmarks.
        assert page.locator("#composer").is_hidden()
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.click("#panel-done")
    say(page, "Hello again")
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= width
    assert violations(page) == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (dark == "rgb(20, 22, 20)") == (scheme == "dark")
    # Resized while it is open, it still fits.
    page.set_viewport_size({"width": 360 if width > 800 else 1200, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
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


def test_page_names_nothing_of_another_origin() -> None:
    for path in PAGE.iterdir():
        text = path.read_text(encoding="utf-8")
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in text
        assert "innerHTML" not in text
