"""Runs that die: forks the real composition root, kills it at a named crash point, and forks the next one.

A process of its own with a single thread, so that forking is safe under pytest-xdist, with everything imported once, so
that a run costs what it does and not what its imports do. What died is judged by `checks`.

By hand, one scenario, to see it fail again:
    python -m tests.crash.driver --only reset_after/submit.answered.1/poll.sent.1/run
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import resource
import selectors
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

# Everything that a run imports late is imported here, once.
import aiohttp.client
import uvloop

import batchrunner.providers.fetch
import batchrunner.providers.reapi
from batchrunner import app, catalogue
from batchrunner.core.job import Job
from batchrunner.core.pacing import backoff
from batchrunner.engine import control
from batchrunner.engine.ports import CRASH_POINTS
from tests.crash.checks import Books, check_end, check_now
from tests.crash.faults import FAULTS, Fault
from tests.crash.mutants import MUTANTS
from tests.crash.workspace import BATCH, SETTINGS, Workspace
from tests.double import Double

IMPORTED = (aiohttp.client, uvloop, batchrunner.providers.fetch, batchrunner.providers.reapi)

FULL = "disk.full"
"""A death that is no crash point: the ledger's disk is full when an id arrives, which is then in the spool."""
THAWED = signal.SIGCONT
"""Of a full disk nobody dies where room is made in time."""
MOMENT = "moment"
"""A death at no named point: n milliseconds after the start, wherever the run is then."""
MOMENTS = 32
FULL_AT = 64 * 1024
"""No file of the run grows beyond this: less than the ledger's log has by then, and just enough for the spool."""

COPIES = Path("/dev/shm")
"""Where copies of ledgers are looked at, where there is such a place: nobody needs them on the disk."""

RUN_SECONDS = 60.0
"""A run that takes longer hangs."""
MOST_FINALS = 4
MOST_PASSINGS = 3
SECONDS_SHARE = 8
ENDS = frozenset({0, 1, 3})
"""Exit codes after which another run would find nothing to do."""
FINISHES = ("run", "resume", "word")


@dataclass(frozen=True, slots=True)
class Death:
    """At the n-th passing of a crash point (or see FULL, MOMENT): by SIGKILL, or asked to end by SIGINT or SIGTERM."""

    point: str
    n: int = 1
    by: signal.Signals = signal.SIGKILL

    def __str__(self) -> str:
        return f"{self.point}.{self.n}" + ("" if self.by is signal.SIGKILL else f".{self.by.name}")

    @classmethod
    def parse(cls, text: str) -> Death | None:
        """As it stands in a scenario's id."""
        if text == "-":
            return None
        text, _, name = text.partition(".SIG")
        point, _, n = text.rpartition(".")
        return cls(point, int(n), signal.Signals["SIG" + (name or "KILL")])


@dataclass(frozen=True, slots=True)
class Scenario:
    """A fault, where the first run dies, where the second dies, and how it is brought to its end."""

    fault: str
    first: Death | None
    second: Death | None
    finish: str = "run"

    def __str__(self) -> str:
        return f"{self.fault}/{self.first or '-'}/{self.second or '-'}/{self.finish}"

    @classmethod
    def parse(cls, text: str) -> Scenario:
        fault, first, second, finish = text.split("/")
        return cls(fault, Death.parse(first), Death.parse(second), finish)


SPOOL = Scenario("disk_full", Death(FULL), Death("recover.spool"))
"""Played in every shard: nothing else passes that point."""


def _full(fault: Fault) -> Iterator[Death]:
    yield Death(FULL, fault.full)
    yield Death(FULL, fault.full, THAWED)


def weight(text: str) -> int:
    """A number that decides about a scenario, the same in every process."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


# --- In the child ----------------------------------------------------------------------------------------


class _Speaker(app.Watcher):
    """Dies, where it should, of a full disk: at the moment when so many ids stand in the spool alone."""

    def __init__(self, death: Death | None, ids: int) -> None:
        self._death = death
        self._ids = ids

    def event(self, name: str, job: Job | None = None, /, **data: Any) -> None:
        if name != "unrecorded" or self._death is None or self._death.point != FULL:
            return
        self._ids -= 1
        if self._ids:
            return
        if self._death.by is THAWED:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        else:
            os.kill(os.getpid(), signal.SIGKILL if data["spooled"] else signal.SIGABRT)


@dataclass(frozen=True, slots=True)
class Order:
    """One run: what it is asked for and where it dies."""

    workspace: Workspace
    death: Death | None
    finish: str


def _child(order: Order, pipe: int) -> None:
    """The run itself. Every passing of a crash point is a byte in the pipe; at the end comes the result."""
    passed: Counter[str] = Counter()
    lock = threading.Lock()
    death, space = order.death, order.workspace

    def crash(point: str) -> None:
        with lock:
            passed[point] += 1
            os.write(pipe, bytes([CRASH_POINTS.index(point)]))
            if death is None:
                return
            if point == death.point and passed[point] == death.n:
                os.kill(os.getpid(), death.by)
            if death.point == FULL and point == "submit.answered" and passed[point] == death.n:
                resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_AT, resource.RLIM_INFINITY))

    options = app.RunOptions(
        db=space.db,
        manifests=[] if order.finish == "resume" else [space.manifest()],
        batches=[BATCH] if order.finish == "resume" else [],
        resubmit=order.finish == "word",
        settings=SETTINGS,
        crash=crash,
    )
    if death is not None and death.point == MOMENT:
        signal.setitimer(signal.ITIMER_REAL, death.n / 1000)  # nobody handles SIGALRM: it ends the process as it stands
    try:
        result = app.run(options, _Speaker(death, space.fault.spooled))
        told = {"code": result.exit_code, "stop": result.stop.value if result.stop else None}
    except Exception:  # noqa: BLE001  it is told
        told = {"code": 70, "stop": traceback.format_exc()}
    os.write(pipe, b"\xff" + json.dumps(told).encode())


# --- In the parent ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class Ran:
    """How a run ended.

    Attributes:
        killed: it was killed where it should.
        missed: it should have died, and never came there.
        died: where it was killed, or the signal that ended it.
        passed: the crash points that it passed, in order.
        code: exit code; -1 for a run that died.
        stop: why it stopped early; the traceback of a bug.
    """

    killed: bool
    missed: bool
    died: str
    passed: list[str]
    code: int
    stop: str | None
    seconds: float


@dataclass(slots=True)
class Report:
    """Counts over many scenarios."""

    runs: int = 0
    kills: int = 0
    not_fired: int = 0
    scenarios: int = 0
    hits: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    seconds: float = 0.0
    slowest: list[tuple[float, str]] = field(default_factory=list)


Steps = Generator[Order, Ran, None]


class Driver:
    """Plays scenarios, a few at a time."""

    def __init__(self, double: Double, folder: Path, *, abreast: int = 3, scale: int = 1) -> None:
        """Args:
        double: the running double.
        folder: on the disk to test.
        abreast: scenarios at a time.
        scale: second deaths that are tried for each first one, and how much of the rest; 0 for all.
        """
        self.report = Report()
        self._double = double
        self._folder = folder
        self._abreast = abreast
        self._scale = scale
        self._number = 0

    # --- Scenarios ---------------------------------------------------------------------------------------

    def groups(self, shard: int, shards: int) -> Iterator[Scenario]:
        """Every first death, with the recovery from it to follow. Every shard has every point, with some faults."""
        for number, (name, fault) in enumerate(FAULTS.items()):
            for death in _full(fault) if fault.full else self._deaths(name):
                point = CRASH_POINTS.index(death.point) if death and death.point in CRASH_POINTS else 0
                if (number + point) % shards == shard:
                    yield Scenario(name, death, None)

    def _deaths(self, name: str) -> Iterator[Death | None]:
        """Every kill at a first passing; of the second passings, the signals and the mere moments a share."""
        yield None
        for point in CRASH_POINTS:
            if point.startswith("recover"):
                continue
            yield Death(point)
            by = (signal.SIGINT, signal.SIGTERM)[weight(f"{name}{point}") % 2]
            yield from (d for d in (Death(point, 2), Death(point, 1, by)) if self._taken(f"{name}{d}", SECONDS_SHARE))
        moments = range(1, MOMENTS + 1)
        yield from (Death(MOMENT, n) for n in moments if self._taken(f"{name}{n}", MOMENTS // 2))

    def _taken(self, what: str, share: int) -> bool:
        """One in `share` at scale 1, twice as many at scale 2, everything at scale 0."""
        return not self._scale or weight(what) % share < self._scale

    def group(self, scenario: Scenario) -> Steps:
        """A first death: its recovery, and then its recovery with deaths in it. After a signal, its recovery alone."""
        passed = yield from self.play(scenario)
        if scenario.first is not None and scenario.first.by is not signal.SIGKILL:
            return
        second = [Death(p, n) for p, count in Counter(passed).items() for n in range(1, min(count, MOST_PASSINGS) + 1)]
        second.sort(key=lambda d: (not d.point.startswith("recover"), weight(f"{scenario}{d}")))
        for death in second[: self._scale or None]:
            if not self._taken(f"{scenario}{death}second", 2) and not death.point.startswith("recover"):
                continue
            finish = FINISHES[weight(f"{scenario}{death}finish") % len(FINISHES)]
            yield from self.play(Scenario(scenario.fault, scenario.first, death, finish))

    def alone(self, scenario: Scenario) -> Steps:
        """One scenario."""
        yield from self.play(scenario)

    def play(self, scenario: Scenario) -> Generator[Order, Ran, list[str]]:
        """One scenario to its end; returns what the recovery passed, where the first run died as planned."""
        self._number += 1
        self.report.scenarios += 1
        name = f"crash-{os.getpid()}-{self._number}"
        fault = FAULTS[scenario.fault]
        folder = self._folder / name
        folder.mkdir()
        space = Workspace(folder, self._double.open(name, fault.plan), fault)
        wrong: list[str] = []
        passed: list[str] = []
        ended = False
        try:
            for turn, death in enumerate((scenario.first, scenario.second)):
                if death is None and turn == 0:
                    continue
                ran = yield Order(space, death, self._way(space, scenario.finish) if turn else "run")
                wrong += self._look(space, name, ran)
                ended = ran.code in ENDS
                if turn == 0 and ran.missed:
                    return []
                if turn == 1:
                    passed = ran.passed
            if not ended or scenario.finish == "word":
                wrong += yield from self._finish(space, name, scenario.finish)
            return passed
        finally:
            self.report.violations += [f"{scenario}: {w}" for w in dict.fromkeys(wrong)]
            self._double.close(name)
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(COPIES / name, ignore_errors=True)

    def _finish(self, space: Workspace, name: str, finish: str) -> Generator[Order, Ran, list[str]]:
        """Runs that die of nothing, until there is nothing that another could do."""
        wrong: list[str] = []
        for _ in range(MOST_FINALS):
            ran = yield Order(space, None, self._way(space, finish))
            wrong += self._look(space, name, ran)
            if ran.code in ENDS or ran.stop == "budget":
                return wrong
        return [*wrong, f"{MOST_FINALS} runs and no end: exit code {ran.code} ({ran.stop})"]

    def _way(self, space: Workspace, finish: str) -> str:
        """How the next run is started: what was never recorded can't be resumed."""
        return "run" if finish == "resume" and not self._books(space).batches else finish

    def _books(self, space: Workspace) -> Books:
        return Books(space.db, COPIES / space.folder.name if COPIES.is_dir() else space.folder / "copy")

    def _look(self, space: Workspace, name: str, ran: Ran) -> list[str]:
        if ran.code == 70 or (ran.code == -1 and not ran.killed):
            return [f"the run broke: {ran.stop}"]
        account = self._double.account(name)
        books = self._books(space)
        wrong = check_now(books, account, space.outputs, space.fault.budget)
        if not ran.killed:
            wrong += check_end(books, account, space.outputs, ran.code, ran.stop)
        return wrong

    # --- Processes ---------------------------------------------------------------------------------------

    def run(self, scenarios: Iterable[Steps]) -> Report:
        """Play them all."""
        began = time.perf_counter()
        waiting = iter(scenarios)
        selector = selectors.DefaultSelector()
        live = 0
        while True:
            while live < self._abreast and (steps := next(waiting, None)) is not None:
                live += self._start(selector, steps, None)
            if not live:
                break
            for key, _ in selector.select(RUN_SECONDS):
                running: _Running = key.data
                data = os.read(running.pipe, 65536)
                running.heard += data
                if not data:
                    selector.unregister(running.pipe)
                    live -= 1
                    live += self._start(selector, running.steps, running.end())
            for key in list(selector.get_map().values()):
                key.data.expire()
        selector.close()
        self.report.seconds = time.perf_counter() - began
        return self.report

    def _start(self, selector: selectors.BaseSelector, steps: Steps, ran: Ran | None) -> int:
        """Take the next step; 1 where a run was started, 0 where the steps have come to their end."""
        if ran is not None:
            self._count(ran)
        try:
            order = next(steps) if ran is None else steps.send(ran)
        except StopIteration:
            return 0
        running = _Running(steps, order)
        selector.register(running.pipe, selectors.EVENT_READ, running)
        return 1

    def _count(self, ran: Ran) -> None:
        report = self.report
        report.runs += 1
        report.not_fired += ran.missed
        report.slowest = sorted([*report.slowest, (round(ran.seconds, 3), (ran.stop or "")[-60:])], reverse=True)[:5]
        if ran.died:
            report.kills += ran.killed
            report.hits[ran.died] = report.hits.get(ran.died, 0) + 1


class _Running:
    """A child."""

    def __init__(self, steps: Steps, order: Order) -> None:
        self.steps = steps
        self.heard = b""
        self._order = order
        self._began = time.perf_counter()
        self._hung = False
        self.pipe, writing = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.environ.update(order.workspace.door.environment)
                _child(order, writing)
            finally:
                os._exit(0)
        os.close(writing)

    def expire(self) -> None:
        if time.perf_counter() - self._began > RUN_SECONDS:
            self._hung = True
            os.kill(self._pid, signal.SIGKILL)

    def end(self) -> Ran:
        os.close(self.pipe)
        _, status = os.waitpid(self._pid, 0)
        passings, _, told = self.heard.partition(b"\xff")
        passed = [CRASH_POINTS[b] for b in passings]
        death = self._order.death
        seconds = time.perf_counter() - self._began
        if told:
            words = json.loads(told)
            stopped = death is not None and (words["code"] == 128 + death.by or death.by is THAWED)
            missed = death is not None and not stopped
            return Ran(
                False, missed, death.by.name if death and stopped else "", passed, words["code"], words["stop"], seconds
            )
        deadly = {signal.SIGKILL, signal.SIGALRM}
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) in deadly and not self._hung
        if killed and death is not None:
            return Ran(True, False, death.point, passed, -1, None, seconds)
        return Ran(
            False, False, "", passed, -1, f"hung after {passed[-3:]}" if self._hung else f"status {status}", seconds
        )


def _quick(failures: int, fraction: float, base: float = 1.0, cap: float = 60.0) -> float:
    return backoff(failures, fraction, base * 0.004, cap * 0.004)


def prepare() -> None:
    """Warm what every child inherits."""
    setattr(control, "backoff", _quick)  # noqa: B010  a server that is away is away for milliseconds
    catalogue.models()
    assert threading.active_count() == 1, "a process with threads must not fork"
    gc.collect()
    gc.freeze()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", default=[], metavar="ID", help="this scenario alone")
    parser.add_argument("--fault", action="append", default=[], help="scenarios with this fault alone")
    parser.add_argument("--shard", default="0/1", metavar="I/N")
    parser.add_argument("--scale", type=int, default=1, help="how wide; 0 for everything")
    parser.add_argument("--abreast", type=int, default=3, help="scenarios at a time")
    parser.add_argument("--double", type=int, default=0, metavar="PORT", help="a double that is there already")
    parser.add_argument("--mutant", choices=MUTANTS, help="break the program first")
    options = parser.parse_args()
    prepare()
    if options.mutant:
        MUTANTS[options.mutant].breaks()
    shard, _, shards = options.shard.partition("/")
    double = Double(options.double) if options.double else Double.start()
    with double, tempfile.TemporaryDirectory(prefix="batchrunner-crash-") as folder:
        driver = Driver(double, Path(folder), abreast=options.abreast, scale=options.scale)
        steps: list[Steps]
        if options.only:
            steps = [driver.alone(Scenario.parse(text)) for text in options.only]
        else:
            groups = driver.groups(int(shard), int(shards))
            steps = [driver.group(g) for g in groups if not options.fault or g.fault in options.fault]
            steps += [driver.alone(SPOOL)] if not options.fault else []
        report = driver.run(steps)
    print(json.dumps(asdict(report), indent=1))
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
