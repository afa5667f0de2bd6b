"""Polls and delay of polling schedules, on paper: no engine, no network, only when each would look. Prints JSON.

    PYTHONPATH=CHECKOUT python benchmarks/schedules.py '{"tasks": 2000}'

Tasks are lognormal, 200 in flight at a time. The hazard schedule is the product's own (`batchrunner.core.polling`),
and learns while it goes, as in a run: from what it sees, late, and from 200 samples of earlier nights, if there were
any. So where the truth has drifted away from what was learned, it begins wrong and mends.
"""

from __future__ import annotations

import heapq
import itertools
import json
import math
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from batchrunner.core.polling import Latencies, PollPolicy, interval

MEDIAN, SIGMA = 60.0, 0.5
IN_FLIGHT = 200
SPACING = 0.3
"""Seconds between the first submissions, where they are not one wave."""
MODEL, SECONDS = "model", 5
PRICES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)

Schedule = Callable[[Latencies, float, int], float]
"""(what is known, the task's age, polls so far) -> seconds until the next poll."""


@dataclass(frozen=True, slots=True)
class Truth:
    """How long tasks really take: times `factor`, a share of `stragglers` ten times that; `learned` before or not;
    all of them started in one `wave`, so that the first to end are the quickest of all."""

    name: str
    factor: float = 1.0
    stragglers: float = 0.0
    learned: bool = True
    wave: bool = False


TRUTHS = (
    Truth("as learned"),
    Truth("nothing learned yet", learned=False),
    Truth("1.5 times slower", factor=1.5),
    Truth("2 times faster", factor=0.5),
    Truth("10 % stragglers", stragglers=0.1),
    Truth("all at once", wave=True),
)


def hazard(price: float) -> Schedule:
    policy = PollPolicy(price=price)
    return lambda known, age, _: interval(policy, known.of(MODEL, SECONDS), age)


def fixed(seconds: float) -> Schedule:
    return lambda _known, _age, _polls: seconds


def backoff(first: float, growth: float, most: float) -> Schedule:
    return lambda _known, _age, polls: min(most, first * growth**polls)


def schedules() -> dict[str, Schedule]:
    found: dict[str, Schedule] = {
        "fixed 2 s": fixed(2.0),
        "fixed 10 s": fixed(10.0),
        "x1.5 from 2 s, cap 30 s": backoff(2.0, 1.5, 30.0),
    }
    return found | {f"by hazard, c = {price:g}": hazard(price) for price in PRICES}


def play(schedule: Schedule, truth: Truth, tasks: int) -> dict[str, float]:
    """Let so many tasks pass; polls a task, and seconds from a task's end to the poll that saw it."""
    dice = random.Random(f"{truth.name} {tasks}")
    known = Latencies()
    if truth.learned:
        for _ in range(200):
            known.add(MODEL, SECONDS, MEDIAN * math.exp(dice.gauss(0.0, SIGMA)))
    took = [_seconds(dice, truth) for _ in range(tasks)]
    order = itertools.count()
    heap: list[tuple[float, int, int, float, int]] = []  # due, order, task, began, polls

    def begin(task: int, now: float) -> None:
        heapq.heappush(heap, (now + schedule(known, 0.0, 0), next(order), task, now, 0))

    waiting = iter(range(tasks))
    for task in itertools.islice(waiting, tasks if truth.wave else IN_FLIGHT):
        begin(task, 0.0 if truth.wave else task * SPACING)
    polled = 0
    delays: list[float] = []
    while heap:
        now, _, task, began, polls = heapq.heappop(heap)
        polled += 1
        age = now - began
        if age < took[task]:
            heapq.heappush(heap, (now + schedule(known, age, polls + 1), next(order), task, began, polls + 1))
            continue
        delays.append(age - took[task])
        known.add(MODEL, SECONDS, age)
        following = next(waiting, None)
        if following is not None:
            begin(following, now)
    delays.sort()
    return {"polls": polled / tasks, "delay": sum(delays) / tasks, "p95": delays[int(tasks * 0.95)]}


def _seconds(dice: random.Random, truth: Truth) -> float:
    took = MEDIAN * truth.factor * math.exp(dice.gauss(0.0, SIGMA))
    return took * 10.0 if dice.random() < truth.stragglers else took


def main() -> None:
    tasks = json.loads(sys.argv[1])["tasks"]
    found: dict[str, dict[str, Any]] = {}
    for truth in TRUTHS:
        found[truth.name] = {name: play(schedule, truth, tasks) for name, schedule in schedules().items()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
