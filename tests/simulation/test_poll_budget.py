"""Polling under a budget, with the real engine on virtual time: targets 3 and 10, drift, a cold start and a restart."""

from __future__ import annotations

import os
import random
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchrunner.core import events as e
from batchrunner.core.job import State
from batchrunner.core.polling import KEPT
from batchrunner.engine.ports import Settings, Work
from batchrunner.ledger.runs import LATENCIES_KEPT
from batchrunner.ledger.store import Ledger
from tests.simulation.service import Limits, Night, Service, Task, World, lognormal

MEDIAN, SIGMA = 60.0, 0.5
COUNT = int(1250 * float(os.environ.get("BATCHRUNNER_PACING_SCALE", "0.6")))
SCALE = 40
"""The nights here are a fortieth of the size of the target's: 250 in flight, 25 polls a second. What counts is the
budget for each task in flight, a poll every 10 s."""


def night(
    folder: Path,
    *,
    count: int = COUNT,
    in_flight: int = 10_000 // SCALE,
    polls: float = 1000.0 / SCALE,
    took: Callable[[random.Random, int], float] | None = None,
    known: bool = True,
    seed: int = 1,
) -> Night:
    """One night with so many slots and polls a second; `known`: last night's latencies are in the ledger."""
    world = World(folder, seed)
    rng = random.Random(f"took {seed}")
    jobs = world.jobs(count)
    seconds = lognormal(rng, count, MEDIAN, SIGMA)
    if took is not None:
        seconds = [took(rng, n) for n in range(count)]
    by_key = {job.key: s for job, s in zip(jobs, seconds, strict=True)}
    service = Service(world.timeline, Limits(), by_key.__getitem__, world.rng)

    async def learn(ledger: Ledger, work: Work) -> None:
        job = (await ledger.pending(work.ids, work.selection, 1, world.clock.wall()))[0][0]
        for value in lognormal(rng, KEPT, MEDIAN, SIGMA):
            ledger.save_latencies([(job.model, job.seconds, value)])

    settings = Settings(
        submits_per_minute=60_000.0, in_flight=in_flight, polls_per_minute=60.0 * polls, min_free_bytes=1
    )
    return world.night(jobs, service, settings, prepare=learn if known else None)


def most_in_a_second(times: list[float]) -> int:
    """Most calls in any second."""
    most = first = 0
    for last, at in enumerate(times):
        while times[first] <= at - 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most


def _slow(rng: random.Random, n: int) -> float:
    return 1.5 * rng.lognormvariate(4.094, SIGMA)


def _fast(rng: random.Random, n: int) -> float:
    return 0.5 * rng.lognormvariate(4.094, SIGMA)


def _stragglers(rng: random.Random, n: int) -> float:
    return rng.lognormvariate(4.094, SIGMA) * (5.0 if n % 10 == 0 else 1.0)


CASES: dict[str, tuple[dict[str, Any], float, float]] = {
    "as last night": ({"count": 1250}, 7.5, 4.0),
    "nobody waits for a slot": ({"count": 250}, 7.5, 4.0),
    "cold start": ({"known": False}, 7.5, 5.2),
    "1.5 times slower": ({"took": _slow}, 11.0, 5.0),
    "2 times faster": ({"took": _fast}, 7.5, 6.6),
    "10 % take 5 times as long": ({"took": _stragglers}, 11.0, 5.0),
}
"""What the truth is, and the most polls a task and seconds of mean delay."""


@pytest.mark.parametrize("case", CASES)
def test_polls_and_delay_under_a_budget(
    case: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    words, most_polls, most_delay = CASES[case]
    seen = night(tmp_path, **words)

    delay = statistics.fmean(seen.delays)
    p95 = statistics.quantiles(seen.delays, n=20)[-1]
    peak = most_in_a_second(seen.service.polls)
    print(f"\n| {case} | {seen.polls_a_task:.1f} | {delay:.2f} | {p95:.1f} | {peak} |")
    record_property("polls", seen.polls_a_task)
    record_property("delay", delay)
    assert seen.states == {"succeeded": words.get("count", COUNT)}
    assert seen.polls_a_task <= most_polls
    assert delay <= most_delay
    assert peak <= 1.2 * 1000.0 / SCALE, "calls that leave evenly spaced arrive up to 0.15 s apart from that"


def test_where_the_budget_allows_slots_are_freed_sooner(tmp_path: Path) -> None:
    """Others wait for the slots, so results are worth more than a poll: target 8 rests on it."""
    seen = night(tmp_path, count=300, in_flight=40, polls=25.0)
    assert statistics.fmean(seen.delays) <= 1.5


def test_a_crowd_of_running_tasks_is_taken_up_within_the_budget(tmp_path: Path) -> None:
    """Target 10, at a tenth of its size: the first poll within a second, and no second beyond the budget."""
    count, budget = 1000, 100.0
    world = World(tmp_path)
    jobs = world.jobs(count)
    service = Service(world.timeline, Limits(), lambda label: 60.0, world.rng)

    async def submitted_by_a_run_that_died(ledger: Ledger, work: Work) -> None:
        found, _ = await ledger.pending(work.ids, work.selection, count, world.clock.wall())
        for n, job in enumerate(found):
            running = await ledger.advance(await ledger.advance(job, e.Claimed()), e.Accepted(f"task_{n}"))
            assert running.state is State.RUNNING
            service.tasks[f"task_{n}"] = Task(f"task_{n}", 60.0, ends=world.rng.uniform(1.0, 30.0))
        world.timeline.advance(40.0)  # nobody looks meanwhile: everything is overdue

    settings = Settings(in_flight=count, polls_per_minute=60.0 * budget, max_polls=400, min_free_bytes=1)
    begin = world.timeline.now
    seen = world.night(jobs, service, settings, prepare=submitted_by_a_run_that_died)

    started = seen.began_work - begin
    assert seen.states == {"succeeded": count}
    assert min(service.polls) - started < 1.0
    assert most_in_a_second(service.polls) <= 1.2 * budget
    assert max(service.polls) - started <= 1.5 * count / budget
    assert len(service.posts) == 0


def test_latencies_are_kept_for_the_next_night_in_bounded_number(tmp_path: Path) -> None:
    world = World(tmp_path)
    count = LATENCIES_KEPT + 60
    service = Service(world.timeline, Limits(), lambda label: 20.0, world.rng)
    settings = Settings(submits_per_minute=60_000.0, in_flight=count, min_free_bytes=1)

    kept: list[tuple[str, int | None, float]] = []

    async def close_the_run(ledger: Ledger, work: Work) -> None:
        await ledger.end_run(await ledger.start_run(["night"]), None, 0)
        kept.extend(await ledger.latencies())

    world.night(world.jobs(count), service, settings)
    world.night([], Service(world.timeline, Limits(), lambda label: 20.0, world.rng), settings, prepare=close_the_run)

    assert len(kept) == LATENCIES_KEPT
    assert {model for model, _, _ in kept} == {"kling-3-0-turbo"}
    assert all(10.0 < took <= 31.0 for _, _, took in kept), "between the look before the end and the one after it"
