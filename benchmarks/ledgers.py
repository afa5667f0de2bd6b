"""Ledgers in the state that a benchmark begins with. batchrunner records the jobs itself; what a night would then do to
them is done in one statement for all, with the schema's triggers and checks in force, so that it is a state that a
night could have left."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .harness import Context, Double, measure

LONG_AGO = 1_700_000_000.0
FAR = 10**12
"""Number of the first task that no double ever gives."""


def recorded(context: Context, double: Double, manifest: Path, db: Path) -> None:
    """Record a manifest as `run` does. One job is sent; it ends as all do."""
    room = db.parent
    command = context.batchrunner("run", manifest, "--quiet", "--limit", 1, "--db", db)
    measure(command, room, context.env(double), codes=(0, 4))


@contextmanager
def opened(db: Path) -> Iterator[sqlite3.Connection]:
    """A ledger to write to. It is not synced: it can be made again."""
    connection = sqlite3.connect(db, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA cache_size = -32768")
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


class Night:
    """Moves many jobs at once. `where` is SQL over the columns of `job`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._do = connection.execute
        self._finished = 0

    def running(self, where: str, *, since: float = LONG_AGO, first_task: int = FAR) -> None:
        """Claimed, sent and accepted; tasks are numbered from `first_task` on, by row id."""
        sent = self._claimed(where, since)
        self._do("CREATE TEMP TABLE sent AS SELECT id, row_number() OVER (ORDER BY id) - 1 AS n FROM job WHERE " + sent)
        self._do("CREATE UNIQUE INDEX temp.sent_id ON sent (id)")
        task = f"printf('task_%026d', sent.n + {first_task})"
        self._do(
            f"UPDATE job SET state = 'running', task_id = {task}, next_poll_at = {since}, updated_at = {since} "
            "FROM sent WHERE job.id = sent.id"
        )
        self._do(
            f"UPDATE attempt SET outcome = 'accepted', task_id = {task}, answered_at = {since} "
            "FROM sent JOIN job ON job.id = sent.id WHERE attempt.job_id = sent.id AND attempt.number = job.attempt"
        )
        now = "id IN (SELECT id FROM sent)"
        self._moved(now, "submitting", "running", "accepted", since)
        self._do("DROP TABLE sent")

    def unconfirmed(self, where: str) -> None:
        """Claimed, and then the run died."""
        where = self._claimed(where, LONG_AGO)
        self._attempt(where, "outcome = 'interrupted', money = 'at_risk'")
        self._moved(where, "submitting", "unconfirmed", "interrupted")
        self._do(
            "UPDATE job SET state = 'unconfirmed', error_kind = 'ambiguous', error_code = 'interrupted', "
            f"error_message = 'the runner died' WHERE {where}"
        )

    def _claimed(self, where: str, since: float) -> str:
        """Claims pending jobs; returns what finds them then."""
        where = f"({where}) AND state = 'pending'"
        self._do(
            "INSERT INTO attempt (job_id, number, batch_id, credits, money, intent_at) "
            f"SELECT id, attempt + 1, batch_id, coalesce(credits, 0), 'reserved', {since} FROM job WHERE {where}"
        )
        self._do(f"UPDATE job SET state = 'submitting', attempt = attempt + 1, updated_at = {since} WHERE {where}")
        where = where.replace("'pending'", "'submitting'")
        self._moved(where, "pending", "submitting", "claimed", since)
        return where

    def downloading(self, where: str, base: str) -> None:
        """Completed; the output waits at `base`."""
        where = f"({where}) AND state = 'running'"
        self._attempt(where, f"outcome = 'completed', money = 'spent', ended_at = {LONG_AGO}")
        self._moved(where, "running", "downloading", "completed")
        urls = f"json_array('{base}/media/tasks/' || task_id || '/0.mp4')"
        self._do(f"UPDATE job SET state = 'downloading', urls = {urls} WHERE {where}")

    def succeeded(self, where: str) -> None:
        """At home."""
        where = f"({where}) AND state = 'downloading'"
        self._moved(where, "downloading", "succeeded", "stored")
        self._do(
            "UPDATE job SET state = 'succeeded', urls = NULL, file = output || '.mp4', bytes = 5000000, "
            f"sha256 = printf('%064d', id) WHERE {where}"
        )

    def failed(self, where: str) -> None:
        """The task failed."""
        where = f"({where}) AND state = 'running'"
        self._attempt(where, f"outcome = 'taskfailed', money = 'none', ended_at = {LONG_AGO}")
        self._moved(where, "running", "failed", "taskfailed")
        self._do(
            "UPDATE job SET state = 'failed', error_kind = 'provider', error_code = 80001, "
            f"error_message = 'generation failed' WHERE {where}"
        )

    def finished(self, where: str) -> None:
        """From pending to home."""
        self._finished += 1
        self.running(where, first_task=FAR * self._finished)
        self.downloading(where, "http://127.0.0.1")
        self.succeeded(where)

    def _moved(self, where: str, before: str, after: str, event: str, at: float = LONG_AGO) -> None:
        self._do(
            "INSERT INTO history (job_id, at, attempt, from_state, to_state, event) "
            f"SELECT id, {at}, attempt, '{before}', '{after}', '{event}' FROM job WHERE {where}"
        )

    def _attempt(self, where: str, sets: str) -> None:
        self._do(f"UPDATE attempt SET {sets} WHERE (job_id, number) IN (SELECT id, attempt FROM job WHERE {where})")


def learned(db: Path, model: str, seconds: int, took: list[float]) -> None:
    """What earlier nights have taught about how long tasks take."""
    with opened(db) as connection:
        connection.executemany(
            "INSERT INTO latency (model, seconds, took) VALUES (?, ?, ?)", [(model, seconds, t) for t in took]
        )
