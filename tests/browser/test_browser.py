"""The browser itself plays what the simulator makes: else no test of a page could tell."""

from __future__ import annotations

from pathlib import Path

from batchrunner.simulator import clips
from tests.browser.pages import NewPage


async def test_the_simulators_clips_play(new_page: NewPage, tmp_path: Path) -> None:
    card = clips.Card("dog-1", "a dog", "task_1", "kling", width=320, height=180, seconds=1)
    (tmp_path / "a b.mp4").write_bytes(clips.clip(card))
    (tmp_path / "page.html").write_text('<!doctype html><title>x</title><video src="a%20b.mp4" muted></video>')
    watched = await new_page()
    await watched.page.goto((tmp_path / "page.html").as_uri())
    video = watched.page.locator("video")
    await video.evaluate("v => new Promise(end => { v.onended = end; v.play() })")
    assert await video.evaluate("v => [v.videoWidth, v.videoHeight, v.currentTime]") == [320, 180, 1]


async def test_what_goes_wrong_in_a_page_is_noticed(new_page: NewPage, tmp_path: Path) -> None:
    """Under a policy as strict as our pages' own, in which Playwright and axe must still work."""
    policy = "default-src 'none'; script-src 'sha256-2wzyEyTbHDkWfxjzXo4Cv2BXEwSJ+rmZvSzvbHX5SmM='"
    (tmp_path / "page.html").write_text(
        f'<!doctype html><meta http-equiv="Content-Security-Policy" content="{policy}"><title>x</title>'
        '<script>foreign()</script><img src="https://example.com/a.png"><input>'
    )
    watched = await new_page()
    await watched.page.goto((tmp_path / "page.html").as_uri())
    assert any("Content Security Policy" in error for error in watched.errors)
    assert watched.outside() == ["https://example.com/a.png"]  # seen, although the policy stopped it
    watched.requests.clear()
    assert any("label" in finding for finding in await watched.findings())
    watched.errors.clear()
    await watched.page.evaluate("() => { setTimeout(() => { throw new Error('mine') }) }")
    await watched.page.wait_for_timeout(0)
    await watched.page.evaluate("1 + 1")
    assert watched.errors == ["exception: mine"]
    watched.errors.clear()
