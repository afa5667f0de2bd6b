"""A service with limits that nobody told, in memory and on virtual time, and the oracle that knows them.

The provider is fake, at the protocol that the engine knows providers by; the engine, the ledger and the files are real.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import random
import types
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from batchrunner.core import events as e
from batchrunner.core.adaptive import Learned
from batchrunner.core.job import JobSpec, Problem, RetryBudget, State
from batchrunner.core.polling import Latencies
from batchrunner.engine.clock import Dice
from batchrunner.engine.control import Control, Stop
from batchrunner.engine.ports import Deps, Settings, Tally, Work
from batchrunner.engine.runner import Runner
from batchrunner.engine.spool import Spool
from batchrunner.ledger.connection import open_writer
from batchrunner.ledger.record import BatchSpec
from batchrunner.ledger.store import Ledger
from batchrunner.ledger.writer import InlineDatabase
from batchrunner.providers.base import Balance, BeforeSend, CancelAnswer, Unavailable
from batchrunner.providers.disk import Steps, at_once
from batchrunner.providers.part import Fetched
from tests.simulation.loop import Life, SimLoop, Timeline
from tests.support import spec

T = TypeVar("T")

START = 1_800_000_000.0
PATIENCE = 7 * 86400.0
ROUND_TRIP = (0.05, 0.3)
"""Seconds that a call takes, there and back."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a service allows. Rates are calls a second.

    Attributes:
        rate: POSTs a second; a bucket that holds one second's worth, or one.
        slots: tasks that are worked on at once.
        queues: tasks beyond `slots` are accepted and wait; otherwise they are refused.
        polls: GETs a second, in a bucket of their own.
        shared: GETs take from the POSTs' bucket.
        retry_after: the header of a 429 in seconds, None for none.
        window: the rate counts in fixed windows of so many seconds instead of a bucket; 0 for a bucket.
        changes: (virtual seconds, factor): from then on rate and slots are so many times what they were at first.
    """

    rate: float = math.inf
    slots: int = 10**9
    queues: bool = False
    polls: float = math.inf
    shared: bool = False
    retry_after: float | None = None
    window: float = 0.0
    changes: tuple[tuple[float, float], ...] = ()

    def factor(self, at: float) -> float:
        found = 1.0
        for since, factor in self.changes:
            if at >= since:
                found = factor
        return found


class Bucket:
    """A token bucket of one second's worth, or a fixed window."""

    def __init__(self, rate: float, limits: Limits) -> None:
        self._rate = rate
        self._limits = limits
        self._tokens = max(1.0, rate)
        self._at = 0.0

    def take(self, at: float) -> float:
        """0 where a call at `at` is allowed, otherwise seconds until one would be."""
        if math.isinf(self._rate):
            return 0.0
        rate, window = self._rate * self._limits.factor(at), self._limits.window
        if window:
            if at // window > self._at // window:
                self._tokens = rate * window
        else:
            self._tokens = min(max(1.0, rate), self._tokens + (at - self._at) * rate)
        self._at = at
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return window - at % window if window else (1.0 - self._tokens) / rate


@dataclass(slots=True)
class Task:
    id: str
    took: float
    asked: float = 0.0
    ends: float = math.inf
    seen: float = math.inf
    polls: int = 0


@dataclass(slots=True)
class Service:
    """The provider. `took` says how long the n-th job's task takes once it is worked on."""

    timeline: Timeline
    limits: Limits
    took: Callable[[str], float]
    rng: random.Random
    name: str = "reapi"
    origin: str = "https://reapi.ai"
    tasks: dict[str, Task] = field(default_factory=dict)
    posts: list[float] = field(default_factory=list)
    refused: int = 0
    polls: list[float] = field(default_factory=list)
    polls_refused: int = 0
    most: int = 0
    last_end: float = 0.0
    _begin: float = 0.0
    _working: list[tuple[float, str]] = field(default_factory=list)
    _waiting: deque[Task] = field(default_factory=deque)
    _post_bucket: Bucket = field(init=False)
    _poll_bucket: Bucket = field(init=False)

    def __post_init__(self) -> None:
        self._begin = self.timeline.now
        self._post_bucket = Bucket(self.limits.rate, self.limits)
        self._poll_bucket = self._post_bucket if self.limits.shared else Bucket(self.limits.polls, self.limits)

    @property
    def now(self) -> float:
        return self.timeline.now - self._begin

    async def submit(
        self, model: str, request: Mapping[str, Any], before_send: BeforeSend, *, label: str = ""
    ) -> e.SubmitAnswer:
        await before_send()
        back = await self._there()
        self._work()
        self.posts.append(self.now)
        wait = self._post_bucket.take(self.now)
        full = len(self._working) >= self._slots and not self.limits.queues
        answer: e.SubmitAnswer
        if wait or full:
            self.refused += 1
            answer = self._throttled()
        else:
            task = Task(f"task_{self._begin:.0f}_{len(self.tasks)}", self.took(label), self.now)
            self.tasks[task.id] = task
            self._waiting.append(task)
            self._work()
            self.most = max(self.most, len(self._working) + len(self._waiting))
            answer = e.Accepted(task.id)
        await asyncio.sleep(back)
        return answer

    async def poll(self, task_id: str, model: str = "") -> e.PollAnswer:
        back = await self._there()
        self._work()
        self.polls.append(self.now)
        task = self.tasks[task_id]
        task.polls += 1
        answer: e.PollAnswer = e.StillRunning()
        if self._poll_bucket.take(self.now):
            self.polls_refused += 1
            answer = self._throttled()
        elif self.now >= task.ends:
            task.seen = self.now
            answer = e.Completed((f"https://cdn.reapi.ai/{task_id}.mp4",))
        await asyncio.sleep(back)
        return answer

    @property
    def loopback(self) -> bool:
        return False

    async def cancel(self, task_id: str, model: str = "") -> CancelAnswer:
        return Unavailable(Problem("it can't", "no_cancel_call"))

    async def balance(self) -> Balance:
        return Balance(10**9)

    async def aclose(self) -> None:
        return None

    async def _there(self) -> float:
        """Wait until the call has arrived; returns how long the answer takes."""
        trip = self.rng.uniform(*ROUND_TRIP)
        await asyncio.sleep(trip / 2.0)
        return trip / 2.0

    @property
    def _slots(self) -> int:
        return max(1, int(self.limits.slots * self.limits.factor(self.now)))

    def _throttled(self) -> e.Throttled:
        return e.Throttled(Problem("Rate limit exceeded", 50001, 429), self.limits.retry_after)

    def _work(self) -> None:
        """Let time pass at the service."""
        while self._working and self._working[0][0] <= self.now:
            at, _ = heapq.heappop(self._working)
            if self._waiting and len(self._working) < self._slots:
                self._start(at)
        while self._waiting and len(self._working) < self._slots:
            self._start(self.now)

    def _start(self, at: float) -> None:
        task = self._waiting.popleft()
        task.ends = at + task.took
        self.last_end = max(self.last_end, task.ends)
        heapq.heappush(self._working, (task.ends, task.id))


def oracle(limits: Limits, took: Sequence[float]) -> float:
    """Seconds that the jobs take in this order for somebody who knows the limits, sees each end at once, asks once
    for each task, and whose calls take no time."""
    bucket = Bucket(limits.rate / 2.0 if limits.shared else limits.rate, limits)
    working: list[float] = []
    at = end = 0.0
    for seconds in took:
        while (wait := bucket.take(at)) > 0.0:
            at += wait + 1e-9
        while len(working) >= max(1, int(limits.slots * limits.factor(at))):
            at = max(at, heapq.heappop(working))
        heapq.heappush(working, at + seconds)
        end = max(end, at + seconds)
    return end


class Fetcher:
    """Downloads that take no time and always work."""

    async def fetch(
        self,
        url: str,
        part: Path,
        *,
        root: Path,
        kind: str,
        then: Callable[[Fetched], Steps[T]],
        apart: bool,
        room: AbstractAsyncContextManager[object],
    ) -> T:
        async with room:
            part.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(b"clip")
        return at_once(then(Fetched(4, "0" * 64, ".mp4", "MP4")))


class VirtualClock:
    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._begin = timeline.now

    def wall(self) -> float:
        return START + self._timeline.now - self._begin

    def monotonic(self) -> float:
        return self._timeline.now

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass(slots=True)
class Night:
    """How a run went."""

    service: Service
    makespan: float
    states: dict[str, int]
    learned: Learned
    events: list[tuple[float, str, dict[str, Any]]]
    began_work: float = 0.0
    """When the engine began, on the timeline."""
    stop: Stop | None = None
    """Why it stopped early."""

    @property
    def refused(self) -> float:
        """Share of the POSTs that were answered with 429."""
        return self.service.refused / len(self.service.posts)

    @property
    def polls_a_task(self) -> float:
        return len(self.service.polls) / len(self.service.tasks)

    @property
    def delays(self) -> list[float]:
        """For each task, seconds from its end to the poll that saw it."""
        return [t.seen - t.ends for t in self.service.tasks.values()]


class World:
    """A ledger in a folder, and nights over it: the same jobs go on in the next night where some are left."""

    def __init__(self, folder: Path, seed: int = 1) -> None:
        self.folder = folder
        self.timeline = Timeline()
        self.clock = VirtualClock(self.timeline)
        self.rng = random.Random(f"pacing {seed}")

    def night(
        self,
        jobs: Sequence[JobSpec],
        service: Service,
        settings: Settings,
        *,
        batch: str = "night",
        stop_after: float = math.inf,
        prepare: Callable[[Ledger, Work], Any] | None = None,
    ) -> Night:
        """One run to its end, or until `stop_after` virtual seconds, when it is killed."""
        host = types.SimpleNamespace(rng=self.rng, began=lambda what: None)
        life = Life(1)
        loop = SimLoop(self.timeline, cast("Any", host), life, patience=PATIENCE)
        try:
            night = loop.run_until_complete(self._run(jobs, service, settings, batch, stop_after, prepare))
            loop.run_until_complete(loop.shutdown_asyncgens())
            assert loop.complaints == []
            return night
        finally:
            loop.close()

    def jobs(self, count: int, batch: str = "night", **words: Any) -> list[JobSpec]:
        return [spec(f"{batch}{n}", credits=1, **words) for n in range(count)]

    async def _run(
        self,
        jobs: Sequence[JobSpec],
        service: Service,
        settings: Settings,
        batch: str,
        stop_after: float,
        prepare: Callable[[Ledger, Work], Any] | None,
    ) -> Night:
        path = self.folder / "night.db"
        connection = open_writer(path)
        connection.execute("PRAGMA synchronous = 0")  # no power is lost here
        ledger = Ledger(InlineDatabase(connection), self.clock.wall)
        spool = Spool(path)
        begin = self.timeline.now
        events: list[tuple[float, str, dict[str, Any]]] = []
        try:
            await ledger.record(_batch(batch, self.folder / "out", settings), jobs)
            await ledger.bind_origin("reapi", "here")
            work = Work([b for b in await ledger.batches() if b.name == batch])
            if prepare is not None:
                await prepare(ledger, work)
                await ledger.start_run([])  # what it has left to be written behind is written
            dice = Dice(self.rng.randrange(1 << 30))
            control = Control(self.clock, dice, lambda reason, message: None)
            deps = Deps(
                ledger=ledger,
                spool=spool,
                clock=self.clock,
                observe=lambda name, job=None, /, **data: _note(events, self.timeline.now - begin, name, data),
                tally=Tally({State.PENDING: len(jobs)}),
                provider=service,
                fetcher=cast("Any", Fetcher()),
                dice=dice,
                output_kind=lambda model: "video",
            )
            latencies = Latencies()
            for model, seconds, took in await ledger.latencies():
                latencies.add(model, seconds, took)
            now, wall = self.clock.monotonic(), self.clock.wall()
            sent = [now - (wall - at) for at in await ledger.claims(wall - 3600.0)]
            begin = self.timeline.now
            runner = Runner(deps, control, settings, work, latencies, await ledger.pace("reapi"), sent)
            if math.isfinite(stop_after):
                asyncio.get_running_loop().call_later(stop_after, control.give_up)
            outcome = await runner.run()
            rows = await ledger.query(lambda c: c.execute("SELECT state, count(*) FROM job GROUP BY state").fetchall())
            ends = [t.seen for t in service.tasks.values() if math.isfinite(t.seen)]
            makespan = max(ends, default=0.0)
            return Night(
                service, makespan, {r[0]: r[1] for r in rows}, await _settled(ledger), events, begin, outcome.stop
            )
        finally:
            await ledger.close()
            spool.close()


async def _settled(ledger: Ledger) -> Learned:
    """What the ledger keeps when everything that was written behind is written."""
    await ledger.start_run([])
    return await ledger.pace("reapi")


def _note(into: list[tuple[float, str, dict[str, Any]]], at: float, name: str, data: dict[str, Any]) -> None:
    if name in {"limits", "hold", "stopping", "grace_over"}:
        into.append((at, name, data))


def _batch(name: str, folder: Path, settings: Settings) -> BatchSpec:
    return BatchSpec(
        name=name,
        provider="reapi",
        manifest="/m/night.yaml",
        profile=None,
        output_dir=str(folder / name),
        max_credits=None,
        submits_per_minute=settings.submits_per_minute,
        in_flight=settings.in_flight,
        retry=RetryBudget(),
    )


def lognormal(rng: random.Random, count: int, median: float = 60.0, sigma: float = 0.5) -> list[float]:
    """How long the n-th job's task takes."""
    return [rng.lognormvariate(math.log(median), sigma) for _ in range(count)]
