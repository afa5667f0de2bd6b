"""Submitting: a slot, a place in the rate, budget, the intent, one POST, its answer, its record."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, assert_never

from ..core import events as e
from ..core.chain import needs
from ..core.deadline import SURE, in_time
from ..core.job import Job, Problem
from ..core.polling import Latencies
from ..ledger.errors import BudgetExhausted, Conflict, DuplicateTask, NotYet, WriteFailed
from ..providers.base import Traceable
from .control import Allowance, Slots, Stop, Switches
from .files import free_bytes, unwritable
from .pacer import Pacer, Place
from .ports import Deps, Settings, Work
from .spool import Spooled
from .supply import Supplies

PAGE = 64
"""Pending jobs read from the ledger at once: memory grows with this, not with the manifest."""

DISK_CHECK_EVERY = 5.0
"""Seconds between two looks at the free space."""

SUPPLIED_FOR = 300.0
"""Seconds after which URLs that were found for a job are looked for anew, where it could not be sent meanwhile."""

RECORD_PATIENCE = 60.0
"""Seconds for which a commit that fails is tried again before the run ends without it."""


class Submitter:
    """Sends what is pending, as fast as the limits allow, until nothing is or the run stops."""

    def __init__(
        self,
        deps: Deps,
        control: Switches,
        slots: Slots,
        settings: Settings,
        work: Work,
        on_running: Callable[[Job], None],
        on_doubt: Callable[[Job], None],
        backlog: Callable[[], int],
        on_idle: Callable[[], None],
        pacer: Pacer,
        latencies: Latencies,
        allowance: Allowance | None = None,
        provider: str | None = None,
        bounded: bool = False,
    ) -> None:
        """Args that say little by their names:
        on_doubt: is told of a job that has become unconfirmed.
        allowance: shared with the other accounts of the run; None for one of its own.
        provider: whose jobs to send; None where the run has but one.
        bounded: whether any model has bounds of its own.
        """
        self._deps = deps
        self._control = control
        self._slots = slots
        self._settings = settings
        self._work = work
        self._on_running = on_running
        self._on_doubt = on_doubt
        self._backlog = backlog
        self._on_idle = on_idle
        self.wake = control.signal()
        """Notify it when a slot, money or a place in the queue may have come free."""
        self._pacer = pacer
        self._latencies = latencies
        self._late: set[tuple[str, int | None]] = set()
        """Kinds of tasks (model, length) that would not be done by the deadline."""
        self._allowance = allowance or Allowance(settings.max_submissions)
        self._provider = provider
        self._has_bounds = bounded
        self._page: deque[Job] = deque()
        self._aside: set[str] = set()
        """Models that have reached bounds of their own."""
        self._exhausted_until = 0.0
        self._stale = False
        self._busy: set[int] = set()
        self._broke: dict[int, str] = {}
        self._not_before = 0.0
        self._refunds = 0
        self._withdrawals = 0
        self._posts: set[asyncio.Task[None]] = set()
        self._supplies = Supplies(deps, control, settings, self._supplied)
        self._requests: dict[int, tuple[dict[str, Any], float]] = {}
        """Row id of a chained job -> its exact request, and when (monotonic seconds) that was made."""
        self.chained = False
        """Whether jobs may wait for others of this run."""
        self._disk_checked = -math.inf
        self._disk_full = ""
        self.whole = True
        """All of the manifest is recorded; until then something shorter may follow what is too late."""
        self.idle = False
        """Nothing is pending that could still be sent in this run."""

    @property
    def posts(self) -> int:
        """POSTs on the wire."""
        return len(self._posts)

    @property
    def broke(self) -> frozenset[int]:
        """Batches whose money is used up, or reserved."""
        return frozenset(self._broke)

    def requeued(self) -> None:
        """A job went back to pending, or a task ended and its money may have come back: look again."""
        self._look_again()
        self._refunds += 1
        self._broke.clear()
        self.wake.notify()

    def withdrawn(self) -> None:
        """Pending jobs were withdrawn: look again at what is left."""
        self._withdrawals += 1
        self._page.clear()
        self._look_again()
        self.wake.notify()

    def more(self) -> None:
        """More jobs were recorded."""
        self._look_again()
        self.wake.notify()

    def stored(self) -> None:
        """A job has ended with its output on disk: others may have waited for it."""
        if self.chained:
            self.more()

    async def run(self) -> None:
        """Submit until cancelled. POSTs on the wire go on; `drain` waits for them."""
        while True:
            wait = await self._step()
            if wait > 0.0:
                waiting = self._page or self._supplies.waiting
                idle = math.isinf(wait) and not self._posts and (not waiting or not self._control.submitting)
                if idle != self.idle:
                    self.idle = idle
                    self._on_idle()
                await self.wake.wait(wait)

    async def drain(self) -> None:
        """Wait until every POST on the wire is answered and recorded."""
        while self._posts:
            await asyncio.wait(self._posts)

    async def close(self) -> None:
        """Cancel the looking for URLs: it is free, and safe to repeat."""
        await self._supplies.close()

    # --- Choosing ----------------------------------------------------------------------------------------

    async def _step(self) -> float:
        """Send one job if that is possible now; seconds to wait otherwise (infinite: until something changes)."""
        if not self._control.submitting:
            return math.inf
        self._check_deadline()
        self._supplies.go_on()
        self._pass_over()
        self._set_aside()
        if not self._page:
            wait = await self._turn_page()
            self._pass_over()
            self._set_aside()
            if not self._page:
                return 0.0 if wait == 0.0 else min(wait, self._back_in())
        wait = self._obstacle()
        if wait == 0.0 and self._control.submitting:
            job = self._page.popleft()
            made = self._requests.get(job.id)
            if made is not None and self._deps.clock.monotonic() - made[1] > SUPPLIED_FOR:
                self._want(job)
            else:
                self._send(job)
        return wait

    async def _turn_page(self) -> float:
        """Read the next pending jobs; where there are none, seconds until there may be."""
        now = self._deps.clock.monotonic()
        back = {model for model in self._aside if not self._bounded(model, now)}
        if back:
            self._aside -= back
            self._exhausted_until = 0.0
        if now < self._exhausted_until:
            return self._exhausted_until - now
        if self._supplies.waiting >= PAGE:
            return math.inf
        wall = self._deps.clock.wall()
        busy = set(self._busy)
        batches = [b for b in self._work.ids if b not in self._broke]
        self._late = {kind for kind in self._late if not self._in_time(*kind)}
        self._exhausted_until = math.inf
        self._stale = False
        withdrawals = self._withdrawals
        if batches:
            found, next_at = await self._deps.ledger.pending(
                batches,
                self._work.selection,
                PAGE + len(busy),
                wall,
                without=tuple(self._late),
                provider=self._provider,
                models=tuple(self._aside),
            )
            if withdrawals != self._withdrawals:
                return 0.0  # what was read may have been withdrawn since
            self._take_in([j for j in found if j.id not in busy and j.id not in self._busy])
            if found:
                self._exhausted_until = 0.0
            elif next_at is not None:
                self._exhausted_until = now + max(0.0, next_at - wall)
        if self._page or self._stale:
            return 0.0  # stale: something went back to pending while the page was being read
        if self._exhausted_until == 0.0:
            # All that is pending was on the wire when the page was read. What still is will notify at its end; what
            # has ended since has done so while nobody was waiting.
            return math.inf if self._busy else 0.0
        if math.isinf(self._exhausted_until):
            self._nothing_is_due()
        return self._exhausted_until - now

    def _take_in(self, jobs: list[Job]) -> None:
        for job in jobs:
            if needs(job.request):
                self._want(job)
            else:
                self._page.append(job)

    def _nothing_is_due(self) -> None:
        """And nothing will be by itself: stop, where that is why."""
        last = not self.chained or not (self._slots.all_used or self._backlog())  # else more may become due
        if self._aside:
            return  # what waits for a bound of its model is due as soon as that allows
        if self._late and self.whole and not self._busy and last:
            self._too_late()
        if self._broke and not self._slots.all_used:
            self._control.halt(Stop.BUDGET, next(iter(self._broke.values())))

    def _check_deadline(self) -> None:
        deadline = self._settings.deadline
        if deadline is not None and self._deps.clock.monotonic() >= deadline:
            self._control.halt(Stop.DEADLINE, "the time is up; what is in flight is followed to its end")

    def _pass_over(self) -> None:
        """Leave out of the page what would not be done by the deadline."""
        while self._page and not self._in_time(self._page[0].model, self._page[0].seconds):
            self._late.add((self._page[0].model, self._page[0].seconds))
            self._page = deque(j for j in self._page if (j.model, j.seconds) not in self._late)

    def _set_aside(self) -> None:
        """Leave out of the page what has to wait for a bound of its own model; others go first meanwhile."""
        if not self._has_bounds:
            return
        now = self._deps.clock.monotonic()
        held = {job.model for job in self._page if self._bounded(job.model, now)}
        if held:
            self._aside |= held
            self._page = deque(job for job in self._page if job.model not in held)
            self._exhausted_until = 0.0

    def _bounded(self, model: str, now: float) -> bool:
        return self._slots.full(model) or self._pacer.model_delay(model, now) > 0.0

    def _back_in(self) -> float:
        """Seconds until a model that was set aside may be sent; infinite where that hangs on a task's end."""
        now = self._deps.clock.monotonic()
        return min(
            (self._pacer.model_delay(model, now) for model in self._aside if not self._slots.full(model)),
            default=math.inf,
        )

    def _in_time(self, model: str, seconds: int | None) -> bool:
        deadline = self._settings.deadline
        if deadline is None:
            return True
        return in_time(deadline - self._deps.clock.monotonic(), self._latencies.of(model, seconds))

    def _too_late(self) -> None:
        """All that is pending would take too long."""
        takes = [k.quantile(SURE) for k in (self._latencies.of(*kind) for kind in self._late) if k is not None]
        up_to = f", it takes up to {min(takes):.0f} s" if takes else ""
        self._control.halt(
            Stop.DEADLINE, f"what is left would not be done in time{up_to}; what is in flight is followed to its end"
        )

    def _obstacle(self) -> float:
        """Seconds until the next POST may be sent: 0 for now, infinite until something changes."""
        if self._allowance.left == 0:
            if not self._posts:
                self._control.halt(Stop.LIMIT, f"--limit {self._settings.max_submissions} reached")
            return math.inf
        if self._control.paused_by:
            return math.inf
        if not self._slots.free or self._pacer.crowded(len(self._posts)):
            return math.inf
        if self._backlog() > max(4 * self._settings.max_downloads, self._settings.in_flight):
            return math.inf
        disk = self._disk()
        if disk:
            if not self._slots.all_used and not self._backlog():
                self._control.halt(Stop.DISK, disk)
            return DISK_CHECK_EVERY
        now = self._deps.clock.monotonic()
        return max(self._control.hold(), self._control.quiet(), self._pacer.delay(now), self._not_before - now)

    def _disk(self) -> str:
        """What is wrong with the output disk; empty for nothing."""
        now = self._deps.clock.monotonic()
        if now - self._disk_checked >= DISK_CHECK_EVERY:
            self._disk_checked = now
            self._disk_full = ""
            for batch in self._work.batches:
                self._disk_full = self._disk_full or self._no_room(self._deps.stores.of(batch.output_dir).parts)
        return self._disk_full

    def _no_room(self, folder: Path) -> str:
        free = free_bytes(folder)
        if free < self._settings.min_free_bytes:
            return f"only {free // 2**20} MiB are free for {folder}; make room"
        return unwritable(folder) or ""

    # --- What a chained job needs ------------------------------------------------------------------------

    def _want(self, job: Job) -> None:
        """Find URLs for a job before it takes a place."""
        self._busy.add(job.id)
        self._requests.pop(job.id, None)
        self._supplies.want(job)

    def _supplied(self, job: Job, request: dict[str, Any] | None) -> None:
        self._busy.discard(job.id)
        self._stale = True
        if request is not None:
            self._requests[job.id] = (request, self._deps.clock.monotonic())
            self._page.append(job)
        self.wake.notify()

    # --- Sending -----------------------------------------------------------------------------------------

    def _send(self, job: Job) -> None:
        self._busy.add(job.id)
        self._slots.take(job.model)
        place = self._pacer.take(self._deps.clock.monotonic(), job.model)
        self._allowance.take()
        task = asyncio.get_running_loop().create_task(self._submit(job, place), name=f"submit {job.key}")
        self._posts.add(task)
        task.add_done_callback(lambda t: self._sent(t, job))

    def _sent(self, task: asyncio.Task[None], job: Job) -> None:
        self._posts.discard(task)
        self._busy.discard(job.id)
        self._stale = True  # a page that is being read was asked for while this job was on the wire
        if not task.cancelled() and (error := task.exception()) is not None:
            self._control.bug(error)
        self.wake.notify()

    async def _submit(self, job: Job, place: Place) -> None:
        claimed: Job | None = None
        refunds = self._refunds
        made = self._requests.pop(job.id, None)
        resolved = None if made is None else made[0]

        async def before_send() -> None:
            nonlocal claimed
            self._deps.crash("submit.before_intent")
            claimed = await self._deps.advance(job, e.Claimed(resolved))
            self._deps.crash("submit.intent")

        try:
            request = job.request if resolved is None else resolved
            provider = self._deps.provider
            if isinstance(provider, Traceable):
                token = await self._deps.ledger.token(job, job.fact.attempt + 1)
                answer = await provider.submit(job.model, request, before_send, label=job.key, token=token)
            else:
                answer = await provider.submit(job.model, request, before_send, label=job.key)
        except (BudgetExhausted, Conflict, NotYet, WriteFailed) as refused:
            if made is not None and isinstance(refused, NotYet):
                self._requests[job.id] = made
            self._not_claimed(job, refused, place, money_came_back=refunds != self._refunds)
            return
        self._deps.crash("submit.answered")
        if claimed is None:
            self._not_connected(job, answer, place)
            return
        try:
            await self._record(claimed, answer, place)
        except Conflict:
            if self._deps.moved is None:
                raise
            self._superseded(claimed, answer, self._deps.moved)
        self._deps.crash("submit.recorded")

    def _not_sent(self, job: Job, place: Place) -> None:
        """Nothing left this machine: give back what the submission held, its place in the rate too."""
        self._slots.give_back(job.model)
        self._pacer.give_back(place)
        self._allowance.give_back()
        self._look_again()

    def _look_again(self) -> None:
        self._exhausted_until = 0.0
        self._stale = True
        self.idle = False  # not known until it has looked: the run must not end on the strength of an old answer

    def _not_claimed(self, job: Job, refused: Exception, place: Place, *, money_came_back: bool) -> None:
        self._not_sent(job, place)
        match refused:
            case BudgetExhausted() if money_came_back:
                pass  # the answer is older than the money: ask again
            case BudgetExhausted():
                self._broke[job.batch_id] = str(refused)
                self._page = deque(j for j in self._page if j.batch_id != job.batch_id)
            case WriteFailed():
                self._control.halt(Stop.LEDGER, str(refused))
            case NotYet():
                self._not_before = self._deps.clock.monotonic() + refused.seconds
                self._page.appendleft(job)  # it is next, with what was found for it
            case _:
                pass  # a stale copy of a job that has moved on; the next page has the truth

    def _not_connected(self, job: Job, answer: e.SubmitAnswer, place: Place) -> None:
        self._not_sent(job, place)
        problem = answer.problem if isinstance(answer, e.NotSent) else Problem("answered before it was asked")
        self._control.silent(problem.message)
        self._deps.observe("not_sent", error={"code": problem.code, "message": problem.message})

    async def _record(self, claimed: Job, answer: e.SubmitAnswer, place: Place) -> None:
        match answer:
            case e.NotSent():
                self._control.silent(answer.problem.message)
                await self._settle(claimed, replace(answer, retry_at=self._deps.clock.wall() + self._control.quiet()))
            case e.Accepted():
                self._control.heard()
                self._pacer.accepted(place, claimed, len(self._posts) - 1)
                await self._accepted(claimed, answer)
            case e.Throttled():
                self._control.heard()
                wait = self._control.throttled(answer.retry_after)
                self._pacer.throttled(place, wait, len(self._posts) - 1)
                until = self._deps.clock.wall() + wait
                self._deps.ledger.save_hold(claimed.provider, until)
                self._deps.observe("hold", seconds=round(wait, 3))
                self._allowance.give_back()
                await self._settle(claimed, replace(answer, retry_at=until))
            case e.Refused(reason=reason, problem=problem):
                self._control.heard()
                stop = Stop.CREDENTIALS if reason is e.Refusal.CREDENTIALS else Stop.CREDIT
                self._control.halt(stop, problem.message)
                await self._settle(claimed, answer)
            case e.Rejected():
                self._control.heard()
                await self._settle(claimed, answer)
                self._control.rejected()
            case e.Ambiguous():
                if answer.problem.http_status is not None:
                    self._control.heard()
                await self._doubt(claimed, answer)
            case _:
                assert_never(answer)

    def _superseded(self, claimed: Job, answer: e.SubmitAnswer, moved: Callable[[Job], None]) -> None:
        """Another writer took this one for dead while it waited for the answer, and the job has gone on without it. A
        task id that nobody expects any more is kept all the same."""
        self._keep_id(claimed, answer)
        self._slots.give_back(claimed.model)
        self.requeued()
        moved(claimed)

    async def _settle(self, claimed: Job, event: e.SubmitAnswer) -> Job | None:
        """Record an answer that ends the submission, and free its slot. Returns as `_durably`."""
        after = await self._durably(claimed, event)
        self._slots.give_back(claimed.model)
        self.requeued()
        return after

    async def _doubt(self, claimed: Job, answer: e.Ambiguous) -> None:
        unconfirmed = await self._settle(claimed, answer)
        self._control.ambiguous()
        if unconfirmed is not None:
            self._on_doubt(unconfirmed)

    async def _accepted(self, claimed: Job, answer: e.Accepted) -> None:
        try:
            running = await self._durably(claimed, answer)
        except DuplicateTask as duplicate:
            problem = Problem(f"the provider's answer names {duplicate}", "duplicate_task_id")
            await self._doubt(claimed, e.Ambiguous(problem))
            return
        self._control.accepted()
        if running is not None:
            self._on_running(running)

    async def _durably(self, claimed: Job, event: e.SubmitAnswer) -> Job | None:
        """Commit an answer. If the ledger can't be written, keep a task id in the spool, stop submitting, and go on
        trying; None when the run had to end without it (recovery finds it in the spool, or as unconfirmed)."""
        since: float | None = None
        while True:
            try:
                return await self._deps.advance(claimed, event)
            except WriteFailed as failed:
                now = self._deps.clock.monotonic()
                if since is None:
                    since = now
                    self._control.halt(Stop.LEDGER, str(failed))
                    self._keep_id(claimed, event)
                if now - since >= RECORD_PATIENCE:
                    self._control.give_up()
                if self._control.ended:
                    return None
                await self._deps.clock.sleep(self._settings.retry_delay)

    def _keep_id(self, claimed: Job, event: e.SubmitAnswer) -> None:
        if not isinstance(event, e.Accepted):
            return
        try:
            self._deps.spool.append(Spooled(claimed.id, claimed.fact.attempt, event.task_id))
            self._deps.crash("submit.spooled")
            kept = True
        except OSError:
            kept = False
        # Printed as well: if the disk is beyond writing, this line is the only place that has the id.
        self._deps.observe("unrecorded", claimed, task_id=event.task_id, spooled=kept)
