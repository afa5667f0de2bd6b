"""What a run finds when it starts: the spool, and submissions whose runner died. Real ledger, real files."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from batchrunner.core import events as e
from batchrunner.core.job import Job, Pending, Problem, Running, State, Unconfirmed
from batchrunner.core.selection import Selection
from batchrunner.engine.ports import Books, Crash, Tally, Work, no_crash
from batchrunner.engine.recover import consent, recover
from batchrunner.engine.spool import Spool, Spooled
from batchrunner.ledger.store import Ledger
from tests.support import FakeClock, drive, money, open_ledger, path_to, spec, with_jobs


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "l.db"


@pytest.fixture
async def ledger(path: Path) -> AsyncIterator[Ledger]:
    async with open_ledger(path, FakeClock()) as opened:
        yield opened


async def start(ledger: Ledger, path: Path, crash: Crash = no_crash) -> tuple[list[str], Tally]:
    """What `run` does first; returns the events that were seen."""
    spool = Spool(path)
    seen: list[str] = []
    tally = Tally()
    try:
        books = Books(
            ledger=ledger,
            spool=spool,
            clock=FakeClock(),
            observe=lambda event, job=None, /, **data: seen.append(f"{event} {job.key if job else ''}"),
            tally=tally,
            crash=crash,
        )
        await recover(books, [b.id for b in await ledger.batches()])
    finally:
        spool.close()
    return seen, tally


def spool_up(path: Path, *records: Spooled) -> None:
    spool = Spool(path)
    for record in records:
        spool.append(record)
    spool.close()


def left_in_spool(path: Path) -> list[Spooled]:
    spool = Spool(path)
    spool.close()
    return spool.found


async def now(ledger: Ledger, job: Job) -> Job:
    return (await ledger.jobs([job.id]))[0]


async def test_nothing_to_do(ledger: Ledger, path: Path) -> None:
    await with_jobs(ledger, [spec()])
    assert (await start(ledger, path))[0] == []


async def test_a_submission_without_an_answer_is_unconfirmed(ledger: Ledger, path: Path) -> None:
    one, two = await with_jobs(ledger, [spec("a"), spec("b")])
    await drive(ledger, one, e.Claimed())
    seen, tally = await start(ledger, path)
    assert seen == ["interrupted a-1"]
    assert (await now(ledger, one)).fact == Unconfirmed(1, e.Interrupted().problem)
    assert (await now(ledger, two)).state is State.PENDING
    assert await money(ledger) == (0, 0, 630)
    assert tally.states[State.UNCONFIRMED] == 1
    assert (await start(ledger, path))[0] == []


@pytest.mark.parametrize("state", [State.SUBMITTING, State.UNCONFIRMED])
async def test_an_id_in_the_spool_is_recorded(ledger: Ledger, path: Path, state: State) -> None:
    (job,) = await with_jobs(ledger, [spec()])
    await drive(ledger, job, *path_to(state))
    spool_up(path, Spooled(job.id, 1, "task_7"))
    await start(ledger, path)
    assert (await now(ledger, job)).fact == Running(1, "task_7")
    assert await money(ledger) == (0, 630, 0)
    assert left_in_spool(path) == []


@pytest.mark.parametrize("state", [s for s in State if s not in {State.SUBMITTING, State.UNCONFIRMED}])
async def test_an_id_that_was_recorded_after_all(ledger: Ledger, path: Path, state: State) -> None:
    (job,) = await with_jobs(ledger, [spec()])
    job = await drive(ledger, job, *path_to(state))
    spool_up(path, Spooled(job.id, 1, "task_1"), Spooled(99, 1, "task_2"))
    assert (await start(ledger, path))[0] == []
    assert await now(ledger, job) == job
    assert left_in_spool(path) == []


async def test_a_death_between_two_ids_of_the_spool(ledger: Ledger, path: Path) -> None:
    """The spool is emptied when all of it is in the ledger, and not before."""
    jobs = await with_jobs(ledger, [spec("a"), spec("b")])
    for job in jobs:
        await drive(ledger, job, e.Claimed())
    spooled = [Spooled(job.id, 1, f"task_{job.id}") for job in jobs]
    spool_up(path, *spooled)

    def die(point: str) -> None:
        if point == "recover.restored":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await start(ledger, path, die)
    assert [(await now(ledger, job)).state for job in jobs] == [State.RUNNING, State.SUBMITTING]
    assert left_in_spool(path) == spooled

    await start(ledger, path)
    assert [(await now(ledger, job)).fact for job in jobs] == [Running(1, s.task_id) for s in spooled]
    assert left_in_spool(path) == []


async def test_an_id_of_another_attempt(ledger: Ledger, path: Path) -> None:
    (job,) = await with_jobs(ledger, [spec()])
    await drive(ledger, job, e.Claimed(), e.NotSent(Problem("x")), e.Claimed())
    spool_up(path, Spooled(job.id, 1, "task_7"))
    await start(ledger, path)
    assert (await now(ledger, job)).state is State.UNCONFIRMED


@pytest.mark.parametrize("state", [State.SUBMITTING, State.UNCONFIRMED])
async def test_the_same_id_twice_in_the_spool(ledger: Ledger, path: Path, state: State) -> None:
    (job,) = await with_jobs(ledger, [spec()])
    await drive(ledger, job, *path_to(state))
    spool_up(path, Spooled(job.id, 1, "task_7"), Spooled(job.id, 1, "task_7"))
    await start(ledger, path)
    assert (await now(ledger, job)).fact == Running(1, "task_7")


@pytest.mark.parametrize("state", [State.SUBMITTING, State.UNCONFIRMED])
async def test_an_id_that_is_another_jobs_leaves_a_doubt_and_no_dead_end(
    ledger: Ledger, path: Path, state: State
) -> None:
    """A server that names one task twice must not keep every later run from starting."""
    one, two = await with_jobs(ledger, [spec("a"), spec("b")])
    await drive(ledger, one, e.Claimed(), e.Accepted("task_7"))
    await drive(ledger, two, *path_to(state))
    spool_up(path, Spooled(two.id, 1, "task_7"))
    await start(ledger, path)
    assert (await now(ledger, one)).fact == Running(1, "task_7")
    found = (await now(ledger, two)).fact
    assert isinstance(found, Unconfirmed)
    if state is State.SUBMITTING:
        assert found.problem.code == "duplicate_task_id"
    assert left_in_spool(path) == []
    assert await money(ledger) == (0, 630, 630)


async def test_consent(ledger: Ledger, path: Path) -> None:
    one, two = await with_jobs(ledger, [spec("a"), spec("b")])
    for job in (one, two):
        await drive(ledger, job, e.Claimed(), e.Ambiguous(Problem("x")))
    spool = Spool(path)
    books = Books(ledger=ledger, spool=spool, clock=FakeClock())
    work = Work(await ledger.batches(), Selection(only=("a",)))
    assert await consent(books, work, "me", {"reapi"}) == [one.id], "its service is asked first"
    assert (await now(ledger, one)).state is State.UNCONFIRMED
    assert await consent(books, work, "me") == []
    assert await consent(books, work, "me") == []
    spool.close()
    assert (await now(ledger, one)).fact == Pending(1)
    assert (await now(ledger, two)).state is State.UNCONFIRMED
    word = await ledger.query(lambda c: c.execute("SELECT consent FROM attempt WHERE job_id = 1").fetchone()[0])
    assert word == "me: --on-unconfirmed resubmit"
