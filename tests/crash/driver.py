"""Runs that die: forks the real composition root, kills it at a named point, and forks the next one.

A process of its own with a single thread, so that forking is safe under pytest-xdist, with everything imported and
played once, so that a run costs what it does and not what its imports do. What died is judged by `checks`.

By hand, one scenario, to see it fail again (its identifier is a fault, and a step for each process):
    python -m tests.crash.driver --only reset_after/run:submit.answered.1/run:poll.sent.1/run
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path

# Everything that a run imports late is imported here, once.
import aiohttp.client
import uvloop

import batchrunner.providers.fetch
import batchrunner.providers.reapi
from batchrunner import catalogue
from batchrunner.core.pacing import backoff
from batchrunner.engine import control
from batchrunner.engine.ports import CRASH_POINTS
from batchrunner.ledger import connection
from tests.crash.child import Order, play, watch_effects
from tests.crash.faults import AGAIN, FAULTS, PAIRS, SERVICES, USUAL, WHERE
from tests.crash.mutants import MUTANTS
from tests.crash.processes import Pool, Ran, Steps
from tests.crash.provider import Rewinding
from tests.crash.scenarios import FULL, MOMENT, SIGNALS, THAWED, Death, Scenario, Step, weight
from tests.crash.tale import Tale

IMPORTED = (aiohttp.client, uvloop, batchrunner.providers.fetch, batchrunner.providers.reapi)

MEMORY = Path("/dev/shm")
"""Where the runs work, where there is such a place: a process that is killed needs no slow disk (power loss is another
room's business)."""

WARM = 4
"""Nights played before the first fork: what the interpreter learns from them, every child has learnt."""

MOMENTS = 40
MOST_PASSINGS = 3
MOST_DEATHS = 3
"""Deaths that follow one another in a recovery, after the one that was chosen."""
RARE = 30.0
"""At scale 1, one in so many of the deaths that faults alone would have, faults in pairs have."""
SELDOM = 4.0
"""And of those that chains would have: "chain_dead" passes all that only chains pass."""
AGAIN_ONE_IN = 44.0
"""And one in so many of the deaths in a recovery, which are most of what there is to play."""
RARELY_ONE_IN = 4.0
"""But of those at RARELY, so many."""
RARELY = ("recover.", "start.begun", "record.", "supply.")
"""Points that few runs after a death pass."""
FINISHES = ("run", "resume", "word")


@dataclass(slots=True)
class Report:
    """Counts over many scenarios.

    Attributes:
        runs: processes whose history no other had.
        repeated: the others, which every shard plays to learn what there is to die at.
        kills: of the runs, those that died.
        stops: of the runs, those that a signal has stopped.
        not_fired: deaths that were planned, and the run was done by then.
        hits: where the runs died that began with an empty ledger, and how often.
        again: the same of the runs after those.
        signals: where signals came: `point SIGNAME`, and whether twice, and whether again.
    """

    runs: int = 0
    repeated: int = 0
    kills: int = 0
    stops: int = 0
    not_fired: int = 0
    hits: Counter[str] = field(default_factory=Counter)
    again: Counter[str] = field(default_factory=Counter)
    signals: Counter[str] = field(default_factory=Counter)
    verbs: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    seconds: float = 0.0
    cpu: float = 0.0
    slowest: list[tuple[float, str]] = field(default_factory=list)


Choice = Callable[[str, Sequence[str]], Iterator[Death]]
"""Scenario so far, points that a run passed from there -> where others are to die."""


class Driver:
    """Plays scenarios, a few at a time."""

    def __init__(
        self, double: Rewinding, home: Path, *, shard: int = 0, shards: int = 1, scale: float = 1.0, abreast: int = 3
    ) -> None:
        """Args:
        double: the running double.
        home: where folders may be made.
        shard, shards: which part of the scenarios.
        scale: how many of them: 1 for the gate, 0 for all.
        abreast: scenarios at a time.
        """
        self.report = Report()
        self._double = double
        self._home = home
        self._shard, self._shards, self._scale = shard, shards, scale
        self._number = 0
        self._seen: set[str] = set()
        self._pool = Pool(abreast)

    # --- What is played ----------------------------------------------------------------------------------

    def enumerate(self, only: Sequence[str] = ()) -> None:
        """Everything, as far as the scale goes; or with these faults only."""
        if not only:
            said = [*self._signals(), *self._words()]
            self._pool.waiting.extend(said[self._shard :: self._shards])
        for name in only or USUAL:
            self._pool.waiting.append(self._fault(name))

    def at(self, service: str) -> None:
        """What goes wrong at a service of SERVICES: deaths at every named point, and in the recovery again."""
        self._pool.waiting.extend(self._named(name) for name in SERVICES[service])

    def alone(self, scenario: Scenario) -> None:
        """One scenario, from the beginning to the end."""
        self._pool.waiting.append(self._straight(scenario))

    def run(self) -> Report:
        """Play what was asked for."""
        began = time.perf_counter()
        self._pool.run()
        self.report.seconds = time.perf_counter() - began
        times = os.times()
        self.report.cpu = times.user + times.system + times.children_user + times.children_system
        return self.report

    def _mine(self, what: str) -> bool:
        return weight(what) % self._shards == self._shard

    def _taken(self, what: str, share: float) -> bool:
        """One in `share` at scale 1, as many times more as the scale is, everything at scale 0."""
        return not self._scale or weight(what + "?") % 1_000_000 < 1_000_000 * self._scale / share

    def _fault(self, name: str) -> Steps:
        """A run that nobody disturbs; then, in places of their own, all the deaths that it could have had."""
        with self._tale(name) as tale:
            tale.new = self._mine(name)
            ran = yield from tale.step(Step("run"))
            yield from tale.finish("run", ran)
        for death in self._firsts(name, ran.passed):
            if self._mine(f"{name}/{death}"):
                prefix = [Step("run", death)]
                self._pool.waiting.append(self._node(name, prefix, self._verb, self._seconds, new=True))

    def _firsts(self, name: str, passed: Sequence[str]) -> Iterator[Death]:
        rare = _rare(name)
        for death in _deaths(passed):
            often = death.point in CRASH_POINTS and death.n == 1
            if self._taken(f"{name}/{death}", rare * (1.0 if often else 10.0)):
                yield death
        if fault := FAULTS[name].full:
            yield Death(FULL, fault)
            yield Death(FULL, fault, THAWED)
            if fault == 1:
                yield Death("submit.spooled")  # passed only where the disk is full
        yield from (d for n in range(MOMENTS) if self._taken(f"{name}/{(d := Death(MOMENT, n + 1))}", 40.0 * rare))

    def _seconds(self, so_far: str, passed: Sequence[str]) -> Iterator[Death]:
        rare = _rare(so_far.partition("/")[0])
        for death in _deaths(passed):
            share = RARELY_ONE_IN if death.point.startswith(RARELY) else AGAIN_ONE_IN
            if self._taken(f"{so_far}/{death}", share * rare):
                yield death

    def _named(self, name: str) -> Steps:
        with self._tale(name) as tale:
            ran = yield from tale.step(Step("run"))
            yield from tale.finish("run", ran)
        full = [Death(FULL, FAULTS[name].full), Death("submit.spooled")] if FAULTS[name].full else []
        named = [d for d in _named_deaths(ran.passed) if d.point.startswith(WHERE[name.partition(".")[2]])]
        for death in full or named:
            prefix = [Step("run", death)]
            verb = _always("word") if name.endswith("reset_after") else self._verb
            self._pool.waiting.append(self._node(name, prefix, verb, self._named_again, new=True, more=0))

    def _named_again(self, so_far: str, passed: Sequence[str]) -> Iterator[Death]:
        points = AGAIN.get(so_far.partition(".")[2], ())
        yield from (death for death in _named_deaths(passed) if death.point.startswith(points))

    def _verb(self, what: str) -> str:
        return FINISHES[weight(what + "finish") % len(FINISHES)]

    def _signals(self) -> Iterator[Steps]:
        """Every signal at every point, once and twice, in a first run and in a recovery."""
        sent, running, full = (Step("run", d) for d in (Death("submit.answered"), Death("poll.sent"), Death(FULL)))
        opened = Step("run", Death("start.opened"))
        for fault, prefix, verb in (
            ("slow", [], "run"),
            ("slow+gone", [], "run"),
            ("fail", [], "run"),
            ("slow", [opened], "run"),
            ("disk_full", [full], "run"),
            ("narrow", [sent], "run"),
            ("slow+gone", [running], "resume"),
            ("reset_after", [Step("run")], "word"),
        ):
            yield self._node(fault, prefix, _always(verb), self._every_signal)
        for prefix in ([], [opened]):
            yield self._node("chain_dead", prefix, _always("run"), self._signals_at_supplies)

    def _every_signal(self, so_far: str, passed: Sequence[str]) -> Iterator[Death]:
        for death in _deaths(passed, 1):
            if death.point in CRASH_POINTS:
                for by in SIGNALS:
                    yield Death(death.point, 1, by)
                    yield Death(death.point, 1, by, True)

    def _signals_at_supplies(self, so_far: str, passed: Sequence[str]) -> Iterator[Death]:
        yield from (d for d in self._every_signal(so_far, passed) if d.point.startswith("supply."))

    def _words(self) -> Iterator[Steps]:
        """A person's word, by someone who is interrupted at every point of it."""
        killed, full = Step("run", Death("submit.answered")), Step("run", Death(FULL))
        for fault, prefix, verbs in (
            ("reset_after", [Step("run")], ("identify", "resubmit", "abandon")),
            ("error500", [Step("run")], ("resubmit", "abandon")),
            ("malformed", [Step("run")], ("identify", "resubmit")),
            ("tight_lost", [Step("run")], ("identify", "resubmit", "abandon", "cancel")),
            ("breaker", [Step("run")], ("identify", "resubmit", "abandon", "cancel")),
            ("none", [killed], ("identify", "resubmit", "abandon", "cancel")),
            ("narrow", [killed], ("cancel",)),
            ("disk_full_later", [Step("run", Death(FULL, 2))], ("cancel", "retry", "resubmit")),
            ("disk_full", [full], ("identify", "cancel")),
            ("moderate", [Step("run")], ("retry",)),
            ("reject", [Step("run")], ("retry",)),
            ("lost", [Step("run")], ("retry",)),
            ("expired", [Step("run")], ("retry",)),
            ("tight", [Step("run")], ("cancel",)),
        ):
            for verb in verbs:
                yield self._node(fault, prefix, _always(verb), self._every_point)

    def _every_point(self, so_far: str, passed: Sequence[str]) -> Iterator[Death]:
        yield from _deaths(passed)

    # --- How it is played --------------------------------------------------------------------------------

    @contextmanager
    def _tale(self, fault: str) -> Iterator[Tale]:
        self._number += 1
        tale = Tale(self._double, self._home, f"crash-{os.getpid()}-{self._number}", fault, self._count)
        try:
            yield tale
        finally:
            self.report.violations += [f"{scenario}: {wrong}" for scenario, wrong in tale.wrong]
            tale.close()

    def _node(
        self,
        fault: str,
        prefix: Sequence[Step],
        verb: Callable[[str], str],
        choose: Choice,
        *,
        new: bool = False,
        more: int = MOST_DEATHS,
    ) -> Steps:
        """Play the prefix once; from what it has left go on undisturbed, and then with every death that is chosen.

        Args:
            fault: its name.
            prefix: what is played first.
            verb: how to go on, by the scenario's identifier.
            choose: the deaths.
            new: the prefix is played nowhere else.
            more: deaths that follow the one that was chosen.
        """
        with self._tale(fault) as tale:
            tale.new = new
            for step in prefix:
                ran = yield from tale.step(step)
                if ran.missed and step.death is not None and step.death.point != FULL:
                    return
            tale.save()
            so_far = str(Scenario(fault, prefix))
            first = verb(so_far)
            ran = yield from tale.step(Step(first))
            yield from tale.finish(first, ran)
            points = list(_deaths(ran.passed, 1))
            for death in choose(so_far, ran.passed):
                tale.restore()
                tale.new = True
                kind = verb(f"{so_far}/{death}")
                ran = yield from tale.step(Step(kind, death))
                for number in range(more):
                    if ran.killed:
                        chosen = points[weight(f"{so_far}/{death}/{number}") % len(points)]
                        ran = yield from tale.step(Step(kind, chosen))
                if not ran.missed or len(tale.steps) > len(prefix) + 1:
                    yield from tale.finish(kind, ran)

    def _straight(self, scenario: Scenario) -> Steps:
        with self._tale(scenario.fault) as tale:
            for step in scenario.steps[:-1]:
                yield from tale.step(step)
            last = scenario.steps[-1]
            ran = yield from tale.step(last)
            yield from tale.finish(last.verb, ran)

    def _count(self, scenario: Scenario, ran: Ran, new: bool) -> None:
        report, step, name = self.report, scenario.steps[-1], str(scenario)
        if not new or name in self._seen:
            report.repeated += 1
            return
        self._seen.add(name)
        report.runs += 1
        report.verbs[step.verb] += 1
        report.kills += ran.killed
        report.not_fired += ran.missed
        report.slowest = sorted([*report.slowest, (round(ran.seconds, 3), name)], reverse=True)[:5]
        death, later = step.death, len(scenario.steps) > 1
        if death is None or not ran.fired:
            return
        if death.by in SIGNALS:
            report.stops += not ran.killed
            twice, again = " twice" * death.twice, " again" * later
            report.signals[f"{death.point} {death.by.name}{twice}{again}"] += 1
        elif later:
            report.again[death.point] += 1
        else:
            report.hits[death.point] += 1


def _deaths(passed: Sequence[str], most: int = MOST_PASSINGS) -> Iterator[Death]:
    """A death at each of the first passings of each point."""
    for point, count in Counter(passed).items():
        yield from (Death(point, n) for n in range(1, min(count, most) + 1))


def _named_deaths(passed: Sequence[str]) -> Iterator[Death]:
    yield from (death for death in _deaths(passed, 1) if death.point in CRASH_POINTS)


def _rare(fault: str) -> float:
    """How much more seldom than others its deaths are played."""
    if fault in PAIRS:
        return RARE
    return SELDOM if FAULTS[fault].chain and fault != "chain_dead" else 1.0


def _always(verb: str) -> Callable[[str], str]:
    return lambda _: verb


def _quick(failures: int, fraction: float, base: float = 1.0, cap: float = 60.0) -> float:
    return backoff(failures, fraction, base * 0.004, cap * 0.004)


def prepare(double: Rewinding, home: Path) -> None:
    """Warm what every child inherits."""
    setattr(control, "backoff", _quick)  # noqa: B010  a server that is away is away for milliseconds
    setattr(connection, "migrations", cache(connection.migrations))  # noqa: B010  read once, not for every run
    catalogue.models()
    watch_effects()
    nothing = os.open(os.devnull, os.O_WRONLY)
    for number in range(WARM):
        folder = home / f"warm-{number}"
        folder.mkdir()
        play(Order(folder, double.open(folder.name), "none", "run"), nothing)
        double.close(folder.name)
        shutil.rmtree(folder)
    os.close(nothing)
    for thread in set(threading.enumerate()) - {threading.main_thread()}:
        thread.join(30)  # nobody waits for those that fetched
    assert threading.active_count() == 1, "a process with threads must not fork"
    gc.collect()
    gc.freeze()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], metavar="ID", help="this scenario alone")
    parser.add_argument("--fault", action="append", default=[], help="scenarios with this fault alone")
    parser.add_argument("--service", choices=SERVICES, help="at this service, at every named point")
    parser.add_argument("--shard", default="0/1", metavar="I/N")
    parser.add_argument("--scale", type=float, default=1, help="how wide: 1 for the gate; 0 for everything")
    parser.add_argument("--abreast", type=int, default=4, help="scenarios at a time")
    parser.add_argument("--mutant", choices=MUTANTS, help="break the program first")
    options = parser.parse_args()
    shard, _, shards = options.shard.partition("/")
    where = MEMORY if os.access(MEMORY, os.W_OK) else None
    double = Rewinding.start()
    with double, tempfile.TemporaryDirectory(prefix="batchrunner-crash-", dir=where) as folder:
        home = Path(folder)
        prepare(double, home)
        if options.mutant:
            MUTANTS[options.mutant].breaks()
        driver = Driver(
            double, home, shard=int(shard), shards=int(shards), scale=options.scale, abreast=options.abreast
        )
        for text in options.only:
            driver.alone(Scenario.parse(text))
        if options.service:
            driver.at(options.service)
        elif not options.only:
            driver.enumerate(options.fault)
        report = driver.run()
    print(json.dumps({f.name: getattr(report, f.name) for f in fields(report)}, indent=1))
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
