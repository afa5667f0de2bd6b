"""The live page's server over real sockets: what it serves, to whom, and what it never does."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from batchrunner.core import events as e
from batchrunner.core.job import Output, Problem, State
from batchrunner.core.words import Cancel
from batchrunner.exits import UsageError
from batchrunner.live import server as server_module
from batchrunner.live import textfile
from batchrunner.live.guard import HEADERS, TOKEN
from batchrunner.live.server import LiveServer
from batchrunner.live.textfile import MetricsFile
from batchrunner.remote.place import Peer
from batchrunner.remote.protocol import Pause, Request, answer, refusal
from batchrunner.remote.server import Server
from batchrunner.report import posters
from batchrunner.simulator import clips
from tests.cli_support import make_ledger
from tests.support import path_to, spec

CLIP = bytes(range(256)) * 40
HOSTILE = "</script><img src=x onerror=alert(1)>\u202e\x1b[2J"


class Place:
    """A ledger with one finished clip, one failure and one doubt."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "out"
        self.db = folder / "batchrunner.db"

    def fill(self, file: str = "dog.mp4") -> Path:
        """Record them; returns the clip's path, where it is."""
        self.out.mkdir(exist_ok=True)
        clip = self.out / file
        if not os.path.lexists(clip):
            clip.write_bytes(CLIP)
        stored = (e.Completed(("https://x.test/a.mp4",)), e.Stored(Output(str(clip), "0" * 64, len(CLIP))))
        jobs = [
            (spec(prompt=HOSTILE), (e.Claimed(), e.Accepted("task_1"), *stored)),
            (spec("cat"), (e.Claimed(), e.Rejected(Problem(HOSTILE, 40000, 400, "req_2")))),
            (spec("cow"), path_to(State.UNCONFIRMED)),
        ]
        make_ledger(self.db, jobs, output_dir=str(self.out))
        return clip

    @asynccontextmanager
    async def serving(self, **options: Any) -> AsyncIterator[aiohttp.ClientSession]:
        """A session with a server of this ledger."""
        server = LiveServer(self.db, **options)
        base = await server.start("127.0.0.1", 0)
        try:
            async with aiohttp.ClientSession(base, auto_decompress=False) as session:
                yield session
        finally:
            await server.stop()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def filled(place: Place) -> Place:
    place.fill()
    return place


async def tiles(session: aiohttp.ClientSession, **query: str) -> list[dict[str, Any]]:
    async with session.get("/clips", params=query) as response:
        assert response.status == 200
        found: list[dict[str, Any]] = await response.json()
        return found


async def snapshots(session: aiohttp.ClientSession) -> AsyncGenerator[dict[str, Any], None]:
    """What a watcher is told."""
    async with session.get("/events") as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        async for line in response.content:
            if line.startswith(b"data: "):
                yield json.loads(line[6:])


# --- What is read ----------------------------------------------------------------------------------------


async def test_the_page_is_there_before_the_ledger_and_sees_it_come(place: Place) -> None:
    async with place.serving() as session, aclosing(snapshots(session)) as told:
        assert await anext(told) == {"ledger": str(place.db), "control": False, "words": ""}
        assert await anext(told) == {"error": None, "batches": []}
        assert await tiles(session) == []
        await asyncio.to_thread(place.fill)
        while not (found := await anext(told))["batches"] or found["batches"][0]["states"]["unconfirmed"] == 0:
            pass
        (batch,) = found["batches"]
        assert batch["states"]["succeeded"] == batch["states"]["failed"] == 1
        assert [(job["job"], job["state"]) for job in batch["trouble"]] == [
            ("cow-1", "unconfirmed"),
            ("cat-1", "failed"),
        ]
        assert batch["trouble"][1]["error"]["message"] == HOSTILE


async def test_every_answer_carries_the_headers(filled: Place) -> None:
    async with filled.serving() as session:
        for path in (
            "/",
            "/live.js",
            "/live.css",
            "/icon.svg",
            "/clips",
            "/metrics",
            "/nothing",
            "/clip/1",
            "/clip/9",
            "/still/1",
        ):
            async with session.get(path) as response:
                assert HEADERS.keys() <= response.headers.keys(), path
                policy = response.headers["Content-Security-Policy"]
                assert policy.startswith("default-src 'none'")
                assert "unsafe" not in policy


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example:80"}, 421),
        ({"Host": "localhost"}, 421),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),
        ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
async def test_pages_of_other_sites_get_nothing(filled: Place, headers: dict[str, str], status: int) -> None:
    async with filled.serving() as session:
        async with session.get("/", headers=headers) as response:
            assert response.status == status
        async with session.get("/clips", headers=headers) as response:
            assert response.status == (200 if headers == {"Sec-Fetch-Site": "same-origin"} else response.status)
            assert response.status == 200 or HOSTILE not in await response.text()
            if headers.get("Sec-Fetch-Site", "cross-site") == "cross-site":
                assert response.status in {403, 421}


async def test_a_clip_is_served_whole_and_in_ranges(filled: Place) -> None:
    (filled.out / "dog.mp4.gz").write_bytes(b"not the ledger's")
    async with filled.serving() as session:
        (tile,) = await tiles(session)
        assert (tile["job"], tile["kind"], tile["bytes"]) == ("dog-1", "video", len(CLIP))
        url = f"/clip/{tile['id']}"
        async with session.get(url, headers={"Accept-Encoding": "gzip, br"}) as response:
            assert response.headers["Content-Type"] == "video/mp4"
            assert await response.read() == CLIP
        async with session.get(url, headers={"Range": "bytes=100-199"}) as response:
            assert response.status == 206
            assert response.headers["Content-Range"] == f"bytes 100-199/{len(CLIP)}"
            assert await response.read() == CLIP[100:200]
        async with session.get(url, headers={"Range": f"bytes={len(CLIP)}-"}) as response:
            assert response.status == 416
        assert await tiles(session, batch="other") == []
        assert await tiles(session, page="1") == []


def _missing(clip: Path) -> None:
    clip.unlink()


def _linked(clip: Path) -> None:
    clip.rename(clip.with_name("there.mp4"))
    clip.symlink_to("there.mp4")


def _a_folder(clip: Path) -> None:
    clip.unlink()
    clip.mkdir()


def _a_pipe(clip: Path) -> None:
    clip.unlink()
    os.mkfifo(clip)


@pytest.mark.parametrize("change", [_missing, _linked, _a_folder, _a_pipe])
async def test_what_is_no_plain_file_is_not_served(filled: Place, change: Callable[[Path], None]) -> None:
    change(filled.out / "dog.mp4")
    async with filled.serving() as session:
        async with session.get("/clip/1") as response:
            assert response.status == 404
        async with session.get("/still/1") as response:
            assert (response.status, await response.read()) == (204, b"")


@pytest.mark.parametrize("file", ["../secret.mp4", "notes.txt", "page.html"])
def test_what_lies_elsewhere_or_is_no_medium_is_not_served(place: Place, file: str) -> None:
    place.fill(file)

    async def look() -> None:
        async with place.serving() as session, session.get("/clip/1") as response:
            assert response.status == 404

    asyncio.run(look())


@pytest.mark.parametrize(
    "path",
    [
        "/clip/2",
        "/clip/99",
        "/clip/-1",
        "/clip/1x",
        "/clip/%2e%2e%2fdog.mp4",
        "/clip/" + "9" * 30,
        "/../batchrunner.db",
    ],
)
async def test_no_path_from_outside_touches_the_disk(filled: Place, path: str) -> None:
    async with filled.serving() as session, session.get(path) as response:
        assert response.status == 404


async def test_a_still_is_made_once_and_where_none_can_be_made_that_is_said(
    filled: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    poster = posters.poster

    def counted(path: Path, width: int) -> bytes | None:
        made.append(path)
        return poster(path, width)

    monkeypatch.setattr(posters, "poster", counted)
    async with filled.serving() as session, session.get("/still/1") as response:  # what is there is no clip
        assert response.status == 204
    (filled.out / "dog.mp4").write_bytes(clips.clip(clips.Card("", "", "", "", 320, 180, 1)))
    async with filled.serving() as session:
        for _ in range(3):
            async with session.get("/still/1") as response:
                assert response.headers["Content-Type"] == "image/webp"
                assert (await response.read())[8:12] == b"WEBP"
        for path in ("/still/2", "/still/99"):
            async with session.get(path) as response:
                assert response.status == 204
    assert len(made) == 2


@pytest.mark.parametrize("page", ["-1", "x", "99999999999999999999", "1.5", "²"])
async def test_a_page_that_is_none_is_refused(filled: Place, page: str) -> None:
    async with filled.serving() as session, session.get("/clips", params={"page": page}) as response:
        assert response.status == 400


async def test_a_damaged_ledger_is_said(place: Place) -> None:
    place.db.write_bytes(b"this is no ledger" * 100)
    async with place.serving() as session:
        async with aclosing(snapshots(session)) as told:
            await anext(told)
            assert "not a usable ledger" in (await anext(told))["error"]
        for path in ("/clips", "/metrics", "/clip/1", "/still/1"):
            async with session.get(path) as response:
                assert response.status == 503


async def test_more_watchers_than_are_borne_are_sent_away(filled: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_WATCHERS", 1)
    async with filled.serving() as session:
        async with aclosing(snapshots(session)) as told:
            await anext(told)
            await anext(told)
            async with session.get("/events") as response:
                assert response.status == 503
        monkeypatch.setattr(server_module, "MAX_WATCHERS", 2)
        async with aclosing(snapshots(session)) as told:
            await anext(told)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.com", ""])
async def test_it_listens_on_this_machine_only(place: Place, host: str) -> None:
    server = LiveServer(place.db)
    with pytest.raises(UsageError, match="this machine only"):
        await server.start(host, 0)
    await server.stop()


async def test_a_port_that_is_taken_is_said(place: Place) -> None:
    first, second = LiveServer(place.db), LiveServer(place.db)
    url = await first.start("127.0.0.1", 0)
    try:
        with pytest.raises(UsageError, match="can't serve on"):
            await second.start("127.0.0.1", int(url.rstrip("/").rpartition(":")[2]))
    finally:
        await first.stop()


# --- What changes something ------------------------------------------------------------------------------


class Desk:
    """A run's answers."""

    def __init__(self) -> None:
        self.asked: list[Request] = []

    async def __call__(self, request: Request, peer: Peer) -> bytes:
        self.asked.append(request)
        return refusal("no such batch") if isinstance(request, Cancel) else answer(progress={"in_flight": 3})


async def control(session: aiohttp.ClientSession, body: Any, token: str | None = "secret") -> tuple[int, str]:
    headers = {} if token is None else {TOKEN: token}
    async with session.post("/control", json=body, headers=headers) as response:
        return response.status, await response.text()


async def test_only_who_has_the_token_changes_anything(filled: Place) -> None:
    desk = Desk()
    run = Server(filled.db, desk)
    assert await run.open() is None
    try:
        async with filled.serving(token="secret") as session:
            for token in (None, "", "secre", "secret2", "sécret"):
                assert (await control(session, {"do": "pause"}, token))[0] == 403
            async with session.post("/control?token=secret", json={"do": "pause"}) as response:
                assert response.status == 403
            async with session.get("/control", headers={TOKEN: "secret"}) as response:
                assert response.status == 405
            assert not desk.asked
            status, text = await control(session, {"do": "pause"})
            assert (status, json.loads(text)["progress"]) == (200, {"in_flight": 3})
            assert (await control(session, {"do": "cancel", "names": ["x"]}))[0] == 400
            assert (await control(session, {"do": "format"}))[0] == 400
            assert (await control(session, {"do": "cancel", "names": ["x" * 20_000]}))[0] == 413
            assert desk.asked == [Pause(), Cancel(("x",))]
        async with filled.serving() as session:
            assert "read-only" in (await control(session, {"do": "pause"}))[1]
    finally:
        await run.close()


async def test_without_a_run_that_is_said(filled: Place) -> None:
    async with filled.serving(token="secret") as session:
        status, text = await control(session, {"do": "pause"})
        assert status == 409
        assert "no run is alive" in json.loads(text)["error"]


# --- Metrics ---------------------------------------------------------------------------------------------


def samples(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    return {
        (s.name, tuple(s.labels.values())): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


async def test_prometheus_reads_the_metrics(filled: Place) -> None:
    async with filled.serving() as session, session.get("/metrics") as response:
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        found = samples(await response.text())
    assert found["batchrunner_jobs", ("night", "succeeded")] == 1
    assert found["batchrunner_jobs", ("night", "pending")] == 0
    assert found["batchrunner_credits", ("night", "spent")] == 630
    assert found["batchrunner_credits", ("night", "at_risk")] == 630
    assert found["batchrunner_run_alive", ("night",)] == 0


def test_the_metrics_file_is_whole_at_any_time_and_right_at_the_end(place: Place) -> None:
    file = place.folder / "batchrunner.prom"
    told: list[str] = []
    with MetricsFile(file, place.db, told.append):
        assert "batchrunner_info" in file.read_text()
        place.fill()
    assert samples(file.read_text())["batchrunner_jobs", ("night", "failed")] == 1
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert sorted(p.name for p in place.folder.iterdir() if p.name.startswith(".")) == []
    assert not told


def test_a_metrics_file_that_can_not_be_written_is_said_at_once_and_later_once(
    filled: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    with pytest.raises(UsageError, match="No such file"):
        MetricsFile(filled.folder / "none" / "a.prom", filled.db, told.append).__enter__()
    monkeypatch.setattr(textfile, "EVERY", 0.01)
    folder = filled.folder / "later"
    folder.mkdir()
    writing = MetricsFile(folder / "a.prom", filled.db, told.append)
    with writing:
        (folder / "a.prom").unlink()
        while folder.exists():
            try:
                folder.rmdir()
            except OSError:
                for left in folder.iterdir():
                    left.unlink(missing_ok=True)
        writing._over.wait(0.1)
    assert len(told) == 1
    assert "can't be written" in told[0]
