"""Pictures of the report and the live page, to be looked at: 3 and 5,000 jobs, light and dark, narrow and wide.

python -m tests.browser.shots FOLDER
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Literal

from playwright.async_api import Browser, async_playwright

from batchrunner.live.server import LiveServer
from tests.browser.conftest import FLAGS, chromium
from tests.browser.night import night
from tests.browser.pages import Watched
from tests.cli_support import call

SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
WIDTHS = (390, 1440)
SETTLED = 1500.0
"""Milliseconds after which stills and figures are drawn."""


async def shoot(browser: Browser, url: str, out: Path, name: str) -> None:
    """The top of a page and its clips, each way; prints what is wrong with it."""
    for scheme in SCHEMES:
        for width in WIDTHS:
            context = await browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
            watched = Watched(await context.new_page())
            watched.watch()
            page = watched.page
            await page.goto(url)
            await page.wait_for_timeout(SETTLED)
            await page.screenshot(path=out / f"{name}-{scheme}-{width}.png")
            await page.evaluate("document.getElementById('clips').scrollIntoView()")
            await page.wait_for_timeout(SETTLED)
            await page.screenshot(path=out / f"{name}-{scheme}-{width}-clips.png")
            wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
            print(name, scheme, width, f"{wide} too wide", watched.errors, await watched.findings(), flush=True)
            await context.close()


async def look(out: Path, folder: Path) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        for jobs in (3, 5000):
            ledger = folder / str(jobs) / "batchrunner.db"
            await shoot(browser, (ledger.parent / "out/report.html").as_uri(), out, f"report-{jobs}")
            server = LiveServer(ledger)
            await shoot(browser, await server.start("127.0.0.1", 0), out, f"live-{jobs}")
            await server.stop()
        await browser.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        for count in (3, 5000):
            (Path(made) / str(count)).mkdir()
            assert call("report", "night", "--db", night(Path(made) / str(count), count)).code == 0
        target = Path(sys.argv[1]).absolute()
        target.mkdir(exist_ok=True)
        asyncio.run(look(target, Path(made)))
