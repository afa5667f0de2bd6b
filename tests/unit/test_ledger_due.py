"""What the engine asks the ledger: what is due, what was learned, whose account it is."""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from batchrunner.core import events as e
from batchrunner.core.adaptive import Learned
from batchrunner.core.job import Job, Problem, State
from batchrunner.core.pacing import MAX_RETRY_AFTER
from batchrunner.core.selection import Selection
from batchrunner.ledger import queries
from batchrunner.ledger.address import Address
from batchrunner.ledger.errors import LedgerUnusable
from batchrunner.ledger.runs import LATENCIES_KEPT
from batchrunner.ledger.sql import Connection
from batchrunner.ledger.store import Ledger, Schedule
from tests.support import START, FakeClock, drive, money, open_ledger, path_to, spec, with_jobs

BOTH_STORES = True

ALL = Selection()
SEEN = Problem("busy")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def ledger(path: Address, clock: FakeClock) -> AsyncIterator[Ledger]:
    async with open_ledger(path, clock) as opened:
        yield opened


async def due(
    ledger: Ledger, selection: Selection = ALL, limit: int = 100, now: float = START, batches: Any = (1,)
) -> list[str]:
    return [job.key for job in (await ledger.pending(batches, selection, limit, now))[0]]


async def held(ledger: Ledger, job: Job, until: float) -> Job:
    return await drive(ledger, job, e.Claimed(), e.Throttled(SEEN, retry_at=until))


async def written_behind(ledger: Ledger) -> None:
    """Return when all is committed that nobody waits for: the queue is in order."""
    await ledger.cap([], 0)


# --- pending ---------------------------------------------------------------------------------------------


async def test_in_the_manifests_order(ledger: Ledger) -> None:
    await with_jobs(ledger, [spec("c"), spec("a"), spec("b", 2), spec("b", 1)])
    assert await due(ledger) == ["c-1", "a-1", "b-2", "b-1"]
    await with_jobs(ledger, [spec("b", 1), spec("a"), spec("new"), spec("b", 2)])
    assert await due(ledger) == ["b-1", "a-1", "new-1", "b-2"]


async def test_limit(ledger: Ledger) -> None:
    await with_jobs(ledger, [spec(f"s{n}") for n in range(5)])
    assert await due(ledger, limit=3) == ["s0-1", "s1-1", "s2-1"]
    assert await due(ledger, limit=0) == []


async def test_a_damaged_request_is_not_sent(ledger: Ledger) -> None:
    """A bit that flipped in the file is seen by its fingerprint: no money for a film that nobody ordered."""
    await with_jobs(ledger, [spec("a"), spec("b")])

    def flip(connection: Connection) -> None:
        without = (
            "DROP TRIGGER {}" if isinstance(connection, sqlite3.Connection) else "ALTER TABLE job DISABLE TRIGGER {}"
        )
        connection.execute(without.format("job_is_what_it_was"))
        connection.execute("UPDATE job SET request = replace(request, 'a b', 'a c') WHERE key = 'b-1'")

    await ledger.query(flip)
    with pytest.raises(LedgerUnusable, match="request of job b-1 is damaged"):
        await due(ledger)
    assert await due(ledger, Selection(only=("a",))) == ["a-1"]


async def test_several_batches(ledger: Ledger) -> None:
    await with_jobs(ledger, [spec("a")])
    await with_jobs(ledger, [spec("b")], name="other", output_dir="/o")
    assert await due(ledger, batches=(1, 2)) == ["a-1", "b-1"]
    assert await due(ledger, batches=(2,)) == ["b-1"]
    assert await due(ledger, batches=()) == []


async def test_current_pending_only(ledger: Ledger) -> None:
    jobs = await with_jobs(ledger, [spec(f"s{n}") for n in range(len(State))] + [spec("gone")])
    for n, (job, state) in enumerate(zip(jobs, State, strict=False)):
        await drive(ledger, job, *path_to(state, f"t{n}"))
    await with_jobs(ledger, [spec(f"s{n}") for n in range(len(State))])
    assert await due(ledger) == ["s0-1"]


async def test_held_back_until_its_time(ledger: Ledger, clock: FakeClock) -> None:
    one, two, _ = await with_jobs(ledger, [spec("a"), spec("b"), spec("c")])
    await held(ledger, one, START + 30)
    await held(ledger, two, START + 10)
    found, next_at = await ledger.pending([1], ALL, 10, START)
    assert ([j.key for j in found], next_at) == (["c-1"], START + 10)
    found, next_at = await ledger.pending([1], ALL, 10, START + 10)
    assert ([j.key for j in found], next_at) == (["b-1", "c-1"], START + 30)
    found, next_at = await ledger.pending([1], ALL, 10, START + 30)
    assert ([j.key for j in found], next_at) == (["a-1", "b-1", "c-1"], None)


async def test_at_its_time_it_is_due(ledger: Ledger) -> None:
    """ "Not before T" means that at T it may go; else a runner on a clock that stands still would ask for ever."""
    (job,) = await with_jobs(ledger, [spec()])
    await held(ledger, job, START + 5)
    assert await ledger.pending([1], ALL, 10, START + 4.999) == ([], START + 5)
    assert await due(ledger, now=START + 5) == ["dog-1"]


async def test_a_hold_of_more_than_an_hour_counts_as_over(ledger: Ledger) -> None:
    """It was made by a clock that has jumped back since."""
    (job,) = await with_jobs(ledger, [spec()])
    await held(ledger, job, START + MAX_RETRY_AFTER)
    assert await ledger.pending([1], ALL, 10, START) == ([], START + MAX_RETRY_AFTER)
    assert await due(ledger, now=START - 1) == ["dog-1"]
    assert await due(ledger, now=START - 86400) == ["dog-1"]


async def test_a_full_page_says_nothing_of_the_next_time(ledger: Ledger) -> None:
    one, _ = await with_jobs(ledger, [spec("a"), spec("b")])
    await held(ledger, one, START + 30)
    assert (await ledger.pending([1], ALL, 1, START))[1] is None
    assert (await ledger.pending([1], ALL, 2, START))[1] == START + 30


SELECTIONS = [
    (Selection(), ["dog-1", "dog-2", "cat@size=big-1", "bird-1"]),
    (Selection(only=("dog-1",)), ["dog-1"]),
    (Selection(only=("dog",)), ["dog-1", "dog-2"]),
    (Selection(only=("dog-*",)), ["dog-1", "dog-2"]),
    (Selection(only=("*-1",)), ["dog-1", "cat@size=big-1", "bird-1"]),
    (Selection(only=("c?t",)), ["cat@size=big-1"]),
    (Selection(only=("[bc]*",)), ["cat@size=big-1", "bird-1"]),
    (Selection(only=("[^d]*",)), ["cat@size=big-1", "bird-1"]),
    (Selection(only=("*size=big*",)), ["cat@size=big-1"]),
    (Selection(only=("dog-2", "bird")), ["dog-2", "bird-1"]),
    (Selection(only=("DOG",)), []),
    (Selection(only=("do",)), []),
    (Selection(only=("%",)), []),
    (Selection(only=("' OR 1=1 --",)), []),
    (Selection(tags=("hero",)), ["dog-1", "dog-2"]),
    (Selection(tags=("hero", "wide")), ["dog-1", "dog-2", "cat@size=big-1"]),
    (Selection(tags=("her",)), []),
    (Selection(only=("*-1",), tags=("hero",)), ["dog-1"]),
    (Selection(only=("bird",), tags=("hero",)), []),
]


@pytest.mark.parametrize(("selection", "keys"), SELECTIONS, ids=str)
async def test_selection(ledger: Ledger, selection: Selection, keys: list[str]) -> None:
    specs = [
        spec("dog", 1, tags=["hero"]),
        spec("dog", 2, tags=["a", "hero"]),
        spec("cat", matrix={"size": "big"}, tags=["wide"]),
        spec("bird"),
    ]
    await with_jobs(ledger, specs)
    assert await due(ledger, selection) == keys
    assert [s.key for s in specs if selection.matches(s.key, s.shot, s.tags)] == keys
    assert [j.key for j in await ledger.selected([1], selection, State.PENDING)] == keys


# --- Others ----------------------------------------------------------------------------------------------


async def test_in_state_finds_old_revisions_and_their_schedule(ledger: Ledger, clock: FakeClock) -> None:
    one, two = await with_jobs(ledger, [spec("a"), spec("b")])
    one = await drive(ledger, one, *path_to(State.RUNNING, "t1"))
    clock.forward(5)
    two = await drive(ledger, two, *path_to(State.RUNNING, "t2"))
    await with_jobs(ledger, [spec("a", prompt="new"), spec("b")])
    ledger.save_schedules([Schedule(one.id, START + 90, 3), Schedule(two.id, START + 50, 1)])
    await written_behind(ledger)
    found = list(await ledger.in_state([1], State.RUNNING))
    assert [(j.key, s) for j, s in found] == [
        ("b-1", Schedule(two.id, START + 50, 1, START + 5)),
        ("a-1", Schedule(one.id, START + 90, 3, START)),
    ]
    assert list(await ledger.in_state([2], State.RUNNING)) == []
    assert [j.key for j in await ledger.selected([1], Selection(), State.PENDING)] == ["a-1"]


async def test_a_schedule_of_a_task_that_has_ended_is_ignored(ledger: Ledger) -> None:
    (job,) = await with_jobs(ledger, [spec()])
    await drive(ledger, job, *path_to(State.DOWNLOADING))
    ledger.save_schedules([Schedule(job.id, START + 90, 3)])
    await written_behind(ledger)
    ((_, schedule),) = await ledger.in_state([1], State.DOWNLOADING)
    assert (schedule.next_poll_at, schedule.polls) == (0.0, 0)


async def test_selected_and_jobs(ledger: Ledger) -> None:
    one, two = await with_jobs(ledger, [spec("a"), spec("b")])
    one = await drive(ledger, one, *path_to(State.UNCONFIRMED))
    assert await ledger.selected([1], ALL, State.UNCONFIRMED) == [one]
    assert await ledger.selected([1], Selection(only=("b",)), State.UNCONFIRMED) == []
    await with_jobs(ledger, [spec("b")])
    assert await ledger.selected([1], ALL, State.UNCONFIRMED) == []  # no longer in the manifest
    assert await ledger.jobs([two.id, one.id, 99]) == [one, two]
    assert await ledger.jobs([]) == []


async def test_task_ids_of_every_revision(ledger: Ledger) -> None:
    (old,) = await with_jobs(ledger, [spec()])
    await drive(ledger, old, *path_to(State.RUNNING, "t1"))
    _, new = await with_jobs(ledger, [spec(prompt="2")])
    await drive(ledger, new, *path_to(State.RUNNING, "t2"))
    await with_jobs(ledger, [spec()], name="other", output_dir="/o")
    assert await ledger.task_ids(new) == ["t1", "t2"]
    assert await ledger.task_ids(replace(new, batch_id=2)) == []


async def test_latencies_are_trimmed_by_model_newest_kept(ledger: Ledger) -> None:
    (job,) = await with_jobs(ledger, [spec()])
    other = replace(job, model="veo", seconds=None)
    for n in range(LATENCIES_KEPT + 7):
        ledger.save_latencies([(job.model, job.seconds, float(n))])
    ledger.save_latencies([(other.model, other.seconds, 1.5)])
    run = await ledger.start_run(["night"])
    await ledger.end_run(run, None, 0)
    found = await ledger.latencies()
    assert found == [*(("kling-3-0-turbo", 5, float(n)) for n in range(7, LATENCIES_KEPT + 7)), ("veo", None, 1.5)]


async def test_the_account(ledger: Ledger, path: Address) -> None:
    assert await ledger.hold_until("reapi") == 0.0
    ledger.save_hold("reapi", START + 9)
    await written_behind(ledger)
    assert await ledger.hold_until("reapi") == 0.0  # no account, no hold
    await ledger.bind_origin("reapi", "https://reapi.ai")
    await ledger.bind_origin("reapi", "https://reapi.ai")
    await ledger.bind_origin("other", "https://other.example")
    ledger.save_hold("reapi", START + 9)
    await written_behind(ledger)
    assert await ledger.hold_until("reapi") == START + 9
    assert await ledger.hold_until("other") == 0.0
    with pytest.raises(
        LedgerUnusable, match=r"belongs to https://reapi\.ai, and the run would use https://evil\.example"
    ):
        await ledger.bind_origin("reapi", "https://evil.example")
    assert await ledger.query(lambda c: queries.bound_origin(c, "reapi")) == "https://reapi.ai"
    assert await ledger.query(lambda c: queries.bound_origin(c, "none")) is None


async def test_the_limits_that_were_met_are_kept_by_provider(ledger: Ledger) -> None:
    await ledger.bind_origin("reapi", "https://reapi.ai")
    await ledger.bind_origin("other", "https://other.example")
    assert await ledger.pace("reapi") == Learned()
    ledger.save_pace("reapi", Learned(submits=7.0, in_flight=40, calls=20.0))
    ledger.save_pace("other", Learned(in_flight=3))
    ledger.save_pace("reapi", Learned(submits=6.0, in_flight=41))
    await written_behind(ledger)
    assert await ledger.pace("reapi") == Learned(submits=6.0, in_flight=41)
    assert await ledger.pace("other") == Learned(in_flight=3)


async def test_when_submissions_were_last_begun(ledger: Ledger, clock: FakeClock) -> None:
    jobs = await with_jobs(ledger, [spec(f"s{n}") for n in range(5)])
    for job in jobs[:4]:
        clock.forward(10.0)
        await drive(ledger, job, e.Claimed(), e.Accepted(f"t_{job.id}"))
    assert await ledger.claims(START) == [START + 10, START + 20, START + 30, START + 40]
    assert await ledger.claims(START + 25) == [START + 30, START + 40]
    assert await ledger.claims(START + 41) == []


async def test_a_run_and_its_heartbeat(ledger: Ledger, clock: FakeClock) -> None:
    await with_jobs(ledger, [spec()])

    async def last() -> Any:
        return await ledger.query(lambda c: queries.last_run(c, "night", clock.wall()))

    assert await last() is None
    run = await ledger.start_run(["night", "other"])
    assert await last() == {
        "alive": True,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started_at": START,
        "ended_at": None,
        "exit_code": None,
        "stop": None,
        **dict.fromkeys(queries.PROGRESS),
    }
    clock.forward(queries.ALIVE_WITHIN)
    assert (await last())["alive"] is False
    ledger.beat(run, {"eta_seconds": 42.0, "per_minute": 7.0, "in_flight_limit": 40, "more": 1})
    await written_behind(ledger)
    found = await last()
    assert (found["alive"], found["eta_seconds"], found["per_minute"]) == (True, 42.0, 7.0)
    assert found["in_flight_limit"] == 40
    await ledger.end_run(run, "deadline", 4)
    found = await last()
    assert (found["alive"], found["exit_code"], found["stop"], found["eta_seconds"]) == (False, 4, "deadline", None)
    assert found["ended_at"] == START + queries.ALIVE_WITHIN
    assert await ledger.query(lambda c: queries.last_run(c, "nigh", clock.wall())) is None
    assert (await ledger.query(lambda c: queries.last_run(c, "other", clock.wall())))["exit_code"] == 4
    assert await ledger.start_run([]) == run + 1
    assert (await money(ledger)) == (0, 0, 0)
