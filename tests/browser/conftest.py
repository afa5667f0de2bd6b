"""A real browser for the pages that we write: Debian's Chromium, driven by Playwright.

`tests/needs.sh chromium` (a step of `make test`) installs it where it can. Where there is none the tests skip and say
so; with BATCHRUNNER_REQUIRE_BROWSER=1 that is a failure. BATCHRUNNER_CHROMIUM names another executable.

Every test here runs in one event loop a worker, the browser's, so that it is started once.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from tests.browser.pages import NewPage, Watched

HERE = Path(__file__).parent

EXECUTABLES = ("chromium", "chromium-browser", "google-chrome")

FLAGS = (
    "--no-sandbox",  # tests may run as root, and the pages are ours
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)

PATIENCE = 20_000.0
"""Milliseconds after which what a test waits for in a page does not come."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


def chromium() -> str:
    """The browser's executable; skips the test where there is none, or fails it where one is required."""
    found = os.environ.get("BATCHRUNNER_CHROMIUM") or next(filter(None, map(shutil.which, EXECUTABLES)), None)
    if found is None:
        say = pytest.fail if os.environ.get("BATCHRUNNER_REQUIRE_BROWSER") == "1" else pytest.skip
        say("no Chromium here: apt-get install --no-install-recommends chromium, or set BATCHRUNNER_CHROMIUM")
    return found


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """One headless browser a worker."""
    executable = chromium()
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        yield running
        await running.close()


@pytest_asyncio.fixture(loop_scope="session")
async def new_page(browser: Browser) -> AsyncIterator[NewPage]:
    """`await new_page(**options)` opens a tab of its own (options as of Playwright's `new_context`, such as
    `color_scheme="dark"`). After the test every tab must be without an error and have asked for nothing outside; a
    test that means to cause an error takes it out of `errors`.
    """
    opened: list[Watched] = []

    async def new_page(**options: Any) -> Watched:
        context = await browser.new_context(**options)
        context.set_default_timeout(PATIENCE)
        watched = Watched(await context.new_page())
        watched.watch()
        opened.append(watched)
        return watched

    yield new_page
    for watched in opened:
        await watched.page.context.close()
    assert [error for watched in opened for error in watched.errors] == []
    assert [url for watched in opened for url in watched.outside()] == []
