"""One transition, as statements of one transaction: the attempt, the job (compare-and-set), the history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..core import events as e
from ..core.job import Fact, Job, Problem, RetryBudget
from ..core.keys import canonical_json
from ..core.lifecycle import Money, money_after
from . import media
from .errors import BudgetExhausted, Conflict, DuplicateTask
from .rows import FACT_COLUMNS, fact_values
from .sql import Connection, Statement, change_one, hasty

_UPDATE_JOB = (
    f"UPDATE job SET {', '.join(f'{c} = ?' for c in FACT_COLUMNS)}, "
    "retries_provider = ?, retries_moderated = ?, updated_at = ? WHERE id = ? AND state = ? AND attempt = ?"
)
_INSERT_HISTORY = (
    "INSERT INTO history (job_id, at, attempt, from_state, to_state, event, reason, who) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_INSERT_ATTEMPT = (
    "INSERT INTO attempt (job_id, number, batch_id, credits, money, intent_at, request) "
    "VALUES (?, ?, ?, ?, 'reserved', ?, ?)"
)
_WANTED = " AND current = 1"
_UNMOVED = "SELECT 1 FROM job WHERE id = ? AND state = ? AND attempt = ?" + _WANTED
_CLAIM_JOB = _UPDATE_JOB + _WANTED
_CONSENT = "UPDATE attempt SET consent = ? WHERE job_id = ? AND consent IS NULL AND money <> 'none'"
_BUDGET = "SELECT max_credits - reserved - spent - at_risk, max_credits FROM batch WHERE id = ?"


@dataclass(frozen=True, slots=True)
class Change:
    """A decided transition, ready to be written."""

    job: Job
    event: e.Event
    after: Fact
    retries_used: RetryBudget
    now: float

    def __call__(self, connection: Connection, beside: Sequence[Statement] = ()) -> None:
        """Write it, and what else belongs to it.

        Raises:
            BudgetExhausted: a claim beyond the cap.
            DuplicateTask: the task id belongs to another submission.
            Conflict: the job is not in the state that the caller believes.
        """
        job, event = self.job, self.event
        history = (
            _INSERT_HISTORY,
            (
                job.id,
                self.now,
                self.after.attempt,
                job.fact.state.value,
                self.after.state.value,
                type(event).__name__.lower(),
                reason_of(event),
                getattr(event, "who", ""),
            ),
        )
        if isinstance(event, e.Claimed):
            self._claim(connection, event)  # for itself: a rule of the job's table looks for it
            update, also = _CLAIM_JOB, [history, *beside]
        else:
            settled = self._settle(connection)
            update, also = _UPDATE_JOB, [history, *beside] if settled is None else [settled, history, *beside]
        values = (*fact_values(self.after), self.retries_used.provider, self.retries_used.moderated, self.now)
        change_one(connection, update, (*values, *self._guard), self._conflict, also)

    @property
    def _guard(self) -> tuple[object, ...]:
        """What the caller believes of the job."""
        return self.job.id, self.job.fact.state.value, self.job.fact.attempt

    def _conflict(self) -> Conflict:
        job = self.job
        return Conflict(f"job {job.key} is no longer {job.fact.state.value} in attempt {job.fact.attempt}")

    def _claim(self, connection: Connection, event: e.Claimed) -> None:
        job = self.job
        if not hasty(connection):
            self._claimable(connection)
        sent = None if event.request is None else canonical_json(event.request).decode()
        connection.execute(_INSERT_ATTEMPT, (job.id, self.after.attempt, job.batch_id, job.credits, self.now, sent))

    def _claimable(self, connection: Connection) -> None:
        """Say why a claim is refused, before the schema's rules refuse it as if the disk had failed."""
        job = self.job
        if connection.execute(_UNMOVED, self._guard).fetchone() is None:
            raise self._conflict()
        left, cap = connection.execute(_BUDGET, (job.batch_id,)).fetchone()
        if cap is not None and job.credits > left:
            raise BudgetExhausted(f"{job.key} needs {job.credits} credits and {max(left, 0)} of {cap} are left")

    def _settle(self, connection: Connection) -> Statement | None:
        """What becomes of the last attempt; None where that stays as it was."""
        job, event = self.job, self.event
        if isinstance(event, e.Resubmitted | e.Retried):
            connection.execute(_CONSENT, (f"{event.who}: {event.why}", job.id))
        if isinstance(event, e.Resubmitted | e.Retried | e.Withdrawn):
            return None
        if isinstance(event, e.Stored) and event.kept:
            media.save(connection, job.id, job.fact.attempt, event.kept, self.now)
        sets = ["outcome = ?"]
        values: list[object] = [type(event).__name__.lower()]
        money = money_after(event, job.fact)
        if money is not None:
            sets.append("money = ?")
            values.append(money.value)
        if isinstance(event, e.Completed) and event.credits is not None:
            sets.append("credits = ?")
            values.append(event.credits)
        if isinstance(event, e.Accepted | e.Identified):
            self._check_task(connection, event.task_id)
            sets.append("task_id = ?")
            values.append(event.task_id)
        request_id = _request_id(event)
        if request_id is not None:
            sets.append("request_id = ?")
            values.append(request_id)
        if isinstance(event, SUBMIT_ANSWERS):
            sets.append("answered_at = ?")
            values.append(self.now)
        if money in (Money.SPENT, Money.NONE):
            sets.append("ended_at = ?")
            values.append(self.now)
        sql = f"UPDATE attempt SET {', '.join(sets)} WHERE job_id = ? AND number = ?"
        return sql, (*values, job.id, job.fact.attempt)

    def _check_task(self, connection: Connection, task_id: str) -> None:
        if hasty(connection):
            return  # its index refuses it
        taken = connection.execute(
            "SELECT job.key FROM attempt JOIN job ON job.id = attempt.job_id WHERE attempt.task_id = ? "
            "AND NOT (attempt.job_id = ? AND attempt.number = ?)",
            (task_id, self.job.id, self.job.fact.attempt),
        ).fetchone()
        if taken is not None:
            raise DuplicateTask(task_id, taken[0])


SUBMIT_ANSWERS = (e.Accepted, e.NotSent, e.Throttled, e.Refused, e.Rejected, e.Ambiguous)


def _request_id(event: e.Event) -> str | None:
    if isinstance(event, e.Accepted):
        return event.request_id
    problem = getattr(event, "problem", None)
    return problem.request_id if isinstance(problem, Problem) else None


def reason_of(event: e.Event) -> str:
    """One line for the history: what was seen, or the person's reason."""
    match event:
        case e.Accepted(task_id=task_id):
            return f"task {task_id}"
        case e.Identified(task_id=task_id, why=why):
            return f"task {task_id}" + (f": {why}" if why else "")
        case e.Resubmitted(why=why) | e.Abandoned(why=why) | e.Retried(why=why) | e.Withdrawn(why=why):
            return why
        case e.Stored(output=output, kept=kept):
            more = f" and {len(kept) - 1} more" if len(kept) > 1 else ""
            return f"{output.path} ({output.size} bytes){more}"
        case e.Completed(urls=urls):
            return f"{len(urls)} output" + ("s" if len(urls) != 1 else "")
        case e.Claimed():
            return "intent recorded"
        case _:
            return _problem_line(event.problem)


def _problem_line(problem: Problem) -> str:
    parts = [problem.message]
    if problem.code is not None:
        parts.append(f"code {problem.code}")
    if problem.http_status is not None:
        parts.append(f"HTTP {problem.http_status}")
    if problem.request_id:
        parts.append(f"request {problem.request_id}")
    return "; ".join(parts)
