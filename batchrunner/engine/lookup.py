"""Asking a service what became of a submission whose answer was lost, where it can tell with certainty."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import assert_never

from ..core import events as e
from ..core.job import Job
from ..core.pacing import backoff
from ..ledger.errors import Conflict, DuplicateTask, WriteFailed
from ..providers.base import Found, LookupAnswer, NotFound, Traceable, Unavailable
from ..providers.replies import usable_task_id
from .control import Stop, Switches
from .pacer import Pacer
from .ports import Deps, Settings

TRIES = 4
"""How often a run asks for one submission: what was sent a moment ago may not be listed yet."""

AT_ONCE = 8
"""Lookups on the wire at once."""


def _nobody(_: Job) -> None:
    pass


class Lookups:
    """Asks for unconfirmed jobs. One that is found runs on, at no further cost; whatever else is answered, it stays
    unconfirmed, and is never sent again by itself: a POST that a service knows nothing of may still be on its way. A
    person's word that it may be, said before, counts once the service has answered that it knows nothing of it."""

    def __init__(
        self,
        deps: Deps,
        control: Switches,
        settings: Settings,
        pacer: Pacer,
        on_found: Callable[[Job], None],
        on_again: Callable[[Job], None],
        on_idle: Callable[[], None],
        on_over: Callable[[Job], None] = _nobody,
    ) -> None:
        """`on_over` is told of a job that was asked for, whatever was answered, after the others."""
        self._deps = deps
        self._control = control
        self._settings = settings
        self._pacer = pacer
        self._on_found = on_found
        self._on_again = on_again
        self._on_idle = on_idle
        self._on_over = on_over
        self._tasks: set[asyncio.Task[None]] = set()
        self._at_once = asyncio.Semaphore(AT_ONCE)

    @property
    def possible(self) -> bool:
        """Whether this account's service can be asked."""
        return isinstance(self._deps.provider, Traceable)

    @property
    def idle(self) -> bool:
        """Whether nothing is being asked."""
        return not self._tasks

    def ask(self, job: Job, consent: str = "") -> None:
        """Find out what became of an unconfirmed job. `consent`: who has said that it may be sent again if nothing has,
        empty for nobody."""
        provider = self._deps.provider
        if isinstance(provider, Traceable) and self.possible and not self._control.ended:
            task = asyncio.get_running_loop().create_task(self._ask(provider, job, consent), name=f"lookup {job.key}")
            self._tasks.add(task)
            task.add_done_callback(partial(self._asked, job))

    async def close(self) -> None:
        """Give it up: it is free, and the next run asks."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _asked(self, job: Job, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._on_over(job)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._control.bug(error)
        if self.idle:
            self._on_idle()

    async def _ask(self, provider: Traceable, job: Job, consent: str) -> None:
        try:
            token = await self._deps.ledger.token(job, job.fact.attempt)
            if await self._settle(provider, job, token) and consent and not self._control.ended:
                await self._resubmit(job, consent)
        except WriteFailed as failed:
            self._control.halt(Stop.LEDGER, str(failed))
        except Conflict:
            pass  # a person's word came first

    async def _settle(self, provider: Traceable, job: Job, token: str) -> bool:
        """Ask until it is found, or often enough; whether the last that was heard is that the service knows nothing of
        it."""
        said, unknown = "", False
        for tried in range(1, TRIES + 1):
            async with self._at_once:
                await self._turn()
                if self._control.ended:
                    return False
                answer = await provider.lookup(token, job.model)
            self._deps.crash("lookup.answered")
            if isinstance(answer, Found) and usable_task_id(answer.task_id):
                await self._found(provider, job, answer.task_id)
                return False
            said, unknown = self._heed(job, answer), isinstance(answer, NotFound)
            if tried < TRIES:
                await self._deps.clock.sleep(backoff(tried, self._deps.dice(), self._settings.retry_delay))
        await self._note(provider, job, said)
        return unknown

    async def _resubmit(self, job: Job, who: str) -> None:
        pending = await self._deps.advance(
            job, e.Resubmitted(who, "--on-unconfirmed resubmit, and it is not known there")
        )
        self._deps.crash("word.recorded")
        self._on_again(pending)

    async def _turn(self) -> None:
        """Wait for a place among the polls."""
        while not self._control.ended:
            now = self._deps.clock.monotonic()
            wait = max(self._control.hold(), self._pacer.poll_delay(now))
            if wait <= 0.0:
                self._pacer.poll_taken(now, 0.0)
                return
            await self._deps.clock.sleep(wait)

    async def _found(self, provider: Traceable, job: Job, task_id: str) -> None:
        self._control.heard()
        try:
            running = await self._deps.advance(
                job, e.Identified(task_id, f"{provider.name}'s own record", "found by what was sent with the request")
            )
        except DuplicateTask as duplicate:
            await self._note(provider, job, f"the service names {duplicate}")
            return
        self._deps.crash("lookup.recorded")
        self._on_found(running)

    def _heed(self, job: Job, answer: LookupAnswer) -> str:
        """What an answer that finds nothing does to the account; in words."""
        if isinstance(answer, Unavailable) and answer.problem.http_status is None:
            self._control.silent(answer.problem.message)
        else:
            self._control.heard()
        match answer:
            case NotFound(problem=problem):
                return f"the service knows nothing of it: {problem.message}"
            case e.Throttled(retry_after=retry_after, problem=problem):
                wait = self._control.throttled(retry_after)
                self._deps.ledger.save_hold(job.provider, self._deps.clock.wall() + wait)
                self._deps.observe("hold", seconds=round(wait, 3))
            case e.Refused(reason=reason, problem=problem):
                stop = Stop.CREDENTIALS if reason is e.Refusal.CREDENTIALS else Stop.CREDIT
                self._control.halt(stop, problem.message)
            case Unavailable(problem=problem):
                pass
            case Found():
                return "the service's answer names no usable task"
            case _:
                assert_never(answer)
        return f"the service could not be asked: {problem.message}"

    async def _note(self, provider: Traceable, job: Job, said: str) -> None:
        await self._deps.ledger.note_lookup(job, said, provider.name)
        self._deps.crash("lookup.noted")
        self._deps.observe("lookup", job, error={"code": None, "message": said})
