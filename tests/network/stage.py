"""The provider as a table of cases has it: one loopback server on which every job plays a case of its own.

A job is known by the label that the client sends to loopback servers, its task by an id that holds the label. What
a case does to a POST, a poll or a download is an `Act`.
"""

from __future__ import annotations

import asyncio
import json
import re
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import quote, unquote

from tests.double import clip
from tests.raw_server import Peer, RawServer, Request, http

KEY = "rk_live_canary_network_0123456789"
CREDITS = 630


@dataclass(frozen=True, slots=True)
class Scene:
    """One call that an act answers.

    Attributes:
        label: the job's.
        task_id: the task's; `task_` and the label, and the number of the POST from the second on.
        url: of the server.
        head: the request, its body still on the wire.
        count: how often this job has made this kind of call, this one included.
    """

    label: str
    task_id: str
    url: str
    head: Request
    count: int

    @property
    def media(self) -> str:
        """Where the job's output is served."""
        return f"{self.url}/media/{quote(self.label)}.mp4"

    @property
    def clip(self) -> bytes:
        moov = struct.pack(">I4sI4s", 116, b"moov", 108, b"mvhd") + bytes(100)
        return clip(self.label, 600) + moov  # an index last: the file's end can be told even where no length was

    def task(self, status: str = "processing", **more: Any) -> dict[str, Any]:
        """The provider's own answer about the task."""
        return {"id": self.task_id, "model": "kling-3-0-turbo", "status": status, "created_at": 1, **more}

    def done(self, *urls: object) -> dict[str, Any]:
        """The answer to a poll of a task that is complete."""
        return self.task("completed", output={"video_urls": list(urls or [self.media])})


Act = Callable[[Peer, Scene], Awaitable[None]]
Data = bytes | Callable[[Scene], bytes]


def say(data: Data, then: str = "keep") -> Act:
    """Read the whole request and send `data`; then `keep` the connection, `close` or `reset` it, or `wait` until the
    client goes."""

    async def act(peer: Peer, scene: Scene) -> None:
        await peer.body(scene.head)
        await peer.send(data if isinstance(data, bytes) else data(scene))
        if then == "close":
            peer.writer.close()
        elif then == "reset":
            peer.reset()
        elif then == "wait":
            await peer.until_gone()

    return act


def drip(data: Data) -> Act:
    """Send `data` byte by byte, each in a segment of its own as far as the machine lets it."""

    async def act(peer: Peer, scene: Scene) -> None:
        await peer.body(scene.head)
        for byte in data if isinstance(data, bytes) else data(scene):
            await peer.send(bytes([byte]))
            await asyncio.sleep(0)

    return act


def turns(*acts: Act) -> Act:
    """The first act on the first call, and so on; the last one ever after."""

    async def act(peer: Peer, scene: Scene) -> None:
        await acts[min(scene.count, len(acts)) - 1](peer, scene)

    return act


created: Act = say(lambda scene: http(200, scene.task()))
completed: Act = say(lambda scene: http(200, scene.done()))
served: Act = say(lambda scene: http(200, scene.clip))


@dataclass(frozen=True, slots=True)
class Part:
    """What a job meets: at its POST, at its polls, at its downloads."""

    post: Act = created
    poll: Act = completed
    media: Act = served


class Stage:
    """Plays a part for each job, and counts.

    Attributes:
        calls: how often each job has made each kind of call: (label, `post`, `poll` or `media`).
        strange: requests for anything else; a POST on a used connection; the key sent to a download, or a call
            without it.
    """

    def __init__(
        self, parts: Mapping[str, Part], *, together: bool, first: Callable[[Peer], Awaitable[None]] | None = None
    ) -> None:
        """Args:
        parts: label -> what it meets.
        first: plays to the first connection instead, whoever makes it.
        together: answer nobody's first POST before everybody's has come. Then the breaker can't keep a case from
            being played: it stops new submissions, and all of them are on the wire.
        """
        self._parts = parts
        self._first = first
        self._waiting = set(parts) if together else set()
        self._all_here = asyncio.Event()
        if not together:
            self._all_here.set()
        self._server = RawServer(self._play)
        self.calls: Counter[tuple[str, str]] = Counter()
        self.strange: list[str] = []

    @property
    def environment(self) -> dict[str, str]:
        """What the command line is told."""
        return {"REAPI_BASE_URL": self._server.url, "REAPI_API_KEY": KEY}

    def posts(self, label: str) -> int:
        return self.calls[label, "post"]

    async def __aenter__(self) -> Stage:
        await self._server.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._server.__aexit__(kind, error, trace)

    def all_posts(self) -> dict[str, int]:
        """label -> POSTs, for those who have made any."""
        return {label: count for (label, kind), count in self.calls.items() if kind == "post"}

    @property
    def connections(self) -> int:
        return len(self._server.peers)

    async def _play(self, peer: Peer) -> None:
        if self._first is not None and self.connections == 1:
            await self._first(peer)
            return
        used = False
        while (head := await peer.head()) is not None:
            kind, label, task_id = _who(head)
            part = self._parts.get(label)
            if part is None or (kind == "media") == ("authorization" in head.headers) or (used and kind == "post"):
                self.strange.append(f"{head.method} {head.target}")
                return
            used = True
            self.calls[label, kind] += 1
            count = self.calls[label, kind]
            if kind == "post":
                task_id = f"task_{label}" if count == 1 else f"task_{label}.{count}"
                self._waiting.discard(label)
                if not self._waiting:
                    self._all_here.set()
                await self._all_here.wait()
            act: Act = getattr(part, kind)
            await act(peer, Scene(label, task_id, self._server.url, head, count))
            if peer.writer.is_closing():
                return


_POST = "/api/v1/videos/generations"
_POLL = re.compile(r"/api/v1/tasks/(task_(.+?)(?:\.[0-9]+)?)")
_MEDIA = re.compile(r"/media/([^/?]+)\.mp4(?:\?.*)?")


def _who(head: Request) -> tuple[str, str, str]:
    """What a request is, whose, and about which task; empty where it is nothing that the provider has."""
    if head.method == "POST" and head.target == _POST:
        return "post", head.headers.get("x-batchrunner-job", ""), ""
    if head.method == "GET" and (poll := _POLL.fullmatch(head.target)):
        return "poll", poll[2], poll[1]
    if head.method == "GET" and (media := _MEDIA.fullmatch(head.target)):
        return "media", unquote(media[1]), ""
    return "", "", ""


def manifest(shots: list[str], *, in_flight: int = 200, more: str = "") -> str:
    """A manifest of a job for each of these shots, at 630 credits; the rate is no obstacle."""
    lines = [
        "version: 1",
        "batch: night",
        "defaults: {model: kling-3-0-turbo, duration: 5}",
        f"limits: {{submits_per_minute: 60000, in_flight: {in_flight}}}",
        "output: {dir: out}",
        *([more] if more else []),
        "shots:",
        *(f"  - {{id: {json.dumps(shot)}, prompt: a dog}}" for shot in shots),
    ]
    return "\n".join(lines) + "\n"
