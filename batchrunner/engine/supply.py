"""What a chained job needs before it is sent: live URLs of its parents' outputs. Never by generating again.

In this order: where the output was fetched from, if that was lately; what a free poll of the parent's task gives; what
the user's upload command prints for the file. Each is looked at first: a URL that is not seen alive is not sent.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, assert_never

from ..core import events as e
from ..core.chain import Need, needs, replaced
from ..core.job import Job, Problem
from ..core.media import LAST_FRAME
from ..core.pacing import backoff
from ..ledger.needs import Parent
from ..providers.fetch import FetchError
from .control import Control, Stop
from .ports import Deps, NotOffered, Settings

LATELY = 1800.0
"""Seconds for which a URL is taken to live on for the service to fetch it; how long reAPI's do is not known, and the
shortest of other services is an hour (REAPI.md, Not known)."""

TRIES = 3
"""Polls of a parent that may fail before its child waits for the next run."""


@dataclass(frozen=True, slots=True)
class Supplied:
    """The exact request to send."""

    request: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Short:
    """The output of the job `parent` can't be had now; `problem` says why."""

    parent: str
    problem: str


class Supply:
    """Finds the URLs for chained jobs; those of one parent are looked for once at a time."""

    def __init__(self, deps: Deps, control: Control, settings: Settings) -> None:
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
        """What the service says of the parent's task now."""
        problem = Problem("nobody was asked")
        for failures in range(1, TRIES + 1):
            await self._deps.clock.sleep(self._control.hold())
            if not self._control.submitting:
                return Problem("the run ended before the service was asked for its URL")
            answer = await self._deps.provider.poll(parent.task_id)
            self._deps.crash("supply.polled")
            match answer:
                case e.Completed():
                    self._control.heard()
                    return await self._alive(answer, parent, number)
                case e.Throttled(retry_after=retry_after):
                    wait = self._control.throttled(retry_after)
                    self._deps.ledger.save_hold(self._deps.provider.name, self._deps.clock.wall() + wait)
                    self._deps.observe("hold", seconds=round(wait, 3))
                    problem = answer.problem
                case e.Refused(reason=reason, problem=refused):
                    stop = Stop.CREDENTIALS if reason is e.Refusal.CREDENTIALS else Stop.CREDIT
                    self._control.halt(stop, refused.message)
                    return refused
                case e.PollFailed():
                    problem = answer.problem
                    await self._deps.clock.sleep(backoff(failures, self._deps.dice(), self._settings.retry_delay))
                case e.Missing():
                    return Problem("its URL has expired, and the service does not know its task any more")
                case e.StillRunning() | e.TaskFailed():
                    return Problem("its URL has expired, and the service says now that its task is not complete")
                case _:
                    assert_never(answer)
        return Problem(f"its URL could not be renewed: {problem.message}")

    async def _alive(self, answer: e.Completed, parent: Parent, number: int) -> str | Problem:
        url = _named(answer, number, self._deps.output_kind(parent.model))
        if url is None:
            return Problem("it gave no last frame" if number == LAST_FRAME else "it gave no such output")
        dead = await self._dead(url)
        if dead is None:
            return url
        return Problem(f"its URL has expired, and the service gives no live one: {dead.message}")

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
