"""Downloading: fetch, verify, place, record. A failed download never causes a submission."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from ..core import events as e
from ..core.job import Downloading, Job, Output, Problem, Running
from ..core.media import Facts, Kept, Ordered, differences, judged
from ..core.pacing import backoff
from ..ledger.errors import Conflict, WriteFailed
from ..ledger.store import Attempt
from ..providers.disk import Steps
from ..providers.fetch import BadContent, FetchError, LinkDead, Transient
from ..providers.objects import StoreUnusable
from ..providers.part import Fetched
from .clock import iso
from .control import Control, Stop
from .files import Occupied, Placed, UnsafePath
from .outputs import Wanted, names_to_ask, plan, set_apart
from .ports import Deps, Settings, Work
from .stores import Store

T = TypeVar("T")

Land = Callable[[Wanted, Fetched], Steps[tuple[str, tuple[Placed, Facts]]]]
"""Gives a file that came its name."""

LANDING = 16
"""For each download at once, so many files on their way: the others are waiting for the disk, together, the more the
better. Each holds `fetch.SMALL` bytes at most."""

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
        hire: Callable[[], None],
    ) -> None:
        """`hire`: lets one more worker `work`."""
        self._deps = deps
        self._control = control
        self._settings = settings
        self._work = work
        self._on_renewal = on_renewal
        self._on_done = on_done
        self._hire = hire
        self._hired = 0
        self._queue: asyncio.Queue[tuple[Job, bool]] = asyncio.Queue()
        """Jobs, each with whether an earlier try may have placed something."""
        self._active = 0
        self._room = asyncio.Semaphore(settings.max_downloads)
        self._stores: dict[int, Store] = {}
        self.left_behind = 0
        """Downloads that this run gave up for now; the next run goes on with them."""

    @property
    def backlog(self) -> int:
        """Finished tasks whose output is not home yet."""
        return self._queue.qsize() + self._active

    def add(self, job: Job, *, begun: bool = True) -> None:
        """Fetch what a job's task gave. `begun`: an earlier try may have placed some of it, so look first."""
        self._queue.put_nowait((job, begun))

    def start(self) -> None:
        """Begin to work, with one who waits. Whoever takes a job while nobody else waits hires the next."""
        self._hired += 1
        self._hire()

    async def work(self) -> None:
        """One worker; runs until cancelled."""
        while True:
            job, begun = await self._queue.get()
            self._active += 1
            if self._active == self._hired < LANDING * self._settings.max_downloads:
                self.start()
            try:
                await self._bring_home(job, begun)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001  handed on: the run ends, and the error is raised from it
                self._control.bug(error)
            finally:
                self._active -= 1
                self._on_done()

    async def _bring_home(self, job: Job, begun: bool) -> None:
        started = self._deps.clock.monotonic()
        failures = bad = 0
        home: dict[int, Kept] = {}
        while True:
            try:
                self._deps.crash("download.start")
                look, begun = begun, True
                stored = await self._once(job, home, look)
                self._deps.crash("download.placed")
                await self._deps.advance(job, stored)
                self._deps.crash("download.recorded")
            except LinkDead as dead:
                await self._link_died(job, dead.problem)
            except Conflict:
                if self._deps.moved is None:
                    raise
                self._deps.moved(job)
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
                hopeless = isinstance(error, (UnsafePath, StoreUnusable))  # until a person has mended it
                if not self._patient(started) or failures >= MAX_DISK_FAILURES or hopeless:
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
        store, ours = self._store(job), await self._deps.ledger.task_ids(job)
        for wanted in plan(job, self._deps.output_kind(job.model)):
            await self._thread(store.sweep, wanted.name(), ours)
        after = await self._deps.advance(job, e.LinkDied(problem))
        self._deps.crash("download.link_died")
        if isinstance(after.fact, Running):
            self._on_renewal(after)

    async def _once(self, job: Job, home: dict[int, Kept], look: bool) -> e.Stored:
        """Fetch and place every output that is not home yet, or recognise it where an earlier run had placed it.

        Args:
            home: what is home, by number; is added to.
            look: whether an earlier try may have placed something.

        Raises:
            LinkDead, BadContent, Transient: see `providers.fetch`.
            UnsafePath, OSError: the disk, or what stands on it.
        """
        ledger, order = self._deps.ledger, self._deps.ordered(job)
        wanted = plan(job, self._deps.output_kind(job.model))
        if asked := names_to_ask(wanted):
            wanted = set_apart(wanted, await ledger.taken(job, asked))
        attempt, ours = await ledger.attempt(job)
        land = partial(self._land, job, order, attempt, ours)
        for one in wanted:
            if one.number not in home:
                bring = self._last_frame if one.last_frame else self._bring
                home[one.number] = await bring(job, one, order, land, look)
        kept = judged(order, [home[one.number] for one in wanted])
        assert kept[0].output is not None  # noqa: S101  only a last frame may be missing, and is never the first
        return e.Stored(kept[0].output, kept)

    async def _bring(self, job: Job, wanted: Wanted, order: Ordered, land: Land, look: bool) -> Kept:
        """One output. Raises as `_once`."""
        there = await self._there(job, wanted) if look else None
        placed, facts = there or await self._fetch(job, wanted, land)
        if look:
            await self._thread(self._store(job).tidy, (wanted.name(), placed.path))
        output = Output(str(self._work.place(job) / placed.path), placed.sha256, placed.size)
        return Kept(wanted.number, wanted.kind, wanted.url, output, facts, differences(order, facts, wanted.kind))

    async def _fetch(self, job: Job, wanted: Wanted, land: Land) -> tuple[Placed, Facts]:
        store = self._store(job)
        part, then = store.part(wanted.name()), partial(land, wanted)
        fetcher = self._deps.fetchers.get(job.provider, self._deps.fetcher)
        name, found = await fetcher.fetch(
            wanted.url, part, root=store.parts, kind=wanted.kind, then=then, apart=store.remote, room=self._room
        )
        if found[0].path != name:
            place = self._work.place(job)
            output, wish = str(place / found[0].path), str(place / name)
            self._deps.observe("output_renamed", job, output=output, wanted=wish)
        return found

    async def _there(self, job: Job, wanted: Wanted) -> tuple[Placed, Facts] | None:
        """What an earlier try had placed."""
        fact, store = job.fact, self._store(job)
        assert isinstance(fact, Downloading)  # noqa: S101  only such jobs are queued
        names = store.likely(wanted.names())
        return await self._thread(store.find, names, fact.task_id, wanted.kind) if names else None

    async def _last_frame(self, job: Job, wanted: Wanted, order: Ordered, land: Land, look: bool) -> Kept:
        """A clip's last frame: an extra, whose failure is a warning, because the clip is what was paid for. A disk
        that fails is another matter: it fails for everything."""
        for tries in range(1, self._settings.bad_content_tries + 1):
            try:
                return await self._bring(job, wanted, order, land, look or tries > 1)
            except FetchError as failed:
                problem = failed.problem
                if isinstance(failed, LinkDead) or tries == self._settings.bad_content_tries:
                    break
                await self._wait(job, problem, tries, getattr(failed, "retry_after", None))
        store, ours = self._store(job), await self._deps.ledger.task_ids(job)
        await self._thread(store.sweep, wanted.name(), ours)
        return Kept(wanted.number, wanted.kind, wanted.url, None, warnings=(f"not fetched: {problem.message}",))

    def _land(
        self,
        job: Job,
        order: Ordered,
        attempt: Attempt,
        ours: Sequence[str],
        wanted: Wanted,
        fetched: Fetched,
    ) -> Steps[tuple[str, tuple[Placed, Facts]]]:
        """Give what came its name, in the thread that wrote it. Returns the name that it should have, too."""
        self._deps.crash("download.fetched")
        store = self._store(job)
        name = wanted.name(fetched.extension)
        put = partial(store.placing, store.part(wanted.name()), replaces=ours, crash=self._deps.crash)
        sidecar = self._sidecar(job, attempt, fetched) | wanted.facts()
        sidecar["media"] = {**fetched.facts.words(), "warnings": differences(order, fetched.facts, wanted.kind)}
        try:
            placed = yield from put(name, sidecar=sidecar)
        except Occupied:
            # Somebody put a file there meanwhile. Neither is it overwritten nor is what was paid for thrown away.
            try:
                placed = yield from put(wanted.name_beside(fetched.extension), sidecar=sidecar)
            except Occupied as again:
                raise UnsafePath(str(again)) from None
        return name, (placed, fetched.facts)

    def _store(self, job: Job) -> Store:
        store = self._stores.get(job.batch_id)
        if store is None:
            store = self._stores[job.batch_id] = self._deps.stores.of(self._work.place(job))
        return store

    async def _thread(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(None, function, *arguments)

    def _sidecar(self, job: Job, attempt: Attempt, fetched: Fetched) -> dict[str, Any]:
        """The facts that stand beside the file: times in ISO 8601, UTC."""
        fact = job.fact
        assert isinstance(fact, Downloading)  # noqa: S101  only such jobs are queued
        facts = {
            "job": job.key,
            "batch": self._work.name(job),
            "provider": job.provider,
            "model": job.model,
            "request": job.request if attempt.request is None else json.loads(attempt.request),
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


def _describe(error: Exception) -> str:
    """What went wrong on the disk, for people."""
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror or type(error).__name__}"
    return str(error)
