from __future__ import annotations

from typing import Any

import pytest

from browser import Watched
from page_acts import choose_length, ready, say, titles

pytestmark = pytest.mark.long


def again(page: Any) -> None:
    page.reload()
    ready(page)


def test_all_that_was_said_and_picked_survives_a_reload_and_a_second_tab(
    watched: Watched,
) -> None:
    page = watched.page
    page.locator("#starters button").first.click()
    picked = page.locator("#picks li").inner_text()
    page.locator('#categories input[value="Crime"]').check(force=True)
    choose_length(page, "5")
    answer = say(page, "What fits?")
    shown = titles(answer)
    page.get_by_role("button", name=f"Not for me: {shown[0]}").click()
    answer.locator(".strip + .card h2").wait_for()
    page.get_by_role("button", name=f"More like {shown[1]}").click()
    whole = page.locator("#log").inner_text()

    def as_it_was(there: Any) -> None:
        there.wait_for_selector(".answer")
        there.wait_for_selector('#categories input[value="Crime"]', state="attached")
        assert there.locator("#log").inner_text() == whole
        assert picked in there.locator("#picks").inner_text()
        assert shown[0] in there.locator("#excluded").inner_text()
        assert there.locator('#categories input[value="Crime"]').is_checked()
        assert there.locator('input[name="length"][value="5"]').is_checked()

    again(page)
    as_it_was(page)
    second = page.context.new_page()
    second.goto(page.url)
    ready(second)
    as_it_was(second)
    # What one tab changes, the other shows.
    second.get_by_role("button", name="Undo").last.click()
    page.locator("#picks li").nth(1).wait_for(state="detached")
    assert page.locator("#picks li").count() == 1
    # The conversation goes on where it was left.
    with page.expect_request("**/v1/chat/completions") as asked:
        say(page, "And more?")
    sent = asked.value.post_data_json
    assert [one["role"] for one in sent["messages"]] == ["user", "assistant", "user"]
    assert [len(one.get("items", [])) for one in sent["messages"]] == [0, 5, 0]
    assert sent["categories"] == ["Crime"]


def test_conversations_are_listed_opened_and_deleted(watched: Watched) -> None:
    page = watched.page
    choose_length(page, "5")
    assert page.locator("#talks-toggle").is_hidden()
    say(page, "The first one")
    page.click("#new")
    assert page.locator(".answer").count() == 0
    # A new conversation stays new when the page is loaded again.
    again(page)
    assert page.locator(".answer").count() == 0
    say(page, "The second one")
    page.click("#talks-toggle")
    talks = page.locator(".talk span")
    assert talks.all_inner_texts() == ["The second one", "The first one"]
    assert page.locator(".talk[aria-current]").inner_text().startswith("The second one")
    # By keyboard: the list has the focus, and Escape gives it back.
    assert page.evaluate("document.activeElement.className") == "talk"
    page.keyboard.press("Escape")
    assert page.locator("#talks").is_hidden()
    assert page.evaluate("document.activeElement.id") == "talks-toggle"
    page.keyboard.press("Enter")
    talks.last.click()
    assert page.locator(".said p").first.inner_text() == "The first one"
    page.click("#talks-toggle")
    page.get_by_role("button", name="Delete: The first one").click()
    assert talks.all_inner_texts() == ["The second one"]
    assert page.locator(".answer").count() == 0
    page.click("#forget-all")
    assert page.locator("#talks-toggle").is_hidden()
    again(page)
    assert page.locator(".answer").count() == 0


def test_what_is_broken_or_of_another_version_is_not_read(watched: Watched) -> None:
    page = watched.page
    choose_length(page, "5")
    say(page, "Hello")
    name = page.evaluate("Object.keys(localStorage).find((one) => one.endsWith('/films'))")
    assert name.startswith("incatalog/1/")
    for broken in ("{", "null", "[]", '{"picks": 3, "conversations": [{}], "where": null}'):
        page.evaluate("([name, text]) => localStorage.setItem(name, text)", [name, broken])
        again(page)
        assert page.locator(".answer").count() == 0
        assert page.locator("#starters button").count() == 12


def test_question_whose_answer_was_not_finished_can_be_asked_again(watched: Watched) -> None:
    page = watched.page
    choose_length(page, "5")
    held: list[Any] = []
    page.route("**/v1/chat/completions", lambda route: held.append(route))
    page.fill("#message", "Hello")
    page.keyboard.press("Enter")
    page.wait_for_selector(".waiting", state="attached")
    page.unroute("**/v1/chat/completions")
    again(page)
    page.get_by_role("button", name="Ask again").click()
    page.wait_for_selector(".answer[aria-busy=false] .card")
    assert page.locator(".said").count() == 1
    assert page.locator(".card").count() == 5


def test_full_store_lets_the_oldest_conversation_go(watched: Watched) -> None:
    page = watched.page
    script = """async () => {
        const memory = await import("/page/memory.js");
        const talk = (id, at) => ({ id, at, turns: [{ role: "user", content: "x".repeat(9e5) }] });
        for (let n = 0; n < 9; n++) {
            memory.change("films", (value) => value.conversations.push(talk(`t${n}`, n)));
        }
        return memory.read("films").conversations.map((one) => one.id);
    }"""
    kept = page.evaluate(script)
    # Five million letters or so; the newest stay.
    assert 2 <= len(kept) < 9
    assert kept == [f"t{n}" for n in range(8, 8 - len(kept), -1)]
