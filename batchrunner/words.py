"""A person's word on jobs: retry, resolve, cancel, approve and reject. A composition root beside `app.py`, without
provider or network.

Each opens the ledger as its one writer, settles what a crash left on the wire (so that a job is what it seems), and
records the word with who gave it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .core import events as e
from .core.job import PAID_FAILURES, FailureKind, State
from .core.promotion import Verdict
from .engine.clock import Clock, SystemClock
from .engine.ports import Books, Crash, no_crash
from .engine.recover import recover
from .engine.spool import Spool
from .engine.withdraw import withdraw
from .environment import person
from .exits import UsageError
from .ledger import naming
from .ledger.errors import DuplicateTask, LedgerBusy, LedgerUnusable
from .ledger.naming import Named, Unknown
from .ledger.promotions import Judgement
from .ledger.store import Ledger
from .remote.client import NoRun, ask
from .remote.protocol import Cancel

REFUNDED = frozenset(FailureKind) - PAID_FAILURES
"""Kinds of failure after which a new submission is not a second payment."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A job that was left as it is, and why."""

    batch: str
    job: str
    state: str
    why: str


@dataclass(slots=True)
class Done:
    """What became of a word.

    Attributes:
        jobs: (batch, key) of the jobs that were moved.
        skipped: the ones that were named and left alone.
        credits: what submitting them (again) will cost; None where a price is unknown.
        unrecorded: jobs of the named batches that are not in the ledger, so that no word reaches them.
    """

    jobs: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    credits: int | None = 0
    unrecorded: int = 0

    def skip(self, row: sqlite3.Row, why: str) -> None:
        self.skipped.append(Skipped(row["batch"], row["key"], row["state"], why))

    @property
    def batches(self) -> list[str]:
        """Batches of the jobs that were moved, in order."""
        return list(dict.fromkeys(batch for batch, _ in self.jobs))


@asynccontextmanager
async def _books(db: Path, wait: float, crash: Crash) -> AsyncIterator[Books]:
    """The ledger, open for writing and recovered.

    Raises:
        UsageError: there is none. LedgerBusy: another runner holds it.
    """
    _check_there(db)
    clock = SystemClock()
    ledger = await _open(db, clock, wait)
    try:
        try:
            spool = Spool(db)
        except OSError as error:
            raise LedgerUnusable(f"can't prepare {db}.spool: {error.strerror}") from None
        try:
            books = Books(ledger=ledger, spool=spool, clock=clock, crash=crash)
            await recover(books, [b.id for b in await ledger.batches()])
            yield books
        finally:
            spool.close()
    finally:
        await ledger.close()


def _check_there(db: Path) -> None:
    """A word never makes a ledger."""
    if not db.exists():
        raise UsageError(f"no ledger at {db}; name it with --db")


async def _open(db: Path, clock: Clock, wait: float) -> Ledger:
    end = clock.monotonic() + wait
    while True:
        try:
            return await Ledger.open(db, clock.wall)
        except LedgerBusy:
            if clock.monotonic() >= end:
                raise
            await clock.sleep(min(1.0, max(0.0, end - clock.monotonic())))


async def _name(books: Books, names: Sequence[str]) -> list[Named]:
    """What the names on a command line mean.

    Raises:
        Unknown: one of them means nothing.
    """
    found: list[Named] = await books.ledger.query(lambda c: [naming.find_named(c, name) for name in names])
    return found


def _rows(found: Sequence[Named]) -> list[tuple[sqlite3.Row, bool]]:
    """Every named job once, and whether its exact key was given."""
    rows: dict[int, tuple[sqlite3.Row, bool]] = {}
    for named in found:
        for row in named.rows:
            rows[row["id"]] = (row, named.exact or (row["id"] in rows and rows[row["id"]][1]))
    return list(rows.values())


async def _apply(books: Books, done: Done, rows: Sequence[sqlite3.Row], event: e.Event) -> None:
    """The same event for every row."""
    jobs = {job.id: job for job in await books.ledger.jobs([row["id"] for row in rows])}
    for row in rows:
        await books.advance(jobs[row["id"]], event)
        books.crash("word.recorded")
        done.jobs.append((row["batch"], row["key"]))
        if row["credits"] is None or done.credits is None:
            done.credits = None
        else:
            done.credits += row["credits"]


# --- The words -------------------------------------------------------------------------------------------


async def retry(
    db: Path, names: Sequence[str], kinds: Sequence[FailureKind], wait: float = 0.0, crash: Crash = no_crash
) -> Done:
    """Send failed jobs back to pending.

    A whole batch or a pattern takes the kinds of failure that were refunded. The others, whose submission was or may
    have been charged, need their kind, or the job's exact key: that is the consent to a second payment.

    Args:
        db: the ledger.
        names: batches, keys, patterns.
        kinds: only these kinds; empty for the rule above.
        wait: seconds to wait for another runner.
        crash: called with the name of every durable step; for tests.

    Raises:
        UsageError, Unknown: exit code 2, nothing changed. LedgerBusy: exit code 5.
    """
    done = Done()
    async with _books(db, wait, crash) as books:
        chosen = []
        for row, exact in _rows(await _name(books, names)):
            why = _why_not_retried(row, kinds, exact=exact)
            if why is None:
                chosen.append(row)
            elif why:
                done.skip(row, why)
        await _apply(books, done, chosen, e.Retried(person(), "retry"))
    return done


def _why_not_retried(row: sqlite3.Row, kinds: Sequence[FailureKind], *, exact: bool) -> str | None:
    """None to retry it, a reason not to, or an empty text for a job that the name only happens to cover."""
    if row["state"] != State.FAILED:
        return f"is {row['state']}, not failed" if exact else ""
    if not row["current"]:
        return "is an old revision, which the manifest asks for no more" if exact else ""
    kind = FailureKind(row["error_kind"])
    if kinds:
        return None if kind in kinds else (f"failed as {kind.value}" if exact else "")
    if exact or kind in REFUNDED:
        return None
    return f"{kind.value}: its submission was, or may have been, charged; --kind {kind.value} or its key submits again"


async def cancel(db: Path, names: Sequence[str], wait: float = 0.0, crash: Crash = no_crash, why: str = "") -> Done:
    """Withdraw pending jobs. What was sent can't be called back, and is left alone.

    Beside a run that is alive the run does it, as the ledger's one writer.

    Raises:
        UsageError, Unknown: exit code 2, nothing changed. LedgerBusy: exit code 5.
    """
    try:
        return await _cancel(db, names, 0.0, crash, why)
    except LedgerBusy:
        with suppress(NoRun):
            return _answered(ask(db, Cancel(tuple(names), why)))
    return await _cancel(db, names, wait, crash, why)


async def _cancel(db: Path, names: Sequence[str], wait: float, crash: Crash, why: str) -> Done:
    done = Done()
    async with _books(db, wait, crash) as books:
        found = await withdraw(books, names, e.Withdrawn(person(), why or "cancel"))
        done.unrecorded = sum(batch.unrecorded for batch in await books.ledger.batches(names))
    done.jobs += [(row["batch"], row["key"]) for row in found.jobs]
    for row, reason in found.skipped:
        done.skip(row, reason)
    return done


def _answered(answer: dict[str, Any]) -> Done:
    """What the run says that it has done."""
    return Done(
        [(one["batch"], one["job"]) for one in answer["cancelled"]], [Skipped(**one) for one in answer["skipped"]]
    )


@dataclass(frozen=True, slots=True)
class Word:
    """What a person says of an unconfirmed job: exactly one of the three."""

    task_id: str | None = None
    resubmit: bool = False
    abandon: bool = False
    why: str = ""

    def event(self, who: str) -> e.Event:
        if self.task_id is not None:
            return e.Identified(self.task_id, who, self.why)
        if self.resubmit:
            return e.Resubmitted(who, self.why)
        return e.Abandoned(who, self.why)


async def resolve(
    db: Path, name: str, word: Word, revision: int | None = None, wait: float = 0.0, crash: Crash = no_crash
) -> Done:
    """Settle unconfirmed jobs by a person's word; an old revision too, unless it would be submitted again.

    Raises:
        UsageError: not unconfirmed, several where one is meant, or a task id that belongs to another job.
        Unknown: there is no such job. LedgerBusy: exit code 5.
    """
    done = Done()
    async with _books(db, wait, crash) as books:
        rows = await books.ledger.query(lambda c: naming.find_unconfirmed(c, name, revision))
        if word.task_id is not None and len(rows) > 1:
            raise UsageError(f"a task is one job's, and {name} means {len(rows)}; name one of them")
        if word.resubmit:
            old = next((row for row in rows if not row["current"]), None)
            if old is not None:
                raise UsageError(
                    f"{old['key']} revision {old['revision']} is not in the manifest any more, so that nothing "
                    "would submit it; use --task-id or --abandon"
                )
        try:
            await _apply(books, done, rows, word.event(person()))
        except DuplicateTask as duplicate:
            raise UsageError(f"{duplicate}; `batchrunner show {duplicate.job}` shows it") from None
    return done


async def judge(
    db: Path, names: Sequence[str], verdict: Verdict, note: str = "", wait: float = 0.0, crash: Crash = no_crash
) -> Done:
    """Say what a person thinks of finished clips. A pattern takes those of its jobs that have one.

    Raises:
        UsageError: a job that was named by its key has no clip, or no job of a pattern has; nothing changed.
        Unknown: there is no such job. LedgerBusy: exit code 5.
    """
    done = Done()
    async with _books(db, wait, crash) as books:
        found = await books.ledger.query(
            lambda c: [Named(naming.find_jobs(c, name), exact=not naming.is_glob(name)) for name in names]
        )
        chosen = []
        for row, exact in _rows(found):
            if row["state"] == State.SUCCEEDED:
                chosen.append(row)
            elif exact:
                raise UsageError(f"{row['key']} is {row['state']}: only a finished clip can be {verdict}")
            else:
                done.skip(row, f"is {row['state']}")
        if not chosen:
            raise UsageError(f"{' '.join(names)} names no finished clip; only such can be {verdict}")
        await books.ledger.judge(Judgement([row["id"] for row in chosen], verdict, note, person()))
        books.crash("word.recorded")
        done.jobs += [(row["batch"], row["key"]) for row in chosen]
    return done


__all__ = ["REFUNDED", "Done", "Skipped", "Unknown", "Word", "cancel", "judge", "resolve", "retry"]
