"""What a run does first: read back what an earlier one, however it ended, had durably known."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from ..core import events as e
from ..core.job import Job, Problem, State
from ..ledger.errors import DuplicateTask
from .ports import Books, Work

MAX_SHOWN = 1000
"""Characters of a damaged spool that are kept."""

SPOOL = "spool"
"""`who` of a task id that was found in the spool."""


async def recover(books: Books, every_batch: list[int]) -> None:
    """Settle what was on the wire when the last run ended.

    Ids in the spool first: they were received. Then every job still `submitting` becomes `unconfirmed`: its runner is
    dead (we hold its lock), and nobody can tell whether the POST was accepted.

    Raises:
        LedgerError: it could not be recorded; nothing may be submitted then.
    """
    books.crash("start.opened")
    submitting = await restore(books, every_batch)
    interrupted = _interrupted(books.spool.damaged)
    for job in submitting.values():
        await books.advance(job, interrupted)
        books.crash("recover.interrupted")
    if books.spool.damaged:
        books.spool.clear()


async def restore(books: Books, every_batch: list[int]) -> dict[int, Job]:
    """Record the ids in the spool. Returns what is `submitting` all the same, by row id. Raises as `recover`."""
    submitting = {job.id: job for job, _ in await books.ledger.in_state(every_batch, State.SUBMITTING)}
    if books.spool.found:
        unconfirmed = {job.id: job for job, _ in await books.ledger.in_state(every_batch, State.UNCONFIRMED)}
        for spooled in books.spool.found:
            job = submitting.get(spooled.job_id) or unconfirmed.get(spooled.job_id)
            if job is None or job.fact.attempt != spooled.attempt:
                continue  # recorded after all
            submitting.pop(job.id, None)
            unconfirmed.pop(job.id, None)
            await _restore(books, job, spooled.task_id)
            books.crash("recover.restored")
        books.crash("recover.spool")
        if not books.spool.damaged:
            books.spool.clear()
        books.crash("recover.cleared")
    return submitting


def _interrupted(damaged: list[str]) -> e.Interrupted:
    """The doubt; with what a damaged spool still shows, for a person who can read a task id in it."""
    usual = e.Interrupted()
    if not damaged:
        return usual
    shown = "; ".join(damaged)[:MAX_SHOWN]
    return e.Interrupted(replace(usual.problem, message=f"{usual.problem.message}; a damaged note says: {shown}"))


async def _restore(books: Books, job: Job, task_id: str) -> None:
    """Record an id that was received for a job whose submission is not settled."""
    event: e.Event = e.Identified(task_id, SPOOL, "received before the ledger could be written")
    if job.state is State.SUBMITTING:
        event = e.Accepted(task_id)
    try:
        await books.advance(job, event)
    except DuplicateTask as duplicate:
        if job.state is State.SUBMITTING:
            problem = Problem(f"the provider's answer names {duplicate}", "duplicate_task_id")
            await books.advance(job, e.Ambiguous(problem))


async def consent(books: Books, work: Work, who: str, askable: Collection[str] = ()) -> list[int]:
    """Send the selected unconfirmed jobs back to pending, on a person's word (`--on-unconfirmed resubmit`).

    Args:
        who: whose word.
        askable: providers that can be asked what became of a submission, and are, before the word counts.

    Returns:
        the row ids of jobs of those, which are left as they are.
    """
    held: list[Job] = await books.ledger.selected(work.ids, work.selection, State.UNCONFIRMED)
    for job in held:
        if job.provider in askable:
            continue
        await books.advance(job, e.Resubmitted(who, "--on-unconfirmed resubmit"))
        books.crash("word.recorded")
    return [job.id for job in held if job.provider in askable]
