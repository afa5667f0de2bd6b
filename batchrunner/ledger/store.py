"""The ledger as the engine sees it: transitions, what is due, and what was learned."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..core import events as e
from ..core.adaptive import Learned
from ..core.chain import Need
from ..core.job import Fact, Job, JobSpec, RetryBudget, State
from ..core.lifecycle import advance
from ..core.media import Kept
from ..core.retry import count
from ..core.selection import Selection
from . import asking, due, media, needs, pace, promotions, runs
from .address import Address, Server
from .audit import genuine
from .connection import open_writer, postgres
from .due import Batch
from .errors import Conflict, LedgerUnusable, WriteFailed
from .files import RunLock
from .record import BatchSpec, append, begin, record, streams
from .rows import job_of
from .sql import Connection, Row
from .transitions import Change
from .writer import Database, Gone, ThreadDatabase, Writer

_TASK_IDS = (
    "SELECT a.task_id FROM attempt a JOIN job j ON j.id = a.job_id "
    "WHERE j.batch_id = ? AND j.key = ? AND a.task_id IS NOT NULL"
)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A submission: what it cost in credits, and when (unix seconds) its intent was committed, its answer read, and its
    end seen; and the key of the job that its job was promoted from, if it was."""

    credits: int
    intent_at: float
    answered_at: float | None
    ended_at: float | None
    promoted_from: str | None = None
    request: str | None = None
    """What was sent, as JSON, where it was not the job's own request."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a running task is looked at next (unix seconds), and how often it was."""

    job_id: int
    next_poll_at: float
    polls: int
    since: float = 0.0
    """When the job entered its state, unix seconds."""


class Ledger:
    """The one writer. Made by `Ledger.open`, which takes the run lock."""

    def __init__(
        self,
        database: Database,
        now: Callable[[], float],
        lock: RunLock | None = None,
        *,
        writer: type[Writer] = Writer,
        beside: Path = Path(),
    ) -> None:
        self._writer = writer(database)
        self.beside = beside
        """What is kept on this machine for the ledger is named after this path: its spool, its socket."""
        self._now = now
        self._lock = lock
        self._retry: dict[int, RetryBudget] = {}
        self._unsure: set[int] = set()
        self._run: int | None = None

    @classmethod
    async def open(cls, path: Address, now: Callable[[], float], looked: Callable[[], bool] | None = None) -> Ledger:
        """Lock and open the ledger at `path`, making or migrating it where needed.

        Args:
            path: where it is.
            now: the wall clock, unix seconds.
            looked: see `open_writer`.

        Raises:
            LedgerBusy: another runner holds it.
            LedgerUnusable: it can't be used; the message says why and how to mend it.
        """
        if isinstance(path, Server):
            return await cls._open_server(path, now)
        lock = RunLock(path)
        lock.acquire()
        try:
            database = await ThreadDatabase.open(partial(open_writer, path, looked))
        except BaseException:
            lock.release()
            raise
        return cls(database, now, lock, beside=path)

    @classmethod
    async def _open_server(cls, server: Server, now: Callable[[], float]) -> Ledger:
        with postgres():
            from .postgres.database import ServerDatabase, ServerWriter
            from .postgres.place import place
        database = await ServerDatabase.open(server)
        try:
            beside = place(database.identity)
        except BaseException:
            await database.close()
            raise
        return cls(database, now, writer=ServerWriter, beside=beside)

    async def close(self) -> None:
        """Commit what is queued, close the database, let the lock go."""
        try:
            await self._writer.close()
        finally:
            if self._lock is not None:
                self._lock.release()

    # --- Transitions -------------------------------------------------------------------------------------

    async def advance(self, job: Job, event: e.Event) -> Job:
        """Make a transition durable, and return the job as it is then.

        Raises:
            IllegalTransition: a bug.
            Conflict, BudgetExhausted, DuplicateTask, WriteFailed: nothing was written.
        """
        after = advance(job.fact, event)
        used = job.retries_used
        if isinstance(event, e.TaskFailed) and event.again:
            used = count(used, event)
        elif isinstance(event, e.Retried):
            used = RetryBudget()
        try:
            await self._writer.put(Change(job, event, after, used, self._now()))
        except WriteFailed as failed:
            if isinstance(failed.__cause__, Gone):
                self._unsure.add(job.id)
            raise
        except Conflict:
            if not await self._was_written(job, event, after):
                raise
        return job.after(after, used)

    async def _was_written(self, job: Job, event: e.Event, after: Fact) -> bool:
        """Whether a transition is a repetition of one whose commit was cut off with the server, and was durable after
        all. A claim never is: where another has claimed the job meanwhile, it looks the same."""
        if job.id not in self._unsure or isinstance(event, e.Claimed):
            return False
        [now] = await self.jobs([job.id])
        return now.fact == after

    async def record(self, batch: BatchSpec, jobs: Iterable[JobSpec]) -> int:
        """Write a manifest; see `record.record`. Returns the batch's id."""
        if isinstance(jobs, Iterator):
            jobs = list(jobs)  # an operation may be run twice
        return await self._writer.put_long(partial(_record, batch, jobs, self._now()))

    async def begin(self, batch: BatchSpec, first: Sequence[JobSpec], left: int) -> int | None:
        """Write the first jobs of a new batch, and that so many are left for `append`. Returns the batch's id; None,
        and nothing is written, where it has to be recorded whole (see `record.streams`)."""
        now = self._now()
        return await self._writer.put_long(lambda c: begin(c, batch, first, left, now) if streams(c, batch) else None)

    async def append(self, batch_id: int, jobs: Sequence[JobSpec], position: int) -> None:
        """Write the next jobs of a batch that was begun; `position` is how many stand before them."""
        now = self._now()
        await self._writer.put(lambda c: append(c, batch_id, jobs, position, now))

    async def judge(self, judgement: promotions.Judgement) -> None:
        """Record a verdict; see `promotions.judge`."""
        await self._writer.put_long(lambda c: promotions.judge(c, judgement, self._now()))

    async def promote(self, asked: promotions.Promoted) -> None:
        """Write promotions; see `promotions.promote`."""
        await self._writer.put_long(lambda c: promotions.promote(c, asked, self._now()))

    async def cap(self, names: Sequence[str], max_credits: int) -> None:
        """Lower the cap of batches to `max_credits`; a lower one stays."""
        sql = "UPDATE batch SET max_credits = ?1 WHERE name = ?2 AND (max_credits IS NULL OR max_credits > ?1)"
        await self._writer.put(lambda c: c.executemany(sql, [(max_credits, name) for name in names]))

    async def rename_outputs(self, outputs: Sequence[tuple[int, str]]) -> None:
        """Plan other files for jobs that are not sent yet: (row id, full name relative to the output folder)."""
        sql = "UPDATE job SET output = ?2, named = 1 WHERE id = ?1 AND state = 'pending'"
        await self._writer.put_long(lambda c: c.executemany(sql, outputs))

    # --- What is there -----------------------------------------------------------------------------------

    async def batches(self, names: Sequence[str] = ()) -> list[Batch]:
        """The named batches, or all, oldest first. Remembers their retry budgets for the jobs that are read later."""
        found = await self._writer.read(partial(due.batches, tuple(names)))
        self._retry.update({b.id: b.retry for b in found})
        return found

    async def pending(
        self,
        batches: Sequence[int],
        selection: Selection,
        limit: int,
        now: float,
        without: Sequence[tuple[str, int | None]] = (),
        provider: str | None = None,
        models: Sequence[str] = (),
    ) -> tuple[list[Job], float | None]:
        """Current pending jobs that may be sent now, in the manifest's order, and when the next one that is held back
        may be (unix seconds; None where none is). A hold of more than an hour was made by a clock that has jumped
        since, and counts as over. `without`: kinds (model, length) to pass over, and `models`: all of a model's;
        `provider`: whose, None for any."""
        ask = partial(due.pending, tuple(batches), selection, limit, now, without, provider, models)
        rows, next_at = await self._writer.read(ask)
        for row in rows:
            if not genuine(row["provider"], row["model"], row["request"], row["fingerprint"]):
                raise LedgerUnusable(f"the request of job {row['key']} is damaged in the ledger; restore a copy")
        return [self._job(row) for row in rows], next_at

    async def in_state(self, batches: Sequence[int], state: State) -> Iterator[tuple[Job, Schedule]]:
        """Every job of the batches that is submitting, unconfirmed, running or downloading; old revisions too. As they
        are now; each is made of its row when it is asked for, which takes longer than to read them all."""
        rows = await self._writer.read(partial(due.in_state, tuple(batches), state))
        return (
            (self._job(row), Schedule(row["id"], row["next_poll_at"] or 0.0, row["polls"], row["updated_at"]))
            for row in rows
        )

    async def selected(self, batches: Sequence[int], selection: Selection, state: State) -> list[Job]:
        """Current jobs of the selection in one state."""
        rows = await self._writer.read(partial(due.selected, tuple(batches), selection, state))
        return [self._job(row) for row in rows]

    async def jobs(self, ids: Sequence[int]) -> list[Job]:
        """Jobs by row id."""
        rows = await self._writer.read(partial(due.by_id, tuple(ids)))
        return [self._job(row) for row in rows]

    async def task_ids(self, job: Job) -> list[str]:
        """Every task id that the job has had, in any revision of its key: what they left on disk is ours."""
        rows = await self._writer.glance(lambda c: c.execute(_TASK_IDS, (job.batch_id, job.key)).fetchall())
        return [row[0] for row in rows]

    async def attempt(self, job: Job) -> tuple[Attempt, list[str]]:
        """What the job's current attempt cost, and when its steps were; and its `task_ids`, in the same look."""
        sql = (
            "SELECT a.credits, a.intent_at, a.answered_at, a.ended_at, (SELECT j.key FROM promotion p JOIN job j "
            "ON j.id = p.from_job WHERE p.job_id = a.job_id), a.request FROM attempt a "
            "WHERE a.job_id = ? AND a.number = ?"
        )
        values = (job.id, job.fact.attempt)

        def look(connection: Connection) -> tuple[Row, list[Row]]:
            found = connection.execute(sql, values).fetchone()
            return found, connection.execute(_TASK_IDS, (job.batch_id, job.key)).fetchall()

        found, ids = await self._writer.glance(look)
        return Attempt(*found), [row[0] for row in ids]

    async def token(self, job: Job, attempt: int) -> str:
        """The name of a job's n-th submission, for ever; see `asking.token`."""
        return await self._writer.glance(partial(asking.token, job_id=job.id, attempt=attempt))

    async def note_lookup(self, job: Job, said: str, who: str) -> None:
        """Write into an unconfirmed job's history what the service said of it. Raises WriteFailed."""
        now = self._now()
        await self._writer.put(lambda c: asking.note(c, job.id, job.fact.attempt, now, said, who))

    async def taken(self, job: Job, names: Sequence[str]) -> set[str]:
        """Of these names, the ones that another job has planned in the same folder; see `media.taken`."""
        return await self._writer.glance(partial(media.taken, job.id, tuple(names)))

    async def save_media(self, job_id: int, attempt: int, kept: Sequence[Kept]) -> None:
        """Write anew what is known of the files of an attempt."""
        await self._writer.put(lambda c: media.save(c, job_id, attempt, kept, self._now()))

    async def chained(self, batches: Sequence[int]) -> bool:
        """Whether a job of the batches needs another one's output."""
        return await self._writer.read(lambda c: needs.any_in(c, batches))

    async def parent(self, job: Job, need: Need, number: int) -> needs.Parent | None:
        """The job that `job` needs, once it has succeeded; `number`: which of its files, as `media.number`."""
        return await self._writer.glance(lambda c: needs.parent(c, job.batch_id, need.job, need.of, number))

    async def hold(self, job: Job, key: str, problem: str) -> None:
        """Note why the output of `key` can't be had for a job: it waits, until `forget_holds`."""
        await self._writer.put(lambda c: needs.hold(c, job.id, key, problem))

    async def forget_holds(self, batches: Sequence[int]) -> None:
        """What could not be had is asked for anew."""
        await self._writer.put(lambda c: needs.forget(c, batches))

    async def money(self, batches: Sequence[int]) -> dict[str, int]:
        """Credits spent, reserved and at risk in the batches together."""
        sql = (
            "SELECT coalesce(sum(spent), 0), coalesce(sum(reserved), 0), coalesce(sum(at_risk), 0) FROM batch "
            f"WHERE id IN ({due.marks(batches)})"
        )
        row = await self._writer.glance(lambda c: c.execute(sql, tuple(batches)).fetchone())
        return dict(zip(("spent", "reserved", "at_risk"), row, strict=True))

    async def query(self, function: Callable[[Any], Any]) -> Any:
        """Run a read-only query of `queries.py` on the writing connection."""
        return await self._writer.read(partial(_with_rows, function))

    def _job(self, row: Row) -> Job:
        try:
            return job_of(row, self._retry.get(row["batch_id"], RetryBudget()))
        except (ValueError, TypeError) as error:
            raise LedgerUnusable(f"job {row['id']} in the ledger is damaged ({error}); restore a copy") from error

    # --- Learned, and for the morning --------------------------------------------------------------------

    async def bind_origin(self, provider: str, origin: str) -> None:
        """Bind the ledger to the server that it was first used with: task ids mean nothing elsewhere, and a key must
        not follow a changed setting.

        Raises:
            LedgerUnusable: it is bound to another origin.
        """
        await self._writer.put(partial(runs.bind, provider, origin))

    async def hold_until(self, provider: str) -> float:
        """Until when (unix seconds) a 429 holds every call; 0 for not at all."""
        return float(await self._writer.glance(partial(runs.hold, provider)))

    def save_hold(self, provider: str, until: float) -> None:
        """Keep a hold for the next run; written behind."""
        self._behind("UPDATE account SET hold_until = ? WHERE provider = ?", [(until, provider)])

    async def latencies(self) -> list[tuple[str, int | None, float]]:
        """See `pace.latencies`."""
        return await self._writer.read(pace.latencies)

    def save_latencies(self, took: Sequence[tuple[str, int | None, float]]) -> None:
        """Remember how long tasks took: model, length asked for, seconds; written behind."""
        self._behind("INSERT INTO latency (model, seconds, took) VALUES (?, ?, ?)", list(took))

    async def pace(self, provider: str) -> Learned:
        """The service's limits, as far as other runs have met them."""
        return await self._writer.read(partial(pace.read, provider))

    def save_pace(self, provider: str, learned: Learned) -> None:
        """Keep what was learned for the next run; written behind."""
        self._behind(pace.SAVE, [pace.row(provider, learned, self._now())])

    def save_throttled(self, at: float, polls: int) -> None:
        """Note how many polls of this run were answered with 429 since `at` (unix seconds); written behind."""
        if self._run is not None:
            self._behind(runs.THROTTLED, [(self._run, int(at // 60), at, polls)])

    async def claims(self, since: float) -> list[float]:
        """When (unix seconds, oldest first) submissions were last begun, none before `since`."""
        return await self._writer.read(partial(pace.claims, since))

    def save_schedules(self, schedules: Iterable[Schedule]) -> None:
        """Remember when tasks are polled next; written behind (losing it costs a free poll, nothing else)."""
        self._behind(
            "UPDATE job SET next_poll_at = ?, polls = ? WHERE id = ? AND state = 'running'",
            [(s.next_poll_at, s.polls, s.job_id) for s in schedules],
        )

    async def start_run(self, batches: Sequence[str]) -> int:
        """Note that a run begins; returns its id."""
        self._run = await self._writer.put(partial(runs.start_run, json.dumps(list(batches)), self._now()))
        return self._run

    def beat(self, run_id: int, progress: dict[str, Any]) -> None:
        """Note that the run is alive, and how far it is; written behind."""
        self._behind(
            "UPDATE run SET heartbeat_at = ?, progress = ? WHERE id = ?", [(self._now(), json.dumps(progress), run_id)]
        )

    async def end_run(self, run_id: int, stop: str | None, exit_code: int) -> None:
        """Note how the run ended, and trim what was learned to what is worth keeping."""
        await self._writer.put_long(partial(runs.end_run, run_id, stop, exit_code, self._now()))

    def _behind(self, sql: str, rows: list[tuple[Any, ...]]) -> None:
        """Queue statements that nobody waits for. They are a convenience: a failure costs nothing that was paid."""
        put = self._writer.put if len(rows) == 1 else self._writer.put_long
        future = asyncio.ensure_future(put(lambda c: c.executemany(sql, rows)))
        future.add_done_callback(forget)


def forget(future: asyncio.Future[Any]) -> None:
    """Nobody waits for it, and a failure costs nothing."""
    with suppress(asyncio.CancelledError):
        future.exception()


def _with_rows(function: Callable[[Any], Any], connection: Connection) -> Any:
    before = connection.row_factory
    connection.row_factory = sqlite3.Row
    try:
        return function(connection)
    finally:
        connection.row_factory = before


def _record(batch: BatchSpec, jobs: Iterable[JobSpec], now: float, connection: Connection) -> int:
    return record(connection, batch, jobs, now)
