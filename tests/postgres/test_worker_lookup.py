"""Workers, and a service that can be asked what became of a submission: as a run of its own does."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from batchrunner.core import events as e
from batchrunner.core.job import Problem, State
from batchrunner.core.selection import Selection
from batchrunner.environment import THIS_MACHINE
from batchrunner.ledger.address import Server
from batchrunner.ledger.postgres import doubts, peers
from batchrunner.ledger.postgres.shared import SharedLedger
from tests.postgres.server import Postgres
from tests.postgres.test_shared import PRUNE, job, two
from tests.providers.beacon import Service
from tests.providers.test_lookup import Stage, held, settled, stage
from tests.providers.test_mixed import Ran, call
from tests.raw_server import RawServer
from tests.support import FakeClock, batch, spec

pytest.importorskip("procrastinate")

ONLY = Selection(only=("shot-0*",))
HAND_OVER = ("run", "m.yaml", "--models", "mine", "--detach")


def shared(folder: Path, url: str, server: Server, takes: int = 1) -> Stage:
    """A stage whose ledger workers share."""
    made = stage(folder, url, takes)
    more = {"BATCHRUNNER_DB": f"{server.url}?schema={server.schema}", "XDG_STATE_HOME": str(folder / "state")}
    return Stage(folder, {**made.where, **more, "BATCHRUNNER_PRUNE": "2s"})


async def worker(at: Stage) -> Ran:
    """One, until it has nothing to do."""
    ran = await call(at.folder, "worker", "--until-idle", "--models", "mine", "--json", where=at.where)
    assert ran.code == 0, ran.out + ran.err
    return ran


async def die(at: Stage, server: Server) -> str:
    """As if a worker had died with its POST on the wire; returns the token of that."""
    ledger = await SharedLedger.join(server, FakeClock().wall, PRUNE)
    await ledger.batches()
    await ledger.bind_origin("beacon", THIS_MACHINE)
    await ledger.write(partial(peers.rated, provider="beacon"))
    dead = partial(peers.join, providers=["beacon"], host="there", pid=1, part="all")
    ledger.worker = await ledger.write(dead)
    claimed = await ledger.advance(await job(ledger), e.Claimed())
    await ledger.write(partial(peers.leave, worker=ledger.worker, stop=None, code=0))
    token = await ledger.token(claimed, 1)
    await ledger.close()
    return token


@pytest.mark.slow
async def test_a_lost_answer_settles_itself(postgres: Postgres, tmp_path: Path) -> None:
    service = Service("lost", late=1)
    async with RawServer(service) as there:
        at = shared(tmp_path, there.url, postgres.ledger())
        assert (await call(tmp_path, *HAND_OVER, where=at.where)).code == 0

        await worker(at)

        await settled(at, service)
        assert service.asked == 2


@pytest.mark.slow
async def test_what_a_dead_worker_was_sending_its_peer_asks_for(postgres: Postgres, tmp_path: Path) -> None:
    service = Service("answered")
    async with RawServer(service) as there:
        server = postgres.ledger()
        at = shared(tmp_path, there.url, server)
        assert (await call(tmp_path, *HAND_OVER, where=at.where)).code == 0
        service.tokens[await die(at, server)] = "task-1"
        service.sent = 1

        await worker(at)

        await settled(at, service)


@pytest.mark.slow
async def test_what_it_knows_nothing_of_is_sent_again_only_on_a_persons_word(
    postgres: Postgres, tmp_path: Path
) -> None:
    service = Service("never", "answered")
    async with RawServer(service) as there:
        at = shared(tmp_path, there.url, postgres.ledger())
        assert (await call(tmp_path, *HAND_OVER, where=at.where)).code == 0
        await worker(at)
        shown = await held(at, service)
        assert [h["who"] for h in shown["history"] if h["event"] == "lookup"] == ["beacon"]
        asked = service.asked
        resubmit = (*HAND_OVER, "--on-unconfirmed", "resubmit")
        assert (await call(tmp_path, *resubmit, where=at.where)).code == 0
        await worker(at)

        assert (service.sent, list(service.tokens.values()), service.asked > asked) == (2, ["task-2"], True)
        assert (await at.told("show", "dog-1"))["state"] == "succeeded"


async def test_a_question_is_opened_with_the_doubt_and_closed_with_the_answer(postgres: Postgres) -> None:
    async with two(postgres, FakeClock().wall) as (one, other):
        await one.write(partial(doubts.askable, providers=["reapi"]))
        await one.write(partial(peers.give, batches=[1], who="me"))
        claimed = [await one.advance(each, e.Claimed()) for each in await one.jobs([1, 2])]

        lost, given_up = await asyncio.gather(
            one.advance(claimed[0], e.Ambiguous(Problem("cut"))), other.advance(claimed[1], e.Interrupted())
        )

        assert [await one.question(each) for each in (lost, given_up)] == ["", ""]
        assert await other.read(partial(doubts.any_open, batches=[1]))
        await other.note_lookup(lost, "nothing is known of it", "reapi")
        assert (await one.question(lost), await one.question(given_up)) == (None, "")
        ask = partial(doubts.ask_again, batches=[1], selection=ONLY, consent="me")
        await one.write(ask)
        assert (await one.question(lost), await one.question(given_up)) == ("me", "")
        running = await one.advance(lost, e.Identified("task-1", "reapi's own record", "found"))
        assert await one.question(running) is None
        late = await one.advance(claimed[0], e.Accepted("task-1"))
        assert late.state is State.RUNNING, "an answer that comes late says what is known already"


async def test_who_can_t_be_asked_is_not(postgres: Postgres) -> None:
    async with two(postgres, FakeClock().wall) as (one, _):
        await one.record(batch("other"), [spec("more")])
        await one.batches()
        claimed = await one.advance(await job(one, 4), e.Claimed())
        doubted = await one.advance(claimed, e.Interrupted())

        await one.write(partial(doubts.ask_again, batches=[2], selection=ONLY, consent="me"))

        assert await one.question(doubted) is None
