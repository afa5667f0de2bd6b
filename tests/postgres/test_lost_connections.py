"""A ledger whose server goes away: nothing is written twice, and nothing that was written is forgotten."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from batchrunner.core import events as e
from batchrunner.core.job import State
from batchrunner.ledger.errors import Conflict, LedgerBusy, WriteFailed
from batchrunner.ledger.store import Ledger
from tests.postgres.cut import When, Wire
from tests.postgres.server import Postgres
from tests.support import FakeClock, open_ledger, spec, with_jobs


@pytest.fixture
def wire(postgres: Postgres) -> Iterator[Wire]:
    wire = Wire(postgres)
    yield wire
    wire.close()


def _link(ledger: Ledger) -> Any:
    return ledger._writer._database.connection


async def history(ledger: Ledger) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = await ledger.query(
        lambda c: [(row["event"], row["to_state"]) for row in c.execute("SELECT * FROM history ORDER BY id")]
    )
    return found


@pytest.mark.parametrize("when", When)
async def test_a_commit_that_is_cut_off_is_done_once(postgres: Postgres, wire: Wire, when: When) -> None:
    """Whether the server had it or not: nobody hears of it, and it is in the ledger once."""
    async with open_ledger(wire.address(postgres.ledger()), FakeClock()) as ledger:
        jobs = await with_jobs(ledger, [spec("a"), spec("b")])
        wire.cut = when
        claimed = await asyncio.gather(*(ledger.advance(job, e.Claimed()) for job in jobs))
        assert wire.cuts == 1
        assert [job.state for job in claimed] == [State.SUBMITTING] * 2
        assert await history(ledger) == [("recorded", "pending")] * 2 + [("claimed", "submitting")] * 2


async def test_a_connection_that_is_gone_is_opened_again(postgres: Postgres, wire: Wire) -> None:
    async with open_ledger(wire.address(postgres.ledger()), FakeClock()) as ledger:
        (job,) = await with_jobs(ledger, [spec()])
        wire.sever()
        job = await ledger.advance(job, e.Claimed())
        wire.sever()
        assert len(await ledger.jobs([job.id])) == 1, "a read too"
        await ledger.advance(job, e.Accepted("task_1"))
        assert [event for event, _ in await history(ledger)] == ["recorded", "claimed", "accepted"]


@pytest.mark.parametrize("when", When)
async def test_a_server_that_stays_away_stops_a_write_and_its_repetition_finds_what_became_of_it(
    postgres: Postgres, wire: Wire, when: When
) -> None:
    async with open_ledger(wire.address(postgres.ledger()), FakeClock()) as ledger:
        _link(ledger)._patience = 0.2
        (job,) = await with_jobs(ledger, [spec()])
        claimed = await ledger.advance(job, e.Claimed())
        wire.cut, wire.down_after = when, True
        with pytest.raises(WriteFailed, match="could not be written"):
            await ledger.advance(claimed, e.Accepted("task_1", "req_1"))
        with pytest.raises(WriteFailed):
            await ledger.advance(claimed, e.Accepted("task_1", "req_1"))
        wire.down = False
        running = await ledger.advance(claimed, e.Accepted("task_1", "req_1"))
        assert (running.state, running.fact.task_id) == (State.RUNNING, "task_1")  # type: ignore[union-attr]
        assert [event for event, _ in await history(ledger)] == ["recorded", "claimed", "accepted"]


async def test_a_claim_that_was_cut_off_is_never_taken_for_ones_own_a_second_time(
    postgres: Postgres, wire: Wire
) -> None:
    """Whoever is not sure of his claim does not send: with several writers another may have made the same one."""
    async with open_ledger(wire.address(postgres.ledger()), FakeClock()) as ledger:
        _link(ledger)._patience = 0.0
        (job,) = await with_jobs(ledger, [spec()])
        wire.cut, wire.down_after = When.AFTER_COMMIT, True
        with pytest.raises(WriteFailed):
            await ledger.advance(job, e.Claimed())
        wire.down = False
        with pytest.raises(Conflict):
            await ledger.advance(job, e.Claimed())


async def test_a_server_that_is_restarted_in_the_middle(postgres: Postgres) -> None:
    """As if the power had failed: what was committed is there, and the run goes on."""
    async with open_ledger(postgres.ledger(), FakeClock()) as ledger:
        jobs = await with_jobs(ledger, [spec(f"s{n}") for n in range(8)])
        jobs = [await ledger.advance(job, e.Claimed()) for job in jobs]
        postgres.stop(signal.SIGQUIT)
        again = asyncio.gather(*(ledger.advance(job, e.Accepted(f"task_{n}")) for n, job in enumerate(jobs)))
        while ledger._writer._draining is None:
            await asyncio.sleep(0)
        postgres.start()
        assert [job.state for job in await again] == [State.RUNNING] * 8
        assert [event for event, _ in await history(ledger)] == ["recorded"] * 8 + ["claimed"] * 8 + ["accepted"] * 8


async def test_the_lock_is_not_taken_back_from_another(postgres: Postgres, wire: Wire) -> None:
    """A runner whose connection is gone, while another has begun, writes nothing any more."""
    address = postgres.ledger()
    async with open_ledger(wire.address(address), FakeClock()) as ledger:
        (job,) = await with_jobs(ledger, [spec()])
        with pytest.raises(LedgerBusy, match=r"another batchrunner .* holds postgresql://owner@"):
            await Ledger.open(address, FakeClock().wall)
        wire.down = True
        wire.sever()
        other = await _patiently(address)
        try:
            wire.down = False
            with pytest.raises(WriteFailed, match="holds"):
                await ledger.advance(job, e.Claimed())
            assert (await other.jobs([job.id]))[0].state is State.PENDING
        finally:
            await other.close()


async def _patiently(address: Any) -> Ledger:
    while True:
        try:
            return await Ledger.open(address, FakeClock().wall)
        except LedgerBusy:
            continue


async def test_a_session_that_still_holds_the_lock_is_ended_by_the_one_that_comes_after_it(
    postgres: Postgres, wire: Wire
) -> None:
    """A cut between us and the server is seen by us first: the server still has the session, with its lock and perhaps
    a transaction."""
    async with open_ledger(wire.address(postgres.ledger()), FakeClock()) as ledger:
        (job,) = await with_jobs(ledger, [spec()])
        lost = _link(ledger)
        mine = lost._session[0]
        held = lost._connection
        lost._connection = _Gone(lost._connection)
        await ledger.advance(job, e.Claimed())
        assert lost._session[0] != mine
        assert postgres.ask("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", mine) == [(0,)]
        held.close()


class _Gone:
    """A connection that looks closed from here, and is not."""

    closed = True

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.info = connection.info

    def close(self) -> None:
        pass
