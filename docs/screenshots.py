"""Pictures of the page and of the report, as a real browser shows them.

    python docs/screenshots.py [DEMO] [OUT]   (a finished `make study`, runs/study by default;
                                               docs/images by default)

The page is that of SmolLM2, guided by the study's blend. Needs Debian's chromium and the packages
of the `dev` extra.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

PICKS = ("star wars", "empire strikes", "raiders of the lost")
QUESTIONS = (
    "Why the first one?",
    "More like the second one",
    "Rather something scary",
    "Thank you!",
)
WIDE, PHONE = {"width": 1180, "height": 820}, {"width": 390, "height": 780}
# Answers of a chat model on two busy cores take their time.
PATIENCE = 300_000


@contextlib.contextmanager
def served(*flags: str) -> Iterator[str]:
    """A service, by its address."""
    command = [sys.executable, "-m", "incatalog.cli", "serve", "--port", "0", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        said = []
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                yield found[0]
                return
        sys.exit("the service did not start: " + "".join(said))
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def opened(browser: Any, url: str, size: dict[str, int], scheme: str = "light") -> Iterator[Any]:
    """The page in a browser that remembers nothing."""
    context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(url)
    page.wait_for_selector("#starters button")
    page.wait_for_selector("#filters summary", state="attached")
    yield page
    context.close()


def pick(page: Any, *, phone: bool) -> None:
    """Picks some movies by their misspelled or shortened titles."""
    if phone:
        page.click("#panel-toggle")
    for words in PICKS:
        page.fill("#search", words)
        page.wait_for_selector(f'#found[data-typed="{words}"] [role=option]')
        page.keyboard.press("Enter")
    if phone:
        page.click("#panel-done")


def ask(page: Any, text: str) -> None:
    """Sends a message and waits for the answer."""
    before = page.locator(".answer").count()
    page.fill("#message", text)
    page.keyboard.press("Enter")
    answer = page.locator(".answer").nth(before)
    answer.locator("xpath=self::*[@aria-busy='false']").wait_for()
    page.evaluate("document.activeElement.blur()")
    page.wait_for_timeout(300)


def conversation(browser: Any, url: str, images: Path) -> None:
    """A talk in the light, in the dark and on a phone, and a long one."""
    for name, size, scheme in (
        ("page-light", WIDE, "light"),
        ("page-dark", WIDE, "dark"),
        ("page-phone", PHONE, "light"),
    ):
        with opened(browser, url, size, scheme) as page:
            pick(page, phone=size is PHONE)
            ask(page, "A comedy for tonight, please")
            page.locator("#scroller").evaluate("node => node.scrollTo(0, 0)")
            page.screenshot(path=images / f"{name}.png")
            if name != "page-light":
                continue
            page.get_by_role("button", name="Not for me").first.click()
            page.locator(".strip + .card h2").wait_for()
            page.get_by_role("button", name="More like").last.click()
            for question in QUESTIONS:
                ask(page, question)
            page.screenshot(path=images / "page-long.png")


def edges(browser: Any, url: str, images: Path) -> None:
    """The first screen, and an answer that fails."""
    with opened(browser, url, WIDE) as page:
        for place in (0, 3):
            page.locator("#starters button").nth(place).click()
        page.evaluate("document.activeElement.blur()")
        page.screenshot(path=images / "page-empty.png")
        page.route("**/v1/chat/completions", lambda route: route.abort())
        page.fill("#message", "Are you there?")
        page.keyboard.press("Enter")
        page.wait_for_selector(".problem")
        page.wait_for_timeout(300)
        page.screenshot(path=images / "page-error.png")


def main() -> None:
    """Takes all pictures."""
    demo = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/study")
    images = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent / "images"
    domain = ("--domain", f"movies={demo / 'data'}", "--title", "Film club")
    with sync_playwright() as playwright:
        program = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        with served("--model", "smollm2", *domain, "--guide", str(demo / "blend")) as url:
            edges(browser, url, images)
            conversation(browser, url, images)
        report = demo / "report" / "report.html"
        if report.exists():
            page = browser.new_page(viewport={"width": 1180, "height": 1400})
            page.goto(report.resolve().as_uri())
            page.screenshot(path=images / "report.png")
        browser.close()


if __name__ == "__main__":
    main()
