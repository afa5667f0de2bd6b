"""A part of a batch left to workers, until a time, or for so many submissions: in the ledger, and through the command
line."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from batchrunner.core import events as e
from batchrunner.core.job import Problem, State
from batchrunner.core.selection import Selection
from batchrunner.ledger.errors import Conflict
from batchrunner.ledger.postgres import endings, peers, terms
from batchrunner.ledger.postgres.opening import prepare_shared
from batchrunner.ledger.postgres.shared import SharedLedger
from batchrunner.ledger.postgres.terms import EVERYTHING, Terms
from tests.cli_support import call
from tests.double import CREDITS, Double
from tests.postgres.fleet import fleet
from tests.postgres.server import Postgres
from tests.postgres.test_shared import job, two
from tests.support import FakeClock

pytest.importorskip("procrastinate")

FIRST = Selection(only=("shot-0*",))


async def left(ledger: SharedLedger, how: Terms) -> int:
    """Leave the batch on these terms; how many jobs were deferred."""
    return await ledger.write(partial(peers.give, batches=[1], who="me", how=how))


async def test_only_so_many_are_sent_and_what_was_not_taken_up_does_not_count(postgres: Postgres) -> None:
    async with two(postgres, FakeClock().wall) as (one, other):
        assert await left(one, Terms(submissions=2)) == 3
        jobs = await one.jobs([1, 2, 3])

        said = await asyncio.gather(*(one.advance(each, e.Claimed()) for each in jobs), return_exceptions=True)

        assert [type(each) for each in said[2:]] == [Conflict], "also of those who ask together"
        first, second = await one.jobs([1, 2])
        assert await one.read(partial(terms.closed, batches=[1], selection=Selection())) == (False, True)
        assert not await other.read(partial(peers.able, batches=[1], selection=Selection()))
        await one.advance(first, e.Throttled(Problem("slow down"), 1.0, 0.0))
        await one.advance(second, e.NotSent(Problem("no route"), 0.0))
        assert (await other.advance(await job(other, 3), e.Claimed())).state is State.SUBMITTING
        assert (await other.advance(await job(other, 2), e.Claimed())).state is State.SUBMITTING
        with pytest.raises(Conflict, match="not left to workers"):
            await one.advance(await job(one, 1), e.Claimed())


async def test_nothing_is_sent_after_its_time_and_the_last_word_counts(postgres: Postgres) -> None:
    async with two(postgres, FakeClock().wall) as (one, other):
        one.mine.add(1)
        let_go: list[int] = []
        one.unwanted = let_go.append
        assert await left(one, Terms(seconds=3600.0)) == 3
        assert (await one.pending([1], Selection(), 9, 0.0))[0] == [await job(one, 1)]
        assert await left(other, Terms(seconds=0.0)) == 0, "they are deferred already"

        with pytest.raises(Conflict):
            await one.advance(await job(one, 1), e.Claimed())
        assert (await one.pending([1], Selection(), 9, 0.0), let_go) == (([], None), [1])
        assert await one.read(partial(terms.closed, batches=[1], selection=Selection())) == (True, False)
        assert await one.read(endings.ended) == {1}
        assert await one.read(peers.at_work) == {}

        await left(one, EVERYTHING)
        assert await one.read(endings.ended) == set()
        assert (await one.advance(await job(one, 1), e.Claimed())).state is State.SUBMITTING


async def test_of_a_part_only_that_is_handed_out(postgres: Postgres) -> None:
    async with two(postgres, FakeClock().wall) as (one, other):
        assert await left(one, Terms(FIRST)) == 1
        assert await one.read(partial(terms.selection_of, batch=1)) == FIRST
        assert await one.write(peers.defer) == 0, "nor by the sweeper"
        with pytest.raises(Conflict):
            await other.advance(await job(other, 2), e.Claimed())
        sent = await other.advance(await job(other, 1), e.Claimed())
        assert await one.read(endings.ended) == set()
        await other.advance(sent, e.Rejected(Problem("no")))
        assert await one.read(endings.ended) == {1}, "the others are nobody's"

        assert await left(one, Terms(seconds=3600.0)) == 2
        assert await one.read(partial(terms.selection_of, batch=1)) == Selection()
        assert await left(one, Terms(Selection(only=("shot-1*",)), submissions=1)) == 0
        assert (await other.advance(await job(other, 2), e.Claimed())).state is State.SUBMITTING
        assert (await other.advance(await job(other, 3), e.Claimed())).state is State.SUBMITTING, "the others as before"


async def test_what_was_left_to_workers_before_there_were_terms_is_all_of_it(postgres: Postgres) -> None:
    async with two(postgres, FakeClock().wall) as (one, _):
        older = f"SET search_path = {one._server.schema}; ALTER TABLE given DROP hand_over_id; DROP TABLE handed; "
        postgres.ask(f"{older} ALTER TABLE claim DROP hand_over_id; DROP TABLE hand_over")
        postgres.ask(
            f"SET search_path = {one._server.schema}; INSERT INTO given (batch_id, at, who) VALUES (1, 5, 'me')"
        )

        prepare_shared(one._server)

        assert await one.write(peers.defer) == 3
        assert (await one.advance(await job(one, 1), e.Claimed())).state is State.SUBMITTING
        await left(one, Terms(FIRST, submissions=1))
        assert (await one.advance(await job(one, 2), e.Claimed())).state is State.SUBMITTING, "as before"


@pytest.mark.slow
def test_a_part_is_left_to_workers_and_who_looks_on_hears_of_that_part(
    double: Double, postgres: Postgres, tmp_path: Path
) -> None:
    three = ("--only", "clip-[123]")
    # So slow an answer that the worker, which leaves when it is idle, is still there for the second run.
    with fleet(tmp_path, double, postgres, jobs=5, prune=2.0, delay=4.0, terms=(*three, "--limit", "1")) as made:
        assert made.line.call("run", "night.yaml", "--detach", "--only", "nothing-*") == 2
        made.worker()
        made.posted(1)

        run = made.line.start("run", "night.yaml", *three, "--limit", "1")

        assert run.end() == 4, made.said()
        assert (run.events[-1]["stop"], run.events[-1]["credits"]["spent"]) == ("limit", 2 * CREDITS)
        assert made.ended(0) == 0, made.said()
        assert made.states() == {"succeeded": 2, "pending": 3}
        [said] = made.ask("status", "night")["left_to_workers"]["terms"]
        assert (said["only"], said["submissions_left"], said["until"]) == (["clip-[123]"], 0, None)

        told = call("status", "--db", f"{made.server.url}?schema={made.server.schema}").out
        assert "    --only clip-[123], 0 more submissions, by " in told

        assert made.line.call("run", "night.yaml", "--detach", "--for", "1h") == 0
        assert made.ended(made.worker()) == 0, made.said()
        assert made.states() == {"succeeded": 5}
        [said] = made.ask("status", "night")["left_to_workers"]["terms"]
        assert (said["only"], said["submissions_left"], said["until"] > said["at"], said["up"]) == (
            [],
            None,
            True,
            False,
        )
