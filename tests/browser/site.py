"""axe-core on every page of the built site, in both palettes, wide and narrow: what is serious.

python -m tests.browser.site build/site [SCREENSHOTS]
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

from playwright.async_api import async_playwright

from tests.browser.conftest import FLAGS, chromium
from tests.browser.pages import Watched

WIDTHS = (390, 1280)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder's address: one page (what is not there) is made for a server alone."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


async def look(site: Path, root: str, shots: Path | None) -> int:
    """Every page; how many have something serious, an error in the console, or ask for something from elsewhere."""
    bad = 0
    pages = sorted(site.rglob("*.html"))
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        for path in pages:
            for scheme in SCHEMES:
                for width in WIDTHS:
                    context = await browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
                    watched = Watched(await context.new_page())
                    watched.watch()
                    await watched.page.goto(root + str(path.relative_to(site)))
                    await watched.page.wait_for_timeout(300)
                    found = [*await watched.findings(), *watched.errors, *watched.outside()]
                    if found:
                        bad += 1
                        print(f"{path.relative_to(site)} {scheme} {width}", *found, sep="\n  ", flush=True)
                    if shots is not None:
                        name = f"{'-'.join(path.relative_to(site).with_suffix('').parts)}-{scheme}-{width}.png"
                        await watched.page.screenshot(path=shots / name)
                    await context.close()
        await browser.close()
    print(f"{len(pages)} pages, {len(SCHEMES) * len(WIDTHS)} ways each: {bad} with findings")
    return 1 if bad else 0


if __name__ == "__main__":
    with served(Path(sys.argv[1])) as address:
        sys.exit(asyncio.run(look(Path(sys.argv[1]), address, Path(sys.argv[2]) if len(sys.argv) > 2 else None)))
