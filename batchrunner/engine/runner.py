"""One run: recover, then submit, poll and download side by side until nothing is left or something stops it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from ..core.adaptive import Learned
from ..core.eta import Eta, by_latency, by_throughput
from ..core.events import Event
from ..core.job import IN_FLIGHT, Downloading, Job, State
from ..core.pacing import Gcra
from ..core.polling import Latencies
from ..core.words import Cancel, Word
from ..ledger.errors import WriteFailed
from .account import Account, Common, Share, together
from .control import Control, Stop
from .download import Downloader
from .feed import Feed
from .ports import Books, Deps, Settings, Work
from .slots import Allowance, Total
from .words import Done, speak

TOGETHER = 200
"""Tasks of earlier runs that are taken up without a look at anything else: some milliseconds."""

THROUGHPUT_WINDOW = 120.0
"""Seconds over which the rate of finished jobs is measured for the ETA."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: why it stopped early, None where it did not; what it leaves to the next one."""

    stop: Stop | None
    message: str
    left_behind: int


class Runner:
    """A run over some batches. Made and used once."""

    def __init__(
        self,
        deps: Deps,
        control: Control,
        settings: Settings,
        work: Work,
        latencies: Latencies,
        known: Learned = Learned(),  # noqa: B008  frozen
        sent: Sequence[float] = (),
        feed: Feed | None = None,
        *,
        chained: bool = False,
        shares: Sequence[Share] = (),
    ) -> None:
        """Args that say little by their names:
        deps: the first account's, and what all accounts have in common.
        known, sent: of the one account.
        shares: the accounts, where there are several; `known` is then each one's own.
        """
        self.control = control
        self._deps = deps
        self._settings = settings
        self._wake = control.signal()
        self._downloads = Downloader(deps, control, settings, work, self._follow, self._downloaded, self._hire)
        self._tasks: list[asyncio.Task[None]] = []
        shares = shares or [Share(deps, known)]
        several = len(shares) > 1
        each = replace(settings, polls_per_minute=_part(settings.polls_per_minute, len(shares)))
        common = Common(
            Total(settings.in_flight, self._free) if several else None,
            Gcra(settings.submits_per_minute) if several else None,
            Allowance(settings.max_submissions),
            tuple(sent),
        )
        self._accounts = [
            Account(
                share,
                control.branch(share.deps.provider.name, share.hold) if several else control,
                each,
                work,
                latencies,
                common,
                on_completed=self._completed,
                on_ended=self._task_ended,
                on_idle=self._wake.notify,
                backlog=lambda: self._downloads.backlog,
                on_asked=self._asked,
            )
            for share in shares
        ]
        self._total, self._rate = common.total, common.rate
        self._work = work
        self._latencies = latencies
        self._feed = feed
        self._recorded = asyncio.Event()
        for account in self._accounts:
            account.submitter.whole = feed is None
            account.submitter.chained = chained
        if feed is None:
            self._recorded.set()
        self._finished: deque[float] = deque()
        self._words = 0

    async def run(self) -> Outcome:
        """Do the work.

        Raises:
            Whatever a bug raised, after every POST on the wire was answered and recorded.
        """
        # They ask for the first while the others are taken up.
        tasks = self._tasks
        tasks += [self._guard(account.poller.run(), f"poller {account.name}") for account in self._accounts]
        submitting: list[asyncio.Task[None]] = []
        try:
            await self._take_up()
            submitting = [self._guard(a.submitter.run(), f"submitter {a.name}") for a in self._accounts]
            tasks += [
                *submitting,
                self._guard(self._heartbeat(), "heartbeat"),
                *([self._guard(self._record(self._feed), "feed")] if self._feed is not None else []),
            ]
            self._downloads.start()
            while not self.control.ended and not self._idle:
                await self._wake.wait()
        finally:
            for task in submitting:
                task.cancel()
            await self._shut_down(tasks)
        if self.control.error is not None:
            raise self.control.error
        left_behind = sum(account.poller.left_behind for account in self._accounts) + self._downloads.left_behind
        return Outcome(*self.control.verdict(), left_behind)

    @property
    def _idle(self) -> bool:
        recorded = self._feed is None or self._feed.over
        return (
            recorded
            and all(account.idle for account in self._accounts)
            and not self._downloads.backlog
            and not self._words
        )

    def progress(self) -> dict[str, Any]:
        """How far the run is, for people who watch and for `status`."""
        states = {s.value: n for s, n in self._deps.tally.states.items() if n}
        eta = self._eta()
        finished, seconds = self._lately()
        return {
            "states": states,
            "in_flight": self._used,
            **self._limits(),
            "per_minute": round(60.0 * finished / seconds, 1) if finished > 1 else 0.0,
            "eta_seconds": None if eta is None else round(eta.seconds),
            "eta_range": None if eta is None else [round(eta.low), round(eta.high)],
            "stop": self.control.stop.value if self.control.stop else None,
            "paused_by": self.control.paused_by or None,
        }

    @property
    def _used(self) -> int:
        """Tasks in flight."""
        return self._accounts[0].slots.all_used

    def _limits(self) -> dict[str, Any]:
        """The limits that hold now; of several accounts also each one's."""
        if self._total is None or self._rate is None:
            return self._accounts[0].progress()
        every = {account.name: account.progress() for account in self._accounts}
        rate, flight = round(self._rate.per_minute, 2), self._total.limit
        sums = together(list(every.values()))
        return {
            **sums,
            "submits_per_minute_limit": min(sums["submits_per_minute_limit"], rate),
            "in_flight_limit": min(sums["in_flight_limit"], flight),
            "submits_per_minute_bound": rate,
            "in_flight_bound": flight,
            "providers": every,
        }

    def _eta(self) -> Eta | None:
        """How long what this run will do takes; None where nobody can tell yet."""
        states = self._deps.tally.states
        going = self.control.submitting and not self.control.paused_by
        pending = states.get(State.PENDING, 0) if going else 0
        sent = sum(states.get(s, 0) for s in (*IN_FLIGHT, State.DOWNLOADING))
        eta = by_throughput(pending + sent, *self._lately())
        if eta is None and (known := self._latencies.every()) is not None:
            limit = sum(account.slots.limit for account in self._accounts)
            submits = sum(account.pacer.submits for account in self._accounts)
            eta = by_latency(pending, sent, limit, submits, known)
        return eta if eta is None or not pending else eta.after(min(a.control.hold() for a in self._accounts))

    # --- A person's word during the run ------------------------------------------------------------------

    def limit(
        self,
        submits_per_minute: float | None,
        in_flight: int | None,
        polls: float = 1.0,
        polls_per_minute: float | None = None,
    ) -> None:
        """Other upper bounds for the rest of the run, None for the one that holds; `polls` as in `Pacer.rebound`."""
        for account in self._accounts:
            if polls_per_minute is not None:
                account.pacer.poll_at_most(_part(polls_per_minute, len(self._accounts)))
            account.pacer.rebound(submits_per_minute, in_flight, polls)
        if self._total is not None and in_flight is not None:
            self._total.limit = in_flight
        if self._rate is not None and submits_per_minute is not None:
            self._rate.per_minute = submits_per_minute
        self.control.wake_all()

    async def speak(self, word: Word, who: str) -> Done:
        """Do what a person says of jobs, of other batches of the ledger too. The run does not end meanwhile, and goes
        on with what has become its own. Raises as `words.speak`."""
        self._words += 1
        try:
            if isinstance(word, Cancel):
                return await self._withdraw(word, who)
            return await self._speak(word, who)
        finally:
            self._words -= 1
            for account in self._accounts:
                account.submitter.withdrawn()  # a promotion of what was rejected, too
            self._wake.notify()

    async def _withdraw(self, word: Cancel, who: str) -> Done:
        """What is still being recorded comes first, and nothing is sent meanwhile: a batch is withdrawn whole."""
        pausing = not self._recorded.is_set() and not self.control.paused_by
        if pausing:
            self.control.pause(who)
        try:
            await self._recorded.wait()
            return await self._speak(word, who)
        finally:
            if pausing:
                self.control.go_on()

    async def _speak(self, word: Word, who: str) -> Done:
        ours = set(self._work.ids)
        aside = Books(ledger=self._deps.ledger, spool=self._deps.spool, clock=self._deps.clock, crash=self._deps.crash)

        async def advance(job: Job, event: Event) -> Job:
            if job.batch_id not in ours:
                return await aside.advance(job, event)
            after = await self._deps.advance(job, event)
            if after.state is State.RUNNING and not self.control.ended:
                self._follow(after)
            return after

        return await speak(aside, word, who, advance)

    def _follow(self, job: Job) -> None:
        """Poll a job that this run did not send, now: another run's or a person's task, or a fresh URL for a dead
        one."""
        account = self._of(job)
        if account is not None:
            account.follow(job)

    def _of(self, job: Job) -> Account | None:
        """The account that has a job's task; None where this run does not work with it."""
        return next((account for account in self._accounts if account.name == job.provider), None)

    def _lately(self) -> tuple[int, float]:
        """How many jobs finished within how many seconds, lately."""
        now = self._deps.clock.monotonic()
        while self._finished and self._finished[0] < now - THROUGHPUT_WINDOW:
            self._finished.popleft()
        return len(self._finished), max(now - self._finished[0], 1.0) if self._finished else 0.0

    async def _take_up(self) -> None:
        """Take up what runs and what is to be fetched already, and ask for what is in doubt. All are read before the
        first is polled: what a poll changes is not found twice."""
        running = await self._deps.ledger.in_state(self._work.ids, State.RUNNING)
        doubts: list[Job] = []
        if any(account.lookups.possible for account in self._accounts):
            doubts = [job for job, _ in await self._deps.ledger.in_state(self._work.ids, State.UNCONFIRMED)]
        for job, _ in await self._deps.ledger.in_state(self._work.ids, State.DOWNLOADING):
            self._downloads.add(job)
        for job in doubts:
            if (account := self._of(job)) is not None:
                account.lookups.ask(job, self._work.consents.get(job.id, ""))
        for number, (job, schedule) in enumerate(running, 1):
            account = self._of(job)
            if account is not None:
                account.slots.take(job.model)
                account.poller.resume(job, schedule)
            if number % TOGETHER == 0:
                await self._deps.clock.sleep(0.0)

    async def _record(self, feed: Feed) -> None:
        """Record the rest of the manifest beside everything else."""
        try:
            await feed.run(self._more)
        except WriteFailed as failed:
            self.control.halt(Stop.LEDGER, str(failed))
        finally:
            self._recorded.set()
            for account in self._accounts:
                account.submitter.whole = True
        self._more()
        self._wake.notify()

    def _completed(self, job: Job) -> None:
        # A task that has just ended for the first time has nothing on the disk; one whose links had died may have.
        self._downloads.add(job, begun=not isinstance(job.fact, Downloading) or job.fact.renewals > 0)

    def _asked(self, job: Job) -> None:
        """A service was asked for an unconfirmed job, whatever it said."""

    def _more(self) -> None:
        """More jobs were recorded."""
        for account in self._accounts:
            account.submitter.more()

    def _hire(self) -> None:
        """One more worker for the downloads."""
        self._tasks.append(self._guard(self._downloads.work(), "downloader"))

    def _downloaded(self) -> None:
        for account in self._accounts:
            account.submitter.stored()
        if not self._downloads.backlog:
            self._wake.notify()
        if self.control.submitting:
            self._free()  # they may have waited for the backlog

    def _free(self) -> None:
        """A place that all accounts share may have come free."""
        for account in self._accounts:
            account.submitter.wake.notify()

    def _task_ended(self) -> None:
        for account in self._accounts:
            account.submitter.requeued()

    def finished(self) -> None:
        """A job has ended; feeds the ETA."""
        self._finished.append(self._deps.clock.monotonic())

    def _guard(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """A task whose failure ends the run instead of vanishing."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name)

        def ended(done: asyncio.Task[None]) -> None:
            if not done.cancelled() and (error := done.exception()) is not None:
                self.control.bug(error)

        task.add_done_callback(ended)
        return task

    async def _heartbeat(self) -> None:
        """Once a second: let time-outs be seen; every few seconds: note the schedule and the progress."""
        since = 0.0
        while True:
            await self._deps.clock.sleep(1.0)
            self.control.wake_all()
            self._check_grace()
            since += 1.0
            self._deps.observe("progress", **self.progress(), credits=await self._deps.ledger.money(self._work.ids))
            if since >= self._settings.batch_sync:
                since = 0.0
                for account in self._accounts:
                    account.flush()

    def _check_grace(self) -> None:
        """What is still in flight long after the deadline is left to the next run: its ids are durable."""
        deadline = self._settings.deadline
        if (
            deadline is not None
            and self._recorded.is_set()
            and self._deps.clock.monotonic() >= deadline + self._settings.grace
        ):
            self.control.halt(Stop.DEADLINE, "the time is up, and the grace after it")
            self._deps.observe("grace_over", tasks=self._used, downloads=self._downloads.backlog)
            self.control.give_up()

    async def _shut_down(self, tasks: list[asyncio.Task[None]]) -> None:
        """First let every POST on the wire be answered and recorded, then stop the rest."""
        self.control.give_up()
        drain = asyncio.gather(*(account.submitter.drain() for account in self._accounts))
        while not drain.done():
            with suppress(asyncio.CancelledError):
                await asyncio.shield(drain)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for account in self._accounts:
            await account.submitter.close()
            await account.lookups.close()
            await account.poller.close()
            account.flush()


def _part(polls_per_minute: float | None, accounts: int) -> float | None:
    """An account's part of the polls that all may make together."""
    return None if polls_per_minute is None else polls_per_minute / accounts
