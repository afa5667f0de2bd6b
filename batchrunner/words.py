"""A person's word on jobs: retry, resolve, cancel, approve and reject. A composition root beside `app.py`, without
provider or network.

Without a run that is alive the ledger is opened as its one writer, and what a crash left on the wire is settled first
(so that a job is what it seems). Beside a run that is alive, the run is asked: it is the ledger's one writer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from .app import open_ledger, open_spool
from .core.words import Cancel, Judge, Resolve, Retry, Word
from .engine.clock import SystemClock
from .engine.ports import Books, Crash, no_crash
from .engine.recover import recover
from .engine.words import REFUNDED, Done, Skipped, speak
from .environment import person
from .exits import UsageError
from .ledger.address import Address, Server
from .ledger.connection import exists, postgres
from .ledger.errors import LedgerBusy
from .ledger.naming import Unknown
from .remote.client import NoRun, ask

PRUNE = 30.0
"""Seconds for which a word's transaction may lie before the server ends it, times three; see `SharedLedger.join`."""


@dataclass(slots=True)
class Said(Done):
    """What became of a word that was said to the ledger.

    Attributes:
        unrecorded: jobs of the named batches that are not in the ledger, so that no word reaches them.
        run: the progress of the run that is alive and did it; None where there is none.
    """

    unrecorded: int = 0
    run: dict[str, Any] | None = field(default=None)


async def say(db: Address, word: Word, wait: float = 0.0, crash: Crash = no_crash) -> Said:
    """Say a word.

    Args:
        db: the ledger.
        word: what to say.
        wait: seconds to wait for another runner that takes no words.
        crash: called with the name of every durable step; for tests.

    Raises:
        UsageError, Unknown: exit code 2, nothing changed. LedgerBusy: exit code 5.
    """
    try:
        return await _say(db, word, 0.0, crash)
    except LedgerBusy:
        if isinstance(db, Server) and workers(db):
            return await _beside_workers(db, word, crash)
        with suppress(NoRun):
            return _answered(word, ask(db, word))
    return await _say(db, word, wait, crash)


async def _say(db: Address, word: Word, wait: float, crash: Crash) -> Said:
    async with _books(db, wait, crash) as books:
        return await _spoken(books, word)


async def _spoken(books: Books, word: Word) -> Said:
    done = await speak(books, word, person())
    unrecorded = 0
    if isinstance(word, Cancel):
        unrecorded = sum(batch.unrecorded for batch in await books.ledger.batches(word.names))
    return Said(done.jobs, done.skipped, done.credits, unrecorded)


def workers(db: Server) -> bool:
    """Whether workers are alive on a ledger. Raises LedgerUnusable."""
    with postgres():
        from .ledger.postgres import peers
    return peers.anybody(db)


async def _beside_workers(db: Server, word: Word, crash: Crash) -> Said:
    """Say it as one more writer: a transition is made by whoever is first. What was withdrawn while a worker was about
    to send it is not sent; what goes back to pending is handed out by the next sweep."""
    with postgres(workers=True):
        from .ledger.postgres.shared import SharedLedger
    clock = SystemClock()
    ledger = await SharedLedger.join(db, clock.wall, PRUNE)
    try:
        with open_spool(ledger) as spool:
            return await _spoken(Books(ledger=ledger, spool=spool, clock=clock, crash=crash), word)
    finally:
        await ledger.close()


def _answered(word: Word, answer: dict[str, Any]) -> Said:
    """What the run says that it has done."""
    return Said(
        [(one["batch"], one["job"]) for one in answer[word.did]],
        [Skipped(**one) for one in answer["skipped"]],
        answer["credits"],
        run=answer["progress"],
    )


@asynccontextmanager
async def _books(db: Address, wait: float, crash: Crash) -> AsyncIterator[Books]:
    """The ledger, open for writing and recovered.

    Raises:
        UsageError: there is none. LedgerBusy: another runner holds it.
    """
    _check_there(db)
    clock = SystemClock()
    ledger = await open_ledger(db, clock, wait)
    try:
        with open_spool(ledger) as spool:
            books = Books(ledger=ledger, spool=spool, clock=clock, crash=crash)
            await recover(books, [b.id for b in await ledger.batches()])
            yield books
    finally:
        await ledger.close()


def _check_there(db: Address) -> None:
    """A word never makes a ledger."""
    if not exists(db):
        raise UsageError(f"no ledger at {db}; name it with --db")


__all__ = ["REFUNDED", "Cancel", "Judge", "Resolve", "Retry", "Said", "Skipped", "Unknown", "Word", "say"]
