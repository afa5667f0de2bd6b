"""Whether a failed task is submitted again by itself: a pure decision."""

from __future__ import annotations

from dataclasses import replace

from .events import TaskFailed
from .job import Job, RetryBudget, Running


def decide(job: Job, failed: TaskFailed, now: float, delay: float) -> TaskFailed:
    """Fill in `again`: True while the retry budget of the failure's kind (`retry:` in the manifest) is not used up.

    Only a task that the provider reports as failed comes here. Where it was refunded (reAPI: before the poll could see
    it, REAPI.md), another submission is not a second payment. One that may have been charged, or was complete before,
    is never submitted again by itself, whatever the provider says of it now.

    Args:
        job: the running job.
        failed: what the poll said.
        now: unix seconds.
        delay: seconds to wait before the next submission.
    """
    used = job.retries_used.moderated if failed.moderated else job.retries_used.provider
    allowed = job.retry.moderated if failed.moderated else job.retry.provider
    if used >= allowed or failed.charged or (isinstance(job.fact, Running) and job.fact.renewals):
        return failed
    return replace(failed, again=True, retry_at=now + delay)


def count(used: RetryBudget, failed: TaskFailed) -> RetryBudget:
    """The retries used after `failed` was sent to another submission."""
    if failed.moderated:
        return replace(used, moderated=used.moderated + 1)
    return replace(used, provider=used.provider + 1)
