"""The live page in a real browser, during a real simulated run: by the real command line, from its start to its end."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from batchrunner.core import events as e
from batchrunner.core.job import Problem
from batchrunner.ledger.migrating import migrate
from batchrunner.live.server import LiveServer
from tests.browser.conftest import PATIENCE
from tests.browser.pages import NewPage
from tests.cli_support import make_ledger
from tests.postgres.server import Postgres
from tests.support import spec

expect.set_options(timeout=PATIENCE)

MANIFEST = """\
version: 1
batch: night
defaults: {model: kling-3-0-turbo, duration: 5, resolution: 720p}
limits: {submits_per_minute: 600, in_flight: 2}
shots:
  - {id: dog, prompt: "a <b>dog</b> & a \\u202ecat", takes: 6}
"""

PICTURE = (
    "async (url) => { const i = new Image(); i.src = url; await i.decode(); return [i.naturalWidth, i.naturalHeight] }"
)

HOSTILE = "</script><img src=x onerror=alert(1)>\u202e\x1b[2J"


@asynccontextmanager
async def command(folder: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`batchrunner ARGUMENTS` in that folder, ended by SIGTERM at the latest when the context is left."""
    ours = {n: v for n, v in os.environ.items() if not n.startswith(("REAPI_", "BATCHRUNNER_"))}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "batchrunner", *arguments),
        cwd=folder,
        env={**ours, "HOME": str(folder)},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


@asynccontextmanager
async def live(folder: Path, *more: str) -> AsyncIterator[str]:
    """The address that `batchrunner serve` prints."""
    async with command(folder, "serve", "--db", "batchrunner.sim.db", "--port", "0", *more) as process:
        assert process.stdout is not None
        yield (await process.stdout.readline()).decode().strip()


async def state(page: Page, name: str, text: str) -> None:
    """Wait until so many jobs are in a state."""
    await expect(page.locator(f".states .s-{name}")).to_have_text(f"{text} {name}")


async def test_a_night_is_watched_from_before_its_start_to_its_end(new_page: NewPage, tmp_path: Path) -> None:
    (tmp_path / "night.yaml").write_text(MANIFEST)
    async with live(tmp_path, "--control") as url:
        watched = await new_page(viewport={"width": 1280, "height": 900})
        page = watched.page
        await page.goto(url)
        assert "#" not in page.url  # the token is not left in the address bar
        await expect(page.get_by_text("No batch in the ledger yet")).to_be_visible()
        await page.get_by_role("button", name="Pause").click()
        await expect(page.locator("#told")).to_contain_text("no ledger")
        assert [error for error in watched.errors if "404" not in error and "409" not in error] == []
        watched.errors.clear()  # the browser tells of an answer 409

        async with command(tmp_path, "run", "night.yaml", "--simulate", "--quiet") as run:
            await expect(page.locator("article h2")).to_have_text("night")
            await expect(page.locator("dd").filter(has_text="of 2")).to_be_visible()
            await page.get_by_role("button", name="Pause").click()
            await expect(page.locator("#told")).to_contain_text("Paused")
            await expect(page.locator("article .note")).to_contain_text("Paused by")
            await expect(page.locator(".states .s-running")).to_have_count(0)
            await expect(page.locator("#grid video[poster]").first).to_be_visible()  # while the run is alive
            await page.get_by_label("Cancel pending").fill("dog-6")
            page.once("dialog", lambda dialog: asyncio.ensure_future(dialog.accept()))
            await page.get_by_role("button", name="Cancel").click()
            await expect(page.locator("#told")).to_have_text("1 cancelled, 0 left alone.")
            await page.get_by_label("In flight").fill("6")
            await page.get_by_role("button", name="Set limits").click()
            await expect(page.locator("#told")).to_contain_text("At most 6 in flight")
            assert await watched.findings() == []
            await page.get_by_role("button", name="Continue").click()
            await state(page, "succeeded", "5")
            await state(page, "cancelled", "1")
            assert await run.wait() == 0
        await expect(page.get_by_text("with exit code 0")).to_be_visible()
        await expect(page.locator("#grid li")).to_have_count(5)
        await expect(page.locator("#grid .prompt").first).to_have_text("a <b>dog</b> & a \\u{202e}cat")
        await expect(page.locator("#spoken")).to_contain_text("night:")
        await expect(page.locator("#grid video[poster]")).to_have_count(5)
        posters = [url for url in watched.requests if "/still/" in url]
        assert len(posters) == 5  # each once, although the grid was drawn again and again
        assert await page.evaluate(PICTURE, posters[0]) == [320, 180]
        assert not [url for url in watched.requests if "/clip/" in url]  # no clip is loaded before it is played
        await plays(page)
        assert await watched.findings() == []


async def plays(page: Page) -> None:
    """The first clip plays to its end, and can be sought in."""
    video = page.locator("#grid video").first
    await video.evaluate("v => new Promise(end => { v.muted = true; v.playbackRate = 16; v.onended = end; v.play() })")
    width, duration = await video.evaluate("v => [v.videoWidth, v.duration]")
    assert (width, round(duration)) == (1280, 5)
    await video.evaluate("v => new Promise(end => { v.onseeked = end; v.currentTime = 2.5 })")


@pytest.fixture
def bad_ledger(tmp_path: Path) -> Path:
    """Many failures with hostile words, two batches, nothing finished."""
    failed = (e.Claimed(), e.Rejected(Problem(HOSTILE, HOSTILE, 400, HOSTILE)))
    doubt = (e.Claimed(), e.Ambiguous(Problem(HOSTILE, "reset")))
    make_ledger(
        tmp_path / "batchrunner.db", [(spec("dog", n), failed) for n in range(1, 9)], name="bad", max_credits=9000
    )
    make_ledger(tmp_path / "batchrunner.db", [(spec("cat", n), doubt) for n in range(1, 3)], name="worse")
    return tmp_path / "batchrunner.db"


@pytest.mark.parametrize(
    ("scheme", "width"),
    [("light", 390), ("dark", 390), ("dark", 1280)],
    ids=["light-narrow", "dark-narrow", "dark-wide"],
)
async def test_a_bad_night_is_readable_and_harmless(
    new_page: NewPage, bad_ledger: Path, scheme: str, width: int
) -> None:
    server = LiveServer(bad_ledger)
    url = await server.start("127.0.0.1", 0)
    try:
        watched = await new_page(color_scheme=scheme, viewport={"width": width, "height": 800}, reduced_motion="reduce")
        page = watched.page
        await page.goto(url)
        await expect(page.locator("article")).to_have_count(2)
        await expect(page.locator("article").first).to_contain_text("2 unconfirmed may have been paid for")
        await expect(page.locator(".trouble li").last).to_contain_text(
            "</script><img src=x onerror=alert(1)>\\u{202e}\\u{1b}[2J"
        )
        assert await page.locator("article img").count() == 0
        await expect(page.locator("#control")).to_be_hidden()
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert await watched.findings() == []
        assert await reached_by_tab(page, 3) == ["Skip to the finished clips", "of"]
    finally:
        await server.stop()


async def reached_by_tab(page: Page, most: int) -> Sequence[str]:
    """What the keyboard reaches, in order."""
    names = []
    for _ in range(most):
        await page.keyboard.press("Tab")
        name = await page.evaluate("(document.activeElement.labels?.[0] ?? document.activeElement).textContent.trim()")
        if await page.evaluate("document.activeElement === document.body"):
            break
        names.append(name.split("\n")[0].split("every")[0].strip())
    return names


# --- Workers on a ledger in PostgreSQL -------------------------------------------------------------------


async def test_workers_are_seen_at_work_silent_and_gone(new_page: NewPage, postgres: Postgres) -> None:
    pytest.importorskip("procrastinate")
    server = postgres.ledger()
    migrate(server)
    await asyncio.to_thread(make_ledger, server, [(spec("dog", n), (e.Claimed(),)) for n in (1, 2)])
    table = f'"{server.schema}".worker'
    postgres.ask(f'INSERT INTO "{server.schema}".given SELECT id, 0, \'a <b>studio</b>\' FROM "{server.schema}".batch')
    ask = partial(postgres.ask, _worker(table))
    now = "extract(epoch FROM clock_timestamp())"
    page_of = LiveServer(server)
    url = await page_of.start("127.0.0.1", 0)
    try:
        watched = await new_page(color_scheme="dark", viewport={"width": 390, "height": 800})
        page = watched.page
        await page.goto(url)
        await expect(page.locator("article .note").first).to_contain_text("No worker is alive. batchrunner worker")
        await expect(page.locator("#workers")).to_be_hidden()
        ask("clip-1", 100, "all", 0, '{"in_flight": 7, "in_hand": 19}')
        ask(HOSTILE, 200, "submit", 12, "{}")
        ask("clip-3", 300, "download", 4000, "{}")
        rows = page.locator("#crew tr")
        await expect(rows).to_have_count(3)
        await expect(page.locator("article .note").first).not_to_contain_text("No worker is alive")
        await expect(rows.filter(has_text="clip-1")).to_contain_text("alive")
        await expect(rows.filter(has_text="clip-1").locator("td.n")).to_have_text(["7", "19"])
        await expect(rows.filter(has_text="clip-3")).to_contain_text("silent for 67 min: taken for dead")
        await expect(rows.filter(has_text="\\u{202e}")).to_contain_text("silent for 1")
        assert await page.locator("#crew img").count() == 0
        assert await watched.findings() == []
        postgres.ask(f"UPDATE {table} SET ended_at = {now} WHERE host = 'clip-1'")
        await expect(rows).to_have_count(2)
    finally:
        await page_of.stop()


def _worker(table: str) -> str:
    """What makes a worker: host, process, part, for how many seconds it has been silent, and its progress."""
    now = "extract(epoch FROM clock_timestamp())"
    return (
        f"INSERT INTO {table} (provider, host, pid, part, started_at, beat_at, progress) "
        f"SELECT 'reapi', h, p, t, {now} - 5000, {now} - s::float8, w FROM (VALUES (%s, %s::int, %s, %s::int, %s)) "
        "AS v (h, p, t, s, w)"
    )
