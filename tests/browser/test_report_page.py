"""The report in a real browser, opened from a file: filtered, played, judged, by keyboard, and found accessible.

Every page here is watched: an error of the console or a request to anywhere else fails the test (conftest.py).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shlex
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from batchrunner.core import events as e
from batchrunner.core.job import JobSpec, Output, Problem, State
from batchrunner.simulator import clips
from tests.browser.night import night
from tests.browser.pages import NewPage, Watched
from tests.cli_support import call, make_ledger
from tests.support import path_to, spec

JOBS = 60

HOSTILE = (
    "</script><script>window.hit = 1</script><img src=x onerror='window.hit = 2'><a href=\"javascript:hit=3\">x</a>"
    '"><svg onload="window.hit = 4"> \u202eesrever\u202c \x1b[31m <!-- {{ 7 * 7 }} ${hit} &lt;b&gt; '
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A night of 60 jobs and its report; one file is gone since."""
    home = tmp_path_factory.mktemp("a night, 100% #1")
    path = night(home, JOBS, distinct=4)
    next(home.glob("out/shot-0000*-2.mp4")).unlink()
    assert call("report", "night", "--db", path).code == 0
    return home


async def opened(new_page: NewPage, page: Path, **options: object) -> Watched:
    watched = await new_page(**options)
    await watched.page.goto(page.as_uri())
    # Rows are drawn when they are near.
    await watched.page.get_by_role("heading", name="Clips", exact=True).scroll_into_view_if_needed()
    return watched


async def gallery(new_page: NewPage, folder: Path, **options: object) -> Page:
    return (await opened(new_page, folder / "out" / "report.html", **options)).page


async def test_filtered(new_page: NewPage, folder: Path) -> None:
    page = await gallery(new_page, folder)
    found = page.locator("#found")
    await expect(found).to_have_text(f"{JOBS} jobs")
    await page.get_by_label("Search").fill("shot-0003 STORM")
    await expect(found).to_have_text("Nothing matches")
    await page.get_by_label("Search").fill("shot-0003 HARBOUR")
    await expect(found).to_have_text("3 jobs")
    await expect(page.locator(".card")).to_have_count(3)
    await page.get_by_role("button", name="Show all").click()
    await page.get_by_label("Tag").select_option("hero")
    await expect(found).to_have_text("9 jobs")
    await page.get_by_role("button", name="Show all").click()
    await page.get_by_role("checkbox", name="succeeded").uncheck()
    await expect(page.locator(".card .state.succeeded")).to_have_count(0)
    await expect(page.locator(".card .state.failed").first).to_be_visible()
    await page.get_by_role("button", name="Show all").click()
    await page.get_by_label("Order").select_option("new")
    first = await page.locator(".card").first.get_attribute("aria-label")
    assert first is not None
    assert not first.startswith("shot-0000")


async def test_a_clip_plays_from_beside_the_page(new_page: NewPage, folder: Path) -> None:
    watched = await opened(new_page, folder / "out" / "report.html")
    page = watched.page
    await page.get_by_role("button", name="Play shot-0000@place=beach-1").click()
    video = page.locator("#grid video")
    await video.evaluate("v => new Promise(end => { v.onended = end; if (v.ended) end() })")
    assert await video.evaluate("v => v.videoWidth") == 640
    assert any(url.endswith("/out/shot-0000%40place%3Dbeach-1.mp4") for url in watched.requests)
    # The one that is gone is said to be gone, and nothing asks for it.
    gone = page.locator(".card", has_text="take 2").first
    await expect(gone).to_contain_text("The file is missing")
    await expect(gone.get_by_role("button", name="Play")).to_have_count(0)


async def test_takes_are_compared_and_judged(new_page: NewPage, folder: Path) -> None:
    page = await gallery(new_page, folder)
    await page.get_by_label("View").select_option("takes")
    takes = page.get_by_role("list", name="Takes of shot-0000 · place=beach")
    await expect(takes.get_by_role("listitem")).to_have_count(3)
    await page.get_by_role("button", name="Play 2 together").first.click()
    await expect(takes.locator("video")).to_have_count(2)
    await page.get_by_role("button", name="Approve shot-0000@place=beach-1").click()
    await page.get_by_role("button", name="Approve shot-0000@place=beach-3").click()
    await page.get_by_role("button", name="Reject shot-0000@place=beach-3").click()
    lines = await page.locator("#verdicts code").all_inner_texts()
    db = f"--db '{folder / 'batchrunner.db'}'"
    assert lines == [
        f"batchrunner approve shot-0000@place=beach-1 {db}",
        f"batchrunner reject shot-0000@place=beach-3 {db}",
    ]
    for line in lines:
        ran = await asyncio.to_thread(call, *shlex.split(line)[1:])
        assert ran.code == 0, ran.err
    await page.get_by_label("Verdict", exact=True).select_option("approved")
    await expect(page.locator("#found")).to_have_text("1 job")


async def test_a_command_is_copied(new_page: NewPage, folder: Path) -> None:
    page = await gallery(new_page, folder, permissions=["clipboard-read", "clipboard-write"])
    copy = page.get_by_role("button", name="Copy the command: make this page anew")
    await copy.click()
    await expect(copy).to_have_text("Copied")
    text = await page.evaluate("navigator.clipboard.readText()")
    assert text == f"batchrunner report night --db '{folder / 'batchrunner.db'}'"


async def test_by_keyboard(new_page: NewPage, folder: Path) -> None:
    page = await gallery(new_page, folder)
    focused = "document.activeElement.closest('.card')?.getAttribute('aria-label')"
    await page.keyboard.press("/")
    await expect(page.get_by_label("Search")).to_be_focused()
    await page.get_by_role("button", name="Show all").focus()
    await page.keyboard.press("Tab")
    assert await page.evaluate(focused) == "shot-0000@place=beach-1"
    await page.keyboard.press("ArrowRight")
    assert await page.evaluate(focused) == "shot-0000@place=beach-2"
    for _ in range(JOBS):  # to the last row, most of which was not drawn yet
        await page.keyboard.press("ArrowDown")
    last = await page.evaluate(focused)
    assert last.startswith("shot-001")
    await page.locator(".card", has=page.locator(":focus")).locator(".title").focus()
    await page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("SHA-256")
    await expect(dialog.get_by_role("heading", name=last)).to_be_focused()
    await page.keyboard.press("ArrowLeft")
    await expect(dialog.get_by_role("heading", name=last)).to_have_count(0)
    await page.keyboard.press("Escape")
    await expect(dialog).to_have_count(0)
    assert (await page.evaluate(focused)) is not None


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_accessible(new_page: NewPage, folder: Path, scheme: str) -> None:
    watched = await opened(
        new_page, folder / "out" / "report.html", color_scheme=scheme, viewport={"width": 400, "height": 800}
    )
    assert await watched.page.evaluate("document.documentElement.scrollWidth") <= 400
    assert await watched.findings() == []
    await watched.page.get_by_label("View").select_option("takes")
    await watched.page.locator(".title").first.click()
    assert await watched.findings() == []


async def test_only_what_is_near_is_drawn(new_page: NewPage, folder: Path) -> None:
    page = await gallery(new_page, folder, viewport={"width": 400, "height": 600})
    await expect(page.locator(".card").first).to_be_visible()
    assert await page.locator(".card").count() < JOBS
    await page.evaluate("scrollTo(0, document.body.scrollHeight)")
    await expect(page.locator(f'.card[aria-posinset="{JOBS}"]')).to_be_visible()


def hostile_jobs(out: Path, text: str) -> list[tuple[JobSpec, tuple[e.Event, ...]]]:
    """Jobs of which everything that others write is `text`."""
    clip = clips.clip(clips.Card("a", "b", "c", "d", 320, 180, 1))
    path = out / (text.replace("/", "")[:60] + ".mp4")
    path.write_bytes(clip)
    end = e.Stored(Output(str(path), hashlib.sha256(clip).hexdigest(), len(clip)))
    problem = Problem(text, "code", 400, "req_1")
    return [
        (spec("good", prompt=text, tags=[text]), (*path_to(State.DOWNLOADING), end)),
        (spec("bad", prompt=text, tags=[text]), (e.Claimed(), e.Rejected(problem))),
        (spec("doubt", prompt=text * 5000), (e.Claimed(), e.Ambiguous(problem))),
    ]


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    make_ledger(tmp_path / "h.db", hostile_jobs(tmp_path, HOSTILE), output_dir=str(tmp_path))
    assert call("report", "night", "--db", tmp_path / "h.db", "--embed").code == 0
    return tmp_path / "report.html"


async def test_hostile_text_is_inert(new_page: NewPage, hostile: Path) -> None:
    page = (await opened(new_page, hostile)).page
    await page.get_by_role("button", name="Play good-1").click()
    await page.locator("#grid video").evaluate("v => new Promise(end => { v.onended = end; if (v.ended) end() })")
    for name in ("good", "bad", "doubt"):
        await page.get_by_role("button", name=name, exact=False).and_(page.locator(".title")).click()
        await expect(page.get_by_role("dialog")).to_contain_text("<script>window.hit = 1</script>")
        await page.keyboard.press("Escape")
    assert await page.evaluate(
        "[window.hit, document.querySelectorAll('a[href^=javascript], svg[onload]').length]"
    ) == [
        None,
        0,
    ]
    text = await page.locator("body").inner_text()
    assert "\\u202eesrever\\u202c \\x1b[31m" in text
    assert "{{ 7 * 7 }} ${hit} &lt;b&gt;" in text
    await page.get_by_label("Tag").select_option(index=1)
    await expect(page.locator("#found")).to_have_text("2 jobs")


async def test_one_file_plays_without_its_folder(new_page: NewPage, folder: Path, tmp_path: Path) -> None:
    page_file = tmp_path / "mailed.html"
    words = ("--only", "shot-0001", "--state", "succeeded", "--embed", "--out", str(folder / "mail.html"))
    assert call("report", "night", "--db", folder / "batchrunner.db", *words).code == 0
    os.replace(folder / "mail.html", page_file)
    watched = await opened(new_page, page_file)
    await watched.page.locator(".play").first.click()
    video = watched.page.locator("#grid video")
    await video.evaluate("v => new Promise(end => { v.onended = end; if (v.ended) end() })")
    assert all(url.startswith(("data:", "blob:", page_file.as_uri())) for url in watched.requests)


@pytest.fixture
def little(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    make_ledger(tmp_path / "e.db", [(spec("dog"), ())] * request.param, output_dir=str(tmp_path))
    assert call("report", "night", "--db", tmp_path / "e.db").code == 0
    return tmp_path / "report.html"


@pytest.mark.parametrize(
    ("little", "headline"), [(0, "This batch has no jobs."), (1, "The clip is not here.")], indirect=["little"]
)
async def test_a_page_of_little(new_page: NewPage, little: Path, headline: str) -> None:
    watched = await new_page()
    await watched.page.goto(little.as_uri())
    await expect(watched.page.get_by_role("heading", level=1)).to_have_text(headline)
    assert await watched.findings() == []
