"""New submissions by themselves: the budget of each kind of failure."""

from __future__ import annotations

from dataclasses import replace

import pytest

from batchrunner.core import retry
from batchrunner.core.events import TaskFailed
from batchrunner.core.job import Job, Problem, RetryBudget, Running

FAILED = TaskFailed(Problem("it broke", 80001))
MODERATED = TaskFailed(Problem("not allowed", 80006), moderated=True)


def _job(allowed: RetryBudget, used: RetryBudget) -> Job:
    return Job(1, 1, "dog-1", "reapi", "m", {}, 630, "dog-1", False, Running(1, "t"), allowed, used)


@pytest.mark.parametrize(
    ("failed", "allowed", "used", "again"),
    [
        (FAILED, RetryBudget(), RetryBudget(), False),
        (FAILED, RetryBudget(provider=2), RetryBudget(), True),
        (FAILED, RetryBudget(provider=2), RetryBudget(provider=1), True),
        (FAILED, RetryBudget(provider=2), RetryBudget(provider=2), False),
        (FAILED, RetryBudget(provider=2), RetryBudget(provider=3), False),
        (FAILED, RetryBudget(moderated=9), RetryBudget(), False),
        (FAILED, RetryBudget(provider=1), RetryBudget(moderated=5), True),
        (MODERATED, RetryBudget(provider=9), RetryBudget(), False),
        (MODERATED, RetryBudget(moderated=1), RetryBudget(provider=9), True),
        (MODERATED, RetryBudget(moderated=1), RetryBudget(moderated=1), False),
    ],
)
def test_decide(failed: TaskFailed, allowed: RetryBudget, used: RetryBudget, again: bool) -> None:
    decided = retry.decide(_job(allowed, used), failed, 100.0, 2.5)
    assert decided.again is again
    assert decided.retry_at == (102.5 if again else 0.0)
    assert (decided.problem, decided.moderated) == (failed.problem, failed.moderated)


def test_count() -> None:
    used = retry.count(RetryBudget(), FAILED)
    assert used == RetryBudget(provider=1)
    assert retry.count(used, MODERATED) == RetryBudget(provider=1, moderated=1)


def test_what_was_complete_once_is_never_submitted_again_by_itself() -> None:
    job = replace(_job(RetryBudget(provider=9), RetryBudget()), fact=Running(1, "t", renewals=1))
    assert retry.decide(job, FAILED, 100.0, 2.5) == FAILED
