"""A provider double in a process of its own: it keeps its own account, the oracle of the crash tests, and speaks as it
is called: reAPI, fal's queue, or Replicate's predictions (`tests.voices`).

Every scenario has a key, `rk_<scenario>`, and under it an account and a plan of faults, so that many scenarios run
beside each other against one double. What a test asks for stands in a `Plan`; what happened stands in an `Account`.

Run as `python -m tests.double`, it prints its port and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import json
import socket
import struct
import subprocess
import sys
import time
import urllib.parse
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.voices import MODERATED, VOICES, Voice, called

CREDITS = 630
"""Price of a task where the plan names none: kling-3-0-turbo, 720p, 5 s."""

POST_FAULTS = (
    "throttle",  # 429 with the plan's Retry-After
    "error500",  # nothing created
    "reset_before",  # the request was read, nothing created, the connection reset
    "html",  # a proxy's page, nothing created
    "reject",  # 400 in the envelope
    "bare400",  # 400 without the envelope: proves nothing
    "no_credit",  # 402
    "unauthorized",  # 401
    "error500_after",  # created and charged, and then:
    "reset_after",
    "close_after",
    "no_id",
    "malformed",
    "redirect",
    "cut_answer",  # half of the JSON, then the end
    "duplicate_id",  # the answer names the account's first task, where that was polled: its id is known then
    "slow",  # answered after `delay` seconds
    "hold",  # answered when `Double.release` is called
    "hold_before",  # read, and neither created nor answered until the release
)
TASK_FAULTS = ("fail", "moderate")
POLL_FAULTS = ("error500", "reset", "missing", "wrong_id", "throttle", "unauthorized", "html", "hold")
MEDIA_FAULTS = ("gone", "truncated", "cut", "html", "error500", "hold")
CONNECT_FAULTS = ("close", "reset")


@dataclass(frozen=True, slots=True)
class Rule:
    """A fault, and on which occasions it happens.

    Attributes:
        on: `post` (counted in the account), `task` (by the task's number), `poll` or `media` (counted for each task),
            or `connect` (connections to the account's own port, closed before anything is read).
        what: see the tuples above.
        first, last: on the occasions first..last, 1-based.
        task: for `poll` and `media`: the number of the task that is meant; 0 for every task.
        delay: seconds, for `slow`.
    """

    on: str
    what: str
    first: int = 1
    last: int = 1
    task: int = 1
    delay: float = 0.05

    def __post_init__(self) -> None:
        known = {
            "post": POST_FAULTS,
            "task": TASK_FAULTS,
            "poll": POLL_FAULTS,
            "media": MEDIA_FAULTS,
            "connect": CONNECT_FAULTS,
        }
        if self.what not in known[self.on]:
            raise ValueError(f"{self.on} has no fault {self.what}")


ALWAYS = 1_000_000


@dataclass(frozen=True, slots=True)
class Plan:
    """How an account behaves.

    Attributes:
        rules: what goes wrong; the first that fits.
        polls: polls after which a task has ended: 1 for the first.
        credits: price of a task.
        retry_after: the Retry-After of a 429, as it stands in the header.
        size: bytes of an output, about.
        usage: whether a completed task names its price.
        outputs: files that a task gives.
        last_frame: whether it gives its last frame too.
    """

    rules: Sequence[Rule] = ()
    polls: int = 2
    credits: int = CREDITS
    retry_after: str = "0"
    size: int = 600
    usage: bool = True
    outputs: int = 1
    last_frame: bool = False


@dataclass(slots=True)
class Post:
    """A POST that was read to its end. `task` is what it created; `answer` is `ok` or the fault's name."""

    number: int
    label: str
    sha256: str
    size: int
    answer: str
    task: str | None = None


@dataclass(slots=True)
class Task:
    """A task that was created and charged."""

    id: str
    number: int
    label: str
    credits: int
    failure: int | None = None
    refunded: bool = False
    kept: bool = False
    """It has failed, and was charged all the same."""
    service: str = "reapi"
    polls: int = 0
    missing: int = 0
    handed_out: int = 0
    dead: int = 0
    downloads: int = 0
    served: int = 0
    files: dict[str, int] = field(default_factory=dict)
    """How often each file was served whole: `1`, `2`, ...; `0` for the last frame."""


@dataclass(slots=True)
class Account:
    """What the double knows to have happened under one key."""

    posts: list[Post] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    net: int = 0
    peak: int = 0
    unknown_polls: int = 0
    waiting: int = 0
    """Answers that a `hold` keeps back now."""
    followed: int = 0
    """POSTs to where a redirect led."""
    calls: list[tuple[float, str]] = field(default_factory=list)
    """Monotonic seconds and `post`, `poll` or `media` of every call, in order."""
    size: int = 600
    outputs: int = 1
    last_frame: bool = False

    def of(self, label: str) -> list[Task]:
        """The tasks of one job."""
        return [t for t in self.tasks if t.label == label]

    def clip(self, task_id: str, number: int = 1) -> bytes:
        """The bytes that are served for a file of a task; 0 for its last frame."""
        return media(task_id, number, self.size)


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def media(task_id: str, number: int, size: int) -> bytes:
    """A file of a task."""
    return picture(task_id) if not number else clip(task_id if number == 1 else f"{task_id}~{number}", size)


def picture(text: str) -> bytes:
    """A PNG of one pixel that no other task has."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)) + chunk(b"tEXt", b"Comment\0" + text.encode())
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0\x80")) + chunk(b"IEND", b"")


def clip(task_id: str, size: int) -> bytes:
    """A small MP4 (ftyp, free, mdat) that no other task has."""
    seed = hashlib.sha256(task_id.encode()).digest()
    data = (seed * (size // 32 + 1))[:size]
    return (
        _box(b"ftyp", b"isom" + struct.pack(">I", 512) + b"isommp41")
        + _box(b"free", task_id.encode())
        + _box(b"mdat", data)
    )


# --- The server ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Open:
    """An account as the server holds it."""

    scenario: str
    plan: Plan
    account: Account
    released: asyncio.Event
    server: asyncio.Server | None = None
    connections: int = 0

    def called(self, kind: str) -> None:
        self.account.calls.append((time.monotonic(), kind))

    def rule(self, on: str, count: int, task: int = 0) -> Rule | None:
        for rule in self.plan.rules:
            if rule.on == on and rule.first <= count <= rule.last and (not task or rule.task in {0, task}):
                return rule
        return None


class _Cut(Exception):
    """End the connection: `data` first, then a reset or an orderly close."""

    def __init__(self, data: bytes = b"", *, reset: bool = True) -> None:
        super().__init__()
        self.data = data
        self.reset = reset


def _answer(status: int, body: Any, *headers: str, close: bool = False, kind: str = "application/json") -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", f"Content-Length: {len(data)}", *headers]
    if close:
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + data


def _error(voice: Voice, status: int, code: int, message: str, *headers: str) -> bytes:
    return _answer(status, voice.error(status, code, message), *headers)


_HTML = b"<!doctype html><html><body>Bad gateway</body></html>"


class _Server:
    def __init__(self) -> None:
        self._accounts: dict[str, _Open] = {}
        self._port = 0

    async def run(self) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512)
        self._port = server.sockets[0].getsockname()[1]
        print(self._port, flush=True)
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        stdin = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)

        async def watch() -> None:
            await stdin.read()
            ended.set()

        watching = loop.create_task(watch())
        await ended.wait()
        await watching

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                try:
                    head = await reader.readuntil(b"\r\n\r\n")
                except asyncio.IncompleteReadError:
                    break
                first, *lines = head[:-4].decode("latin-1").split("\r\n")
                method, target, _ = first.split(" ", 2)
                headers = {n.strip().lower(): v.strip() for n, _, v in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                try:
                    writer.write(await self._route(method, target, headers, body))
                    await writer.drain()
                except _Cut as cut:
                    await self._cut(writer, cut)
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _cut(self, writer: asyncio.StreamWriter, cut: _Cut) -> None:
        if cut.data:
            writer.write(cut.data)
            await writer.drain()
        if cut.reset:
            sock: socket.socket = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _route(self, method: str, target: str, headers: dict[str, str], body: bytes) -> bytes:
        path, _, query = target.partition("?")
        parts = path.strip("/").split("/")
        if parts[0] == "_double":
            return await self._control(parts[1], parts[2], body)
        if parts[0] == "media":
            return await self._media(self._accounts.get(parts[1]), parts[2].removesuffix(".mp4"), query, headers)
        opened = self._accounts.get(headers.get("authorization", "").rpartition("rk_")[2])
        voice, what, task_id = called(method, parts)
        if opened is None:
            return _error(voice, 401, 10003, "API key is invalid")
        match what:
            case "post":
                opened.called("post")
                return await self._post(opened, voice, headers.get("x-batchrunner-job", ""), body)
            case "elsewhere":
                opened.account.followed += 1
            case "poll":
                opened.called("poll")
                return await self._poll(opened, voice, task_id)
            case "result":
                task = next((t for t in opened.account.tasks if t.id == task_id), None)
                if task is not None and task.polls >= opened.plan.polls:
                    return self._ended(opened, voice, task)
            case "balance":
                return _answer(200, {"balance": 10_000_000})
        return _error(voice, 404, 40001, "nothing here")

    # --- Control -----------------------------------------------------------------------------------------

    async def _control(self, verb: str, scenario: str, body: bytes) -> bytes:
        if verb == "open":
            words = json.loads(body)
            plan = Plan(**(words | {"rules": tuple(Rule(**r) for r in words["rules"])}))
            opened = self._accounts.get(scenario)
            if opened is None:
                opened = _Open(
                    scenario,
                    plan,
                    Account(size=plan.size, outputs=plan.outputs, last_frame=plan.last_frame),
                    asyncio.Event(),
                )
                self._accounts[scenario] = opened
            opened.plan = plan
            port = self._port
            if opened.server is None and any(r.on == "connect" for r in plan.rules):
                opened.server = await self._door(opened)
            if opened.server is not None:
                port = opened.server.sockets[0].getsockname()[1]
            return _answer(200, {"port": port})
        opened = self._accounts[scenario]
        if verb == "release":
            opened.released.set()
        if verb == "close":
            del self._accounts[scenario]
            if opened.server is not None:
                opened.server.close()
        return _answer(200, asdict(opened.account))

    async def _door(self, opened: _Open) -> asyncio.Server:
        """A port of the account's own, which closes some connections before anything is read."""

        async def knock(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            opened.connections += 1
            rule = opened.rule("connect", opened.connections)
            if rule is None:
                await self._serve(reader, writer)
                return
            await self._cut(writer, _Cut(reset=rule.what == "reset"))
            writer.close()

        return await asyncio.start_server(knock, "127.0.0.1", 0)

    async def _held(self, opened: _Open) -> None:
        opened.account.waiting += 1
        await opened.released.wait()
        opened.account.waiting -= 1

    # --- The service -------------------------------------------------------------------------------------

    async def _post(self, opened: _Open, voice: Voice, label: str, body: bytes) -> bytes:
        account = opened.account
        number = len(account.posts) + 1
        rule = opened.rule("post", number)
        what = rule.what if rule is not None else "ok"
        post = Post(number, label, hashlib.sha256(body).hexdigest(), len(body), what)
        account.posts.append(post)
        match what:
            case "throttle":
                return _error(voice, 429, 50001, "Rate limit exceeded", f"Retry-After: {opened.plan.retry_after}")
            case "error500":
                return _error(voice, 500, 60099, "Unexpected error")
            case "reset_before":
                raise _Cut
            case "html":
                return _answer(502, _HTML, kind="text/html")
            case "reject":
                return _error(voice, 400, 20003, "prompt: not that")
            case "bare400":
                return _answer(400, b"bad request", kind="text/plain")
            case "no_credit":
                return _error(voice, 402, 30001, "Insufficient credits")
            case "unauthorized":
                return _error(voice, 401, 10003, "API key is invalid")
            case "hold_before":
                await self._held(opened)
        task = self._create(opened, voice, label)
        post.task = task.id
        if what == "hold":
            await self._held(opened)
        if what == "slow" and rule is not None:
            await asyncio.sleep(rule.delay)
        return self._created(voice, task, what, opened.account)

    def _create(self, opened: _Open, voice: Voice, label: str) -> Task:
        account = opened.account
        number = len(account.tasks) + 1
        digest = hashlib.sha256(f"{opened.scenario}/{number}".encode()).hexdigest()[:32]
        rule = opened.rule("task", number)
        failure = None if rule is None else MODERATED if rule.what == "moderate" else 80001
        task = Task(f"task_{digest}", number, label, opened.plan.credits, failure, service=voice.name)
        account.tasks.append(task)
        account.net += task.credits
        account.peak = max(account.peak, account.net)
        return task

    @staticmethod
    def _created(voice: Voice, task: Task, what: str, account: Account) -> bytes:
        body, name = voice.created(task.id), voice.id_field
        match what:
            case "error500_after":
                return _error(voice, 500, 60099, "Unexpected error")
            case "reset_after":
                raise _Cut
            case "close_after":
                raise _Cut(reset=False)
            case "no_id":
                return _answer(200, {k: v for k, v in body.items() if k != name})
            case "malformed":
                return _answer(200, f'{{"{name}": "{task.id}", "status": processing}}'.encode())
            case "redirect":
                return _answer(307, b"", "Location: /api/v1/elsewhere")
            case "cut_answer":
                raise _Cut(_answer(voice.created_status, body)[:-40], reset=False)
            case "duplicate_id" if account.tasks[0].polls:
                return _answer(200, body | {name: account.tasks[0].id})
        return _answer(voice.created_status, body)

    async def _poll(self, opened: _Open, voice: Voice, task_id: str) -> bytes:
        account = opened.account
        task = next((t for t in account.tasks if t.id == task_id), None)
        if task is None:
            account.unknown_polls += 1
            return _error(voice, 404, 40001, "Task not found")
        task.polls += 1
        rule = opened.rule("poll", task.polls, task.number)
        match rule.what if rule is not None else "ok":
            case "error500":
                return _error(voice, 503, 60099, "Unexpected error")
            case "reset":
                raise _Cut
            case "missing":
                task.missing += 1
                return _error(voice, 404, 40001, "Task not found")
            case "throttle":
                return _error(voice, 429, 50001, "Rate limit exceeded", f"Retry-After: {opened.plan.retry_after}")
            case "unauthorized":
                return _error(voice, 401, 10003, "API key is invalid")
            case "html":
                return _answer(200, _HTML, kind="text/html")
            case "wrong_id":
                other = "task_" + "0" * 32
                ended = voice.ended(other)
                return _answer(200, ended) if ended is not None else _answer(*voice.failed(other, 80001, "it failed"))
            case "hold":
                await self._held(opened)
        if task.polls < opened.plan.polls:
            return _answer(*voice.running(task.id))
        ended = voice.ended(task.id)
        return self._ended(opened, voice, task) if ended is None else _answer(200, ended)

    def _ended(self, opened: _Open, voice: Voice, task: Task) -> bytes:
        if task.failure is not None:
            task.kept = voice.charges(task.failure)
            if not task.refunded and not task.kept:
                task.refunded = True
                opened.account.net -= task.credits
            return _answer(*voice.failed(task.id, task.failure, "it failed"))
        task.handed_out += 1
        *urls, last = [
            f"http://127.0.0.1:{self._port}/media/{opened.scenario}/{name}.mp4?v={task.handed_out}"
            for name in [task.id, *(f"{task.id}~{n}" for n in range(2, opened.plan.outputs + 1)), f"{task.id}~0"]
        ]
        frame = last if opened.plan.last_frame else None
        return _answer(200, voice.completed(task.id, urls, frame, task.credits if opened.plan.usage else None))

    async def _media(self, opened: _Open | None, name: str, query: str, headers: dict[str, str]) -> bytes:
        task_id, _, number = name.partition("~")
        task = None
        if opened is not None:
            task = next((t for t in opened.account.tasks if t.id == task_id), None)
        if opened is None or task is None:
            return _answer(404, b"")
        opened.called("media")
        version = int(urllib.parse.parse_qs(query)["v"][0])
        task.downloads += 1
        rule = opened.rule("media", task.downloads, task.number)
        what = rule.what if rule is not None else "ok"
        if what == "gone":
            task.dead = max(task.dead, version)
        if version <= task.dead:
            return _answer(404, b"")
        data = media(task_id, int(number or "1"), opened.plan.size)
        if headers.get("range") == "bytes=0-0":  # somebody looks whether it is there: nothing is served
            return _answer(206, data[:1], f"Content-Range: bytes 0-0/{len(data)}", kind="video/mp4")
        match what:
            case "truncated":
                whole = _answer(200, data, kind="video/mp4")
                raise _Cut(whole[: -len(data) // 2], reset=False)
            case "cut":
                return _answer(200, data[: len(data) * 2 // 3], kind="video/mp4")
            case "html":
                return _answer(200, _HTML, kind="text/html")
            case "error500":
                return _answer(503, b"")
            case "hold":
                await self._held(opened)
        task.served += 1
        task.files[number or "1"] = task.files.get(number or "1", 0) + 1
        return _answer(200, data, kind="video/mp4")


# --- The tests' side -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Door:
    """Where a scenario calls, and with which key."""

    scenario: str
    url: str
    key: str

    @property
    def environment(self) -> dict[str, str]:
        return {"REAPI_BASE_URL": self.url, "REAPI_API_KEY": self.key}

    @property
    def everywhere(self) -> dict[str, str]:
        """As `environment`, and the same for every other service."""
        return {
            variable: value
            for v in VOICES.values()
            for variable, value in zip(v.variables, (self.url, self.key), strict=True)
        }


class Double:
    """A double that runs in a process of its own, as tests drive it. Blocks; every call takes about a millisecond."""

    def __init__(self, port: int, process: subprocess.Popen[bytes] | None = None) -> None:
        self.port = port
        self._process = process
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    @classmethod
    def start(cls) -> Double:
        """Start the process; it ends with `stop`, or when this process does."""
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.double"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).resolve().parent.parent,
        )
        assert process.stdout is not None
        return cls(int(process.stdout.readline()), process)

    def __enter__(self) -> Double:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        self._connection.close()
        if self._process is not None:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.close()
            self._process.wait(timeout=30)
            self._process.stdout.close()

    def open(self, scenario: str, plan: Plan | None = None) -> Door:
        """Make an account, or give it another plan. Account and counts stay."""
        answer = self._call("open", scenario, asdict(plan or Plan()))
        return Door(scenario, f"http://127.0.0.1:{answer['port']}", f"rk_{scenario}")

    def account(self, scenario: str) -> Account:
        """What has happened so far."""
        return _account(self._call("account", scenario))

    def release(self, scenario: str) -> None:
        """Let everything go that a `hold` keeps back, now and from now on."""
        self._call("release", scenario)

    def close(self, scenario: str) -> Account:
        """What has happened; the double forgets it."""
        return _account(self._call("close", scenario))

    def _call(self, verb: str, scenario: str, body: Any = None) -> dict[str, Any]:
        self._connection.request("POST", f"/_double/{verb}/{scenario}", json.dumps(body))
        answer: dict[str, Any] = json.loads(self._connection.getresponse().read())
        return answer


def _account(words: dict[str, Any]) -> Account:
    return Account(
        **(
            words
            | {
                "posts": [Post(**p) for p in words["posts"]],
                "tasks": [Task(**t) for t in words["tasks"]],
                "calls": [(at, kind) for at, kind in words["calls"]],
            }
        )
    )


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_Server().run())
