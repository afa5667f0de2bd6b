"""How large a report is, how fast it opens and how smoothly it scrolls, in Debian's Chromium.

    python -m tests.browser.measure 3 500 5000

For each number of jobs a line: seconds to make the page (with stills, and again with those taken over), its size, and
in the browser milliseconds until the first clips are drawn, until a search is answered, and from frame to frame while
the gallery is scrolled through at 3,000 pixels a second for four seconds. Stills are of
the simulator's flat pictures; with `--film`, of pictures with the detail of photographs.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from playwright.async_api import async_playwright

from tests.browser.conftest import FLAGS, chromium
from tests.browser.night import night
from tests.cli_support import call

SCROLL = """async () => {
  document.getElementById("clips").scrollIntoView();
  const times = []; let last = performance.now(); const end = last + 4000;
  await new Promise((done) => { requestAnimationFrame(function frame(now) {
    times.push(now - last); last = now; scrollBy(0, 50);
    now < end ? requestAnimationFrame(frame) : done();
  }); });
  times.shift(); times.sort((a, b) => a - b);
  const at = (share) => times[Math.min(times.length - 1, Math.floor(times.length * share))];
  return [at(0.5), at(0.95), at(1), times.filter((t) => t > 50).length, times.length];
}"""
OPEN = """() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() =>
  done(performance.now()))))"""
SEARCH = """async () => {
  const begin = performance.now(); const box = document.getElementById("search");
  box.value = "harbour"; document.getElementById("filters").dispatchEvent(new Event("change"));
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  const took = performance.now() - begin;
  box.value = ""; document.getElementById("filters").dispatchEvent(new Event("change"));
  return took;
}"""


async def browse(page_file: Path) -> tuple[float, float, list[float]]:
    """(ms to open, ms to search, [median, 95 %, longest frame in ms, frames above 50 ms, frames])."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        page = await browser.new_page(viewport={"width": 1600, "height": 1000})
        await page.goto(page_file.as_uri() + "#clips")
        opened = await page.evaluate(OPEN)
        searched = await page.evaluate(SEARCH)
        frames = await page.evaluate(SCROLL)
        await browser.close()
    return opened, searched, frames


def measure(jobs: int, folder: Path, *, filmed: bool) -> str:
    path = night(folder, jobs, filmed=filmed)
    took = []
    for _ in range(2):
        begin = time.perf_counter()
        assert call("report", "night", "--db", path).code == 0
        took.append(time.perf_counter() - begin)
    page = folder / "out" / "report.html"
    opened, searched, (median, p95, longest, slow, frames) = asyncio.run(browse(page))
    return (
        f"| {jobs:,} | {took[0]:.1f} s, {took[1]:.1f} s | {page.stat().st_size / 1e6:.2f} MB | {opened:.0f} ms "
        f"| {searched:.0f} ms | {median:.1f}, {p95:.1f}, {longest:.1f} ms | {slow:.0f} of {frames:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="+", type=int)
    parser.add_argument("--film", action="store_true")
    arguments = parser.parse_args()
    print("| jobs | made, made again | size | opens | search | frame: median, 95 %, longest | above 50 ms |")
    print("|---|---|---|---|---|---|---|")
    for jobs in arguments.jobs:
        with tempfile.TemporaryDirectory() as folder:
            print(measure(jobs, Path(folder), filmed=arguments.film), flush=True)


if __name__ == "__main__":
    main()
