"""Submitting: which job is next, and whether there is a slot, a place in the rate, and money. `send` sends it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..core.chain import needs
from ..core.deadline import SURE, in_time
from ..core.job import Job
from ..core.polling import Latencies
from ..ledger.errors import BudgetExhausted, NotYet, WriteFailed
from .control import Stop, Switches
from .files import free_bytes, unwritable
from .pacer import Pacer
from .ports import Deps, Settings, Work
from .send import Made, Sender
from .slots import Allowance, Slots
from .supply import Supplies

PAGE = 64
"""Pending jobs read from the ledger at once: memory grows with this, not with the manifest."""

DISK_CHECK_EVERY = 5.0
"""Seconds between two looks at the free space."""

SUPPLIED_FOR = 300.0
"""Seconds after which URLs that were found for a job are looked for anew, where it could not be sent meanwhile."""


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
        self._backlog = backlog
        self._on_idle = on_idle
        self.wake = control.signal()
        """Notify it when a slot, money or a place in the queue may have come free."""
        self._pacer = pacer
        self._latencies = latencies
        self._late: set[tuple[str, int | None]] = set()
        """Kinds of tasks (model, length) that would not be done by the deadline."""
        self._allowance = allowance or Allowance(settings.max_submissions)
        self._sender = Sender(
            deps, control, slots, settings, pacer, self._allowance, self, on_running=on_running, on_doubt=on_doubt
        )
        self._provider = provider
        self._has_bounds = bounded
        self._page: deque[Job] = deque()
        self._aside: set[str] = set()
        """Models that have reached bounds of their own."""
        self._back_at: dict[str, float] = {}
        """Those of which others have taken all there is -> when it is worth asking again, monotonic seconds."""
        self._exhausted_until = 0.0
        self._stale = False
        self._busy: set[int] = set()
        self._broke: dict[int, str] = {}
        self._not_before = 0.0
        self.refunds = 0
        """How often money may have come back."""
        self._withdrawals = 0
        self._supplies = Supplies(deps, control, settings, self._supplied)
        self._requests: dict[int, Made] = {}
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
        return self._sender.posts

    @property
    def broke(self) -> frozenset[int]:
        """Batches whose money is used up, or reserved."""
        return frozenset(self._broke)

    def requeued(self) -> None:
        """A job went back to pending, or a task ended and its money may have come back: look again."""
        self.look_again()
        self.refunds += 1
        self._broke.clear()
        self.wake.notify()

    def withdrawn(self) -> None:
        """Pending jobs were withdrawn: look again at what is left."""
        self._withdrawals += 1
        self._page.clear()
        self.look_again()
        self.wake.notify()

    def more(self) -> None:
        """More jobs were recorded."""
        self.look_again()
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
                idle = math.isinf(wait) and not self.posts and (not waiting or not self._control.submitting)
                if idle != self.idle:
                    self.idle = idle
                    self._on_idle()
                await self.wake.wait(wait)

    async def drain(self) -> None:
        """Wait until every POST on the wire is answered and recorded."""
        await self._sender.drain()

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
            made = self._requests.pop(job.id, None)
            if made is not None and self._deps.clock.monotonic() - made.at > SUPPLIED_FOR:
                self._want(job)
            else:
                self._busy.add(job.id)
                self._sender.send(job, made)
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
            if needs(job.request) and job.id not in self._requests:
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
        return self._slots.full(model) or self._model_delay(model, now) > 0.0

    def _model_delay(self, model: str, now: float) -> float:
        return max(self._pacer.model_delay(model, now), self._back_at.get(model, now) - now)

    def _back_in(self) -> float:
        """Seconds until a model that was set aside may be sent; infinite where that hangs on a task's end."""
        now = self._deps.clock.monotonic()
        return min(
            (self._model_delay(model, now) for model in self._aside if not self._slots.full(model)),
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
            if not self.posts:
                self._control.halt(Stop.LIMIT, f"--limit {self._settings.max_submissions} reached")
            return math.inf
        if self._control.paused_by:
            return math.inf
        if not self._slots.free or self._pacer.crowded(self.posts):
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
            self._requests[job.id] = Made(request, self._deps.clock.monotonic())
            self._page.append(job)
        self.wake.notify()

    # --- What became of it: `Chooser` --------------------------------------------------------------------

    def sent(self, job: Job) -> None:
        """See `Chooser`."""
        self._busy.discard(job.id)
        self._stale = True  # a page that is being read was asked for while this job was on the wire
        self.wake.notify()

    def look_again(self) -> None:
        """See `Chooser`."""
        self._exhausted_until = 0.0
        self._stale = True
        self.idle = False  # not known until it has looked: the run must not end on the strength of an old answer

    def refused(self, job: Job, why: Exception, made: Made | None, refunds: int) -> None:
        """See `Chooser`."""
        match why:
            case BudgetExhausted() if refunds != self.refunds:
                pass  # the answer is older than the money: ask again
            case BudgetExhausted():
                self._broke[job.batch_id] = str(why)
                self._page = deque(j for j in self._page if j.batch_id != job.batch_id)
            case WriteFailed():
                self._control.halt(Stop.LEDGER, str(why))
            case NotYet():
                until = self._deps.clock.monotonic() + why.seconds
                if why.model:
                    self._has_bounds = True
                    self._back_at[why.model] = until
                else:
                    self._not_before = until
                self._page.appendleft(job)  # it is next, with what was found for it
                if made is not None:
                    self._requests[job.id] = made
            case _:
                pass  # a stale copy of a job that has moved on; the next page has the truth
