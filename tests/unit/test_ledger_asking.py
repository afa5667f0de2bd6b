"""The name of a submission, and what a service said of it: in a file and in PostgreSQL."""

from __future__ import annotations

from typing import Any

import pytest

from batchrunner.core import events as e
from batchrunner.core.job import State
from batchrunner.ledger.address import Address
from batchrunner.ledger.audit import find_everywhere
from batchrunner.ledger.queries import unconfirmed_providers
from batchrunner.ledger.store import Ledger
from tests.support import FakeClock, drive, open_ledger, path_to, spec, with_jobs

BOTH_STORES = True


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def notes(ledger: Ledger) -> list[tuple[Any, ...]]:
    sql = "SELECT job_id, at, attempt, from_state, to_state, reason, who FROM history WHERE event = 'lookup'"
    found: list[tuple[Any, ...]] = await ledger.query(lambda c: [tuple(row) for row in c.execute(sql)])
    return found


async def test_a_submission_has_a_name_of_its_own_for_ever(path: Address, clock: FakeClock) -> None:
    async with open_ledger(path, clock) as ledger:
        dog, cat = await with_jobs(ledger, [spec("dog"), spec("cat")])
        before = [await ledger.token(job, attempt) for job in (dog, cat) for attempt in (1, 2)]
        assert len(set(before)) == 4
        clock.forward(1000.0)
        await drive(ledger, dog, *path_to(State.UNCONFIRMED))
    async with open_ledger(path, clock) as again:
        dog, cat = await again.jobs([dog.id, cat.id])
        assert [await again.token(job, attempt) for job in (dog, cat) for attempt in (1, 2)] == before


async def test_a_job_that_is_in_doubt_takes_a_note_and_no_other_does(path: Address, clock: FakeClock) -> None:
    async with open_ledger(path, clock) as ledger:
        dog, cat = await with_jobs(ledger, [spec("dog"), spec("cat")])
        assert await ledger.query(lambda c: unconfirmed_providers(c, [dog.batch_id])) == []
        dog = await drive(ledger, dog, *path_to(State.UNCONFIRMED))
        assert await ledger.query(lambda c: unconfirmed_providers(c, [dog.batch_id])) == [dog.provider]
        clock.forward(5.0)
        await ledger.note_lookup(dog, "it knows nothing of it", "beacon")
        await ledger.note_lookup(cat, "it knows nothing of it", "beacon")
        said = (dog.id, clock.wall(), 1, "unconfirmed", "unconfirmed", "it knows nothing of it", "beacon")
        assert await notes(ledger) == [said]
        assert await ledger.jobs([dog.id]) == [dog]
        await ledger.advance(dog, e.Resubmitted("ada"))
        await ledger.note_lookup(dog, "too late", "beacon")
        assert await notes(ledger) == [said]
        assert await ledger.query(find_everywhere) is None
