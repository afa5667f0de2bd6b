"""The provider of a simulation, and the network before it: they draw latencies and faults, and keep the account.

The account is the oracle: what was accepted, charged, refunded, answered and served, and when. What must hold at the
moment a call arrives is judged here; what must hold of the ledger and the disk, in `oracle`.
"""

from __future__ import annotations

import heapq
import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import partial
from hashlib import sha256
from typing import Any

from tests.double import media
from tests.simulation.loop import Life, Link, Timeline

API, CDN, CDN2, INSIDE = "reapi.ai", "cdn.reapi.ai", "cdn2.reapi.ai", "inside.reapi.ai"
ADDRESSES = {API: "34.10.0.1", CDN: "34.10.0.2", CDN2: "34.10.0.3", INSIDE: "10.0.0.7"}
BASE_URL = f"https://{API}"
KEY = "rk_simulated_canary_0123456789"

POSTS = (
    "slow",
    "hang",  # accepted, and never answered
    "hang_before",  # not accepted, and never answered
    "throttle",
    "error500",
    "error500_after",
    "html",
    "html_after",
    "reset_before",
    "reset_after",
    "close_after",
    "no_id",
    "malformed",
    "cut_answer",
    "redirect",
    "duplicate_id",
    "two_ids",
    "reject",
    "bare400",
    "no_credit",
    "unauthorized",
    "garbage",
    "trickle",
)
RARE = {"no_credit": 0.1, "unauthorized": 0.1, "hang": 0.4, "hang_before": 0.4}
AFTER = frozenset(
    {
        "ok",
        "slow",
        "hang",
        "error500_after",
        "html_after",
        "reset_after",
        "close_after",
        "no_id",
        "malformed",
        "cut_answer",
        "redirect",
        "duplicate_id",
        "two_ids",
        "trickle",
    }
)
"""What a POST may be answered with after it was accepted and charged."""
CLEAR = frozenset({"ok", "slow", "trickle"})
"""Answers that give the id."""
HARMLESS = frozenset({"throttle", "no_credit", "unauthorized"})
"""Answers that prove that nothing was accepted, once they are read; the job may be sent again."""
POLLS = (
    "error500",
    "reset",
    "missing",
    "wrong_id",
    "throttle",
    "html",
    "hang",
    "cut",
    "word",
    "no_url",
    "slow",
    "unauthorized",
    "bare429",
)
MEDIA = (
    "gone",
    "truncated",
    "cut",
    "html",
    "error503",
    "stall",
    "reset",
    "redirect",
    "inside",
    "chunked",
    "encoded",
    "trickle",
    "loop",
)
CONNECTS = ("refused", "blackhole", "dns", "tls", "slow")


@dataclass(frozen=True, slots=True)
class Weather:
    """What a seed makes of the world: probabilities by kind of fault, and the sizes of things.

    Attributes:
        posts, polls, media, connects: probability of a fault, and the weights of the kinds.
        fates: probabilities that a task fails, is moderated, vanishes, or has an output that can't be had.
        median: of a task's seconds.
        url_seconds: for how long an output URL is good.
        several, frames: probabilities that a task gives more than one clip, and a last frame.
        outages: from, to: nobody answers connections.
    """

    posts: tuple[float, dict[str, float]]
    polls: tuple[float, dict[str, float]]
    media: tuple[float, dict[str, float]]
    connects: tuple[float, dict[str, float]]
    fates: tuple[float, float, float, float]
    median: float
    url_seconds: float
    outages: tuple[tuple[float, float], ...] = ()
    several: float = 0.0
    frames: float = 0.0

    @classmethod
    def draw(cls, rng: random.Random, start: float) -> Weather:
        level = rng.choice([0.0, 0.05, 0.1, 0.2, 0.4])

        def some(kinds: tuple[str, ...], share: float) -> tuple[float, dict[str, float]]:
            chosen = rng.sample(kinds, rng.randint(1, len(kinds)))
            return rng.choice([0.0, share, share, 2 * share]), {k: RARE.get(k, 1.0) for k in chosen}

        outages = tuple(
            (at, at + rng.expovariate(1 / 25.0))
            for at in (start + rng.uniform(0, 120) for _ in range(rng.randint(1, 2)))
        )
        return cls(
            posts=some(POSTS, level),
            polls=some(POLLS, level),
            media=some(MEDIA, level),
            connects=some(CONNECTS, level * 0.4),
            fates=(
                rng.choice([0.0, 0.05, 0.3]),
                rng.choice([0.0, 0.0, 0.1]),
                rng.choice([0.0, 0.0, 0.0, 0.05]),
                rng.choice([0.0, 0.0, 0.05]),
            ),
            median=rng.choice([2.0, 5.0, 12.0]),
            url_seconds=rng.choice([3600.0, 3600.0, 20.0]),
            outages=outages if rng.random() < 0.15 else (),
            several=rng.choice([0.0, 0.0, 0.3, 0.8]),
            frames=rng.choice([0.0, 0.0, 0.5]),
        )


@dataclass(slots=True)
class Post:
    """A POST that came in whole. `delivered`: a living client has read all of its answer."""

    at: float
    label: str
    answer: str
    body: str
    link: Link
    began: float
    life: int
    task: Task | None = None
    delivered: bool = False
    answered: bool = False


@dataclass(slots=True)
class Task:
    """A task that was accepted and charged."""

    id: str
    label: str
    credits: int
    created: float
    ends: float
    fate: str
    clear: bool
    """Its id was told, so that the client counts it as in flight."""
    refunded: bool = False
    failure_read: bool = False
    versions: int = 0
    dead: int = 0
    """URLs up to this version are dead."""
    bad: int = 0
    """Answers for its output that make a link dead or a content bad."""
    files: tuple[int, ...] = (1,)
    """Numbers of the files that it gives; 0 is a last frame."""
    served: set[int] = field(default_factory=set)
    polled: bool = False
    missing_since: float | None = None
    last_missing: float = 0.0


@dataclass(slots=True)
class Account:
    """Everything that happened."""

    posts: list[Post] = field(default_factory=list)
    tasks: dict[str, Task] = field(default_factory=dict)
    net: int = 0
    peak: int = 0
    polls: int = 0
    downloads: int = 0
    faults: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Hold:
    """No call may begin between these times in that life."""

    life: int
    start: float
    end: float


class World:
    """Time, the network, the provider and the trace of one seed."""

    def __init__(
        self,
        seed: int,
        *,
        prices: dict[str, int],
        budget: int | None,
        in_flight: int,
        weather: Weather | None = None,
    ) -> None:
        self.seed = seed
        self.rng = random.Random(f"world {seed}")
        self.timeline = Timeline()
        self.weather = weather or Weather.draw(self.rng, self.timeline.now)
        self.account = Account()
        self.calm = False
        self.life = Life(0)
        self.trace: list[str] = []
        self.wrong: list[str] = []
        self.consents: dict[str, int] = {}
        self.holds: list[Hold] = []
        self.calls: list[tuple[int, float, str]] = []
        self.sent: dict[int, list[float]] = {}
        self.wall: Callable[[], float] = lambda: 0.0
        self.at_post: Callable[[Post], list[str]] = lambda _: []
        self.at_poll: Callable[[str], list[str]] = lambda _: []
        self._prices = prices
        self._budget = budget
        self._in_flight = in_flight
        self._began: dict[str, float] = {}
        self._refunds: list[tuple[float, str]] = []
        self._by_label: dict[str, list[Post]] = {}
        self._open: list[Post] = []
        self._live: list[Task] = []
        self._polled: list[str] = []
        """Ids that the client has recorded. An answer that repeats an unrecorded one could not be seen through."""

    # --- What is written down ----------------------------------------------------------------------------

    def note(self, *words: object) -> None:
        self.trace.append(f"{self.timeline.now!r} {' '.join(str(w) for w in words)}")

    def violation(self, text: str) -> None:
        self.note("VIOLATION", text)
        self.wrong.append(f"at {self.timeline.now:.3f}: {text}")

    def digest(self) -> str:
        return sha256("\n".join(self.trace).encode()).hexdigest()

    def began(self, what: str) -> None:
        kind, _, key = what.partition(" ")
        if kind == "submit":
            self._began[key] = self.timeline.now
        if kind in {"submit", "poll"}:
            self.calls.append((self.life.number, self.timeline.now, what))

    def spoken(self, label: str) -> None:
        """A person has consented to another submission of a job."""
        self.consents[label] = self.consents.get(label, 0) + 1

    # --- The network -------------------------------------------------------------------------------------

    def _draw(self, of: tuple[float, dict[str, float]], on: str) -> str:
        share, kinds = of
        if self.calm or not share or self.rng.random() >= share:
            return "ok"
        kind = self.rng.choices(list(kinds), list(kinds.values()))[0]
        self.account.faults[f"{on}.{kind}"] = self.account.faults.get(f"{on}.{kind}", 0) + 1
        return kind

    def _latency(self) -> float:
        return self.rng.uniform(0.002, 0.08)

    def resolve(self, name: str) -> tuple[float, list[str] | None]:
        if self._draw(self.weather.connects, "connect") == "dns":
            self.note("dns fails", name)
            return self.rng.choice([0.01, 4.0]), None
        return self._latency(), [ADDRESSES[name]] if name in ADDRESSES else None

    def connect(self, address: str) -> tuple[float, OSError | None]:
        now = self.timeline.now
        if not self.calm and any(a <= now < b for a, b in self.weather.outages):
            return self._latency(), ConnectionRefusedError(111, "Connection refused")
        match self._draw(self.weather.connects, "connect"):
            case "refused":
                return self._latency(), ConnectionRefusedError(111, "Connection refused")
            case "blackhole":
                return math.inf, None
            case "slow":
                return self.rng.uniform(1.0, 40.0), None
        return self._latency(), None

    def handshake(self, address: str) -> tuple[float, OSError | None]:
        if self._draw(self.weather.connects, "connect") == "tls":
            return self._latency(), ConnectionResetError(104, "Connection reset by peer")
        return self._latency(), None

    def serve(self, link: Link, address: str) -> _Talk:
        return _Talk(self, link)

    # --- The service -------------------------------------------------------------------------------------

    def handle(self, talk: _Talk, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        host = headers.get("host", "")
        if host in {CDN, CDN2}:
            if "authorization" in headers:
                self.violation("the key was sent to the media host")
            self._media(talk, host, path, look=headers.get("range") == "bytes=0-0")
            return
        if host != API or headers.get("authorization") != f"Bearer {KEY}":
            self.violation(f"a call to {host} without the key")
            return
        if method == "POST" and path == "/api/v1/videos/generations":
            request = json.loads(body)
            same = {name: value for name, value in request.items() if name != "first_frame_image"}  # URLs are renewed
            self._post(talk, request, sha256(json.dumps(same).encode()).hexdigest())
        elif method == "GET" and path.startswith("/api/v1/tasks/"):
            self._poll(talk, path.rpartition("/")[2])
        else:
            self.violation(f"{method} {path} was asked for")

    def _settle(self) -> None:
        """Refunds that have happened by now."""
        while self._refunds and self._refunds[0][0] <= self.timeline.now:
            task = self.account.tasks[heapq.heappop(self._refunds)[1]]
            task.refunded = True
            self.account.net -= task.credits

    # --- POST --------------------------------------------------------------------------------------------

    def _post(self, talk: _Talk, request: dict[str, Any], digest: str) -> None:
        self._settle()
        label = request["prompt"]
        answer = self._draw(self.weather.posts, "post")
        if answer == "duplicate_id" and not self._polled:
            answer = "no_id"
        post = Post(
            self.timeline.now,
            label,
            answer,
            digest,
            talk.link,
            self._began.get(label, self.timeline.now),
            talk.link.life.number,
        )
        self.note("POST", label, answer)
        self._check_post(post)
        self.account.posts.append(post)
        self._by_label.setdefault(label, []).append(post)
        self.sent.setdefault(post.life, []).append(post.began)
        if answer in AFTER:
            post.task = self._create(label, answer in CLEAR and not talk.link.hung_up)
        self._open.append(post)
        self._check_in_flight()
        self._answer_post(talk, post)

    def _create(self, label: str, clear: bool) -> Task:
        account, rng = self.account, self.rng
        number = len(account.tasks) + 1
        seconds = rng.lognormvariate(math.log(self.weather.median), 0.4)
        draw, fate = rng.random(), "good"
        for name, share in zip(("fail", "moderate", "vanish", "spoiled"), self.weather.fates, strict=True):
            if draw < share:
                fate = name
                break
            draw -= share
        price = self._prices[label]
        name = sha256(f"{self.seed}/{number}".encode()).hexdigest()[:24]
        now = self.timeline.now
        clips = rng.randint(2, 4) if rng.random() < self.weather.several else 1
        frames = (0,) if rng.random() < self.weather.frames else ()
        files = (*range(1, clips + 1), *frames)
        task = Task(f"task_{name}", label, price, now, now + seconds, fate, clear, files=files)
        account.tasks[task.id] = task
        account.net += price
        account.peak = max(account.peak, account.net)
        if self._budget is not None and account.net > self._budget:
            self.violation(f"P5 {account.net} credits are charged, the budget is {self._budget}")
        if fate in {"fail", "moderate"}:
            heapq.heappush(self._refunds, (task.ends, task.id))
        if task.clear:
            self._live.append(task)
        return task

    def _check_post(self, post: Post) -> None:
        """P1, as it happens."""
        earlier = self._by_label.get(post.label, [])
        doubtful = [p for p in earlier if not _clears(p)]
        if len(doubtful) > self.consents.get(post.label, 0):
            self.violation(
                f"P1 another POST for {post.label} after {', '.join(p.answer for p in earlier)}, "
                f"with {self.consents.get(post.label, 0)} consents"
            )
        if earlier and earlier[0].body != post.body:
            self.violation(f"P1 the POSTs of {post.label} ask for different things")
        for text in self.at_post(post):
            self.violation(text)

    def _check_in_flight(self) -> None:
        """POSTs that wait for their answer and tasks that the client knows of, together."""
        now = self.timeline.now
        self._open = [p for p in self._open if not p.answered and not p.link.hung_up]
        self._live = [t for t in self._live if t.ends > now]
        denied = {t.id for t in self._live if t.missing_since is not None}  # the client may have given it up as lost
        open_tasks = {p.task.id for p in self._open if p.task is not None}
        flying = len(self._open) + sum(1 for t in self._live if t.id not in open_tasks | denied)
        if flying > self._in_flight:
            self.violation(f"{flying} in flight, the limit is {self._in_flight}")

    def forget_unknown(self, known: set[str]) -> None:
        """A run has died: tasks whose id it had not recorded are in flight for nobody."""
        self._live = [t for t in self._live if t.id in known]

    def _answer_post(self, talk: _Talk, post: Post) -> None:
        rng, what = self.rng, post.answer
        after = rng.uniform(0.01, 0.4)
        read = partial(self._read_post, post)
        body: dict[str, Any] = {"id": post.task.id if post.task else None, "status": "processing", "created_at": 1}
        match what:
            case "hang" | "hang_before":
                pass
            case "reset_before" | "reset_after":
                talk.link.reset(after)
            case "close_after":
                talk.link.finish(after)
            case "garbage":
                talk.raw(rng.randbytes(rng.randint(1, 60)) + b"\r\n\r\n", after)
                talk.link.finish(after)
            case "cut_answer":
                talk.answer(200, body, after=after, cut=rng.randint(1, 30))
            case "trickle":
                talk.answer(200, body, after=after, then=read, pieces=rng.randint(2, 8))
            case "slow":
                talk.answer(200, body, after=rng.uniform(5.0, 110.0), then=read)
            case _:
                status, reply, headers = self._post_reply(what, body)
                talk.answer(status, reply, *headers, after=after, then=read)

    def _post_reply(self, what: str, body: dict[str, Any]) -> tuple[int, Any, list[str]]:
        """Status, body and headers of a whole answer."""
        rng = self.rng
        match what:
            case "throttle":
                return 429, _error(50001, "Rate limit exceeded"), self._retry_after()
            case "html" | "html_after":
                return rng.choice([200, 502, 503]), b"<html><body>Bad gateway</body></html>", []
            case "redirect":
                return 307, b"", [f"Location: {BASE_URL}/api/v1/elsewhere"]
            case "reject":
                return rng.choice([400, 404, 413, 422]), _error(20003, "not that"), []
            case "duplicate_id":
                return 200, body | {"id": rng.choice(self._polled)}, []
        replies: dict[str, tuple[int, Any]] = {
            "error500": (500, _error(60099, "Unexpected error")),
            "error500_after": (500, _error(60099, "Unexpected error")),
            "no_id": (200, {"status": "processing"}),
            "malformed": (200, f'{{"id": "{body["id"]}", "status": processing}}'.encode()),
            "two_ids": (200, body | {"task_id": "task_other"}),
            "bare400": (400, b"bad request"),
            "no_credit": (402, _error(30001, "Insufficient credits")),
            "unauthorized": (401, _error(10003, "API key is invalid")),
        }
        return *replies.get(what, (200, body)), []

    def _read_post(self, post: Post) -> None:
        post.answered = post.delivered = True
        self.note("answered", post.label, post.answer)

    def _retry_after(self) -> list[str]:
        """The header of a 429; the hold begins when it is read."""
        kind = self.rng.choice(["none", "seconds", "seconds", "date", "nonsense", "zero"])
        seconds = self.rng.choice([1, 2, 5, 20, 90])
        self._next_hold = {"seconds": float(seconds), "date": float(seconds), "zero": 0.0}.get(kind, 1.0)
        match kind:
            case "seconds":
                return [f"Retry-After: {seconds}"]
            case "date":
                # A server's own clock, which is nobody else's.
                there = 1_700_000_000 + int(self.timeline.now)
                return [
                    f"Date: {formatdate(there, usegmt=True)}",
                    f"Retry-After: {formatdate(there + seconds, usegmt=True)}",
                ]
            case "zero":
                return ["Retry-After: 0"]
            case "nonsense":
                return ["Retry-After: soon"]
        return []

    _next_hold = 0.0

    def hold(self, seconds: float, life: int) -> None:
        self.holds.append(Hold(life, self.timeline.now, self.timeline.now + seconds))

    # --- GET task ----------------------------------------------------------------------------------------

    def _poll(self, talk: _Talk, task_id: str) -> None:
        self._settle()
        self.account.polls += 1
        task = self.account.tasks.get(task_id)
        if task is None:
            self.violation(f"a poll for {task_id}, which does not exist")
            return
        if not task.polled:
            task.polled = True
            self._polled.append(task_id)
        for text in self.at_poll(task_id):
            self.violation(text)
        what = self._draw(self.weather.polls, "poll")
        if task.fate == "vanish" and self.timeline.now > task.created + 1.0:
            what = "missing"
        self.note("poll", task.label, what)
        after, rng = self.rng.uniform(0.005, 0.1), self.rng
        match what:
            case "reset":
                talk.link.reset(after)
            case "hang":
                pass
            case "cut":
                talk.answer(200, self._state(task), after=after, cut=rng.randint(1, 20))
            case _:
                status, reply, headers = self._poll_reply(what, task)
                state = reply.get("status", "") if isinstance(reply, dict) and reply.get("id") == task.id else what
                done = partial(self._read_poll, task, state)
                talk.answer(status, reply, *headers, after=rng.uniform(1, 40) if what == "slow" else after, then=done)

    def _poll_reply(self, what: str, task: Task) -> tuple[int, Any, list[str]]:
        match what:
            case "throttle":
                return 429, _error(50001, "Rate limit exceeded"), self._retry_after()
            case "bare429":
                self._next_hold = 1.0
                return 429, b"slow down", []
            case "unauthorized" if self.rng.random() < 0.1:
                return 401, _error(10003, "API key is invalid"), []
        replies: dict[str, tuple[int, Any]] = {
            "error500": (503, _error(60099, "Unexpected error")),
            "missing": (404, _error(40001, "Task not found")),
            "wrong_id": (200, {"id": "task_other", "status": "failed", "error": {"code": 80001}}),
            "html": (200, b"<html></html>"),
            "word": (200, {"id": task.id, "status": "queued"}),
            "no_url": (200, {"id": task.id, "status": "completed", "output": {"video_urls": []}}),
        }
        return *(replies[what] if what in replies else (200, self._state(task))), []

    def _state(self, task: Task) -> dict[str, Any]:
        body: dict[str, Any] = {"id": task.id, "model": "kling-3-0-turbo", "created_at": 1}
        if self.timeline.now < task.ends:
            return body | {"status": "processing"}
        if task.fate in {"fail", "moderate"}:
            code = 80006 if task.fate == "moderate" else 80001
            return body | {"status": "failed", "output": None, "error": {"code": code, "message": "it failed"}}
        task.versions += 1
        until = self.timeline.now + self.weather.url_seconds
        urls = {n: f"https://{CDN}/{task.id}/{n}?v={task.versions}&until={until!r}" for n in task.files}
        frame = {"last_frame_url": urls.pop(0)} if 0 in urls else {}
        output = {"video_urls": list(urls.values()), **frame}
        return body | {"status": "completed", "output": output, "usage": {"credits": task.credits}}

    def _read_poll(self, task: Task, what: str) -> None:
        if what == "missing":
            if task.missing_since is None:
                task.missing_since = self.timeline.now
            task.last_missing = self.timeline.now
        else:
            task.missing_since = None
        if what == "failed":
            task.failure_read = True

    # --- GET media ---------------------------------------------------------------------------------------

    def _media(self, talk: _Talk, host: str, path: str, *, look: bool) -> None:
        self.account.downloads += 1
        name, _, query = path.partition("?")
        words = dict(pair.split("=") for pair in query.split("&"))
        task_id, number = name.strip("/").split("/")
        task = self.account.tasks[task_id]
        version = int(words["v"])
        what = self._draw(self.weather.media, "media")
        if task.fate == "spoiled":
            what = "truncated" if self.rng.random() < 0.5 else "gone"
        if what == "redirect" and host == CDN2:
            what = "ok"
        self.note("media", task.label, number, what)
        if what == "gone":
            task.dead = max(task.dead, version)
        if version <= task.dead or self.timeline.now > float(words["until"]):
            task.bad += 1
            talk.answer(self.rng.choice([403, 404, 410]), b"")
            return
        if look and what != "error503":  # whether it is there is asked, and no more of it
            talk.answer(206, b"x")
            return
        self._answer_media(talk, task, int(number), what, path)

    def _answer_media(self, talk: _Talk, task: Task, number: int, what: str, path: str) -> None:
        data, rng = self.content(task.id, number), self.rng
        served = partial(task.served.add, number)
        part = rng.randint(1, len(data) - 1)
        whole: dict[str, tuple[int, bytes, list[str]]] = {
            "truncated": (200, data[: len(data) * 2 // 3], []),
            "html": (200, b"<html>Sorry</html>", []),
            "error503": (503, b"", ["Retry-After: 3"] if part % 2 else []),
            "redirect": (302, b"", [f"Location: https://{CDN2}{path}"]),
            "inside": (302, b"", [f"Location: https://{INSIDE}{path}"]),
            "loop": (302, b"", [f"Location: https://{CDN}{path}&l=1"]),
            "encoded": (200, data, ["Content-Encoding: gzip"]),
        }
        if what in {"truncated", "html", "encoded", "inside", "loop"}:
            task.bad += 1
        match what:
            case "cut" | "reset":
                talk.answer(200, data, cut=part, reset=what == "reset")
            case "stall":
                talk.answer(200, data, stall=part)
            case "chunked":
                chunks = b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in (data[:100], data[100:])) + b"0\r\n\r\n"
                talk.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks, 0.01, served)
            case _ if what in whole:
                status, body, headers = whole[what]
                talk.answer(status, body, *headers)
            case _:
                talk.answer(200, data, then=served, pieces=5 if what == "trickle" else 1)

    def content(self, task_id: str, number: int) -> bytes:
        """What is served for a file of a task; 0 for its last frame."""
        return media(task_id, number, 400 + int(task_id[-3:], 16))


def _clears(post: Post) -> bool:
    """Whether a POST leaves no doubt, so that another may follow without a word: the client has read that nothing was
    accepted, or that the task has failed, which was refunded."""
    if post.answer in HARMLESS:
        return post.delivered
    return post.task is not None and post.task.refunded and post.task.failure_read


def _error(code: int, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "request_id": "req_sim"}}


class _Talk:
    """The provider's end of a connection: HTTP/1.1, a request at a time."""

    def __init__(self, world: World, link: Link) -> None:
        self.link = link
        self._world = world
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while True:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return
            first, *lines = head.decode("latin-1").split("\r\n")
            headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines)}
            length = int(headers.get("content-length", "0"))
            if len(rest) < length:
                return
            body, self._buffer = rest[:length], rest[length:]
            method, path, _ = first.split(" ", 2)
            self._world.handle(self, method, path, headers, body)

    def lost(self) -> None:
        pass

    def raw(self, data: bytes, after: float, then: Callable[[], None] | None = None) -> None:
        self.link.down(data, after, then)

    def answer(
        self,
        status: int,
        body: Any,
        *headers: str,
        after: float = 0.01,
        then: Callable[[], None] | None = None,
        pieces: int = 1,
        cut: int = 0,
        stall: int = 0,
        reset: bool = False,
    ) -> None:
        """Args:
        then: called when a living client has all of it.
        pieces: it is sent in so many pieces, some seconds apart.
        cut: so many bytes are missing at its end, where the connection ends, `reset` or not.
        stall: so many bytes are never sent.
        """
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [
            f"HTTP/1.1 {status} X",
            "Content-Type: application/octet-stream",
            f"Content-Length: {len(data)}",
            *headers,
        ]
        if status == 429:
            then = partial(self._throttled, self._world._next_hold, then)
        whole = ("\r\n".join(lines) + "\r\n\r\n").encode() + data
        if cut or stall:
            self.link.down(whole[: len(whole) - (cut or stall)], after)
            if cut:
                (self.link.reset if reset else self.link.finish)(after)
            return
        if pieces == 1:
            self.link.down(whole, after, then)
            return
        step = max(1, len(whole) // pieces)
        for start in range(0, len(whole), step):
            last = start + step >= len(whole)
            self.link.down(whole[start : start + step], after, then if last else None)
            after += self._world.rng.uniform(0.1, 8.0)

    def _throttled(self, seconds: float, then: Callable[[], None] | None) -> None:
        if seconds > 0.0:
            self._world.hold(seconds, self.link.life.number)
        if then is not None:
            then()
