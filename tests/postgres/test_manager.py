"""Procrastinate's jobs, fetched and finished many at a time."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest

from batchrunner.ledger.postgres import peers
from tests.postgres.server import Postgres
from tests.postgres.test_shared import two
from tests.support import FakeClock

pytest.importorskip("procrastinate")

from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job, Status

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
