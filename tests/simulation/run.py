"""One seed, from the first run to a last clean one: `play(seed)`.

The real runner is put together as `batchrunner.app` does it, with three parts exchanged: the ledger's thread (the
connection is used in line, late), the clock, and the event loop, which is on virtual time and holds the network.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import random
import sqlite3
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import aiohttp.connector

import batchrunner.engine.files
import batchrunner.engine.spool
import batchrunner.night
import batchrunner.providers.fetch
import batchrunner.providers.folders
import batchrunner.providers.reapi
from batchrunner import catalogue
from batchrunner.core.chain import Need
from batchrunner.core.job import Job, JobSpec, RetryBudget
from batchrunner.core.keys import fingerprint, job_key
from batchrunner.core.polling import PollPolicy
from batchrunner.engine.clock import Dice
from batchrunner.engine.ports import CRASH_POINTS, Settings
from batchrunner.engine.spool import Spool
from batchrunner.ledger.connection import open_writer
from batchrunner.ledger.files import RunLock
from batchrunner.ledger.store import Ledger
from batchrunner.ledger.writer import InlineDatabase
from batchrunner.manifest import Manifest
from batchrunner.night import Night
from batchrunner.providers.base import Access, Provider, ProviderKind
from batchrunner.providers.fetch import Fetcher
from batchrunner.runs import RunOptions, RunResult, Watcher
from tests.simulation.loop import Died, Life, SimLoop, Stuck
from tests.simulation.oracle import Books, judge, judge_end, judge_recorded, judge_times, judge_waiting, judge_whole
from tests.simulation.world import BASE_URL, KEY, Hold, Post, Weather, World

MODEL = "kling-3-0-turbo"
BATCH = "night"
START = 1_800_000_000.0
"""Unix seconds at the start of a simulation."""

PATIENCE = 6 * 3600.0
"""Virtual seconds within which every run must end."""

MOST_CLEAN = 5
"""Runs of the last phase, in which nothing new goes wrong."""

DAY = 86400.0
T = TypeVar("T")

WATCHED = (
    batchrunner.engine.files,
    batchrunner.engine.spool,
    batchrunner.providers.fetch,
    batchrunner.providers.folders,
)
EFFECTS = frozenset({"unlink", "link", "rename", "replace", "fsync", "write", "pwrite"})
"""What the modules above do to the disk (and `open` with O_CREAT): a run may die before and after each of them."""


# --- What a seed is --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Death:
    """How a run is ended: at the n-th passing of a crash point or effect whose name contains `at`, or after so many
    seconds; by a kill, or by a signal that it may answer."""

    at: str = ""
    n: int = 1
    seconds: float = 0.0
    signal: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """A seed's batch, settings and deaths."""

    jobs: int
    per_minute: float
    in_flight: int
    budget: int | None
    retry: RetryBudget
    settings: Settings
    deaths: tuple[Death | None, ...]
    jumps: tuple[tuple[float, float], ...]
    """(virtual seconds from the start, seconds that the wall clock jumps)."""
    word: float
    """Probability that a run is given consent for all that is in doubt."""
    resume: float
    """Probability that a run is `resume`, without the manifest."""
    limit: int | None = None
    until: float | None = None
    chained: float = 0.0
    """Probability that a job begins with the output of another one."""

    @classmethod
    def draw(cls, rng: random.Random) -> Plan:
        few, some, lots = rng.randint(2, 8), rng.randint(6, 16), rng.randint(20, 60)
        jobs = rng.choices([few, some, lots], [13, 6, 1])[0]
        in_flight = rng.choice([1, 2, 4, 8, 16, 50])
        deaths = [_death(rng) for _ in range(rng.randint(0, 4))]
        return cls(
            jobs=jobs,
            per_minute=rng.choice([60.0, 120.0, 300.0, 1200.0, 60_000.0]),
            in_flight=in_flight,
            budget=rng.choice([None, None, rng.randint(1, jobs) * 630]),
            retry=RetryBudget(provider=rng.choice([0, 1, 2]), moderated=rng.choice([0, 0, 1])),
            settings=Settings(
                poll=PollPolicy(
                    shortest=rng.choice([1.0, 2.0]), longest=rng.choice([10.0, 30.0]), growth=rng.choice([1.5, 2.5])
                ),
                max_posts=rng.choice([2, 8, 32]),
                max_polls=rng.choice([1, 4, 32]),
                max_downloads=rng.choice([1, 4, 12]),
                lost_after=rng.choice([20.0, 60.0]),
                download_patience=rng.choice([60.0, 300.0]),
                min_free_bytes=1,
            ),
            deaths=tuple(deaths),
            jumps=_jumps(rng) if rng.random() < 0.3 else (),
            word=rng.choice([0.0, 0.0, 0.4]),
            resume=rng.choice([0.0, 0.5]),
            limit=rng.randint(1, jobs) if rng.random() < 0.1 else None,
            until=rng.uniform(5.0, 60.0) if rng.random() < 0.1 else None,
        )


def _in_parts(plan: Plan, rng: random.Random) -> Plan:
    """How much of the batch is recorded before its first job is sent: in half of the seeds not all of it."""
    first = rng.choice([plan.jobs, rng.randint(1, plan.jobs)])
    return replace(plan, settings=replace(plan.settings, first_part=first, part=rng.randint(1, 5)))


def _with_grace(plan: Plan, rng: random.Random) -> Plan:
    """A deadline is often followed by an end, whatever is in flight then."""
    grace = rng.choice([0.0, rng.uniform(0.0, 20.0), 3600.0])
    return plan if plan.until is None else replace(plan, settings=replace(plan.settings, grace=grace))


def _chained(plan: Plan, rng: random.Random) -> Plan:
    """In one of six seeds jobs need each other's outputs."""
    return replace(plan, chained=rng.choice([0.3, 0.9])) if rng.random() < 1 / 6 else plan


def _death(rng: random.Random) -> Death | None:
    kind = rng.random()
    if kind < 0.08:
        return None
    if kind < 0.2:
        return Death(seconds=rng.expovariate(1 / 20.0), signal=rng.choice([2, 15]))
    if kind < 0.4:
        return Death(seconds=rng.expovariate(1 / 20.0))
    if kind < 0.65:
        return Death(at=rng.choice(CRASH_POINTS), n=int(2 ** rng.uniform(0, 4)))
    if kind < 0.8:
        return Death(at=rng.choice(["ledger", "disk"]), n=int(2 ** rng.uniform(0, 7)))
    return Death(n=int(2 ** rng.uniform(0, 9)))


def _jumps(rng: random.Random) -> tuple[tuple[float, float], ...]:
    def jump() -> float:
        if rng.random() < 0.15:
            return rng.uniform(-300.0, 300.0)
        return rng.choice([-1.0, 1.0]) * rng.uniform(3700.0, DAY)

    return tuple((rng.uniform(0.0, 120.0), jump()) for _ in range(rng.randint(1, 3)))


class _Jobs:
    """Job specs as a manifest has them."""

    def __init__(self, jobs: list[JobSpec]) -> None:
        self._jobs = jobs

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[JobSpec]:
        return iter(self._jobs)


def _specs(prices: list[int], chained: float, rng: random.Random) -> list[JobSpec]:
    """The batch's jobs; of those that are chained some stand before what they need."""
    found: list[JobSpec] = []
    for n, price in enumerate(prices):
        parent = rng.choice(found) if found and rng.random() < chained else None
        found.append(_spec(f"shot{n}", price, parent))
    if chained and rng.random() < 0.5:
        rng.shuffle(found)
    return found


def _spec(shot: str, price: int, parent: JobSpec | None = None) -> JobSpec:
    key = job_key(shot, {}, 1)
    request: dict[str, Any] = {"model": MODEL, "prompt": key, "duration": 5}
    if parent is not None:
        request["first_frame_image"] = Need(parent.key, parent.fingerprint, "output_url").reference
    return JobSpec(
        key=key,
        fingerprint=fingerprint("reapi", MODEL, request),
        shot=shot,
        take=1,
        matrix={},
        tags=(),
        provider="reapi",
        model=MODEL,
        request=request,
        credits=price,
        output=key,
        named=False,
        seconds=5,
    )


# --- The parts that are exchanged ------------------------------------------------------------------------


class Killer:
    """Knows where this life ends. Every crash point, every effect on the disk and every commit passes by."""

    def __init__(self, world: World, life: Life, death: Death | None) -> None:
        self._world = world
        self._life = life
        self._death = death
        self._count = 0
        self.passed = 0

    def pass_by(self, name: str) -> None:
        if self._life.dead:
            raise Died
        self.passed += 1
        death = self._death
        if death is None or death.seconds or death.at not in name:
            return
        self._count += 1
        if self._count == death.n:
            self._world.note("dies at", name, self._count)
            self._life.die()


class GuardedOs(types.ModuleType):
    """`os`, for one module: a dead run touches the disk no more, and a living one may die at every touch."""

    def __init__(self, killer: Callable[[], Killer], rng: random.Random) -> None:
        super().__init__("os")
        self._killer = killer
        self._rng = rng
        for name in EFFECTS:
            self.__dict__[name] = partial(self._effect, name, getattr(os, name))

    def __getattr__(self, name: str) -> Any:
        value = getattr(os, name)
        self.__dict__[name] = value
        return value

    def _effect(self, name: str, function: Callable[..., Any], *arguments: Any, **words: Any) -> Any:
        killer = self._killer()
        if name == "write":
            try:
                killer.pass_by("disk before write")
            except Died:  # torn: a part of it was written
                function(arguments[0], bytes(arguments[1])[: self._rng.randrange(len(arguments[1]) + 1)])
                raise
        else:
            killer.pass_by(f"disk before {name}")
        result = function(*arguments, **words)
        killer.pass_by(f"disk after {name}")
        return result

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        if not flags & os.O_CREAT:
            return os.open(path, flags, mode)
        self._killer().pass_by("disk before open")
        return os.open(path, flags, mode)


class LateDatabase(InlineDatabase):
    """The connection in the event loop; what it does is done after a while, in order, and heard of a while later."""

    def __init__(self, connection: sqlite3.Connection, world: World, killer: Killer) -> None:
        super().__init__(connection)
        self.connection = connection
        self._world = world
        self._killer = killer
        self._free_at = 0.0

    async def run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._free_at = max(self._free_at, loop.time()) + self._world.rng.uniform(0.0002, 0.006)
        loop.call_at(self._free_at, self._work, function, future)
        return await future

    def _work(self, function: Callable[[sqlite3.Connection], T], future: asyncio.Future[T]) -> None:
        self._killer.pass_by("ledger before")
        try:
            result = function(self.connection)
        except Exception as error:  # noqa: BLE001  as a thread hands it over
            if not future.done():
                future.set_exception(error)
            return
        self._killer.pass_by("ledger after")
        if not future.done():
            future.set_result(result)


class SimClock:
    """Both clocks. The wall clock jumps."""

    def __init__(self, world: World, jumps: tuple[tuple[float, float], ...]) -> None:
        self._timeline = world.timeline
        self._start = world.timeline.now
        self.offset = START
        self.jumped_at = -1e9
        for at, seconds in jumps:
            world.timeline.at(self._start + at, self._jump, world, seconds)

    def _jump(self, world: World, seconds: float) -> None:
        world.note("the wall clock jumps", seconds)
        self.offset += seconds
        self.jumped_at = world.timeline.now

    def wall(self) -> float:
        return self._timeline.now - self._start + self.offset

    def monotonic(self) -> float:
        return self._timeline.now

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Listener(Watcher):
    def __init__(self, world: World, life: Life) -> None:
        self._world = world
        self._life = life
        self.left: set[str] = set()

    def event(self, name: str, job: Job | None = None, /, **data: Any) -> None:
        if self._life.dead or name == "progress":
            return
        if name == "left_behind" and job is not None:
            self.left.add(job.key)
        if name == "grace_over":
            self.left.update(f"in flight {n}" for n in range(data["tasks"] + data["downloads"]))
        error = data.get("error") or {}
        self._world.note(name, job.key if job else "", data.get("state", ""), error.get("code", ""))


class _Night(Night):
    """The night with the key and the address given, not read from the environment."""

    made: list[Provider | Fetcher]

    async def _connect(self, name: str) -> tuple[Provider, Fetcher]:
        found = await super()._connect(name)
        self.made.extend(found)
        return found

    async def _access(self, kind: ProviderKind) -> Access:
        return Access(BASE_URL, KEY)


# --- A seed ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Verdict:
    """How a seed went."""

    seed: int
    wrong: list[str]
    digest: str
    runs: int
    kills: int
    posts: int
    polls: int
    jobs: int
    virtual: float
    states: dict[str, int]
    faults: dict[str, int]
    trace: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"seed {self.seed}: " + ("; ".join(self.wrong[:5]) or "good")


class Simulation:
    """Plays one seed in a folder of its own."""

    def __init__(self, seed: int, folder: Path, plan: Plan | None = None, weather: Weather | None = None) -> None:
        self._seed = seed
        self._rng = random.Random(f"plan {seed}")
        drawn = plan or _in_parts(Plan.draw(self._rng), random.Random(f"parts {seed}"))
        self._plan = plan or _chained(
            _with_grace(drawn, random.Random(f"grace {seed}")), random.Random(f"chained {seed}")
        )
        self._db = folder / "night.db"
        self._outputs = folder / "out"
        prices = [self._rng.choice([630, 630, 315, 1260]) for _ in range(self._plan.jobs)]
        self._specs = _specs(prices, self._plan.chained, random.Random(f"chain {seed}"))
        self.world = World(
            seed,
            prices={s.key: s.credits or 0 for s in self._specs},
            budget=self._plan.budget,
            in_flight=self._plan.in_flight,
            weather=weather,
        )
        self._clock = SimClock(self.world, self._plan.jumps)
        self._killer = Killer(self.world, self.world.life, None)
        self._books: Books | None = None
        """What the last run left; nobody touches the ledger until the next one."""
        self.runs = self.kills = 0

    def play(self) -> Verdict:
        world, plan = self.world, self._plan
        with _patched(world, lambda: self._killer):
            try:
                self._play()
            except Stuck as stuck:
                world.violation(f"liveness: {stuck}")
                self._books = Books(self._db) if self._db.exists() else None
        books = self._books
        return Verdict(
            self._seed,
            world.wrong,
            world.digest(),
            self.runs,
            self.kills,
            len(world.account.posts),
            world.account.polls,
            plan.jobs,
            world.timeline.now - 1000.0,
            books.states() if books else {},
            world.account.faults,
            world.trace,
        )

    def _play(self) -> None:
        plan, rng = self._plan, self._rng
        for death in plan.deaths:
            self._run(death, limit=plan.limit, until=plan.until)
            if self.world.wrong:
                return
            self.world.timeline.advance(rng.choice([0.2, 0.2, rng.expovariate(1 / 30.0), rng.uniform(0, 900.0)]))
        self.world.calm = True
        self.world.note("calm")
        for turn in range(MOST_CLEAN):
            result = self._run(None, clean=True, word=plan.word > 0 and turn == 0)
            if self.world.wrong:
                return
            assert result is not None
            if result.exit_code in {0, 1, 3} or (result.stop is not None and result.stop.value == "budget"):
                return
            if result.stop is not None and result.stop.value == "needs":
                assert self._books is not None
                for text in judge_waiting(self._books, self.world):
                    self.world.violation(text)
                return
            self.world.timeline.advance(30.0)
        self.world.violation(f"liveness: {MOST_CLEAN} clean runs and no end: {result}")

    # --- One run -----------------------------------------------------------------------------------------

    def _run(
        self,
        death: Death | None,
        *,
        clean: bool = False,
        word: bool = False,
        limit: int | None = None,
        until: float | None = None,
    ) -> RunResult | None:
        """One run of the program; None where it died."""
        world, plan, rng = self.world, self._plan, self._rng
        self.runs += 1
        life = world.life = Life(self.runs)
        batchrunner.providers.folders.forget()  # a new process knows of nothing
        killer = self._killer = Killer(world, life, death)
        loop = SimLoop(world.timeline, world, life, patience=PATIENCE)
        word = word or (not clean and rng.random() < plan.word)
        before = self._books
        resume = before is not None and bool(before.jobs) and rng.random() < plan.resume
        if clean and before is not None and before.unrecorded:
            resume = False  # as `resume` says
        self._expect(before, word)
        options = RunOptions(
            db=self._db,
            manifests=[] if resume else [self._manifest()],
            batches=[BATCH] if resume else [],
            resubmit=word,
            limit=limit,
            until=until,
            settings=plan.settings,
            crash=killer.pass_by,
        )
        world.note("run", life.number, "resume" if resume else "run", "with a word" if word else "", death)
        if death is not None and death.seconds:
            world.timeline.at(world.timeline.now + death.seconds, self._strike, life, loop, death)
        opened: list[LateDatabase] = []
        made: list[Provider | Fetcher] = []
        spools: list[Spool] = []
        listener = _Listener(world, life)
        locks: list[RunLock] = []
        result: RunResult | None = None
        try:
            result = loop.run_until_complete(self._main(options, listener, killer, opened, made, spools, locks))
            self._wind_up(loop)
        except Died:
            self._died(loop, life, opened, made, spools, locks)
        except Stuck:
            life.dead = True
            self._died(loop, life, opened, made, spools, locks)
            raise
        except Exception as error:  # noqa: BLE001  a bug of the program under test
            world.violation(f"the run broke: {type(error).__name__}: {error}")
            life.dead = True
            self._died(loop, life, opened, made, spools, locks)
        self._look(life, loop, result, listener, resumed=resume)
        return result

    def _manifest(self) -> Manifest:
        plan = self._plan
        return Manifest(
            file=self._db.with_name("night.yaml"),
            batch=BATCH,
            profile=None,
            provider="reapi",
            max_credits=plan.budget,
            submits_per_minute=plan.per_minute,
            in_flight=plan.in_flight,
            retry=plan.retry,
            output_dir=self._outputs,
            jobs=_Jobs(self._specs),
            warnings=(),
            chained=plan.chained > 0,
        )

    async def _main(
        self,
        options: RunOptions,
        listener: Watcher,
        killer: Killer,
        opened: list[LateDatabase],
        made: list[Provider | Fetcher],
        spools: list[Spool],
        locks: list[RunLock],
    ) -> RunResult:
        """As `app._run`."""
        async with AsyncExitStack() as stack:
            assert isinstance(options.db, Path)
            lock = RunLock(options.db)
            lock.acquire()
            locks.append(lock)
            if not options.db.exists():
                options.db.write_bytes(_new_ledger())
                options.db.chmod(0o600)
            opened.append(LateDatabase(open_writer(options.db), self.world, killer))
            ledger = Ledger(opened[0], self._clock.wall, lock)
            stack.push_async_callback(ledger.close)
            spool = Spool(options.db)
            spools.append(spool)
            stack.callback(spool.close)
            night = _Night(options, listener, self._clock, ledger, spool, stack)
            night.made = made
            self._watch(opened[0].connection)
            return await night.run()

    def _watch(self, connection: sqlite3.Connection) -> None:
        """What must hold of the ledger at the moment a call arrives."""
        plan = self._plan

        def at_post(post: Post) -> list[str]:
            if self.world.life.dead or self.world.life.number != post.life:
                return []  # what a dead run had still sent: its intent is looked for afterwards
            row = connection.execute("SELECT state FROM job WHERE key = ?", (post.label,)).fetchone()
            wrong = [] if row and row[0] == "submitting" else [f"a POST for {post.label}, which is {row and row[0]}"]
            sums = connection.execute("SELECT sum(spent + reserved + at_risk) FROM batch").fetchone()[0]
            if plan.budget is not None and sums > plan.budget:
                wrong.append(f"P5 the budget is {plan.budget}, the ledger counts {sums}")
            if self.world.account.net > sums:
                wrong.append(f"P5 {self.world.account.net} are charged, the ledger counts {sums}")
            return wrong

        def at_poll(task_id: str) -> list[str]:
            if self.world.life.dead:
                return []
            known = connection.execute("SELECT 1 FROM attempt WHERE task_id = ?", (task_id,)).fetchone()
            return [] if known else [f"P2 a poll for {task_id}, which is not in the ledger"]

        self.world.at_post, self.world.at_poll = at_post, at_poll

    def _expect(self, before: Books | None, word: bool) -> None:
        """What the new run must respect of what the last one left."""
        world = self.world
        if before is None:
            return
        # Found submitting it becomes unconfirmed before the word is heard, unless the spool has its id.
        if word:
            for job in before.jobs:
                if job["state"] in {"unconfirmed", "submitting"}:
                    world.spoken(job["key"])
        held = before.hold_until - self._clock.wall()
        if 0.0 < held <= 3600.0 and all(
            not world.timeline.now <= at + 1000.0 <= world.timeline.now + 2.0 for at, _ in self._plan.jumps
        ):
            world.holds.append(Hold(world.life.number, world.timeline.now, world.timeline.now + held))

    def _strike(self, life: Life, loop: SimLoop, death: Death) -> None:
        """A kill, or a signal, at an instant."""
        if life.dead or self.world.life is not life or loop.is_closed():
            return
        if not death.signal:
            self.world.note("dies")
            life.die()
        if death.signal in loop.signals:
            self.world.note("signal", death.signal)
            callback, arguments = loop.signals[death.signal]
            loop.call_soon(callback, *arguments)

    def _wind_up(self, loop: SimLoop) -> None:
        """As `asyncio.run` does at the end; nothing may be left."""
        loop.run_until_complete(loop.shutdown_asyncgens())
        left = sorted(t.get_name() for t in loop.tasks if not t.done())
        if left:
            self.world.violation(f"the run left tasks: {left}")
        for link in list(loop.links):
            link.hang_up()
        loop.close()

    def _died(
        self,
        loop: SimLoop,
        life: Life,
        opened: list[LateDatabase],
        made: list[Provider | Fetcher],
        spools: list[Spool],
        locks: list[RunLock],
    ) -> None:
        self.kills += 1
        self.world.at_post = lambda _: []
        self.world.at_poll = lambda _: []
        with _silence():
            loop.bury()
            for part in made:
                _forget_sessions(part)
            for spool in spools:
                with suppress(OSError):
                    os.close(spool._fd)
            for database in opened:
                with suppress(sqlite3.Error):
                    database.connection.close()
            for lock in locks:
                lock.release()

    def _look(self, life: Life, loop: SimLoop, result: RunResult | None, listener: _Listener, *, resumed: bool) -> None:
        world, plan = self.world, self._plan
        self.world.at_post = lambda _: []
        self.world.at_poll = lambda _: []
        for text in loop.complaints:
            world.violation(f"asyncio: {text}")
        if not self._db.exists():
            return
        books = self._books = Books(self._db)
        found = judge(books, world, self._outputs, plan.budget)
        found += judge_times(world, life.number, plan.per_minute)
        found += judge_recorded(books, plan.jobs)
        if result is not None:
            stop = result.stop.value if result.stop else None
            world.note("ended", result.exit_code, stop, books.states())
            left = len(listener.left)
            if not resumed:
                found += judge_whole(books, stop)
            found += judge_end(books, world, self._outputs, result.exit_code, stop, left, plan.settings.lost_after)
        else:
            world.forget_unknown(books.known)
            world.note("dead", books.states())
        for text in found:
            world.violation(text)


@cache
def _new_ledger() -> bytes:
    """A ledger that nobody has written to. To make one takes longer than many a run, and is always the same."""
    with tempfile.TemporaryDirectory(prefix="batchrunner-sim-", dir=scratch()) as folder:
        db = Path(folder) / "new.db"
        open_writer(db).close()
        return db.read_bytes()


def _forget_sessions(part: Provider | Fetcher) -> None:
    """Sessions of a dead process are not closed; nobody is told that they are not."""
    for name in ("_submits", "_polls", "_session"):
        session = getattr(part, name, None)
        if isinstance(session, aiohttp.ClientSession) and session._connector is not None:
            connector = session._connector
            connector._closed = True
            connector._conns.clear()
            session._connector = None


@contextmanager
def _silence() -> Iterator[None]:
    before = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.unraisablehook = before


@contextmanager
def _patched(world: World, killer: Callable[[], Killer]) -> Iterator[None]:
    """Clocks and dice that libraries reach past the loop, and the disk that a dead run must not touch."""
    dice = random.Random(f"dice {world.seed}")
    changed: list[tuple[Any, str, Any]] = []

    def change(place: Any, name: str, value: Any) -> None:
        changed.append((place, name, getattr(place, name)))
        setattr(place, name, value)

    change(aiohttp.connector, "monotonic", lambda: world.timeline.now)
    change(aiohttp.connector, "random", random.Random(f"aiohttp {world.seed}"))
    change(batchrunner.night, "Dice", lambda: Dice(dice.randrange(1 << 30)))
    guarded = GuardedOs(killer, dice)
    for module in WATCHED:
        change(module, "os", guarded)
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        for place, name, value in reversed(changed):
            setattr(place, name, value)


@contextmanager
def collected() -> Iterator[Callable[[], None]]:
    """What dead runs leave is collected when this says so, where nobody hears of it, and never by itself."""

    def collect() -> None:
        with _silence():
            gc.collect()

    on = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield collect
    finally:
        collect()
        gc.unfreeze()
        if on:
            gc.enable()


def scratch() -> Path:
    """Where ledgers of simulations are: in memory, where there is such a place."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and os.access(memory, os.W_OK) else Path(tempfile.gettempdir())


def play(seed: int, plan: Plan | None = None, weather: Weather | None = None) -> Verdict:
    """One seed. Call it inside `collected`."""
    catalogue.models()
    with tempfile.TemporaryDirectory(prefix="batchrunner-sim-", dir=scratch()) as folder:
        return Simulation(seed, Path(folder), plan, weather).play()


# --- Many ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Total:
    """Many seeds."""

    seeds: int = 0
    runs: int = 0
    kills: int = 0
    jobs: int = 0
    posts: int = 0
    polls: int = 0
    virtual_hours: float = 0.0
    states: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, verdict: Verdict) -> None:
        self.seeds += 1
        self.runs += verdict.runs
        self.kills += verdict.kills
        self.jobs += verdict.jobs
        self.posts += verdict.posts
        self.polls += verdict.polls
        self.virtual_hours += verdict.virtual / 3600.0
        for mine, theirs in ((self.states, verdict.states), (self.faults, verdict.faults)):
            for name, count in theirs.items():
                mine[name] = mine.get(name, 0) + count
        if verdict.wrong:
            self.failures.append(str(verdict))

    def merge(self, other: Total) -> None:
        for name in ("seeds", "runs", "kills", "jobs", "posts", "polls", "virtual_hours", "seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for mine, theirs in ((self.states, other.states), (self.faults, other.faults)):
            for name, count in theirs.items():
                mine[name] = mine.get(name, 0) + count
        self.failures += other.failures


def many(seeds: range) -> Total:
    """Play seeds, one after another."""
    total = Total()
    began = time.process_time()
    with collected() as collect:
        for seed in seeds:
            total.add(play(seed))
            if seed % 20 == 0:
                collect()
    total.seconds = time.process_time() - began
    return total


def record(seeds: int, first: int, processes: int, into: Path | None) -> Total:
    """Play many seeds in several processes, and write down how it went."""
    step = 100
    shards = [range(s, min(s + step, first + seeds)) for s in range(first, first + seeds, step)]
    total = Total()
    began = time.monotonic()
    with ProcessPoolExecutor(processes) as pool:
        for number, part in enumerate(pool.map(many, shards), 1):
            total.merge(part)
            for failure in part.failures:
                print(failure, flush=True)
            if number % 20 == 0:
                print(f"{total.seeds} seeds, {len(total.failures)} failures", file=sys.stderr, flush=True)
    result = asdict(total) | {"first_seed": first, "wall_seconds": round(time.monotonic() - began, 1)}
    if into is not None:
        into.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
    return total
