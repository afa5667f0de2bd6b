"""One night of the whole engine on virtual time: how long it took against what was possible. Prints JSON.

Run by the benchmarks in a process of its own, so that any checkout can be measured:

    PYTHONPATH=CHECKOUT python benchmarks/virtual.py '{"jobs": 1000, "slots": 40, "median": 60}'

The world is the one of `tests.simulation` (latencies of 2 to 80 ms, tasks lognormal with sigma 0.4), without faults.
Its limit is either known, as the manifest's `limits`, or not: then the provider has it, and says so with a 429 or by
queueing, while the manifest allows ten times as much.
"""

from __future__ import annotations

import heapq
import json
import math
import random
import sqlite3
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchrunner import catalogue
from batchrunner.core.job import RetryBudget
from batchrunner.engine.ports import Settings
from batchrunner.ledger.connection import open_writer
from tests.simulation import run as simulation
from tests.simulation.world import Weather, World

SIGMA = 0.4
"""As the world of the simulation draws it."""

NEVER = (0.0, {"ok": 1.0})


@dataclass(frozen=True, slots=True)
class Night:
    """What is simulated.

    Attributes:
        jobs: how many.
        slots: tasks that run at once.
        rate: POSTs a second that are accepted; 0: any number.
        median: seconds of a task.
        known: whether the manifest says so; if not it allows ten times as much.
        queue: an unknown limit of slots makes tasks wait, instead of refusing them.
        warm: whether latencies are known from earlier nights.
        seed: of everything.
    """

    jobs: int
    slots: int
    median: float = 60.0
    rate: float = 0.0
    known: bool = True
    queue: bool = False
    warm: bool = True
    seed: int = 1


class Limited(World):
    """A provider with limits of its own."""

    night: Night

    def __init__(self, *arguments: Any, **words: Any) -> None:
        super().__init__(*arguments, **words)
        self._running: list[float] = []
        self._tat = 0.0
        self.throttled = 0

    def _draw(self, of: tuple[float, dict[str, float]], on: str) -> str:  # noqa: ARG002  no faults, only limits
        night, now = self.night, self.timeline.now
        if on != "post" or night.known:
            return "ok"
        while self._running and self._running[0] <= now:
            heapq.heappop(self._running)
        too_fast = night.rate and now < self._tat - 1.0  # a burst of one second's worth
        if too_fast or (not night.queue and len(self._running) >= night.slots):
            self.throttled += 1
            return "throttle"
        if night.rate:
            self._tat = max(now, self._tat) + 1.0 / night.rate
        return "ok"

    def _retry_after(self) -> list[str]:
        self._next_hold = 1.0
        return []

    def _create(self, label: str, clear: bool) -> Any:
        task = super()._create(label, clear)
        if not self.night.known:
            if self.night.queue and len(self._running) >= self.night.slots:
                wait = heapq.heappop(self._running) - self.timeline.now
                task.created += wait
                task.ends += wait
            heapq.heappush(self._running, task.ends)
        return task


def play(night: Night, folder: Path) -> dict[str, Any]:
    """Simulate it, and compare."""
    catalogue.models()
    Limited.night = night
    setattr(simulation, "World", Limited)  # noqa: B010  the name that Simulation looks up
    weather = Weather(NEVER, NEVER, NEVER, NEVER, (0.0, 0.0, 0.0, 0.0), night.median, 1e9)
    room = 1 if night.known else 10
    plan = simulation.Plan(
        jobs=night.jobs,
        per_minute=(night.rate or 1000.0) * 60.0 * room,
        in_flight=night.slots * room,
        budget=None,
        retry=RetryBudget(),
        settings=Settings(min_free_bytes=1),
        deaths=(),
        jumps=(),
        word=0.0,
        resume=0.0,
    )
    game = simulation.Simulation(night.seed, folder, plan, weather)
    if night.warm:
        learn(folder / "night.db", night)
    with simulation.collected():
        verdict = game.play()
    if verdict.wrong:
        sys.exit(f"the simulation found: {verdict}")
    world = game.world
    tasks = list(world.account.tasks.values())
    took = [task.ends - task.created for task in tasks]
    return {
        "makespan": verdict.virtual,
        "bound": sum(took) / night.slots,
        "oracle": oracle(took, night.slots, night.rate),
        "posts": verdict.posts,
        "throttled": getattr(world, "throttled", 0),
        "polls": verdict.polls,
        "jobs": len(tasks),
    }


def oracle(took: list[float], slots: int, rate: float) -> float:
    """Seconds that it takes who knows the limits, sees every end at once, and starts in this order."""
    free: list[float] = []
    end = place = 0.0
    for n, seconds in enumerate(took):
        start = max(place, heapq.heappop(free) if len(free) >= slots else 0.0)
        place = max(place, n / rate if rate else 0.0)
        start = max(start, place)
        heapq.heappush(free, start + seconds)
        end = max(end, start + seconds)
    return end


def learn(db: Path, night: Night) -> None:
    """The latencies of an earlier night."""
    dice = random.Random(f"learned {night.seed}")
    connection: sqlite3.Connection = open_writer(db)
    rows = [(simulation.MODEL, 5, night.median * math.exp(dice.gauss(0.0, SIGMA))) for _ in range(200)]
    connection.executemany("INSERT INTO latency (model, seconds, took) VALUES (?, ?, ?)", rows)
    connection.close()


def main() -> None:
    night = Night(**json.loads(sys.argv[1]))
    with tempfile.TemporaryDirectory(prefix="night-", dir=simulation.scratch()) as folder:
        print(json.dumps(play(night, Path(folder))))


if __name__ == "__main__":
    main()
