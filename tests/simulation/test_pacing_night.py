"""Nights against a service with limits that nobody told: the real engine on virtual time, against an oracle that knows.

Targets 7 and 8 of the performance page. The bounds of the manifest are far above the service's limits throughout.
"""

from __future__ import annotations

import os
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from batchrunner.core.adaptive import Learned
from batchrunner.engine.ports import Settings
from tests.simulation.service import Limits, Night, Service, World, lognormal, oracle

SCALE = float(os.environ.get("BATCHRUNNER_PACING_SCALE", "0.5"))
"""Share of each night that is played; 1 for the table of the performance page. What is found out at the start weighs
more in a shorter night, so that is allowed for."""


@dataclass(frozen=True, slots=True)
class Case:
    """A service, how many jobs of a minute each, and what must come of it."""

    limits: Limits
    jobs: int
    least: float = 0.95
    """Of the oracle's makespan."""
    refused: float = 0.02
    """Share of the POSTs."""
    median: float = 60.0

    def scaled(self) -> Case:
        changes = tuple((at * SCALE, factor) for at, factor in self.limits.changes)
        return replace(
            self,
            limits=replace(self.limits, changes=changes),
            jobs=int(self.jobs * SCALE),
            least=self.least - 0.04 * (1.0 - SCALE),
            refused=self.refused + 0.04 * (1.0 - SCALE),
        )


MAIN = "7 a second, 40 in flight"
"""Target 7 itself: always played whole."""

CASES = {
    MAIN: Case(Limits(rate=7.0, slots=40), 1000),
    "the same, Retry-After 1 s": Case(Limits(rate=7.0, slots=40, retry_after=1.0), 800),
    "the same, Retry-After 30 s": Case(Limits(rate=7.0, slots=40, retry_after=30.0), 1000, least=0.90),
    "the same, it queues": Case(Limits(rate=7.0, slots=40, queues=True), 600),
    "5 in flight": Case(Limits(rate=50.0, slots=5), 500),
    "7 a second": Case(Limits(rate=7.0, slots=500), 1500),
    "1 a second, one at a time": Case(Limits(rate=1.0, slots=500), 500, least=0.87),
    "50 a second, 500 in flight": Case(Limits(rate=50.0, slots=500), 1500, least=0.94),
    "in flight halves": Case(Limits(rate=7.0, slots=40, changes=((700.0, 0.5),)), 1000, refused=0.03),
    "in flight doubles": Case(Limits(rate=7.0, slots=40, changes=((700.0, 2.0),)), 1200, least=0.90, refused=0.03),
    "rate halves": Case(Limits(rate=7.0, slots=500, changes=((150.0, 0.5),)), 1500, least=0.80),
    "POSTs and polls share 10 a second": Case(Limits(rate=10.0, slots=40, shared=True), 600, least=0.92, refused=0.05),
}


def play(folder: Path, case: Case, *, seed: int = 1, bounds: tuple[float, int] = (3000.0, 500)) -> tuple[Night, float]:
    """One night, and the oracle's makespan."""
    world = World(folder, seed)
    seconds = lognormal(random.Random(f"took {seed}"), case.jobs, case.median)
    jobs = world.jobs(case.jobs)
    by_key = {job.key: s for job, s in zip(jobs, seconds, strict=True)}
    service = Service(world.timeline, case.limits, by_key.__getitem__, world.rng)
    settings = Settings(submits_per_minute=bounds[0], in_flight=bounds[1], min_free_bytes=1)
    return world.night(jobs, service, settings), oracle(case.limits, seconds)


@pytest.mark.parametrize("name", CASES)
def test_a_night_under_limits_that_nobody_told(
    name: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    case = CASES[name] if name == MAIN else CASES[name].scaled()
    night, best = play(tmp_path, case)

    ratio = best / night.makespan
    print(
        f"\n| {name} | {case.jobs} | {ratio:.3f} | {100 * night.refused:.2f} % | {night.polls_a_task:.1f} "
        f"| {statistics.fmean(night.delays):.1f} |"
    )
    record_property("ratio", ratio)
    record_property("refused", night.refused)
    assert night.states == {"succeeded": case.jobs}
    assert ratio >= case.least
    assert night.refused <= case.refused


def test_a_known_limit_in_flight_is_used(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """Target 8: makespan against the bound n * mean / slots."""
    case, slots = Case(Limits(), 600), 4
    night, _ = play(tmp_path, case, bounds=(3000.0, slots))
    mean = statistics.fmean(t.took for t in night.service.tasks.values())
    ratio = case.jobs * mean / slots / night.makespan
    print(f"\nmakespan against the bound: {ratio:.3f}")
    record_property("ratio", ratio)
    assert ratio >= 0.97
    assert night.service.refused == 0
    assert night.service.most <= slots


def test_where_it_queues_the_queue_stays_short(tmp_path: Path) -> None:
    night, _ = play(tmp_path, Case(Limits(slots=10, queues=True), 400), bounds=(3000.0, 120))
    waits = sorted(t.ends - t.took - t.asked for t in list(night.service.tasks.values())[-200:])
    assert statistics.median(waits) <= 4.0 * 68.0, "19 times, if nobody had looked"
    assert night.service.most == 120, "nobody knew at the start"


def test_the_second_night_knows_what_the_first_has_found(tmp_path: Path) -> None:
    limits = Limits(rate=7.0, slots=40)
    world = World(tmp_path)
    settings = Settings(submits_per_minute=3000.0, in_flight=500, min_free_bytes=1)
    found = []
    for name in ("monday", "tuesday"):
        service = Service(world.timeline, limits, lambda key: 60.0, world.rng)
        found.append(world.night(world.jobs(200, name), service, settings, batch=name))
        world.timeline.advance(80_000.0)
    monday, tuesday = found

    for night in found:
        assert night.learned.in_flight is not None
        assert 40 <= night.learned.in_flight <= 44, "what has ended and was not asked about yet counts too"
    assert tuesday.service.refused < monday.service.refused
    assert tuesday.service.most == 40


def test_a_limit_above_tonights_bound_is_not_forgotten(tmp_path: Path) -> None:
    world = World(tmp_path)
    service = Service(world.timeline, Limits(slots=10), lambda key: 60.0, world.rng)
    settings = Settings(submits_per_minute=3000.0, in_flight=50, min_free_bytes=1)
    monday = world.night(world.jobs(60, "monday"), service, settings, batch="monday")
    few = Settings(submits_per_minute=3000.0, in_flight=4, min_free_bytes=1)
    service = Service(world.timeline, Limits(slots=10), lambda key: 60.0, world.rng)
    tuesday = world.night(world.jobs(20, "tuesday"), service, few, batch="tuesday")

    assert monday.learned.in_flight is not None
    assert 10 <= monday.learned.in_flight <= 14, "what has ended and was not asked about yet counts too"
    assert tuesday.learned == monday.learned
    assert tuesday.service.most == 4


def test_a_restart_adds_no_burst(tmp_path: Path) -> None:
    """A run that ends and begins again every few seconds submits no faster than one that goes on."""
    world = World(tmp_path)
    per_minute = 120.0
    settings = Settings(submits_per_minute=per_minute, in_flight=500, min_free_bytes=1)
    service = Service(world.timeline, Limits(), lambda key: 600.0, world.rng)
    jobs = world.jobs(60)
    for _ in range(10):
        world.night(jobs, service, settings, stop_after=1.5)

    posts = service.posts
    assert len(posts) >= 20
    for first, at in enumerate(posts):
        for last in range(first, len(posts)):
            # A second's worth at once, then the rate; a call is up to 0.15 s on its way.
            assert last - first + 1 <= 2.0 + (posts[last] - at + 0.3) * per_minute / 60.0 + 1e-6


def test_one_night_is_the_same_every_time(tmp_path: Path) -> None:
    case = Case(Limits(rate=7.0, slots=10), 60)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, _ = play(tmp_path / "a", case)
    two, _ = play(tmp_path / "b", case)
    assert one.service.posts == two.service.posts
    assert one.service.polls == two.service.polls
    assert one.learned == two.learned != Learned()
