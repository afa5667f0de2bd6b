"""A race that the enumeration met once in eleven thousand runs, played in slow motion.

The submitter reads the next page while the last POST comes back unsent. Its page was read for a world in which that job
was on the wire; when the POST's task ends during the read, nobody may believe that there is nothing left to send.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from batchrunner.core import events as e
from batchrunner.core.job import Job, Pending, Problem, RetryBudget
from batchrunner.core.lifecycle import advance
from batchrunner.core.polling import Latencies
from batchrunner.core.selection import Selection
from batchrunner.engine import control
from batchrunner.engine.clock import Dice, SystemClock
from batchrunner.engine.pacer import Pacer
from batchrunner.engine.ports import Batch, Deps, Settings, Work
from batchrunner.engine.slots import Slots
from batchrunner.engine.stores import Stores
from batchrunner.engine.submit import Submitter
from tests.crash.workspace import SETTINGS

JOB = Job(1, 1, "dog-1", "reapi", "kling-3-0-turbo", {}, 630, "dog-1", False, Pending())


class Ledger:
    """Answers page by page, when it is told to."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[asyncio.Future[list[Job]]] = asyncio.Queue()

    async def pending(
        self,
        batches: list[int],
        selection: Selection,
        limit: int,
        now: float,
        without: object = (),
        provider: str | None = None,
        models: object = (),
    ) -> tuple[list[Job], float | None]:
        answer: asyncio.Future[list[Job]] = asyncio.get_running_loop().create_future()
        self.asked.put_nowait(answer)
        return await answer, None


class Provider:
    """Sends nothing, once it is told to say so."""

    def __init__(self) -> None:
        self.calls = 0
        self.answered = asyncio.Event()

    async def submit(
        self, model: str, request: Any, before_send: Callable[[], Awaitable[None]], *, label: str
    ) -> e.SubmitAnswer:
        self.calls += 1
        await before_send()
        await self.answered.wait()
        return e.NotSent(Problem("the server closed the connection"))


def submitter_of(
    ledger: Ledger, provider: Provider, record: Callable[[Job, e.Event], Awaitable[Job]], folder: Path
) -> tuple[Submitter, control.Control]:
    """A submitter between the two, and its switches."""
    clock = SystemClock()
    deps = cast("Deps", Fake(ledger, provider, clock, record))
    switches = control.Control(clock, Dice(1), lambda _stop, _message: None)
    settings: Settings = replace(SETTINGS, submits_per_minute=60_000.0)
    slots = Slots(5)
    submitter = Submitter(
        deps,
        switches,
        slots,
        settings,
        Work([Batch(1, "night", folder, 60_000.0, 5, RetryBudget())]),
        on_running=print,
        on_doubt=print,
        backlog=lambda: 0,
        on_idle=lambda: None,
        pacer=Pacer(deps, settings, slots),
        latencies=Latencies(),
    )
    return submitter, switches


async def until(true: Callable[[], bool]) -> None:
    """Let others go on until that holds."""
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0)


async def test_a_post_that_ends_while_the_next_page_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "backoff", lambda *_arguments, **_more: 0.0)
    ledger, provider = Ledger(), Provider()
    reading: list[asyncio.Future[list[Job]]] = []

    async def record(job: Job, event: e.Event) -> Job:
        if isinstance(event, e.NotSent):
            # The page that was asked for before comes now: the submitter asks again before the POST's task has ended.
            reading.pop().set_result([])
        return replace(job, fact=advance(job.fact, event))

    submitter, _ = submitter_of(ledger, provider, record, tmp_path)
    running = asyncio.create_task(submitter.run())
    (await ledger.asked.get()).set_result([JOB])  # the first page
    reading.append(await ledger.asked.get())  # the second is asked for while the job is on the wire

    provider.answered.set()

    while not submitter.idle and provider.calls == 1:
        page = await asyncio.wait_for(ledger.asked.get(), 10)
        for _ in range(3):
            await asyncio.sleep(0)
        page.set_result([JOB])  # pending again
        for _ in range(3):
            await asyncio.sleep(0)
    assert not submitter.idle, "the run would end with a job pending and no reason"
    running.cancel()
    await asyncio.wait([running])
    await submitter.drain()


async def test_jobs_that_are_withdrawn_while_their_page_is_read(tmp_path: Path) -> None:
    """They are neither sent nor waited for; a pause keeps back what the next page has, until it ends."""
    ledger, provider = Ledger(), Provider()

    async def record(job: Job, event: e.Event) -> Job:
        return replace(job, fact=advance(job.fact, event))

    submitter, switches = submitter_of(ledger, provider, record, tmp_path)
    switches.pause("ada")
    running = asyncio.create_task(submitter.run())
    old = await ledger.asked.get()
    submitter.withdrawn()
    old.set_result([JOB])

    (await asyncio.wait_for(ledger.asked.get(), 10)).set_result([])
    await until(lambda: submitter.idle)
    assert provider.calls == 0

    submitter.requeued()
    (await asyncio.wait_for(ledger.asked.get(), 10)).set_result([JOB])
    for _ in range(5):
        await asyncio.sleep(0)
    assert not submitter.idle
    assert provider.calls == 0
    switches.go_on()
    await until(lambda: provider.calls == 1)
    running.cancel()
    provider.answered.set()
    await asyncio.wait([running])
    await submitter.drain()


class Fake:
    """The parts of `Deps` that a submitter touches here."""

    def __init__(
        self,
        ledger: Ledger,
        provider: Provider,
        clock: SystemClock,
        record: Callable[[Job, e.Event], Awaitable[Job]],
    ) -> None:
        self.ledger = ledger
        self.provider = provider
        self.clock = clock
        self.advance = record
        self.dice = Dice(1)
        self.stores = Stores()
        self.moved = None

    def crash(self, point: str) -> None: ...

    def observe(self, event: str, job: Job | None = None, /, **data: Any) -> None: ...
