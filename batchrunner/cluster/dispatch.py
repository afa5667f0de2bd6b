"""Procrastinate: one job of its own for each unfinished job of the ledger, `carry(job_id)`. What a job is and where it
stands is in the ledger alone; what is lost or doubled here costs nothing but a look."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any
from weakref import WeakSet

import procrastinate
import psycopg
from procrastinate import App
from procrastinate.exceptions import ConnectorException, UniqueViolation
from procrastinate.jobs import Job, Status
from procrastinate.retry import BaseRetryStrategy, RetryDecision

from ..engine.clock import Clock
from ..engine.ports import Crash, no_crash
from ..ledger.address import Server
from .manager import Manager

CARRY = "batchrunner.carry"
LONGEST = 60
"""Most seconds until a carry that failed is begun again."""


TIDY = 0.1
"""Seconds between two times that what is finished is deleted."""

RECONNECT = 5.0
"""Seconds after which the pool begins anew to connect, at the next that asks for a connection: its pauses double, and
after a minute without network it would look for a database that is there a minute later. So long one is waited for."""

AGAIN = 5.0
"""Seconds after which what does not end is told so again."""


class Later(Exception):
    """Nobody can do anything for a job now, or not here.

    Attributes:
        seconds: until it is handed out again.
        queue: to whom, None for the same ones.
    """

    def __init__(self, seconds: int, queue: str | None = None) -> None:
        super().__init__(f"again in {seconds} s")
        self.seconds = seconds
        self.queue = queue


class _Again(BaseRetryStrategy):
    """A carry ends with its job, or is begun again: at once where its worker leaves."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision:
        if isinstance(exception, Later):
            return RetryDecision(retry_in={"seconds": exception.seconds}, queue=exception.queue)
        if isinstance(exception, asyncio.CancelledError):
            return RetryDecision(retry_in={"seconds": 0})
        return RetryDecision(retry_in={"seconds": min(LONGEST, 2 ** min(job.attempts, 6))})


def queue(provider: str, part: str) -> str:
    """The queue of a provider's jobs that are to be sent (and polled), or to be downloaded."""
    return f"{provider}.{part}"


def silence() -> None:
    """What Procrastinate and the pool log of a database that is gone has its own words here."""
    for name in ("procrastinate", "psycopg", "psycopg.pool"):
        logger = logging.getLogger(name)
        logger.addHandler(logging.NullHandler())
        logger.propagate = False


def app(server: Server, carry: Callable[[int], Awaitable[None]], lines: WeakSet[Any] | None = None) -> App:
    """Procrastinate's App in the ledger's schema. Its connections are added to `lines`."""
    silence()

    async def opened(connection: psycopg.AsyncConnection[Any]) -> None:
        if lines is not None:
            lines.add(connection)

    given = str(psycopg.conninfo.conninfo_to_dict(server.url).get("options") or "")
    made = App(
        connector=procrastinate.PsycopgConnector(
            conninfo=server.url,
            kwargs={
                "options": f'{given} -c search_path="{server.schema}",pg_temp'.strip(),
                "application_name": "batchrunner worker",
                "connect_timeout": 10,
                "keepalives_idle": 10,
                "keepalives_interval": 5,
                "keepalives_count": 3,
                "tcp_user_timeout": 20000,
            },
            configure=opened,
            min_size=1,
            max_size=4,
            timeout=RECONNECT,
            reconnect_timeout=RECONNECT,
        )
    )
    return _carrying(made, carry)


def beside(first: App, carry: Callable[[int], Awaitable[None]]) -> App:
    """Another App on the connections of the first, which are opened and closed with it: for jobs that are fetched, and
    kept in hand, on their own."""
    return _carrying(App(connector=first.connector), carry)


def _carrying(made: App, carry: Callable[[int], Awaitable[None]]) -> App:
    @made.task(name=CARRY, retry=_Again())
    async def carry_job(job_id: int) -> None:
        await carry(job_id)

    return made


async def retry_stalled(made: App, prune: float) -> int:
    """Hand out anew what dead workers carried; returns how many jobs. Raises ConnectorException."""
    manager = made.job_manager
    stalled = list(await manager.get_stalled_jobs(task_name=CARRY, seconds_since_heartbeat=prune))
    for job in stalled:
        try:
            await manager.retry_job(job)
        except UniqueViolation:  # the sweeper has deferred it anew, and one is enough
            with suppress(ConnectorException):
                await manager.finish_job(job, Status.FAILED, delete_job=True)
        except ConnectorException:
            pass  # a peer was faster
    return len(stalled)


async def work(
    made: App, queues: Sequence[str], concurrency: int, prune: float, clock: Clock, crash: Crash = no_crash
) -> None:
    """Fetch jobs and carry them, until cancelled, or the database is lost for longer than Procrastinate bears."""
    manager = made.job_manager = Manager(made.connector, concurrency, partial(clock.sleep, TIDY), crash)
    tidying = asyncio.get_running_loop().create_task(manager.tidy(), name="tidying")
    try:
        await made.run_worker_async(
            queues=list(queues),
            concurrency=concurrency,
            install_signal_handlers=False,
            shutdown_graceful_timeout=0.01,
            fetch_job_polling_interval=min(5.0, prune / 4.0),
            abort_job_polling_interval=60.0,
            update_heartbeat_interval=max(0.2, prune / 4.0),
            stalled_worker_timeout=10.0 * prune,
            delete_jobs="always",
        )
    except Exception as error:
        # Procrastinate 3.10.0, `Worker.run` (worker.py:466): one that is cancelled waits for the loop that it has told
        # to stop, and where that ends with an error, as it does without a database, the error is raised instead.
        if told_to_end():
            raise asyncio.CancelledError from error
        raise
    finally:
        await over([tidying])
        await manager.close()


def told_to_end() -> bool:
    """Whether the task that asks was cancelled, whatever became of that."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def over(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks, and wait for their end.

    One that waits for a connection of the pool, and is given it in the turn of the loop in which it is cancelled, hears
    nothing of that: psycopg_pool 3.3.3 waits with `asyncio.wait_for` (_acompat.py, `ACondition.wait_timeout`), which
    in Python 3.11 then returns what there is (asyncio/tasks.py:478; mended in 3.12). So it is told again.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=AGAIN)
