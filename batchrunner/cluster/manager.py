"""Procrastinate's jobs fetched and finished many at a time: one by one, each costs a transaction of its own twice."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any

from procrastinate.exceptions import ConnectorException, UniqueViolation
from procrastinate.jobs import Job, Status
from procrastinate.manager import JobManager

from ..engine.ports import Crash, no_crash

MOST = 32
"""Most jobs that are fetched together."""

SHARE = 8
"""A worker takes this part of what it may have in hand at a time, so that a small batch is shared by several."""

# As procrastinate_fetch_job_v2, for several; no job of ours has a lock.
_FETCH = """
WITH next AS MATERIALIZED (
  SELECT id FROM procrastinate_jobs
  WHERE status = 'todo' AND queue_name = ANY(%(queues)s) AND (scheduled_at IS NULL OR scheduled_at <= now())
  ORDER BY priority DESC, id LIMIT %(most)s FOR UPDATE SKIP LOCKED
)
UPDATE procrastinate_jobs AS jobs SET status = 'doing', worker_id = %(worker_id)s FROM next WHERE jobs.id = next.id
RETURNING jobs.id, status, task_name, priority, lock, queueing_lock, args, scheduled_at, queue_name, attempts, worker_id
"""

# Not what another has in hand, who took this one for dead.
_FINISH = "DELETE FROM procrastinate_jobs WHERE id = ANY(%(ids)s) AND status = 'doing' AND worker_id = %(worker)s"

_GIVE_BACK = """
UPDATE procrastinate_jobs SET status = 'todo', worker_id = NULL
WHERE id = ANY(%(ids)s) AND status = 'doing' AND worker_id = %(worker)s
"""


class Manager(JobManager):
    """The jobs of one worker.

    Args:
        connector: as `JobManager`'s.
        most: how many jobs it may have at once, as Procrastinate's own `concurrency`.
        pause: a short time in which more may be finished; awaited between two times that jobs are deleted.
        crash: called with the name of every durable step; for tests.
    """

    def __init__(
        self, connector: Any, most: int, pause: Callable[[], Awaitable[None]], crash: Crash = no_crash
    ) -> None:
        super().__init__(connector)
        self._crash = crash
        self._most = most
        self._pause = pause
        self._fetched: deque[Job] = deque()
        self._out: set[int] = set()
        self._finished: set[int] = set()
        self._undone: set[int] = set()
        self._worker = 0

    async def fetch_job(self, queues: Iterable[str] | None, worker_id: int) -> Job | None:
        """The next job; None where there is none. Raises ConnectorException."""
        if worker_id != self._worker:  # it has begun anew: what was not begun before is its predecessor's
            self._worker = worker_id
            self._fetched.clear()
            self._out.clear()
            self._finished.clear()
            self._undone.clear()
        if not self._fetched:
            most = min(MOST, max(1, self._most // SHARE), self._most - len(self._out))
            if most <= 0:
                return None
            rows = await self.connector.execute_query_all_async(
                _FETCH, queues=list(queues or ()), worker_id=worker_id, most=most
            )
            self._fetched += sorted(map(Job.from_row, rows), key=lambda job: (-job.priority, job.id))
            self._out |= {row["id"] for row in rows}
            if rows:
                self._crash("carry.fetched")
        return self._fetched.popleft() if self._fetched else None

    async def finish_job(self, job: Job, status: Status, delete_job: bool) -> None:
        """A job is done, and is deleted soon. Where it is not, somebody looks at it once more."""
        if job.id not in self._out:
            await super().finish_job(job, status, delete_job)
        else:
            self._out.discard(job.id)
            self._finished.add(job.id)

    async def retry_job(self, job: Job, *arguments: Any, **more: Any) -> None:
        """A job is to be done again; of this worker's own, at once where its time can't be written."""
        if job.id not in self._out:
            await super().retry_job(job, *arguments, **more)
            return
        try:
            await super().retry_job(job, *arguments, **more)
        except UniqueViolation:
            self._finished.add(job.id)  # somebody has deferred it anew, and one is enough
        except ConnectorException:
            self._undone.add(job.id)
        finally:
            self._out.discard(job.id)

    async def tidy(self) -> None:
        """Delete what is finished, for ever."""
        while True:
            await self._pause()
            with suppress(ConnectorException):  # it is tried again
                await self._delete()
                await self._give_back()

    async def close(self) -> None:
        """Delete what is finished, and give back what was fetched and not begun."""
        with suppress(ConnectorException):  # the sweeper sees it
            await self._delete()
            self._undone |= {job.id for job in self._fetched if job.id is not None}
            self._fetched.clear()
            self._crash("carry.left")
            await self._give_back()
            self._crash("carry.given_back")

    async def _give_back(self) -> None:
        ids = list(self._undone)
        if ids:
            await self.connector.execute_query_async(_GIVE_BACK, ids=ids, worker=self._worker)
            self._undone.difference_update(ids)

    async def _delete(self) -> None:
        ids = list(self._finished)
        if ids:
            await self.connector.execute_query_async(_FINISH, ids=ids, worker=self._worker)
            self._finished.difference_update(ids)


def managed(app: Any, most: int, pause: Callable[[], Awaitable[None]]) -> Manager:
    """Have an App's jobs managed so."""
    made = Manager(app.connector, most, pause)
    app.job_manager = made
    return made
