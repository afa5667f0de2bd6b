"""The key is searched for after everything that can happen to it: in every file, every stream, every process.

A key is set that is found nowhere else, and the real command line goes through success, faults, death, signals, a bug,
and a server that shows the key wherever an answer has room for text. Then nothing that was written may contain it, as
it stands, percent-encoded, or in base64.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from batchrunner.core.secret import HIDDEN, forms, hide
from tests.crash.command_line import CommandLine
from tests.double import Double, Plan, Rule, clip
from tests.raw_server import RawServer, Request, envelope, http, keep

KEY = "rk_canary+9vQ=~7x.Kd2"
"""With characters that are spelled another way in a URL. `=`, `+` and `~` may stand in a header."""

SPELLINGS = {
    "as it stands": KEY,
    "percent-encoded": urllib.parse.quote(KEY, safe=""),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "base64 of Bearer": base64.b64encode(f"Bearer {KEY}".encode()).decode(),
    "base64 of a pair": base64.b64encode(f"u:{KEY}".encode()).decode(),
}


def found_in(data: bytes) -> list[str]:
    """Which forms of the key a text contains."""
    return [form for form in forms(KEY) if form.encode() in data]


class House:
    """A folder in which everything is kept that any call writes or says."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.said: list[bytes] = []
        for name in ("tmp", "said"):
            (folder / name).mkdir()
        self.line = CommandLine(folder, {**environment, "REAPI_API_KEY": KEY, "TMPDIR": str(folder / "tmp")})

    def call(self, *words: str, code: int | None = None, program: str = "") -> str:
        """A call; what it said on both streams."""
        start = ["-c", program] if program else ["-m", "batchrunner"]
        done = subprocess.run(
            [sys.executable, *start, *words],
            cwd=self.folder,
            env=self.line._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=120,
            check=False,
        )
        self.said.append(done.stdout + done.stderr)
        text = self.said[-1].decode()
        assert code is None or done.returncode == code, text
        return text

    def search(self, *allowed: str) -> None:
        """Look everywhere, but in files of these names, where a person has put it."""
        wrong = [f"said by call {n}: {forms_}" for n, said in enumerate(self.said) if (forms_ := found_in(said))]
        for path in self.folder.rglob("*"):
            if path.is_file() and path.name not in allowed:
                wrong += [f"{path.relative_to(self.folder)}: {form}" for form in found_in(path.read_bytes())]
            wrong += [f"the name of {path}" for _ in found_in(str(path).encode())]
        assert wrong == []


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    """Every spelling, in the middle of other text."""
    for name, spelling in SPELLINGS.items():
        assert found_in(f"x{spelling}y".encode()), name
        assert not found_in(hide(f"x{spelling}y", forms(KEY)).encode()), name
    house = House(tmp_path, {})
    (tmp_path / "tmp" / "left").write_text(SPELLINGS["base64 of Bearer"])
    with pytest.raises(AssertionError, match="left"):
        house.search()


FAULTS = (
    Rule("post", "throttle", first=3, last=3),
    Rule("post", "reset_after", first=6, last=6),
    Rule("post", "error500", first=10, last=10),
    Rule("post", "malformed", first=14, last=14),
    Rule("post", "redirect", first=18, last=18),
    Rule("post", "reject", first=20, last=20),
    Rule("task", "fail", first=4, last=4),
    Rule("task", "moderate", first=5, last=5),
    Rule("poll", "reset", task=6),
    Rule("poll", "html", task=7),
    Rule("poll", "error500", task=8),
    Rule("media", "gone", task=9),
    Rule("media", "truncated", task=10),
    Rule("media", "html", task=11),
)


def processes(pid: int) -> Iterator[Path]:
    """A process and every one below it."""
    yield Path(f"/proc/{pid}")
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from processes(int(child))


def test_nights_that_are_killed_and_interrupted(double: Double, tmp_path: Path) -> None:
    door = double.open(KEY.removeprefix("rk_"), Plan(FAULTS, polls=1))
    house = House(tmp_path, {"REAPI_BASE_URL": door.url})
    house.line.write(40, in_flight=4)
    for stop in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM, None):
        run = house.line.start("run", "night.yaml")
        run.until("run_started")
        for place in processes(run.process.pid):
            assert not found_in((place / "cmdline").read_bytes())
            assert place.name == str(run.process.pid), "no other process, which would have the key too"
        if stop is not None:
            run.until("accepted", 3)
            run.signal(stop)
        run.end()
        house.said += [json.dumps(run.events).encode(), (tmp_path / "stderr").read_bytes()]
        house.search()  # also what lies beside the ledger of a dead run: log, index, lock, spool
    for words in (
        *(("status",), ("jobs",), ("plan", "night.yaml"), ("validate", "night.yaml"), ("doctor",), ("models",)),
        *(("show", "clip-1"), ("show", "clip-5"), ("cancel", "night"), ("resolve", "clip-6", "--abandon")),
        *(("run", "night.yaml", "--dry-run"), ("resume",), ("schema",)),
    ):
        house.call(*words)
        house.call(*words, "--json")
    house.call("run", "night.yaml", "--quiet", "--log-file", "night.log", "--log-level", "debug")
    house.call("run", "night.yaml", "--simulate", "--limit", "1", "--fault", "drop_after")
    house.search()
    with closing(sqlite3.connect(house.line.db)) as connection:
        assert connection.execute("SELECT count(*) FROM job WHERE state = 'succeeded'").fetchone()[0] > 20


# --- A server that shows it --------------------------------------------------------------------------------


@contextmanager
def serving(answer: Callable[[Request], bytes]) -> Iterator[str]:
    """A raw server in a thread; its URL."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = RawServer(keep(answer))
    try:
        asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(30)
        yield server.url
    finally:
        asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class Parrot:
    """Shows one spelling of the key in everything that it answers. Every other POST is accepted, so that no breaker
    stops the run; each accepted task goes through every kind of poll before it ends."""

    def __init__(self, shown: str) -> None:
        self.shown = shown
        self.posts = 0
        self.polls: dict[str, int] = {}
        self.heard: set[str] = set()

    def __call__(self, request: Request) -> bytes:
        self.heard.add(request.headers.get("authorization", ""))
        if request.method == "POST":
            self.posts += 1
            return self._accepted() if self.posts % 2 else self._refused(self.posts // 2)
        if request.target.startswith("/api/v1/tasks/"):
            return self._poll(request.target.rpartition("/")[2])
        if request.target.startswith("/media/"):
            return self._media(request.target)
        return http(404, self._error())

    def _error(self, code: Any = 60099) -> dict[str, Any]:
        return {"error": {"code": code, "message": f"for {self.shown}!", "request_id": f"req-{self.shown}"}}

    @property
    def _headers(self) -> list[tuple[str, str]]:
        return [("X-Request-Id", self.shown), ("Retry-After", "0"), ("Set-Cookie", f"k={self.shown}")]

    def _accepted(self) -> bytes:
        body = {"id": f"task_{self.posts}", "model": self.shown, "status": self.shown, "request_id": self.shown}
        return http(200, body, *self._headers)

    def _refused(self, number: int) -> bytes:
        answers = (
            http(400, self._error(20003), *self._headers),
            http(422, self._error(self.shown), *self._headers),
            http(429, self._error(50001), *self._headers),
            http(500, self._error(), *self._headers, reason=f"No {self.shown}"),
            http(200, {"id": f"task-{self.shown}", "status": "processing"}, *self._headers),
            http(200, {"task_id": self.shown, "status": "processing"}, *self._headers),
            http(200, f'{{"id": "{self.shown}", ', *self._headers),
            http(307, b"", ("Location", f"/api/v1/videos/generations?key={self.shown}")),
            http(502, f"<html><body>Bearer {self.shown}</body></html>", ("Content-Type", "text/html")),
            http(599, self.shown, (f"X-{re.sub('[^A-Za-z0-9]', '', self.shown)}", self.shown)),
            f"HTTP/1.1 2x0 {self.shown}\r\n{self.shown}\r\n\r\n".encode(),
        )
        return answers[number % len(answers)]

    def _poll(self, task: str) -> bytes:
        count = self.polls[task] = self.polls.get(task, -1) + 1
        number = int(task.removeprefix("task_"))
        seen = {"id": task, "model": self.shown, "request_id": self.shown}
        bad = (
            http(500, self._error(), *self._headers),
            http(200, seen | {"status": self.shown}, *self._headers),
            http(404, self._error(40001), *self._headers),
            http(200, seen | {"id": self.shown, "status": "failed"}, *self._headers),
            http(200, seen | {"status": "completed", "output": {"video_urls": [f"https://x.test/{self.shown}"]}}),
        )
        if count == 0:
            return bad[number // 2 % len(bad)]
        if number % 3 == 0:
            return http(200, seen | {"status": "failed", "output": None} | self._error(80001), *self._headers)
        urls = [f"https://x.test/?key={self.shown}", f"{self.url}/media/{task}.mp4"]
        return http(200, seen | {"status": "completed", "output": {"video_urls": urls, "last_frame_url": urls[0]}})

    url = ""

    def _media(self, target: str) -> bytes:
        task = target.rpartition("/")[2].removesuffix(".mp4")
        turn = self.polls[task] = self.polls[task] + 1
        if turn == 2:
            return http(302, b"", ("Location", f"https://{re.sub('[^A-Za-z0-9]', '-', self.shown)}.test/{self.shown}"))
        if turn == 4:
            return http(503, self._error(), *self._headers)
        return http(200, clip(task, 600), ("Content-Type", f"video/mp4; x={self.shown}"), ("ETag", f'"{self.shown}"'))


@pytest.mark.parametrize("name", ["as it stands", "percent-encoded", "base64 of Bearer"])
def test_a_server_that_shows_the_key(tmp_path: Path, name: str) -> None:
    parrot = Parrot(SPELLINGS[name])
    with serving(parrot) as url:
        parrot.url = url
        house = House(tmp_path, {"REAPI_BASE_URL": url})
        house.line.write(24, in_flight=1)
        for words in (("--quiet",), ("--json",), ()):
            house.call("run", "night.yaml", "--log-file", "night.log", "--log-level", "debug", *words)
        assert f"Bearer {KEY}" in parrot.heard, "the key was really sent"
        told = house.call("jobs", "--json") + house.call("status") + house.call("doctor", "--json")
        for job in json.loads(house.call("jobs", "--json")):
            told += house.call("show", job["job"]) if job["error"] else ""
    assert HIDDEN in told, "it was shown, and hidden"
    house.search()
    with closing(sqlite3.connect(house.line.db)) as connection:
        states = {row[0] for row in connection.execute("SELECT state FROM job")}
    assert {"succeeded", "failed", "unconfirmed"} <= states, states


def test_a_key_that_is_refused(tmp_path: Path) -> None:
    def refuse(request: Request) -> bytes:
        told = request.headers["authorization"]
        return http(401, envelope(10003, f"{told} is invalid"), ("WWW-Authenticate", told), ("X-Request-Id", KEY))

    with serving(refuse) as url:
        house = House(tmp_path, {"REAPI_BASE_URL": url})
        house.line.write(2)
        for words in ((), ("--json",), ("--quiet",)):
            assert "is invalid" in house.call("run", "night.yaml", *words, code=6)
        house.call("doctor", code=6)
    house.search()


# --- A bug -------------------------------------------------------------------------------------------------

BUG = """
import sys
from dataclasses import replace
import aiohttp, yarl
from aiohttp.client_reqrep import RequestInfo
from multidict import CIMultiDict, CIMultiDictProxy
from batchrunner import app
from batchrunner.cli import errors

key = {key!r}
real = app.run

def crash(point):
    if point != {point!r}:
        return
    headers = CIMultiDictProxy(CIMultiDict({{"Authorization": "Bearer " + key}}))
    url = yarl.URL("http://127.0.0.1/").with_query(key=key)
    error = aiohttp.ClientResponseError(RequestInfo(url, "POST", headers, url), (), status=400, message=key)
    try:
        raise error
    except aiohttp.ClientResponseError:
        raise RuntimeError(f"{{error!r}} {{error}} {shown}")

app.run = lambda options, watcher: real(replace(options, crash=crash), watcher)
sys.exit(errors.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("point", ["submit.before_intent", "submit.answered", "poll.answered", "download.start"])
def test_a_bug(double: Double, tmp_path: Path, point: str) -> None:
    """Its traceback, with the repr of an error of aiohttp that holds the header, goes to a log without the key."""
    door = double.open(KEY.removeprefix("rk_"), Plan(polls=1))
    house = House(tmp_path, {"REAPI_BASE_URL": door.url})
    house.line.write(1)

    program = BUG.format(key=KEY, point=point, shown=" ".join(SPELLINGS.values()))
    told = house.call("run", "night.yaml", program=program, code=70)

    assert "this is a bug" in told
    (log,) = (tmp_path / "state" / "batchrunner").iterdir()
    assert log.read_text().count(HIDDEN) > len(SPELLINGS)
    house.search()


# --- Where a person has put it -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        f"api_key: {KEY}",
        f"defaults: {{model: '{KEY}'}}",
        f"vars: {{key: '{KEY}'}}",
        f"# {KEY}",
        f"shots_from: [{{file: '{KEY}.csv'}}]",
        "shots_from: [{file: shots.csv}]",
        "include: [more.yaml]",
    ],
    ids=["key", "model", "variable", "comment", "name of a file", "rows", "include"],
)
def test_a_manifest_that_contains_it(tmp_path: Path, words: str) -> None:
    """It is refused, with the place, before anything is recorded; and never shown."""
    house = House(tmp_path, {})
    (tmp_path / "night.yaml").write_text(f"version: 1\nbatch: night\n{words}\nshots: [{{id: a, prompt: a dog}}]\n")
    (tmp_path / "shots.csv").write_text(f"id,prompt\nb,show {KEY}\n")
    (tmp_path / "more.yaml").write_text(f"shots: [{{id: c, prompt: 'show {KEY}'}}]\n")
    (tmp_path / ".env").write_text(f"REAPI_API_KEY={KEY}\n")

    for call in (("validate", "night.yaml", "--json"), ("run", "night.yaml"), ("run", "night.yaml", "--simulate")):
        assert "the API key stands here" in house.call(*call, code=2)
    assert not house.line.db.exists()
    house.search("night.yaml", "shots.csv", "more.yaml", ".env")


def test_a_variable_that_contains_it(tmp_path: Path) -> None:
    house = House(tmp_path, {})
    house.line.write(1)

    told = house.call("run", "night.yaml", "--var", f"key={KEY}", code=2)

    assert "--var key contains an API key" in told
    house.search()


def test_other_variables_of_the_environment(tmp_path: Path) -> None:
    """The key put where the address belongs, or with a line break at its end."""
    house = House(tmp_path, {"REAPI_BASE_URL": f"https://{KEY}@reapi.ai"})
    house.line.write(1)
    house.call("run", "night.yaml", code=2)
    house.call("doctor", "--offline")
    house.search()
    house.line = CommandLine(tmp_path, {**house.line.environment, "REAPI_API_KEY": f"{KEY}\n"})
    house.call("run", "night.yaml", code=2)
    house.call("doctor", "--offline", code=1)
    house.search()
