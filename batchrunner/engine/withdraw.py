"""Withdrawing pending jobs: the same word without a run and during one."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..core import events as e
from ..core.job import Job, State
from ..ledger import naming
from ..ledger.errors import Conflict
from .ports import Books

TOGETHER = 128
"""Jobs whose withdrawal shares a commit."""


@dataclass(slots=True)
class Withdrawal:
    """What became of it.

    Attributes:
        jobs: rows of the jobs that were withdrawn.
        skipped: rows of the ones that were left alone, and why.
    """

    jobs: list[sqlite3.Row] = field(default_factory=list)
    skipped: list[tuple[sqlite3.Row, str]] = field(default_factory=list)


async def withdraw(
    books: Books, names: Sequence[str], word: e.Withdrawn, books_of: Callable[[Job], Books] | None = None
) -> Withdrawal:
    """Withdraw the pending jobs that the names mean. What was sent can't be called back, and is left alone.

    Args:
        books: the ledger.
        names: batches, keys, patterns, as on a command line.
        word: who withdraws them, and why.
        books_of: who is to hear of a job; `books` where not given.

    Raises:
        Unknown: a name means nothing; then nothing has changed. WriteFailed: a part may be done.
    """
    found: list[naming.Named] = await books.ledger.query(lambda c: [naming.find_named(c, name) for name in names])
    rows = list({row["id"]: row for named in found for row in named.rows}.values())
    done = Withdrawal()
    chosen = [row for row in rows if row["state"] == State.PENDING and row["current"]]
    done.skipped += [
        (row, f"is {row['state']}") for row in rows if not (row["state"] == State.PENDING and row["current"])
    ]
    for start in range(0, len(chosen), TOGETHER):
        part = {row["id"]: row for row in chosen[start : start + TOGETHER]}
        jobs = [job for job in await books.ledger.jobs(list(part)) if job.state is State.PENDING]
        words = [(books_of(job) if books_of is not None else books).advance(job, word) for job in jobs]
        outcomes = dict(
            zip((job.id for job in jobs), await asyncio.gather(*words, return_exceptions=True), strict=True)
        )
        for job_id, row in part.items():
            outcome = outcomes.get(job_id)
            if outcome is None or isinstance(outcome, Conflict):  # it was sent while this was being said
                done.skipped.append((row, "was submitted meanwhile"))
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                books.crash("word.recorded")
                done.jobs.append(row)
    return done
