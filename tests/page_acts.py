"""What people do on the page, and what is found wrong with it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from browser import Watched

CHAT = "**/v1/chat/completions"


@contextlib.contextmanager
def watching(browser: Any, url: str) -> Iterator[Watched]:
    """The page of a service, which must not complain, and must not ask elsewhere."""
    page = Watched(browser, url)
    ready(page.page)
    yield page
    page.close()
    assert page.complaints == []
    assert page.foreign == []


def ready(page: Any) -> None:
    """Waits until the page knows its service."""
    page.wait_for_selector("#domain:not([disabled])", state="attached")
    begun = ("#starters button", ".answer", ".problem", "#suggestions button")
    page.wait_for_selector(", ".join(f"{one}:visible" for one in begun))


def say(page: Any, text: str) -> Any:
    """Sends a message and waits for its answer."""
    before = page.locator(".answer").count()
    page.fill("#message", text)
    page.keyboard.press("Enter")
    return answered(page, before)


def answered(page: Any, place: int) -> Any:
    """The finished answer at a place."""
    answer = page.locator(".answer").nth(place)
    answer.locator("xpath=self::*[@aria-busy='false']").wait_for()
    return answer


def choose_length(page: Any, length: str) -> None:
    page.locator(f'input[name="length"][value="{length}"]').check(force=True)


def find(page: Any, text: str) -> Any:
    """The titles that are found for what is typed."""
    page.fill("#search", text)
    page.wait_for_selector(f"#found[data-typed={json.dumps(text)}] [role=option]")
    return page.locator("#found [role=option]")


def titles(answer: Any) -> list[str]:
    """What stands on the cards of an answer."""
    found: list[str] = answer.locator(".card h2").all_inner_texts()
    return found


def violations(page: Any) -> list[str]:
    """What axe-core finds wrong with the page as it stands."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python"
    )
    return [
        f"{one['id']}: {one['help']}: {one['nodes'][0]['html']}"
        for one in axe.Axe().run(page).response["violations"]
    ]


def streamed(*chunks: Mapping[str, Any]) -> dict[str, Any]:
    """An answer as a service streams it, each chunk a text with what stands beside it."""
    lines = []
    for place, chunk in enumerate(chunks):
        rest = {name: value for name, value in chunk.items() if name != "text"}
        ended = "stop" if place == len(chunks) - 1 else None
        choice = {"index": 0, "delta": {"content": chunk.get("text", "")}, "finish_reason": ended}
        lines.append(f"data: {json.dumps({'choices': [choice], **rest})}\n\n")
    body = "".join([*lines, "data: [DONE]\n\n"])
    return {"status": 200, "content_type": "text/event-stream", "body": body}


def answer_with(page: Any, answers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Answers the next questions as told, and gives the bodies that were sent."""
    asked: list[dict[str, Any]] = []

    def fulfil(route: Any) -> None:
        asked.append(route.request.post_data_json)
        route.fulfill(**answers[min(len(asked), len(answers)) - 1])

    page.route(CHAT, fulfil)
    return asked
