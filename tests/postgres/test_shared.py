"""Several writers of one ledger in PostgreSQL: turns, the account's rate, claims, and who is taken for dead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import psycopg
import pytest

from batchrunner.core import events as e
from batchrunner.core.job import Job, Problem, State
from batchrunner.core.limits import Bounds as Limit
from batchrunner.ledger.connection import APPLICATION_ID
from batchrunner.ledger.errors import Conflict, LedgerBusy, NotYet, WriteFailed
from batchrunner.ledger.postgres import peers
from batchrunner.ledger.postgres.meters import Bounds, Together
from batchrunner.ledger.postgres.opening import lock_number, open_writer, prepare_shared
from batchrunner.ledger.postgres.shared import SharedLedger
from batchrunner.ledger.sql import Connection
from tests.postgres.server import Postgres
from tests.support import FakeClock, batch, spec

pytest.importorskip("procrastinate")

PRUNE = 600.0
FAST = Bounds(1e6, 1000)


@asynccontextmanager
async def two(postgres: Postgres, clock: Callable[[], float]) -> AsyncIterator[tuple[SharedLedger, SharedLedger]]:
    """Two workers on a ledger with one batch, of three jobs."""
    server = postgres.ledger()
    open_writer(server).close()
    prepare_shared(server)
    async with AsyncExitStack() as stack:
        found = []
        for number in range(2):
            ledger = await SharedLedger.join(server, clock, PRUNE)
            stack.push_async_callback(ledger.close)
            if not number:
                await ledger.bind_origin("reapi", "https://double")
                await ledger.record(batch(), [spec(f"shot-{n}") for n in range(3)])
            await ledger.batches()
            ledger.worker = await ledger.write(
                partial(peers.join, providers=["reapi"], host="here", pid=number, part="all")
            )
            await ledger.write(partial(peers.rated, provider="reapi"))
            ledger.bounds = FAST
            found.append(ledger)
        yield found[0], found[1]


async def job(ledger: SharedLedger, number: int = 1) -> Job:
    return (await ledger.jobs([number]))[0]


async def test_a_run_and_workers_keep_each_other_out(postgres: Postgres) -> None:
    async with two(postgres, FakeClock().wall) as (one, _):
        with pytest.raises(LedgerBusy):
            open_writer(one._server)


async def test_of_two_who_claim_a_job_one_has_it(postgres: Postgres) -> None:
    async with two(postgres, FakeClock().wall) as (one, other):
        mine, its = await job(one), await job(other)

        claimed = await one.advance(mine, e.Claimed())

        assert claimed.state is State.SUBMITTING
        with pytest.raises(Conflict):
            await other.advance(its, e.Claimed())


async def test_the_rate_is_everybodys(postgres: Postgres) -> None:
    async with two(postgres, FakeClock().wall) as (one, other):
        one.bounds = other.bounds = Bounds(1.0 / 3600.0, 1000)

        await one.advance(await job(one, 1), e.Claimed())
        with pytest.raises(NotYet) as refused:
            await other.advance(await job(other, 2), e.Claimed())

        assert 3000.0 < refused.value.seconds <= 3600.0
        assert (await job(other, 2)).state is State.PENDING


async def test_what_was_not_sent_gives_its_place_back(postgres: Postgres) -> None:
    async with two(postgres, FakeClock().wall) as (one, other):
        one.bounds = other.bounds = Bounds(1.0 / 3600.0, 1000)
        claimed = await one.advance(await job(one, 1), e.Claimed())

        await one.advance(claimed, e.NotSent(Problem("no route"), 0.0))

        assert (await other.advance(await job(other, 2), e.Claimed())).state is State.SUBMITTING


async def test_so_is_what_may_be_in_flight(postgres: Postgres) -> None:
    async with two(postgres, FakeClock().wall) as (one, other):
        one.bounds = other.bounds = Bounds(1e6, 1)
        claimed = await one.advance(await job(one, 1), e.Claimed())
        with pytest.raises(NotYet):
            await other.advance(await job(other, 2), e.Claimed())

        running = await one.advance(claimed, e.Accepted("task-1"))
        with pytest.raises(NotYet):
            await other.advance(await job(other, 2), e.Claimed())
        await one.advance(running, e.Vanished(Problem("unknown")))

        assert (await other.advance(await job(other, 2), e.Claimed())).state is State.SUBMITTING


def slow(rate: float | None = None, flight: int | None = None) -> Bounds:
    """Bounds of the one model of these jobs, in an account that has none."""
    return Bounds(1e6, 1000, {"kling-3-0-turbo": Limit(rate, flight)})


async def test_so_is_the_rate_of_a_single_model_and_what_was_not_sent_gives_its_place_back(postgres: Postgres) -> None:
    async with two(postgres, FakeClock().wall) as (one, other):
        one.bounds = other.bounds = slow(1.0 / 60.0)

        claimed = await one.advance(await job(one, 1), e.Claimed())
        with pytest.raises(NotYet) as refused:
            await other.advance(await job(other, 2), e.Claimed())
        assert (3000.0 < refused.value.seconds <= 3600.0, refused.value.model) == (True, "kling-3-0-turbo")

        await one.advance(claimed, e.NotSent(Problem("no route"), 0.0))
        assert (await other.advance(await job(other, 2), e.Claimed())).state is State.SUBMITTING
        with pytest.raises(NotYet):
            await one.advance(await job(one, 3), e.Claimed())


async def test_so_is_what_may_be_in_flight_of_it(postgres: Postgres) -> None:
    async with two(postgres, FakeClock().wall) as (one, other):
        one.bounds = other.bounds = slow(flight=2)
        jobs = [await job(one, number) for number in (1, 2, 3)]

        said = await asyncio.gather(*(one.advance(each, e.Claimed()) for each in jobs), return_exceptions=True)

        assert [type(each) for each in said] == [Job, Job, NotYet], "of those who ask together too"
        running = await one.advance(await job(one, 1), e.Accepted("task-1"))
        with pytest.raises(NotYet, match="kling"):
            await other.advance(await job(other, 3), e.Claimed())
        await one.advance(running, e.Vanished(Problem("unknown")))
        assert (await other.advance(await job(other, 3), e.Claimed())).state is State.SUBMITTING


async def test_a_model_that_is_full_takes_nothing_of_the_account(postgres: Postgres) -> None:
    async with two(postgres, FakeClock().wall) as (one, other):
        one.bounds = slow(flight=0)
        for number in (1, 2):
            with pytest.raises(NotYet, match="kling"):
                await one.advance(await job(one, number), e.Claimed())

        other.bounds = Bounds(1.0 / 3600.0, 1000)
        assert (await other.advance(await job(other, 3), e.Claimed())).state is State.SUBMITTING


async def test_what_a_batch_of_several_services_may_send_holds_for_their_accounts_together(postgres: Postgres) -> None:
    async with two(postgres, FakeClock().wall) as (one, other):
        await one.bind_origin("fal", "https://other")
        await one.write(partial(peers.rated, provider="fal"))
        more = [spec(f"more-{n}", provider="fal", model="fal-1") for n in range(2)]
        await one.record(batch("mixed"), [spec("first"), *more])
        await other.batches()
        both = frozenset({"reapi", "fal"})
        one.bounds = other.bounds = Bounds(1e6, 1000, together=Together(both, Limit(None, 2)))

        jobs = await one.jobs([4, 5, 6])
        said = await asyncio.gather(*(one.advance(each, e.Claimed()) for each in jobs), return_exceptions=True)

        assert sorted(type(each).__name__ for each in said) == ["Job", "Job", "NotYet"], "asked in one turn, too"
        with pytest.raises(NotYet, match="the account"):
            await other.advance(await job(other, 1), e.Claimed())
        one.bounds = other.bounds = Bounds(1e6, 1000, together=Together(both, Limit(1.0 / 60.0, 100)))
        claimed = await one.advance(await job(one, 1), e.Claimed())
        with pytest.raises(NotYet, match="the account"):
            await other.advance(await job(other, 2), e.Claimed())
        await one.advance(claimed, e.NotSent(Problem("no route"), 0.0))
        assert (await other.advance(await job(other, 2), e.Claimed())).state is State.SUBMITTING


async def test_a_429_of_one_holds_all(postgres: Postgres) -> None:
    clock = FakeClock()
    async with two(postgres, clock.wall) as (one, other):
        one.save_hold("reapi", clock.wall() + 100.0)
        await one.write(lambda _: None)  # what was written behind is written

        with pytest.raises(NotYet) as refused:
            await other.advance(await job(other), e.Claimed())

        assert 50.0 < refused.value.seconds <= 100.0


async def test_who_slept_between_the_intent_and_the_post_does_not_send(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    async with two(postgres, clock.wall) as (one, other):
        write = one.write
        slept: list[bool] = []

        async def asleep(operation: Any) -> Any:
            found = await write(operation)
            if not slept:  # the intent is durable; now everything stands still, and the other one looks
                slept.append(True)
                clock.forward(PRUNE)
                await _silent_since(other, one.worker)
                for dead in await other.jobs(await other.read(partial(peers.dead_claims, within=PRUNE))):
                    await other.advance(dead, e.Interrupted())
            return found

        monkeypatch.setattr(one, "write", asleep)

        with pytest.raises(Conflict, match="before it was sent"):
            await one.advance(await job(one), e.Claimed())
        assert (await job(other)).state is State.UNCONFIRMED


async def test_who_slept_and_was_not_missed_sends(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    async with two(postgres, clock.wall) as (one, _):
        write = one.write
        slept: list[bool] = []

        async def asleep(operation: Any) -> Any:
            found = await write(operation)
            if not slept:
                slept.append(True)
                clock.forward(PRUNE)
            return found

        monkeypatch.setattr(one, "write", asleep)

        assert (await one.advance(await job(one), e.Claimed())).state is State.SUBMITTING


async def test_a_late_answer_settles_the_doubt(postgres: Postgres) -> None:
    async with two(postgres, FakeClock().wall) as (one, other):
        claimed = await one.advance(await job(one), e.Claimed())
        assert await other.read(partial(peers.dead_claims, within=PRUNE)) == []
        await _silent_since(other, one.worker)
        assert await other.read(partial(peers.dead_claims, within=PRUNE)) == [claimed.id]
        await other.advance(claimed, e.Interrupted())

        running = await one.advance(claimed, e.Accepted("task-1"))

        assert (running.state, getattr(running.fact, "task_id", None)) == (State.RUNNING, "task-1")


async def test_an_answer_that_comes_after_a_persons_word_changes_nothing(postgres: Postgres) -> None:
    async with two(postgres, FakeClock().wall) as (one, other):
        claimed = await one.advance(await job(one), e.Claimed())
        doubted = await other.advance(claimed, e.Interrupted())
        again = await other.advance(doubted, e.Resubmitted("me", "it was not there"))
        await other.advance(again, e.Claimed())

        with pytest.raises(Conflict, match="task-1"):
            await one.advance(claimed, e.Accepted("task-1"))


async def test_only_what_nobody_carries_is_deferred(postgres: Postgres) -> None:
    async with two(postgres, FakeClock().wall) as (one, other):
        assert await one.write(peers.defer) == 0, "nobody has left the batch to workers"

        assert await one.write(partial(peers.give, batches=[1], who="me")) == 3
        assert await other.write(peers.defer) == 0
        await one.write(lambda c: c.execute("DELETE FROM procrastinate_jobs WHERE args->>'job_id' = '2'"))

        assert await other.write(peers.defer) == 1
        assert await other.read(partial(peers.unfinished, providers=["reapi"]))


async def test_workers_take_turns_to_sweep(postgres: Postgres) -> None:
    async with two(postgres, FakeClock().wall) as (one, other):

        async def who(every: float) -> list[bool]:
            ask = partial(peers.sweeps, within=PRUNE, every=every)
            return [await each.read(partial(ask, worker=each.worker)) for each in (one, other)]

        since = postgres.ask(f"SELECT {peers.NOW}")[0][0]
        assert await who(since) == [False, True], "of the second stretch the second"
        assert await who(since / 2.0) == [True, False]
        await _silent_since(other, one.worker)
        assert await who(since / 2.0) == [True, True], "one that was taken for dead, and is not, may as well"


async def test_what_is_refused_in_a_group_leaves_the_others_alone(postgres: Postgres) -> None:
    """Also what the others would have been prepared by: the server has passed over it."""
    async with two(postgres, FakeClock().wall) as (one, _):

        def wrong(connection: Connection) -> Any:
            return connection.execute(
                "INSERT INTO history (job_id, at, attempt, to_state, event) VALUES (0, 0, 0, '', '')"
            )

        def right(connection: Connection) -> Any:
            return connection.execute("UPDATE job SET polls = polls + 1 WHERE id = ?", (1,)).rowcount

        for _ in range(8):
            said = await asyncio.gather(one.write(wrong), one.write(right), one.write(right), return_exceptions=True)
            assert [type(said[0]), *said[1:]] == [WriteFailed, 1, 1]
        [polls] = [row[0] for row in postgres.ask(f'SELECT polls FROM "{one._server.schema}".job WHERE id = 1')]
        assert polls == 16


async def test_of_a_group_of_claims_those_that_have_places_are_sent(postgres: Postgres) -> None:
    async with two(postgres, FakeClock().wall) as (one, other):
        one.bounds = other.bounds = Bounds(1e6, 2)
        jobs = [await job(one, number) for number in (1, 2, 3)]
        await other.advance(await job(other, 3), e.Withdrawn("me", "not needed"))

        said = await asyncio.gather(*(one.advance(each, e.Claimed()) for each in jobs[::-1]), return_exceptions=True)

        assert isinstance(said[0], Conflict), "it was withdrawn, and takes nobody's place"
        assert [getattr(each, "state", each) for each in said[1:]] == [State.SUBMITTING] * 2
        assert postgres.ask(f'SELECT count(*) FROM "{one._server.schema}".claim') == [(2,)]


async def test_of_a_group_of_claims_as_many_are_sent_as_there_are_places(postgres: Postgres) -> None:
    async with two(postgres, FakeClock().wall) as (one, _):
        one.bounds = Bounds(1e6, 2)
        jobs = [await job(one, number) for number in (1, 2, 3)]

        said = await asyncio.gather(*(one.advance(each, e.Claimed()) for each in jobs), return_exceptions=True)

        assert [type(each) for each in said] == [Job, Job, NotYet]
        assert postgres.ask(f'SELECT count(*) FROM "{one._server.schema}".claim') == [(2,)]


async def _silent_since(ledger: SharedLedger, worker: int) -> None:
    """As if a worker had given no sign of life for long enough."""
    sql = f"UPDATE worker SET beat_at = beat_at - {PRUNE + 1} WHERE id = ?"
    await ledger.write(lambda c: c.execute(sql, (worker,)))


async def test_whoever_writes_waits_for_everybodys_turn(postgres: Postgres) -> None:
    async with two(postgres, FakeClock().wall) as (one, _):
        mine = await job(one)
        with psycopg.connect(postgres.url, autocommit=True) as its:
            its.execute("SELECT pg_advisory_lock(%s::int, %s::int)", (APPLICATION_ID + 1, lock_number(one._server)))
            claiming = asyncio.create_task(one.advance(mine, e.Claimed()))
            waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            while not claiming.done() and its.execute(waiting).fetchone() == (0,):
                await asyncio.sleep(0.01)
            assert not claiming.done()

        assert (await claiming).state is State.SUBMITTING


async def test_in_a_group_too_what_has_gone_on_is_left_alone(postgres: Postgres) -> None:
    async with two(postgres, FakeClock().wall) as (one, other):
        stale = await other.advance(await job(other, 1), e.Claimed())
        await other.advance(stale, e.Accepted("task-1"))

        said = await asyncio.gather(
            one.advance(stale, e.Accepted("task-2")),
            one.advance(await job(one, 2), e.Claimed()),
            return_exceptions=True,
        )

        assert [type(each) for each in said] == [Conflict, Job]
        events = postgres.ask(f'SELECT event FROM "{one._server.schema}".history WHERE job_id = 1 ORDER BY id')
        assert events == [("recorded",), ("claimed",), ("accepted",)], "of what is refused nothing stays"


async def test_of_submissions_only_those_of_the_dead_are_given_up(postgres: Postgres) -> None:
    async with two(postgres, FakeClock().wall) as (one, other):
        for ledger, number in ((one, 1), (other, 2)):
            await ledger.advance(await job(ledger, number), e.Claimed())
        assert await one.read(partial(peers.dead_claims, within=PRUNE)) == []

        await _silent_since(other, one.worker)

        assert await other.read(partial(peers.dead_claims, within=PRUNE)) == [1]


async def test_what_is_being_sent_is_nobody_elses(postgres: Postgres) -> None:
    async with two(postgres, FakeClock().wall) as (one, other):
        await one.write(partial(peers.give, batches=[1], who="me"))
        await one.advance(await job(one, 1), e.Claimed())
        await one.write(lambda c: c.execute("DELETE FROM procrastinate_jobs"))

        assert await other.write(peers.defer) == 2
