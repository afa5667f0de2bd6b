"""A person's word on jobs, put into practice: the same without a run and during one.

Every job is moved by compare-and-set from the state that it was seen in. What a run has moved meanwhile is left alone,
and listed as that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from ..core import events as e
from ..core.job import PAID_FAILURES, FailureKind, Job, State
from ..core.words import Cancel, Judge, Resolve, Retry, Word
from ..exits import UsageError
from ..ledger import naming
from ..ledger.errors import Conflict, DuplicateTask
from ..ledger.naming import Named
from ..ledger.promotions import Judgement
from ..ledger.sql import Row
from .ports import Books

TOGETHER = 128
"""Jobs that share a commit."""

REFUNDED = frozenset(FailureKind) - PAID_FAILURES
"""Kinds of failure after which a new submission is not a second payment."""

Advance = Callable[[Job, e.Event], Awaitable[Job]]


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
    """

    jobs: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    credits: int | None = 0

    def skip(self, row: Row, why: str) -> None:
        self.skipped.append(Skipped(row["batch"], row["key"], row["state"], why))

    def did(self, row: Row) -> None:
        self.jobs.append((row["batch"], row["key"]))
        price = row["credits"]
        self.credits = None if price is None or self.credits is None else self.credits + price

    @property
    def batches(self) -> list[str]:
        """Batches of the jobs that were moved, in order."""
        return list(dict.fromkeys(batch for batch, _ in self.jobs))


async def speak(books: Books, word: Word, who: str, advance: Advance | None = None) -> Done:
    """Do what a word says.

    Args:
        books: the ledger, of which nothing is on the wire that this process does not know of.
        word: what is said.
        who: who says it, for the jobs' history.
        advance: moves a job; `books.advance` where not given.

    Raises:
        Unknown, UsageError: a name means nothing, or the word makes no sense; nothing has changed.
        WriteFailed: a part may be done.
    """
    voice = _Voice(books, who, advance or books.advance)
    match word:
        case Cancel():
            return await voice.cancel(word)
        case Retry():
            return await voice.retry(word)
        case Resolve():
            return await voice.resolve(word)
        case Judge():
            return await voice.judge(word)
        case _:
            assert_never(word)


class _Voice:
    """One word."""

    def __init__(self, books: Books, who: str, advance: Advance) -> None:
        self._books, self._who, self._advance = books, who, advance
        self._done = Done()

    async def cancel(self, word: Cancel) -> Done:
        chosen = []
        for row, _ in await self._named(word.names):
            if row["state"] == State.PENDING and row["current"]:
                chosen.append(row)
            else:
                self._done.skip(row, f"is {row['state']}")
        await self._apply(
            chosen, State.PENDING, e.Withdrawn(self._who, word.why or "cancel"), "was submitted meanwhile"
        )
        return self._done

    async def retry(self, word: Retry) -> Done:
        chosen = []
        for row, exact in await self._named(word.names):
            why = _why_not_retried(row, word.kinds, exact=exact)
            if why is None:
                chosen.append(row)
            elif why:
                self._done.skip(row, why)
        await self._apply(chosen, State.FAILED, e.Retried(self._who, "retry"))
        return self._done

    async def resolve(self, word: Resolve) -> Done:
        rows = await self._books.ledger.query(lambda c: naming.find_unconfirmed(c, word.name, word.revision))
        if word.task_id is not None and len(rows) > 1:
            raise UsageError(f"a task is one job's, and {word.name} means {len(rows)}; name one of them")
        if word.resubmit:
            old = next((row for row in rows if not row["current"]), None)
            if old is not None:
                raise UsageError(
                    f"{old['key']} revision {old['revision']} is not in the manifest any more, so that nothing "
                    "would submit it; use --task-id or --abandon"
                )
        try:
            await self._apply(rows, State.UNCONFIRMED, word.event(self._who))
        except DuplicateTask as duplicate:
            raise UsageError(f"{duplicate}; `batchrunner show {duplicate.job}` shows it") from None
        return self._done

    async def judge(self, word: Judge) -> Done:
        found = await self._books.ledger.query(
            lambda c: [Named(naming.find_jobs(c, name), exact=not naming.is_glob(name)) for name in word.names]
        )
        chosen = []
        for row, exact in _once(found):
            if row["state"] == State.SUCCEEDED:
                chosen.append(row)
            elif exact:
                raise UsageError(f"{row['key']} is {row['state']}: only a finished clip can be {word.verdict}")
            else:
                self._done.skip(row, f"is {row['state']}")
        if not chosen:
            raise UsageError(f"{' '.join(word.names)} names no finished clip; only such can be {word.verdict}")
        await self._books.ledger.judge(Judgement([row["id"] for row in chosen], word.verdict, word.note, self._who))
        self._books.crash("word.recorded")
        for row in chosen:
            self._done.did(row)
        return self._done

    async def _named(self, names: Sequence[str]) -> list[tuple[Row, bool]]:
        return _once(await self._books.ledger.query(lambda c: [naming.find_named(c, name) for name in names]))

    async def _apply(
        self, rows: Sequence[Row], state: State, event: e.Event, why_not: str = "has moved on meanwhile"
    ) -> None:
        """The same event for every row whose job is still what was seen."""
        for start in range(0, len(rows), TOGETHER):
            part = {row["id"]: row for row in rows[start : start + TOGETHER]}
            jobs = [
                job
                for job in await self._books.ledger.jobs(list(part))
                if job.state is state and job.fact.attempt == part[job.id]["attempt"]
            ]
            moved = await asyncio.gather(*(self._advance(job, event) for job in jobs), return_exceptions=True)
            outcomes = dict(zip((job.id for job in jobs), moved, strict=True))
            for job_id, row in part.items():
                outcome = outcomes.get(job_id)
                if outcome is None or isinstance(outcome, Conflict):  # it went on while this was being said
                    self._done.skip(row, why_not)
                elif isinstance(outcome, BaseException):
                    raise outcome
                else:
                    self._books.crash("word.recorded")
                    self._done.did(row)


def _once(found: Sequence[Named]) -> list[tuple[Row, bool]]:
    """Every named job once, and whether its exact key was given."""
    rows: dict[int, tuple[Row, bool]] = {}
    for named in found:
        for row in named.rows:
            rows[row["id"]] = (row, named.exact or (row["id"] in rows and rows[row["id"]][1]))
    return list(rows.values())


def _why_not_retried(row: Row, kinds: Sequence[FailureKind], *, exact: bool) -> str | None:
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
