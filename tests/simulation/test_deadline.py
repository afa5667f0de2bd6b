"""Nights that end at a deadline: the real engine on virtual time, where each task takes as long as the test says."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

from batchrunner.core.deadline import SURE
from batchrunner.core.job import JobSpec
from batchrunner.core.polling import fit
from batchrunner.engine.control import Stop
from batchrunner.engine.ports import Settings, Work
from batchrunner.ledger.store import Ledger
from tests.simulation.service import Limits, Night, Service, World
from tests.support import spec

SHORT, LONG = 5, 15
TOOK = {SHORT: 60.0, LONG: 240.0}
"""Median seconds of a task by the length of its clip."""


def draw(rng: random.Random, length: int) -> float:
    return rng.lognormvariate(math.log(TOOK[length]), 0.3)


def shots(count: int, length: int) -> list[JobSpec]:
    return [spec(f"s{length}x{n}", credits=1, seconds=length) for n in range(count)]


def night(
    folder: Path,
    jobs: list[JobSpec],
    *,
    hours: float,
    grace: float = 3600.0,
    known: bool = True,
    in_flight: int = 4,
    took: Callable[[str], float] | None = None,
    world: World | None = None,
) -> Night:
    """One night with a deadline; `known`: last night's latencies are in the ledger."""
    world = world or World(folder)
    rng = random.Random("deadline")
    by_key = {job.key: draw(rng, job.seconds or 0) for job in jobs}
    service = Service(world.timeline, Limits(), took or by_key.__getitem__, world.rng)

    async def learn(ledger: Ledger, work: Work) -> None:
        for job in (await ledger.pending(work.ids, work.selection, 1000, world.clock.wall()))[0]:
            for _ in range(60 if known else 0):
                ledger.save_latencies([(job.model, job.seconds, draw(rng, job.seconds or 0))])

    settings = Settings(
        submits_per_minute=6000.0,
        in_flight=in_flight,
        min_free_bytes=1,
        deadline=world.timeline.now + hours * 3600.0,
        grace=grace,
    )
    return world.night(jobs, service, settings, prepare=learn)


def sent(found: Night) -> list[float]:
    return [t.asked for t in found.service.tasks.values()]


def test_nothing_is_sent_that_would_not_be_done_in_time(tmp_path: Path) -> None:
    found = night(tmp_path, shots(100, SHORT), hours=0.25)

    known = fit(draw(random.Random(n), SHORT) for n in range(500))
    assert known is not None
    assert found.stop is Stop.DEADLINE
    assert found.states["succeeded"] + found.states["pending"] == 100, "nothing is orphaned"
    last = max(sent(found))
    assert 900.0 - 1.3 * known.quantile(SURE) - 60.0 < last < 900.0 - 0.7 * known.quantile(SURE)
    late = [t for t in found.service.tasks.values() if t.ends > 900.0]
    assert len(late) <= 2, "one in twenty of the very last"


def test_what_is_short_is_still_sent_when_what_is_long_is_too_late(tmp_path: Path) -> None:
    """The long ones come first in the manifest; they are passed over, and the short ones use the time."""
    found = night(tmp_path, [*shots(40, LONG), *shots(40, SHORT)], hours=0.25)

    lasts = {
        length: max(t.asked for t in found.service.tasks.values() if (t.took > 130.0) is (length == LONG))
        for length in (SHORT, LONG)
    }
    assert lasts[LONG] < 900.0 - 240.0
    assert lasts[LONG] + 120.0 < lasts[SHORT] < 900.0 - 60.0
    assert found.stop is Stop.DEADLINE
    assert set(found.states) == {"succeeded", "pending"}


def test_nobody_knows_and_so_it_goes_on_until_the_time_itself(tmp_path: Path) -> None:
    found = night(tmp_path, shots(30, SHORT), hours=40.0 / 3600.0, known=False)

    assert len(sent(found)) == 4
    assert max(sent(found)) < 40.0
    assert found.makespan > 40.0, "what was in flight was followed to its end"
    assert found.states == {"succeeded": 4, "pending": 26}
    assert found.stop is Stop.DEADLINE


def test_it_learns_while_it_goes(tmp_path: Path) -> None:
    """The first night has no latencies at its start, and knows them long before its end."""
    found = night(tmp_path, shots(100, SHORT), hours=0.25, known=False)

    assert max(sent(found)) < 900.0 - 60.0
    assert found.states["succeeded"] + found.states["pending"] == 100


def test_a_night_that_is_done_before_did_not_stop_early(tmp_path: Path) -> None:
    found = night(tmp_path, shots(10, SHORT), hours=1.0)

    assert found.stop is None
    assert found.states == {"succeeded": 10}


def test_a_deadline_too_near_for_anything_sends_nothing(tmp_path: Path) -> None:
    found = night(tmp_path, shots(10, SHORT), hours=30.0 / 3600.0)

    assert found.service.posts == []
    assert found.stop is Stop.DEADLINE
    assert found.states == {"pending": 10}


def test_what_never_ends_is_left_after_the_grace_and_taken_up_by_the_next_night(tmp_path: Path) -> None:
    world = World(tmp_path)
    jobs = shots(6, SHORT)
    slow = jobs[2].key
    monday = night(
        tmp_path,
        jobs,
        hours=300.0 / 3600.0,
        grace=200.0,
        in_flight=6,
        world=world,
        took=lambda key: 2000.0 if key == slow else 50.0,
    )

    assert monday.stop is Stop.DEADLINE
    assert monday.states == {"succeeded": 5, "running": 1}
    [(at, _, data)] = [e for e in monday.events if e[1] == "grace_over"]
    assert 300.0 + 200.0 <= at < 300.0 + 202.0
    assert data == {"tasks": 1, "downloads": 0}

    world.timeline.advance(1600.0)
    service = Service(world.timeline, Limits(), lambda key: 1.0, world.rng, tasks=dict(monday.service.tasks))
    service._begin = monday.service._begin
    tuesday = world.night(jobs, service, Settings(min_free_bytes=1))

    assert service.posts == [], "it was paid for already"
    assert tuesday.states == {"succeeded": 6}
    assert tuesday.stop is None
