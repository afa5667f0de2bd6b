"""Procrastinate's jobs, fetched and finished many at a time."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from functools import partial
from typing import Any

import pytest

from batchrunner.engine.clock import SystemClock
from batchrunner.ledger.postgres import peers
from tests.postgres.server import Postgres
from tests.postgres.test_shared import two
from tests.support import FakeClock

pytest.importorskip("procrastinate")

from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job, Status
from psycopg_pool.pool_async import WaitingClient

from batchrunner.cluster import dispatch
from batchrunner.cluster.manager import Manager

QUEUES = [dispatch.queue("reapi", "submit")]


async def _never(_: int) -> None:
    raise AssertionError


async def _now() -> None:
    pass


async def test_jobs_are_fetched_in_parts_and_what_was_not_begun_is_given_back(postgres: Postgres) -> None:
    async with two(postgres, FakeClock().wall) as (one, _):
        await one.write(partial(peers.give, batches=[1], who="me"))
        server = one._server
        app = dispatch.app(server, _never)

        def states() -> Counter[str]:
            return Counter(
                row[0] for row in postgres.ask(f'SELECT status::text FROM "{server.schema}".procrastinate_jobs')
            )

        async with app.open_async():
            manager = Manager(app.connector, 16, _now)
            worker = await manager.register_worker()

            first = await manager.fetch_job(QUEUES, worker)

            assert first is not None
            assert first.task_kwargs == {"job_id": 1}
            assert states() == {"doing": 2, "todo": 1}, "an eighth of what it may have"
            await manager.finish_job(first, Status.SUCCEEDED, True)
            await manager.close()
            assert states() == {"todo": 2}

            few = Manager(app.connector, 1, _now)
            second = await few.fetch_job(QUEUES, worker)
            assert second is not None
            assert await few.fetch_job(QUEUES, worker) is None, "it has as many as it may have"
            await few.retry_job(second)
            assert states() == {"todo": 2}


async def test_what_can_t_be_deferred_again_is_handed_out_as_soon_as_it_can(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two(postgres, FakeClock().wall) as (one, _):
        await one.write(partial(peers.give, batches=[1], who="me"))
        app = dispatch.app(one._server, _never)
        async with app.open_async():
            manager = Manager(app.connector, 1, _now)
            worker = await manager.register_worker()
            job = await manager.fetch_job(QUEUES, worker)
            assert job is not None

            async def gone(*_: object, **__: object) -> None:
                raise ConnectorException

            with monkeypatch.context() as patched:
                patched.setattr("procrastinate.manager.JobManager.retry_job", gone)
                await manager.retry_job(job)
                with pytest.raises(ConnectorException):
                    await manager.retry_job(Job(id=0, queue="q", lock=None, queueing_lock=None, task_name="t"))

            await manager.close()
            assert await manager.fetch_job(QUEUES, worker) == job


async def test_a_cancellation_that_meets_a_lost_database_is_no_error(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two(postgres, FakeClock().wall) as (one, _):
        app = dispatch.app(one._server, _never)
        asked, gone = asyncio.Event(), asyncio.Event()

        async def fetch_job(*_: object, **__: object) -> None:
            asked.set()
            await gone.wait()
            raise ConnectorException

        monkeypatch.setattr(Manager, "fetch_job", fetch_job)
        async with app.open_async():

            def begun() -> asyncio.Task[None]:
                asked.clear()
                gone.clear()
                return asyncio.create_task(dispatch.work(app, QUEUES, 1, 30.0, SystemClock()))

            working = begun()
            await asked.wait()
            working.cancel()
            gone.set()
            await asyncio.wait([working])
            assert working.cancelled(), "who is to end does not begin anew"

            working = begun()
            await asked.wait()
            gone.set()
            with pytest.raises(ConnectorException):
                await working


async def test_who_is_given_a_connection_as_he_is_told_to_end_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "AGAIN", 0.01)
    client: WaitingClient[Any] = WaitingClient()
    given: list[object] = []

    async def asks() -> None:
        given.append(await client.wait(60.0))
        await asyncio.Event().wait()

    asking = asyncio.create_task(asks())
    await asyncio.sleep(0)
    await client.set("a connection")

    await dispatch.over([asking])

    assert asking.cancelled()
    assert len(given) == (sys.version_info < (3, 12)), "without need from Python 3.12 on"
