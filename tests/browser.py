"""A real headless Chromium, Debian's own, that notices what a page complains about and asks for."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A running browser; the test is skipped where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no chromium on the path: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """A page, with what went wrong on it.

    Attributes:
        page: The page, as playwright drives it.
        complaints: Errors of the console and of scripts.
        foreign: Addresses of other origins that were asked for anything.
    """

    def __init__(self, browser: Any, url: str, **options: Any) -> None:
        self.complaints: list[str] = []
        self.foreign: list[str] = []
        self._context = browser.new_context(
            **{"viewport": {"width": 1200, "height": 850}} | options
        )
        self.page = self._context.new_page()
        self.page.set_default_timeout(15_000)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._note)
        self.page.on("request", lambda request: self._check(request.url, url))
        self.page.goto(url)

    def _note(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _check(self, asked: str, url: str) -> None:
        if not asked.startswith((url, "data:")):
            self.foreign.append(asked)

    def close(self) -> None:
        self._context.close()


def violations(page: Any) -> list[str]:
    """What axe-core finds wrong with a page as it stands."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python"
    )
    return [
        f"{one['id']}: {one['help']}: {one['nodes'][0]['html']}"
        for one in axe.Axe().run(page).response["violations"]
    ]
