"""Downloading: fetch, verify, place, record. A failed download never causes a submission."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..core import events as e
from ..core.job import Downloading, Job, Output, Problem, Running
from ..core.pacing import backoff
from ..ledger.errors import WriteFailed
from ..ledger.store import Attempt
from ..providers.fetch import BadContent, Fetched, LinkDead, Transient
from .clock import iso
from .control import Control, Stop
from .files import Occupied, Placed, UnsafePath, find_placed, part_path, place, sweep, target_path
from .ports import Deps, Settings, Work

T = TypeVar("T")

EXTENSIONS = {"video": ".mp4", "image": ".png", "audio": ".mp3"}
"""The usual extension by kind of output, where the manifest gave no name."""

MAX_DISK_FAILURES = 10
"""Failures of the disk in a row before a download is left for the next run."""


class Downloader:
    """A queue of finished tasks and a few workers that bring their outputs home."""

    def __init__(
        self,
        deps: Deps,
        control: Control,
        settings: Settings,
        work: Work,
        on_renewal: Callable[[Job], None],
        on_done: Callable[[], None],
    ) -> None:
        self._deps = deps
        self._control = control
        self._settings = settings
        self._work = work
        self._on_renewal = on_renewal
        self._on_done = on_done
        self._queue: asyncio.Queue[Job] = asyncio.Queue()
        self._active = 0
        self.left_behind = 0
        """Downloads that this run gave up for now; the next run goes on with them."""

    @property
    def backlog(self) -> int:
        """Finished tasks whose output is not home yet."""
        return self._queue.qsize() + self._active

    def add(self, job: Job) -> None:
        self._queue.put_nowait(job)

    async def work(self) -> None:
        """One worker; runs until cancelled."""
        while True:
            job = await self._queue.get()
            self._active += 1
            try:
                await self._bring_home(job)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001  handed on: the run ends, and the error is raised from it
                self._control.bug(error)
            finally:
                self._active -= 1
                self._on_done()

    async def _bring_home(self, job: Job) -> None:
        started = self._deps.clock.monotonic()
        failures = bad = 0
        while True:
            try:
                self._deps.crash("download.start")
                output = await self._once(job)
                self._deps.crash("download.placed")
                await self._deps.advance(job, e.Stored(output))
                self._deps.crash("download.recorded")
            except LinkDead as dead:
                await self._link_died(job, dead.problem)
            except BadContent as unusable:
                bad += 1
                if bad >= self._settings.bad_content_tries:
                    await self._link_died(job, unusable.problem)
                    return
                await self._wait(job, unusable.problem, bad)
                continue
            except Transient as passing:
                failures += 1
                if not self._patient(started):
                    self._leave(job, passing.problem)
                    return
                await self._wait(job, passing.problem, failures, passing.retry_after)
                continue
            except (OSError, WriteFailed, UnsafePath) as error:
                failures += 1
                problem = Problem(_describe(error), "disk")
                self._control.halt(Stop.LEDGER if isinstance(error, WriteFailed) else Stop.DISK, problem.message)
                if not self._patient(started) or failures >= MAX_DISK_FAILURES or isinstance(error, UnsafePath):
                    self._leave(job, problem)
                    return
                await self._wait(job, problem, failures)
                continue
            return

    def _patient(self, started: float) -> bool:
        return self._deps.clock.monotonic() - started < self._settings.download_patience

    async def _wait(self, job: Job, problem: Problem, failures: int, at_least: float | None = None) -> None:
        wait = backoff(failures, self._deps.dice(), self._settings.retry_delay)
        self._deps.observe("download_failed", job, error={"code": problem.code, "message": problem.message})
        await self._deps.clock.sleep(max(wait, min(at_least or 0.0, 60.0)))

    def _leave(self, job: Job, problem: Problem) -> None:
        self.left_behind += 1
        self._deps.observe("left_behind", job, error={"code": problem.code, "message": problem.message})

    async def _link_died(self, job: Job, problem: Problem) -> None:
        await self._thread(sweep, self._usual(job), self._work.folder(job), await self._deps.ledger.task_ids(job))
        after = await self._deps.advance(job, e.LinkDied(problem))
        self._deps.crash("download.link_died")
        if isinstance(after.fact, Running):
            self._on_renewal(after)

    async def _once(self, job: Job) -> Output:
        """Fetch and place one output, or recognise it where an earlier run had placed it.

        Raises:
            LinkDead, BadContent, Transient: see `providers.fetch`.
            UnsafePath, OSError: the disk, or what stands on it.
        """
        fact = job.fact
        assert isinstance(fact, Downloading)  # noqa: S101  only such jobs are queued
        folder, kind = self._work.folder(job), self._deps.output_kind(job.model)
        usual = self._usual(job)
        if os.path.lexists(usual):  # noqa: ASYNC240  a look is cheaper than a thread, and nearly always says no
            there = await self._thread(find_placed, usual, folder, fact.task_id)
            if there is not None:
                return _output(folder, there)
        ledger = self._deps.ledger
        land = partial(self._land, job, fact, await ledger.attempt(job), await ledger.task_ids(job))
        wanted, placed = await self._deps.fetcher.fetch(
            fact.urls[0], part_path(usual), root=folder, kind=kind, then=land
        )
        output = _output(folder, placed)
        if placed.path != wanted:
            self._deps.observe("output_renamed", job, output=output.path, wanted=str(folder / wanted))
        return output

    def _usual(self, job: Job) -> Path:
        """The final name, so far as it is known before anything came."""
        extension = EXTENSIONS[self._deps.output_kind(job.model)]
        return target_path(self._work.folder(job), job.output, named=job.named, extension=extension)

    def _land(
        self, job: Job, fact: Downloading, attempt: Attempt, ours: Sequence[str], fetched: Fetched
    ) -> tuple[str, Placed]:
        """Give what came its name, in the thread that wrote it. Returns the name that it should have, too."""
        self._deps.crash("download.fetched")
        folder = self._work.folder(job)
        target = target_path(folder, job.output, named=job.named, extension=fetched.extension)
        put = partial(place, part_path(self._usual(job)), root=folder, replaces=ours, crash=self._deps.crash)
        sidecar = self._sidecar(job, fact, attempt, fetched)
        try:
            placed = put(target, sidecar=sidecar)
        except Occupied:
            # Somebody put a file there meanwhile. Neither is it overwritten nor is what was paid for thrown away.
            beside = target.with_name(f"{target.stem}.{fact.task_id[-8:]}{target.suffix}")
            return target.relative_to(folder).as_posix(), put(beside, sidecar=sidecar)
        return placed.path, placed

    async def _thread(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(None, function, *arguments)

    def _sidecar(self, job: Job, fact: Downloading, attempt: Attempt, fetched: Fetched) -> dict[str, Any]:
        """The facts that stand beside the file: times in ISO 8601, UTC."""
        facts = {
            "job": job.key,
            "batch": self._work.name(job),
            "provider": job.provider,
            "model": job.model,
            "request": job.request,
            "task_id": fact.task_id,
            "attempt": fact.attempt,
            "credits": attempt.credits,
            "submitted_at": iso(attempt.intent_at),
            "accepted_at": iso(attempt.answered_at),
            "completed_at": iso(attempt.ended_at),
            "downloaded_at": iso(self._deps.clock.wall()),
            "sha256": fetched.sha256,
            "bytes": fetched.size,
            "container": fetched.container,
        }
        if attempt.promoted_from is not None:
            facts["promoted_from"] = attempt.promoted_from
        return {**facts, "simulated": True} if self._deps.simulated else facts


def _output(folder: Path, placed: Placed) -> Output:
    return Output(str(folder / placed.path), placed.sha256, placed.size)


def _describe(error: Exception) -> str:
    """What went wrong on the disk, for people."""
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror or type(error).__name__}"
    return str(error)
