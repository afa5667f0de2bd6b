"""Polling: one heap of due times, one dispatcher, a budget of polls shared by everything in flight."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from ..core import events as e
from ..core import retry
from ..core.job import Job, Problem, Running
from ..core.pacing import backoff
from ..core.polling import Latencies, interval
from ..ledger.errors import Conflict, WriteFailed
from ..ledger.store import Schedule
from .control import Stop, Switches
from .pacer import Pacer
from .ports import Deps, Settings
from .slots import Slots

LEDGER_PAUSE = 5.0
"""Seconds until a task is looked at again whose news could not be recorded."""

TICK = 0.001
"""Seconds that the poller sleeps at least. uvloop's timers count milliseconds, and less than half of one is none: a
thousand polls a second were waited for by a loop that turned without rest. What is due by then goes out together."""

MAX_RECORD_FAILURES = 12
"""News in a row that could not be recorded before the run ends: about a minute."""


@dataclass(slots=True)
class Watched:
    """A running task under watch.

    Attributes:
        job: the job, in state running.
        since: monotonic seconds at which the task began, as far as is known.
        alive: monotonic seconds at which it was last known to run.
        measured: whether `since` is exact enough to learn a latency from.
        polls: polls made so far.
        missing_since: monotonic time of the first of the 404s in a row; None where the last answer was another.
        failures: polls in a row that failed.
        failing_since: monotonic time of the first of them.
        status: the last undocumented status word that was shown to the user.
        share: of the poll budget that its next poll was planned with.
        asked_at: monotonic seconds at which it was last asked for.
    """

    job: Job
    since: float
    alive: float
    measured: bool
    polls: int = 0
    missing_since: float | None = None
    failures: int = 0
    failing_since: float = 0.0
    status: str = ""
    share: float = 0.0
    asked_at: float = 0.0


class Poller:
    """Watches every running task until it ends."""

    def __init__(
        self,
        deps: Deps,
        control: Switches,
        slots: Slots,
        settings: Settings,
        latencies: Latencies,
        on_completed: Callable[[Job], None],
        on_ended: Callable[[], None],
        on_idle: Callable[[], None],
        pacer: Pacer,
    ) -> None:
        self._deps = deps
        self._control = control
        self._slots = slots
        self._settings = settings
        self._latencies = latencies
        self._on_completed = on_completed
        self._on_ended = on_ended
        self._on_idle = on_idle
        self._wake = control.signal()
        self._pacer = pacer
        self._heap: list[tuple[float, int, Watched]] = []
        self._order = itertools.count()
        self._asking: set[asyncio.Task[None]] = set()
        self._schedules: dict[int, Schedule] = {}
        self._took: list[tuple[str, int | None, float]] = []
        self._record_failures = 0
        self._throttled = 0
        self._throttled_at = 0.0
        self.left_behind = 0
        """Tasks whose polls went on failing; the next run goes on with them."""

    @property
    def idle(self) -> bool:
        """Whether no task is running, or none can be asked after any more."""
        return (not self._heap or self._control.ended) and not self._asking

    def watch(self, job: Job) -> None:
        """Watch a task that was just accepted."""
        now = self._deps.clock.monotonic()
        watched = Watched(job, now, now, measured=True)
        self._plan(watched, now + interval(self._pacer.policy, self._latencies.of(job.model, job.seconds), 0.0))

    def resume(self, job: Job, schedule: Schedule) -> None:
        """Watch a task of an earlier run, at the time that was planned; the poll budget spreads what is overdue."""
        wall, now = self._deps.clock.wall(), self._deps.clock.monotonic()
        age = max(0.0, wall - schedule.since)
        wait = min(max(0.0, schedule.next_poll_at - wall), self._settings.poll.longest)
        self._plan(Watched(job, now - age, now - age, measured=False, polls=schedule.polls), now + wait)

    def forget(self) -> None:
        """Watch nothing any more, but for what is being asked after just now."""
        for _, _, watched in self._heap:
            self._pacer.unplanned(watched.share)
            self._slots.give_back(watched.job.model)
        self._heap.clear()

    def flush(self) -> None:
        """Write behind when to poll next, how long tasks took, and how often polls were too much for the service."""
        if self._schedules:
            self._deps.ledger.save_schedules(list(self._schedules.values()))
            self._schedules = {}
        if self._took:
            self._deps.ledger.save_latencies(self._took)
            self._took = []
        if self._throttled:
            self._deps.ledger.save_throttled(self._throttled_at, self._throttled)
            self._throttled = 0

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            await self._wake.wait(self._step())

    async def close(self) -> None:
        """Cancel the polls on the wire: they are free, and safe to repeat."""
        for task in self._asking:
            task.cancel()
        if self._asking:
            await asyncio.wait(self._asking)

    def _step(self) -> float:
        """Send every poll that is due; seconds until the next one may be."""
        while self._heap and not self._control.ended:
            if len(self._asking) >= self._settings.max_polls:
                return math.inf
            now = self._deps.clock.monotonic()
            wait = max(self._heap[0][0] - now, self._control.hold(), self._pacer.poll_delay(now))
            if wait > 0.0:
                return max(wait, TICK)
            watched = heapq.heappop(self._heap)[2]
            self._pacer.poll_taken(now, watched.share)
            watched.asked_at = now
            task = asyncio.get_running_loop().create_task(self._poll(watched), name=f"poll {watched.job.key}")
            self._asking.add(task)
            task.add_done_callback(self._asked)
        return math.inf

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._asking.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._control.bug(error)
        if len(self._asking) == self._settings.max_polls - 1:
            self._wake.notify()
        if self.idle:
            self._on_idle()

    def _plan(self, watched: Watched, due: float) -> None:
        heapq.heappush(self._heap, (due, next(self._order), watched))
        now = self._deps.clock.monotonic()
        watched.share = self._pacer.planned(due - now)
        wall = self._deps.clock.wall() + due - now
        self._schedules[watched.job.id] = Schedule(watched.job.id, wall, watched.polls)
        if self._heap[0][2] is watched:
            self._wake.notify()

    def _again(self, watched: Watched, at_least: float = 0.0) -> None:
        """Look again when news is likeliest."""
        job, now = watched.job, self._deps.clock.monotonic()
        wait = interval(self._pacer.policy, self._latencies.of(job.model, job.seconds), now - watched.since)
        self._plan(watched, now + max(wait, at_least))

    async def _poll(self, watched: Watched) -> None:
        fact = watched.job.fact
        assert isinstance(fact, Running)  # noqa: S101  only running jobs are watched
        self._deps.crash("poll.sent")
        answer = await self._deps.provider.poll(fact.task_id, watched.job.model)
        self._deps.crash("poll.answered")
        watched.polls += 1
        self._pacer.polled(answer)
        try:
            await self._heed(watched, answer)
            self._record_failures = 0
        except WriteFailed as failed:
            self._control.halt(Stop.LEDGER, str(failed))
            self._record_failures += 1
            if self._record_failures >= MAX_RECORD_FAILURES:
                self._control.give_up()
            self._plan(watched, self._deps.clock.monotonic() + LEDGER_PAUSE)
        except Conflict:
            if self._deps.moved is None:
                raise
            self._release(watched)
            self._deps.moved(watched.job)
        self._deps.crash("poll.recorded")

    async def _heed(self, watched: Watched, answer: e.PollAnswer) -> None:
        if isinstance(answer, e.PollFailed) and answer.problem.http_status is None:
            self._control.silent(answer.problem.message)
        else:
            self._control.heard()
        if not isinstance(answer, e.Missing):
            watched.missing_since = None
        if not isinstance(answer, e.PollFailed):
            watched.failures = 0
        match answer:
            case e.StillRunning(status=status, known=known):
                watched.alive = self._deps.clock.monotonic()
                if not known and status != watched.status:
                    watched.status = status
                    self._deps.observe("unknown_status", watched.job, status=status)
                self._again(watched)
            case e.Completed():
                await self._completed(watched, answer)
            case e.TaskFailed():
                await self._failed(watched, answer)
            case e.Missing():
                await self._missing(watched, answer)
            case e.Throttled(retry_after=retry_after):
                wait = self._control.throttled(retry_after)
                self._pacer.poll_throttled(watched.asked_at, wait)
                wall = self._deps.clock.wall()
                self._deps.ledger.save_hold(watched.job.provider, wall + wait)
                self._throttled_at = self._throttled_at if self._throttled else wall
                self._throttled += 1
                self._deps.observe("hold", seconds=round(wait, 3))
                self._again(watched, wait)
            case e.Refused(reason=reason, problem=problem):
                stop = Stop.CREDENTIALS if reason is e.Refusal.CREDENTIALS else Stop.CREDIT
                self._control.halt(stop, problem.message)
                self._again(watched)
            case e.PollFailed(problem=problem):
                self._poll_failed(watched, problem)
            case _:
                assert_never(answer)

    async def _completed(self, watched: Watched, answer: e.Completed) -> None:
        # It ended between two looks. To learn from the second one alone would feed on itself: late looks make long
        # times, which make later looks.
        took = (watched.alive + self._deps.clock.monotonic()) / 2.0 - watched.since
        job = await self._deps.advance(watched.job, answer)
        if watched.measured:
            self._latencies.add(job.model, job.seconds, took)
            self._took.append((job.model, job.seconds, took))
        self._release(watched, took if watched.measured else None)
        self._on_completed(job)

    async def _failed(self, watched: Watched, answer: e.TaskFailed) -> None:
        clock = self._deps.clock
        await self._deps.advance(
            watched.job, retry.decide(watched.job, answer, clock.wall(), self._settings.retry_delay)
        )
        self._release(watched)

    async def _missing(self, watched: Watched, answer: e.Missing) -> None:
        now = self._deps.clock.monotonic()
        if watched.missing_since is None:
            watched.missing_since = now
        if now - watched.missing_since >= self._settings.lost_after:
            await self._deps.advance(watched.job, e.Vanished(answer.problem))
            self._release(watched)
        else:
            self._again(watched)

    def _poll_failed(self, watched: Watched, problem: Problem) -> None:
        """Look again, or leave the task to the next run: a run ends (P4), whatever one task's answers are."""
        now = self._deps.clock.monotonic()
        if not watched.failures:
            watched.failing_since = now
        watched.failures += 1
        error = {"code": problem.code, "message": problem.message, "request_id": problem.request_id}
        if now - watched.failing_since < self._settings.poll_patience:
            self._deps.observe("poll_failed", watched.job, error=error)
            self._again(watched, backoff(watched.failures, self._deps.dice(), self._settings.retry_delay))
        else:
            self.left_behind += 1
            self._deps.observe("left_behind", watched.job, error=error)
            self._release(watched)

    def _release(self, watched: Watched, took: float | None = None) -> None:
        self._schedules.pop(watched.job.id, None)
        self._slots.give_back(watched.job.model)
        self._pacer.ended(watched.job, took)
        self._on_ended()
