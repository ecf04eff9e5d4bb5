"""Pictures of the page and of the report, as a real browser shows them.

    python docs/screenshots.py [DEMO]     (DEMO: a finished `make study`, runs/study by default)

Needs Debian's chromium and the packages of the `dev` extra.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).parent / "images"
PICKS = ("star wars", "empire strikes", "raiders")


def served(demo: Path) -> tuple[subprocess.Popen[str], str]:
    """A service of the demo's cgen model, and its address."""
    command = [sys.executable, "-m", "incatalog.cli", "serve", "--port", "0"]
    command += ["--model", str(demo / "cgen"), "--domain", f"movies={demo / 'data'}"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            return process, found[0]
    sys.exit("the service did not start")


def converse(page: Any, *, phone: bool) -> None:
    """Picks some movies and asks for more."""
    page.wait_for_selector("#domain:not([disabled])")
    if phone:
        page.click("#panel-toggle")
    for words in PICKS:
        page.fill("#search", words)
        page.wait_for_selector("#found [role=option]")
        page.keyboard.press("Enter")
        time.sleep(0.2)
    page.locator('input[name="length"][value="5"]').check(force=True)
    if phone:
        page.click("#panel-done")
    page.fill("#message", "What should I watch tonight?")
    page.keyboard.press("Enter")
    page.wait_for_selector(".answer[aria-busy=false]")
    page.evaluate("document.activeElement.blur()")
    page.wait_for_timeout(600)


def main() -> None:
    """Takes all pictures."""
    demo = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/study")
    process, url = served(demo)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for name, width, height, scheme in (
            ("page-light", 1180, 780, "light"),
            ("page-dark", 1180, 780, "dark"),
            ("page-phone", 390, 780, "light"),
        ):
            size = {"width": width, "height": height}
            context = browser.new_context(viewport=size, color_scheme=scheme)
            page = context.new_page()
            page.goto(url)
            converse(page, phone=width < 800)
            page.screenshot(path=IMAGES / f"{name}.png")
            context.close()
        report = demo / "report" / "report.html"
        if report.exists():
            page = browser.new_page(viewport={"width": 1180, "height": 1400})
            page.goto(report.resolve().as_uri())
            page.screenshot(path=IMAGES / "report.png")
        browser.close()
    process.terminate()
    process.wait()


if __name__ == "__main__":
    main()
