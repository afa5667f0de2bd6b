"""A provider that is never the bottleneck: the calls of one task, hand-parsed, in a process of its own.

The simulator keeps books, on disk, and would be measured along with what it serves. This keeps what a benchmark asks
about in memory and nothing else. How it was checked that it is fast enough stands in every result: its own share of a
core while it served (`double CPU`), and its capacity, measured with `wrk` (`python -m benchmarks.capacity`).

    python -m benchmarks.provider_double [--median 60 --sigma 0.5] [--rate 7] [--slots 40 --queue] [--file-bytes 400]

prints its URL and serves until its standard input ends. `POST /_double/reset` with settings as JSON starts anew,
`POST /_double/mark` only forgets the counts, `GET /_double/counts` tells them. All times are CLOCK_MONOTONIC, which on
Linux is the same in every process.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import math
import os
import random
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from typing import Any, cast

import orjson

from batchrunner.simulator.tiny import mp4

_TASKS = b"GET /api/v1/tasks/task_"
_MEDIA = b"GET /media/tasks/task_"
_CREATE = b"POST /api/v1/videos/generations "
_BALANCE = b"GET /api/v1/balance "
_OWN = b"/_double/"


@dataclass(slots=True)
class Settings:
    """How the provider behaves.

    Attributes:
        median: seconds that a task takes (lognormal); 0: it is done when it is accepted.
        sigma: deviation of ln(seconds).
        factor: what the median is multiplied with; a truth that drifts away from what was learned.
        stragglers: share of tasks that take ten times as long.
        rate: POSTs a second that are accepted, with a burst of a second's worth; 0: any number.
        slots: tasks that run at once; 0: any number.
        queue: what happens beyond `slots`: accepted and started later, or refused with a 429.
        retry_after: seconds in the 429's Retry-After; 0: no such header.
        file_bytes: size of every output, at least.
        tasks: tasks that are there already, with durations that began now.
        seed: of the generator.
    """

    median: float = 0.0
    sigma: float = 0.5
    factor: float = 1.0
    stragglers: float = 0.0
    rate: float = 0.0
    slots: int = 0
    queue: bool = False
    retry_after: int = 0
    file_bytes: int = 400
    tasks: int = 0
    seed: int = 1


@dataclass(slots=True)
class Counts:
    """What was asked of it since the last `reset` or `mark`."""

    posts: int = 0
    accepted: int = 0
    throttled: int = 0
    polls: int = 0
    early_polls: int = 0
    downloads: int = 0
    unknown: int = 0
    leaked_keys: int = 0
    connections: int = 0
    peak_running: int = 0
    first_post: float = 0.0
    last_post: float = 0.0
    first_poll: float = 0.0
    last_call: float = 0.0
    began: float = 0.0
    cpu_began: float = 0.0
    delays: list[float] = field(default_factory=list)
    polls_in_second: Counter[int] = field(default_factory=Counter)


class Provider:
    """Tasks, and the clock at which they end."""

    def __init__(self, settings: Settings) -> None:
        self.url = ""
        self.reset(settings)

    def reset(self, settings: Settings) -> None:
        self.settings = settings
        self._dice = random.Random(settings.seed)
        now = time.monotonic()
        self._ready_at = [now + self._duration() for _ in range(settings.tasks)]
        self._seen = bytearray(settings.tasks)
        self._running: list[float] = []
        self._tat = 0.0
        self._body = mp4("benchmark", 3) if settings.file_bytes <= 0 else padded(settings.file_bytes)
        self._file = (
            b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: %d\r\n\r\n" % len(self._body)
        ) + self._body
        self.mark()

    def mark(self) -> None:
        self.counts = Counts(began=time.monotonic(), cpu_began=time.process_time())

    def told(self) -> dict[str, Any]:
        """The counts, as JSON can hold them."""
        counts, now = self.counts, time.monotonic()
        delays = sorted(counts.delays)
        found = {f.name: getattr(counts, f.name) for f in fields(counts) if f.name not in {"delays", "polls_in_second"}}
        return found | {
            "now": now,
            "cpu": time.process_time() - counts.cpu_began,
            "tasks": len(self._ready_at),
            "delay_mean": sum(delays) / len(delays) if delays else 0.0,
            "delay_p95": delays[int(len(delays) * 0.95)] if delays else 0.0,
            "most_polls_in_a_second": max(counts.polls_in_second.values(), default=0),
            "settings": asdict(self.settings),
        }

    # --- The calls ---------------------------------------------------------------------------------------

    def submit(self, body: bytes) -> bytes:
        counts, settings, now = self.counts, self.settings, time.monotonic()
        counts.posts += 1
        counts.first_post = counts.first_post or now
        counts.last_post = now
        model = orjson.loads(body)["model"]
        running = self._running
        while running and running[0] <= now:
            heapq.heappop(running)
        if settings.rate and now < self._tat - 1.0:  # a burst of one second's worth
            return self._throttled()
        start = now
        if settings.slots and len(running) >= settings.slots:
            if not settings.queue:
                return self._throttled()
            start = heapq.heappop(running)
        if settings.rate:
            self._tat = max(now, self._tat) + 1.0 / settings.rate
        ready_at = start + self._duration()
        if settings.median:
            heapq.heappush(running, ready_at)
            counts.peak_running = max(counts.peak_running, len(running))
        number = len(self._ready_at)
        self._ready_at.append(ready_at)
        self._seen.append(0)
        counts.accepted += 1
        return _answer(b'{"id":"task_%026d","model":"%s","status":"processing"}' % (number, model.encode()))

    def _duration(self) -> float:
        settings = self.settings
        if not settings.median:
            return 0.0
        took = settings.median * settings.factor * math.exp(self._dice.gauss(0.0, settings.sigma))
        return took * 10.0 if settings.stragglers and self._dice.random() < settings.stragglers else took

    def _throttled(self) -> bytes:
        self.counts.throttled += 1
        after = b"Retry-After: %d\r\n" % self.settings.retry_after if self.settings.retry_after else b""
        return _answer(b'{"error":{"code":50001,"message":"too many requests"}}', b"429 Too Many Requests", after)

    def poll(self, number: int) -> bytes:
        counts, now = self.counts, time.monotonic()
        counts.polls += 1
        counts.first_poll = counts.first_poll or now
        counts.polls_in_second[int(now)] += 1
        if number >= len(self._ready_at):
            counts.unknown += 1
            return _answer(b'{"error":{"code":40001,"message":"no such task"}}', b"404 Not Found")
        if now < self._ready_at[number]:
            counts.early_polls += 1
            return _answer(b'{"id":"task_%026d","model":"m","status":"processing"}' % number)
        if not self._seen[number]:
            self._seen[number] = 1
            counts.delays.append(now - self._ready_at[number])
        return _answer(
            b'{"id":"task_%026d","model":"m","status":"completed","output":{"video_urls":'
            b'["%s/media/tasks/task_%026d/0.mp4"]},"usage":{"credits":100}}' % (number, self.url.encode(), number)
        )

    def file(self) -> bytes:
        self.counts.downloads += 1
        return self._file

    def own(self, path: bytes, body: bytes) -> bytes:
        """The benchmark's own calls."""
        if path == b"/_double/reset":
            self.reset(Settings(**orjson.loads(body or b"{}")))
        elif path == b"/_double/mark":
            self.mark()
        return _answer(orjson.dumps(self.told()))


def _answer(body: bytes, status: bytes = b"200 OK", extra: bytes = b"") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n%s" % (
        status,
        len(body),
        extra,
        body,
    )


def padded(size: int) -> bytes:
    """A valid MP4 of that size, or a little more where it would be too small for one."""
    clip = mp4("benchmark", 3)
    rest = size - len(clip)
    if rest < 8:
        return clip
    return clip + rest.to_bytes(4, "big") + b"free" + os.urandom(rest - 8)


class Connection(asyncio.Protocol):
    """One connection: requests in, answers out, in their order; pipelining works."""

    __slots__ = ("_held", "_provider", "_transport")

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._held = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass
        self._provider.counts.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's name
        self._transport = None

    def data_received(self, data: bytes) -> None:
        if self._held:
            data = self._held + data
            self._held = b""
        answers: list[bytes] = []
        close = False
        while data and not close:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                break
            end += 4
            if data.startswith(b"GET "):
                head, body, rest = data[:end], b"", data[end:]
            else:
                length = _content_length(data, end)
                if len(data) < end + length:
                    break
                head, body, rest = data[:end], data[end : end + length], data[end + length :]
            answers.append(self._serve(head, body))
            close = b"onnection: close" in head
            data = rest
        self._held = data
        if answers and self._transport is not None:
            self._transport.writelines(answers)
            self._provider.counts.last_call = time.monotonic()
            if close:
                self._transport.close()

    def _serve(self, head: bytes, body: bytes) -> bytes:
        provider = self._provider
        if head.startswith(_TASKS):
            return provider.poll(int(head[23:49]))
        if head.startswith(_CREATE):
            return provider.submit(body)
        if head.startswith(_MEDIA):
            if b"Authorization" in head:
                provider.counts.leaked_keys += 1
            return provider.file()
        if head.startswith(_BALANCE):
            return _answer(b'{"balance":1000000000}')
        path = head.split(b" ", 2)[1]
        if path.startswith(_OWN):
            return provider.own(path, body)
        provider.counts.unknown += 1
        return _answer(b'{"error":{"code":40002,"message":"no such endpoint"}}', b"404 Not Found")


def _content_length(data: bytes, end: int) -> int:
    for name in (b"\r\nContent-Length: ", b"\r\ncontent-length: "):
        at = data.find(name, 0, end)
        if at >= 0:
            at += len(name)
            return int(data[at : data.index(b"\r", at)])
    return 0


async def serve(settings: Settings) -> None:
    """Listen on loopback until standard input ends."""
    loop = asyncio.get_running_loop()
    provider = Provider(settings)
    server = await loop.create_server(lambda: Connection(provider), "127.0.0.1", 0, backlog=4096)
    port = server.sockets[0].getsockname()[1]
    provider.url = f"http://127.0.0.1:{port}"
    print(provider.url, flush=True)
    over = asyncio.Event()

    def heard() -> None:
        if not os.read(sys.stdin.fileno(), 1024):
            loop.remove_reader(sys.stdin.fileno())
            over.set()

    loop.add_reader(sys.stdin.fileno(), heard)
    await over.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.provider_double")
    for setting in fields(Settings):
        name, default = setting.name.replace("_", "-"), getattr(Settings(), setting.name)
        if isinstance(default, bool):
            parser.add_argument(f"--{name}", action="store_true")
        else:
            parser.add_argument(f"--{name}", type=type(default), default=default)
    settings = Settings(**vars(parser.parse_args()))
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(settings))
    else:
        uvloop.run(serve(settings))


if __name__ == "__main__":
    main()
