"""The report in a real browser, opened from a file: filtered, played, judged by keyboard, and found accessible.

Every page here is watched: an error of the console or a request to anywhere else fails the test (conftest.py).
"""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.browser.night import night
from tests.browser.pages import NewPage, Watched
from tests.cli_support import call

JOBS = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A night of 60 jobs and its report; one file is gone since."""
    home = tmp_path_factory.mktemp("a night, 100% #1")
    path = night(home, JOBS, distinct=4)
    next(home.glob("out/shot-0000*-2.mp4")).unlink()
    assert call("report", "night", "--db", path).code == 0
    return home


async def opened(new_page: NewPage, folder: Path, name: str = "out/report.html", **options: object) -> Watched:
    watched = await new_page(**options)
    await watched.page.goto((folder / name).as_uri())
    await watched.page.get_by_role(
        "heading", name="Clips", exact=True
    ).scroll_into_view_if_needed()  # rows are drawn when near
    return watched


async def test_filtered(new_page: NewPage, folder: Path) -> None:
    page = (await opened(new_page, folder)).page
    await expect(page.locator("#found")).to_have_text(f"{JOBS} jobs")
    await page.get_by_label("Search").fill("shot-0003")
    await expect(page.locator("#found")).to_have_text("3 jobs")
    await expect(page.locator(".card")).to_have_count(3)
    await page.get_by_label("Search").fill("nothing like it")
    await expect(page.locator("#found")).to_have_text("Nothing matches")
    await page.get_by_role("button", name="Show all").click()
    await page.get_by_label("Tag").select_option("hero")
    await expect(page.locator("#found")).to_have_text("9 jobs")


async def test_a_clip_plays_from_beside_the_page(new_page: NewPage, folder: Path) -> None:
    watched = await opened(new_page, folder)
    await watched.page.get_by_role("button", name="Play shot-0000@place=beach-1").click()
    video = watched.page.locator("#grid video")
    await video.evaluate("v => new Promise(end => { v.onended = end; if (v.ended) end() })")
    assert await video.evaluate("v => v.videoWidth") == 640
    assert any(url.endswith("/out/shot-0000%40place%3Dbeach-1.mp4") for url in watched.requests)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_accessible(new_page: NewPage, folder: Path, scheme: str) -> None:
    watched = await opened(new_page, folder, color_scheme=scheme, reduced_motion="reduce")
    assert await watched.findings() == []
