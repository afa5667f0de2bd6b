"""What a chained job needs before it is sent: live URLs of its parents' outputs. Never by generating again.

In this order: where the output was fetched from, if that was lately; what a free poll of the parent's task gives; what
the user's upload command prints for the file. Each is looked at first: a URL that is not seen alive is not sent.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, assert_never

from ..core import events as e
from ..core.chain import Need, needs, replaced
from ..core.job import Job, Problem
from ..core.media import LAST_FRAME
from ..core.pacing import backoff, clamp_retry_after
from ..ledger.errors import WriteFailed
from ..ledger.needs import Parent
from ..providers.base import Provider
from ..providers.fetch import FetchError, Transient
from .control import Stop, Switches
from .ports import Deps, NotOffered, Settings

LATELY = 1800.0
"""Seconds for which a URL is taken to live on for the service to fetch it; how long reAPI's do is not known, and the
shortest of other services is an hour (REAPI.md, Not known)."""

AT_ONCE = 8
"""Jobs for which URLs are looked for at once: each may run the user's upload command."""


@dataclass(frozen=True, slots=True)
class Supplied:
    """The exact request to send."""

    request: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Short:
    """The output of the job `parent` can't be had now; `problem` says why."""

    parent: str
    problem: str


@dataclass(frozen=True, slots=True)
class Away:
    """Nobody answered, or not now: worth another try."""

    problem: Problem


class Supplies:
    """Chained jobs whose requests have no URLs yet, a few of which are worked at."""

    def __init__(
        self,
        deps: Deps,
        control: Switches,
        settings: Settings,
        on_done: Callable[[Job, dict[str, Any] | None], None],
    ) -> None:
        """`on_done` is told the exact request of a job; None where it has to wait."""
        self._deps = deps
        self._control = control
        self._supply = Supply(deps, control, settings)
        self._on_done = on_done
        self._wanting: deque[Job] = deque()
        self._tasks: set[asyncio.Task[dict[str, Any] | None]] = set()

    @property
    def waiting(self) -> int:
        """How many jobs have no request yet."""
        return len(self._wanting) + len(self._tasks)

    def want(self, job: Job) -> None:
        """Find what a job needs."""
        self._wanting.append(job)
        self.go_on()

    def go_on(self) -> None:
        """Work at as many as may be at once, as long as jobs are submitted."""
        while self._wanting and len(self._tasks) < AT_ONCE and self._control.submitting:
            job = self._wanting.popleft()
            task = asyncio.get_running_loop().create_task(self._request(job), name=f"supply {job.key}")
            self._tasks.add(task)
            task.add_done_callback(partial(self._done, job))

    async def close(self) -> None:
        """Give it up: it is free, and safe to repeat."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _request(self, job: Job) -> dict[str, Any] | None:
        found = await self._supply.of(job)
        if isinstance(found, Supplied):
            return found.request
        if not self._control.submitting:
            return None  # the next run looks anew
        try:
            await self._deps.ledger.hold(job, found.parent, found.problem)
        except WriteFailed as failed:
            self._control.halt(Stop.LEDGER, str(failed))
            return None
        self._deps.crash("supply.held")
        self._deps.observe("held", job, needs=found.parent, error={"code": None, "message": found.problem})
        return None

    def _done(self, job: Job, task: asyncio.Task[dict[str, Any] | None]) -> None:
        self._tasks.discard(task)
        request = None
        if not task.cancelled():
            if (error := task.exception()) is not None:
                self._control.bug(error)
            else:
                request = task.result()
        self._on_done(job, request)


class Supply:
    """Finds the URLs for chained jobs; those of one parent are looked for once at a time."""

    def __init__(self, deps: Deps, control: Switches, settings: Settings) -> None:
        self._deps = deps
        self._control = control
        self._settings = settings
        self._known: dict[tuple[int, int], str] = {}
        """Parent and number of its file -> a URL that this run has found."""
        self._locks: defaultdict[tuple[int, int], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def of(self, job: Job) -> Supplied | Short:
        """The request of a job whose parents have succeeded, with URLs in the place of references.

        Raises:
            LedgerUnusable: see `Ledger.parent`.
        """
        urls: dict[Need, str] = {}
        for need in needs(job.request):
            number = LAST_FRAME if need.url == "last_frame_url" else 1
            parent = await self._deps.ledger.parent(job, need, number)
            if parent is None:
                return Short(need.job, "it has not succeeded")
            async with self._locks[parent.id, number]:
                found = await self._url(parent, number)
            if isinstance(found, Problem):
                return Short(need.job, found.message)
            urls[need] = found
        request = replaced(job.request, urls.__getitem__)
        wrong = self._deps.fits(job, request)
        if wrong:
            return Short(next(iter(urls)).job, wrong)
        return Supplied(request)

    async def _url(self, parent: Parent, number: int) -> str | Problem:
        known = self._known.get((parent.id, number))
        age = self._deps.clock.wall() - parent.ended_at
        for url in [known] if known is not None else [parent.url] if parent.url and 0 <= age < LATELY else []:
            if await self._dead(url) is None:
                return url
        found = await self._renewed(parent, number)
        if isinstance(found, Problem) and self._deps.offer is not None:
            found = await self._offered(parent, found)
        if isinstance(found, str):
            self._known[parent.id, number] = found
        return found

    async def _dead(self, url: str) -> Problem | None:
        """Why a URL can't be used; None where it is alive."""
        try:
            await self._deps.fetcher.look(url)
        except FetchError as error:
            return error.problem
        return None

    # --- A free poll -------------------------------------------------------------------------------------

    async def _renewed(self, parent: Parent, number: int) -> str | Problem:
        """What the service says of the parent's task now. A network that is away is waited for, as polls are."""
        of = self._deps.provider_of
        provider = self._deps.provider if of is None else of(parent.model)
        if provider is None:
            return Problem("its URL has expired, and the run has no account with the service that made it")
        clock, since, failures = self._deps.clock, self._deps.clock.monotonic(), 0
        while True:
            while (held := self._control.hold()) > 0.0:
                await clock.sleep(held)
            answer = await provider.poll(parent.task_id, parent.model)
            self._deps.crash("supply.polled")
            found = await self._heed(answer, parent, number, provider)
            if not isinstance(found, Away):
                return found
            failures += 1
            if not self._control.submitting or clock.monotonic() - since >= self._settings.poll_patience:
                return Problem(f"its URL could not be renewed: {found.problem.message}")
            await clock.sleep(backoff(failures, self._deps.dice(), self._settings.retry_delay))

    async def _heed(
        self, answer: e.PollAnswer, parent: Parent, number: int, provider: Provider
    ) -> str | Problem | Away:
        if provider is self._deps.provider:
            self._tell_switches(answer)
        elif isinstance(answer, e.Throttled):
            await self._hold_other(answer, provider)
        match answer:
            case e.Completed():
                return await self._alive(answer, parent, number)
            case e.Throttled(problem=problem) | e.PollFailed(problem=problem):
                return Away(problem)
            case e.Refused(problem=problem):
                return problem
            case e.Missing():
                return Problem("its URL has expired, and the service does not know its task any more")
            case e.StillRunning() | e.TaskFailed():
                return Problem("its URL has expired, and the service says now that its task is not complete")
            case _:
                assert_never(answer)

    def _tell_switches(self, answer: e.PollAnswer) -> None:
        """What the answer means for everything else that asks this account."""
        if isinstance(answer, e.PollFailed) and answer.problem.http_status is None:
            self._control.silent(answer.problem.message)
        else:
            self._control.heard()
        match answer:
            case e.Throttled(retry_after=retry_after):
                wait = self._control.throttled(retry_after)
                self._deps.ledger.save_hold(self._deps.provider.name, self._deps.clock.wall() + wait)
                self._deps.observe("hold", seconds=round(wait, 3))
            case e.Refused(reason=reason, problem=problem):
                stop = Stop.CREDENTIALS if reason is e.Refusal.CREDENTIALS else Stop.CREDIT
                self._control.halt(stop, problem.message)

    async def _hold_other(self, answer: e.Throttled, provider: Provider) -> None:
        """Another account of the run has switches of its own: it holds and stops nobody here."""
        wait = clamp_retry_after(answer.retry_after, backoff(1, self._deps.dice()))
        self._deps.ledger.save_hold(provider.name, self._deps.clock.wall() + wait)
        await self._deps.clock.sleep(wait)

    async def _alive(self, answer: e.Completed, parent: Parent, number: int) -> str | Problem | Away:
        url = _named(answer, number, self._deps.output_kind(parent.model))
        if url is None:
            return Problem("it gave no last frame" if number == LAST_FRAME else "it gave no such output")
        try:
            await self._deps.fetcher.look(url)
        except Transient as error:
            return Away(error.problem)
        except FetchError as error:
            return Problem(f"its URL has expired, and the service gives no live one: {error.problem.message}")
        return url

    # --- The user's own way ------------------------------------------------------------------------------

    async def _offered(self, parent: Parent, problem: Problem) -> str | Problem:
        """The file, offered elsewhere."""
        offer = self._deps.offer
        if offer is None or parent.file is None:
            return problem
        try:
            url = await offer(parent.file)
        except NotOffered as error:
            return Problem(f"{problem.message}; {error}")
        dead = await self._dead(url)
        return url if dead is None else Problem(f"the upload command printed a URL that can't be used: {dead.message}")


def _named(answer: e.Completed, number: int, kind: str) -> str | None:
    """The URL of one of a task's files. The first is the first of the model's own kind, as `outputs.plan` counts."""
    if number == LAST_FRAME:
        return answer.last_frame_url
    if kind in answer.kinds:
        return answer.urls[answer.kinds.index(kind)]
    return answer.urls[0] if answer.urls else None
