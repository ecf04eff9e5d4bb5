from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browser import Watched
from chatting import Server
from incatalog import Catalog, Item
from page_acts import (
    answer_with,
    choose_length,
    find,
    ready,
    say,
    streamed,
    titles,
    violations,
    watching,
)

pytestmark = pytest.mark.long

BRANDS = ("Acme", "Nordlicht")
PRICES = [float(number) for number in range(1, 31)]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Server]:
    """A shop whose items have a price, a brand and a stock."""
    folder = tmp_path_factory.mktemp("shop") / "shop"
    folder.mkdir()
    Catalog.from_items(
        Item(
            f"p{row}",
            f"Gel pen {row}",
            categories=("Pens" if row % 3 else "Paper",),
            attributes={"price": price, "brand": BRANDS[row % 2], "in_stock": row % 5 > 0},
        )
        for row, price in enumerate(PRICES)
    ).save(folder)
    flags = ("--model", model, "--domain", f"shop={folder}", "--title", "Pen & Paper")
    images = ("--allow-image", "https://img.example")
    with Server(folder / "log", *flags, *images) as running:
        yield running


@pytest.fixture
def watched(browser: Any, shop: Server) -> Iterator[Watched]:
    with watching(browser, shop.url) as page:
        yield page


@pytest.fixture
def films(browser: Any, server: Server) -> Iterator[Watched]:
    page = Watched(browser, server.url)
    ready(page.page)
    yield page
    page.close()
    assert page.complaints == []


def test_first_screen_is_made_from_the_catalog(watched: Watched) -> None:
    page = watched.page
    assert page.title() == "Pen & Paper"
    assert page.locator("#welcome-title").inner_text() == "Find something in shop"
    starters = page.locator("#starters button")
    assert starters.count() == 12
    questions = page.locator("#suggestions button").all_inner_texts()
    assert questions[:2] == ["What is good in Paper?", "Something under 20"]
    for word in ("film", "movie", "watch", "tonight"):
        assert word not in page.locator("main").inner_text().lower()
    # Three picks, and a list of what fits them.
    for place in range(3):
        starters.nth(place).click()
    assert page.locator('#starters [aria-pressed="true"]').count() == 3
    picked = page.locator("#picks li span").all_inner_texts()
    page.get_by_role("button", name="Recommend from my 3 picks").click()
    answer = page.locator('.answer[aria-busy="false"]')
    answer.wait_for()
    assert len(titles(answer)) == 5
    assert not set(picked) & set(titles(answer))
    assert "with 3 picks" in page.locator(".said").inner_text()


def test_suggestion_asks_for_a_list(watched: Watched) -> None:
    page = watched.page
    page.locator('input[name="length"][value=""]').check(force=True)
    page.locator("#suggestions button").first.click()
    page.wait_for_selector(".answer[aria-busy=false]")
    assert page.locator(".card").count() == 5


def test_filters_hold_are_counted_and_can_be_cleared(watched: Watched) -> None:
    page = watched.page
    choose_length(page, "5")
    facets = page.locator("#filters summary").all_inner_texts()
    assert facets == ["Categories", "Price", "Brand", "In stock"]
    assert page.locator("#categories small").all_inner_texts() == ["20", "10"]
    page.get_by_label("Price to").fill("12")
    page.keyboard.press("Tab")
    page.locator('#facet-brand input[value="Nordlicht"]').check(force=True)
    page.locator("#facet-in_stock summary").click()
    page.locator("#facet-in_stock input").check(force=True)
    with page.expect_request("**/v1/chat/completions") as asked:
        answer = say(page, "Hello")
    where = {"price": {"lte": 12}, "brand": ["Nordlicht"], "in_stock": True}
    assert asked.value.post_data_json["where"] == where
    fitting = {
        f"Gel pen {row}"
        for row, price in enumerate(PRICES)
        if price <= 12 and row % 2 and row % 5 > 0
    }
    assert set(titles(answer)) == fitting
    assert page.locator("#pick-count").inner_text() == "3"
    # What takes a refused item's place obeys too; here nothing is left.
    page.get_by_role("button", name="Not for me").first.click()
    page.get_by_text("Nothing else fits.").wait_for()
    assert all("400" in one for one in watched.complaints)
    watched.complaints.clear()
    page.click("#clear-filters")
    assert page.get_by_label("Price to").input_value() == ""
    with page.expect_request("**/v1/chat/completions") as asked:
        say(page, "Hello")
    assert "where" not in asked.value.post_data_json


def test_search_forgives_and_its_note_goes_away(films: Watched) -> None:
    page = films.page
    page.focus("#search")
    # Nothing typed yet: there is something to browse.
    page.wait_for_selector("#found [role=option]")
    assert page.locator("#found [role=option]").count() == 12
    for typed in ("clokmaker", "theclockmaker", "clock maker"):
        page.fill("#search", typed)
        page.locator("#found [role=option]", has_text="The Clockmaker (1969)").wait_for()
    note = page.locator("#search-note")
    page.fill("#search", "zzzz")
    page.get_by_text("Nothing here is called anything like “zzzz”.").wait_for()
    page.fill("#search", "zzz")
    assert note.is_hidden()
    note.wait_for()
    page.keyboard.press("Tab")
    assert note.is_hidden()
    # By keyboard alone.
    find(page, "harbuor")
    page.keyboard.press("ArrowDown")
    active = page.locator("#search").get_attribute("aria-activedescendant")
    assert page.locator(f"#{active}").get_attribute("aria-selected") == "true"
    page.keyboard.press("Enter")
    assert page.locator("#picks li").count() == 1
    assert page.locator("#search").input_value() == ""


def test_no_text_is_cut_silently(films: Watched) -> None:
    page = films.page
    note = page.locator("#length-note")
    page.fill("#message", "x" * 100)
    assert note.is_hidden()
    page.fill("#message", "x" * 7000)
    assert note.inner_text() == "7,000 of 8,000 characters"
    page.fill("#message", "x" * 8120)
    assert page.locator("#message").input_value() == "x" * 8120
    assert note.inner_text().startswith("120 characters too many")
    page.keyboard.press("Enter")
    assert page.locator(".said").count() == 0
    assert page.locator("#send").is_disabled()


def test_filters_that_were_understood_can_be_taken_off(watched: Watched) -> None:
    """The service's fields of what was understood, as docs/serving.md describes them."""
    page = watched.page
    choose_length(page, "5")
    cheap = {"id": "price<=20", "field": "price", "op": "lte", "value": 20, "label": "under 20"}
    acme = {"id": "brand=Acme", "field": "brand", "op": "eq", "value": "Acme", "label": "Acme"}
    item = {"id": "p1", "title": "Gel pen 1", "categories": ["Pens"], "rank": 1, "score": 0.5}
    with_filters = streamed(
        {"text": "", "filters": [cheap, acme]},
        {"text": "1. "},
        {"text": "Gel pen 1", "items": [item | {"start": 3, "end": 12}]},
        {"text": "\n"},
    )
    without = streamed({"text": "", "filters": [acme]}, {"text": "Nothing."})
    talk = streamed({"text": "You are welcome."})
    asked = answer_with(page, [with_filters, without, with_filters, talk])
    say(page, "Acme under 20")
    chips = page.locator(".understood .filter")
    assert chips.all_inner_texts() == ["under 20 ×", "Acme ×"]
    # Another in the place of a refused item obeys them.
    with page.expect_request("**/v1/recommendations") as refill:
        page.get_by_role("button", name="Not for me: Gel pen 1").click()
    where = {"price": {"lte": 20}, "brand": {"eq": "Acme"}}
    assert refill.value.post_data_json["where"] == where
    page.locator(".strip + .card h2").wait_for()
    page.get_by_role("button", name="Take off: under 20").click()
    page.get_by_text("Nothing.").wait_for()
    assert asked[1]["filters_off"] == ["price<=20"]
    assert chips.all_inner_texts() == ["Acme ×", "+ under 20"]
    page.get_by_role("button", name="Put back: under 20").click()
    page.get_by_role("button", name="Take off: under 20").wait_for()
    assert "filters_off" not in asked[2]
    # Talk that names nothing has nothing to filter.
    assert say(page, "Thank you").locator(".filter:visible").count() == 0
    # Those above can be read, and no longer be changed.
    assert page.locator("button.filter").count() == 0
    assert violations(page) == []


def test_cards_show_what_is_known(watched: Watched) -> None:
    """The service's fields of an item, as docs/serving.md describes them."""
    page = watched.page
    picture = {"content_type": "image/svg+xml", "body": '<svg xmlns="http://www.w3.org/2000/svg"/>'}
    page.route("https://img.example/**", lambda route: route.fulfill(**picture))

    def fact(name: str, value: Any, shown: str = "") -> dict[str, Any]:
        return {"name": name, "label": name.title(), "value": value, "shown": shown or str(value)}

    known = [
        fact("pages", 48),
        fact("price", 12.5, "€12.50"),
        fact("url", "https://shop.example/1"),
        fact("image", "https://img.example/1.jpg"),
    ]
    bad = [fact("url", "javascript:alert(1)"), fact("image", "https://elsewhere.example/1.jpg")]
    items = [
        {"id": "p1", "title": "Gel pen 1", "reason": "It costs less than 20.", "attributes": known},
        {"id": "p2", "title": "קולמוס 2", "reason": None, "attributes": bad},
    ]
    rest = {"categories": ["Pens"], "rank": 1, "score": 0.5}
    pieces: list[dict[str, Any]] = [
        {"text": "Here is what fits 🙂:\n1. "},
        {"text": "Gel pen 1", "items": [items[0] | rest]},
        {"text": " — It costs less than 20.\n2. "},
        {"text": "קולמוס 2", "items": [items[1] | rest]},
        {"text": "\n   Because it is a pen.\nGel pen 3 is another one."},
    ]
    start = "".join(piece["text"] for piece in pieces).index("Gel pen 3")
    mention = {"id": "p3", "start": start, "end": start + 9}
    answer_with(page, [streamed(*pieces, {"text": "", "mentions": [mention]})])
    answer = say(page, "Hello")
    first, second = answer.locator(".card").all()
    assert first.locator(".price dd").inner_text() == "€12.50"
    assert "Pages" in first.locator(".facts").inner_text()
    assert first.locator(".why").all_inner_texts() == ["It costs less than 20."]
    assert first.locator("h2 a").get_attribute("href") == "https://shop.example/1"
    assert first.locator("img").get_attribute("src") == "https://img.example/1.jpg"
    # An address that runs a script, and an image from where none may come, are left out.
    assert second.locator("a, img").count() == 0
    assert second.locator(".why").inner_text() == "Because it is a pen."
    assert second.locator("h2").evaluate("node => getComputedStyle(node).direction") == "rtl"
    assert answer.locator(".text").all_inner_texts() == [
        "Here is what fits 🙂:",
        "Gel pen 3 is another one.",
    ]
    # A title in the prose shows its card.
    answer.get_by_role("button", name="Show Gel pen 3").click()
    answer.locator(".card h2", has_text="Gel pen 3").wait_for()
    watched.foreign[:] = [one for one in watched.foreign if "img.example" not in one]


def test_reason_is_what_an_item_shares_with_the_picks_where_none_is_given(watched: Watched) -> None:
    page = watched.page
    page.locator("#starters button", has_text="Gel pen 0").click()
    item = {"id": "p3", "title": "Gel pen 3", "categories": ["Paper"], "rank": 1, "score": 0.5}
    answer_with(page, [streamed({"text": "Gel pen 3", "items": [item]}, {"text": ""})])
    answer = say(page, "Hello")
    assert answer.locator(".why").inner_text() == "Paper, like Gel pen 0"


def test_what_the_service_left_out_is_said(watched: Watched) -> None:
    """`unknown` and `left_out`, as docs/serving.md describes them."""
    page = watched.page
    page.locator("#starters button").first.click()
    picked = page.locator("#picks li span").inner_text()
    told = streamed({"text": "Hello.", "unknown": ["p0"]}, {"text": "", "left_out": 2})
    answer_with(page, [told])
    answer = say(page, "Hello").inner_text()
    assert f"{picked} is no longer in the catalog" in answer
    assert "its oldest 2 messages can no longer be taken into account" in answer
    assert page.locator("#picks li").count() == 0
    # Once is enough.
    assert "oldest" not in say(page, "Hello again").inner_text()


def test_conversation_that_is_too_long_for_the_model_is_shortened(watched: Watched) -> None:
    page = watched.page
    choose_length(page, "5")
    for _ in range(2):
        say(page, "Hello")
    error = '{"error": {"message": "too long", "code": "context_length_exceeded"}}'
    refusal = {"status": 400, "content_type": "application/json", "body": error}
    asked = answer_with(page, [refusal, streamed({"text": "Here I am."})])
    answer = say(page, "And now?")
    assert [len(one["messages"]) for one in asked] == [5, 1]
    assert "its oldest 4 messages" in answer.inner_text()
    watched.complaints[:] = [one for one in watched.complaints if "400" not in one]


CASES: list[tuple[str, bool, list[Any]]] = [
    ("A list:\n1. {a}\n2. {b}: good\n\nDone.", False, ["A list:", ["a", "b good"], "Done."]),
    ("- **{a}**\n- {b}, {c}\n", False, [["a", "b", "c"]]),
    ("Try {a} or {b}.", False, ["Try A or B.", ["a", "b"]]),
    ("{a}{a}\n{a}", False, [["a"]]),
    ("{a}\n2. ", True, [["a"]]),
    ("1. No item", False, ["1. No item"]),
    ("", False, []),
]


@pytest.mark.parametrize(("text", "growing", "expected"), CASES)
def test_lists_become_cards_and_prose_stays_prose(
    films: Watched, text: str, growing: bool, expected: list[Any]
) -> None:
    pieces = text.replace("}", "{").split("{")
    parts = [
        {"item": {"id": piece, "title": piece.upper()}} if place % 2 else {"text": piece}
        for place, piece in enumerate(pieces)
    ]
    script = """async ([parts, growing]) => {
        const { blocksOf } = await import("/page/layout.js");
        const words = (line) => line.map((part) => part.text ?? part.item.title).join("");
        const said = ({ item, said }) => `${item.id} ${said}`.trim();
        return blocksOf(parts, { growing }).map((block) =>
            block.kind === "text" ? block.lines.map(words).join("/") : block.cards.map(said));
    }"""
    assert films.page.evaluate(script, [parts, growing]) == expected
