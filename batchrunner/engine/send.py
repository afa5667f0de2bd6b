"""Sending: the intent, one POST, its answer, its record. What is sent, and when, others have chosen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, assert_never

from ..core import events as e
from ..core.job import Job, Problem
from ..ledger.errors import BudgetExhausted, Conflict, DuplicateTask, NotYet, WriteFailed
from ..providers.base import Traceable
from .control import Stop, Switches
from .pacer import Pacer, Place
from .ports import Deps, Settings
from .slots import Allowance, Slots
from .spool import Spooled

RECORD_PATIENCE = 60.0
"""Seconds for which a commit that fails is tried again before the run ends without it."""


@dataclass(frozen=True, slots=True)
class Made:
    """The exact request of a chained job, and when (monotonic seconds) that was made."""

    request: dict[str, Any]
    at: float


class Chooser(Protocol):
    """Who chose the jobs, and hears what became of each."""

    @property
    def refunds(self) -> int:
        """How often money may have come back."""

    def requeued(self) -> None:
        """A job went back to pending, or a task ended and its money may have come back."""

    def look_again(self) -> None:
        """A job that was chosen was not sent."""

    def refused(self, job: Job, why: Exception, made: Made | None, refunds: int) -> None:
        """The ledger would not have its intent. `refunds`: as they were when it was tried."""

    def sent(self, job: Job) -> None:
        """Its POST is over and recorded, whatever came of it."""


class Sender:
    """Sends jobs, each with one POST, and records the answers."""

    def __init__(
        self,
        deps: Deps,
        control: Switches,
        slots: Slots,
        settings: Settings,
        pacer: Pacer,
        allowance: Allowance,
        chooser: Chooser,
        on_running: Callable[[Job], None],
        on_doubt: Callable[[Job], None],
    ) -> None:
        self._deps = deps
        self._control = control
        self._slots = slots
        self._settings = settings
        self._pacer = pacer
        self._allowance = allowance
        self._chooser = chooser
        self._on_running = on_running
        self._on_doubt = on_doubt
        provider = deps.provider
        self._traceable = provider if isinstance(provider, Traceable) else None  # 30 us to find out, a job
        self._posts: set[asyncio.Task[None]] = set()

    @property
    def posts(self) -> int:
        """POSTs on the wire."""
        return len(self._posts)

    async def drain(self) -> None:
        """Wait until every POST on the wire is answered and recorded."""
        while self._posts:
            await asyncio.wait(self._posts)

    def send(self, job: Job, made: Made | None) -> None:
        """Send a job now: take its slot and its place in the rate, and do the rest beside everything else.

        Args:
            job: a pending one.
            made: what is sent in the place of the job's own request.
        """
        self._slots.take(job.model)
        place = self._pacer.take(self._deps.clock.monotonic(), job.model)
        self._allowance.take()
        task = asyncio.get_running_loop().create_task(self._submit(job, place, made), name=f"submit {job.key}")
        self._posts.add(task)
        task.add_done_callback(lambda t: self._sent(t, job))

    def _sent(self, task: asyncio.Task[None], job: Job) -> None:
        self._posts.discard(task)
        self._chooser.sent(job)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._control.bug(error)

    async def _submit(self, job: Job, place: Place, made: Made | None) -> None:
        claimed: Job | None = None
        resolved = None if made is None else made.request
        refunds = self._chooser.refunds

        async def before_send() -> None:
            nonlocal claimed
            self._deps.crash("submit.before_intent")
            claimed = await self._deps.advance(job, e.Claimed(resolved))
            self._deps.crash("submit.intent")

        try:
            request = job.request if resolved is None else resolved
            provider = self._traceable
            if provider is not None:
                token = await self._deps.ledger.token(job, job.fact.attempt + 1)
                answer = await provider.submit(job.model, request, before_send, label=job.key, token=token)
            else:
                answer = await self._deps.provider.submit(job.model, request, before_send, label=job.key)
        except (BudgetExhausted, Conflict, NotYet, WriteFailed) as refused:
            self._not_sent(job, place)
            self._chooser.refused(job, refused, made, refunds)
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
        self._chooser.look_again()

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
        self._chooser.requeued()
        moved(claimed)

    async def _settle(self, claimed: Job, event: e.SubmitAnswer) -> Job | None:
        """Record an answer that ends the submission, and free its slot. Returns as `_durably`."""
        after = await self._durably(claimed, event)
        self._slots.give_back(claimed.model)
        self._chooser.requeued()
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
