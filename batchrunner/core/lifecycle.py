"""The state machine: one table, one function.

`TABLE` is the whole truth of which transition exists. The ledger's triggers and the drawing in
`docs/states.md` are checked against it by tests. Any other pair is a bug and raises `IllegalTransition`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import assert_never

from . import events as e
from .job import (
    Cancelled,
    Downloading,
    Fact,
    Failed,
    FailureKind,
    Pending,
    Running,
    State,
    Submitting,
    Succeeded,
    Unconfirmed,
)

MAX_RENEWALS = 1
"""How often dead output URLs send a job back to `running` for fresh ones before it is `expired` (FAILURES.md)."""

S = State
TABLE: dict[tuple[State, type[e.Event]], frozenset[State]] = {
    (S.PENDING, e.Claimed): frozenset({S.SUBMITTING}),
    (S.PENDING, e.Withdrawn): frozenset({S.CANCELLED}),
    (S.SUBMITTING, e.Accepted): frozenset({S.RUNNING}),
    (S.SUBMITTING, e.NotSent): frozenset({S.PENDING}),
    (S.SUBMITTING, e.Throttled): frozenset({S.PENDING}),
    (S.SUBMITTING, e.Refused): frozenset({S.PENDING}),
    (S.SUBMITTING, e.Rejected): frozenset({S.FAILED}),
    (S.SUBMITTING, e.Ambiguous): frozenset({S.UNCONFIRMED}),
    (S.SUBMITTING, e.Interrupted): frozenset({S.UNCONFIRMED}),
    (S.UNCONFIRMED, e.Identified): frozenset({S.RUNNING}),
    (S.UNCONFIRMED, e.Resubmitted): frozenset({S.PENDING}),
    (S.UNCONFIRMED, e.Abandoned): frozenset({S.FAILED}),
    (S.RUNNING, e.Completed): frozenset({S.DOWNLOADING}),
    (S.RUNNING, e.TaskFailed): frozenset({S.FAILED, S.PENDING}),
    (S.RUNNING, e.Vanished): frozenset({S.FAILED}),
    (S.DOWNLOADING, e.Stored): frozenset({S.SUCCEEDED}),
    (S.DOWNLOADING, e.LinkDied): frozenset({S.RUNNING, S.FAILED}),
    (S.FAILED, e.Retried): frozenset({S.PENDING}),
}
"""(state, event) -> the states that may follow."""


class IllegalTransition(Exception):
    """An event met a state that it can't happen in: a bug in the caller, never the user's fault."""

    def __init__(self, state: State, event: object) -> None:
        super().__init__(f"{type(event).__name__} can't happen to a job that is {state.value}")
        self.state = state
        self.event = event


class Money(StrEnum):
    """What a submission (attempt) has done to the account, as far as is proven."""

    RESERVED = "reserved"
    """The intent is durable or the task runs: it is, or will be, charged unless it fails."""
    AT_RISK = "at_risk"
    """It may have been charged, and nobody can tell."""
    SPENT = "spent"
    """It was charged and will not come back."""
    NONE = "none"
    """It was never charged, or was refunded."""


def advance(fact: Fact, event: e.Event) -> Fact:
    """What is known after `event` has happened to a job of which `fact` was known.

    Pure: reads no clock, draws no randomness, does nothing.

    Raises:
        IllegalTransition: the pair is not in `TABLE`.
    """
    after = _next(fact, event)
    if after is None or after.state not in TABLE.get((fact.state, type(event)), frozenset()):
        raise IllegalTransition(fact.state, event)
    return after


def _next(fact: Fact, event: e.Event) -> Fact | None:
    match fact:
        case Pending():
            return _from_pending(fact, event)
        case Submitting():
            return _from_submitting(fact, event)
        case Unconfirmed():
            return _from_unconfirmed(fact, event)
        case Running():
            return _from_running(fact, event)
        case Downloading():
            return _from_downloading(fact, event)
        case Failed():
            return Pending(fact.attempt) if isinstance(event, e.Retried) else None
        case Succeeded() | Cancelled():
            return None
        case _:
            assert_never(fact)


def _from_pending(fact: Pending, event: e.Event) -> Fact | None:
    match event:
        case e.Claimed():
            return Submitting(fact.attempt + 1)
        case e.Withdrawn():
            return Cancelled(fact.attempt)
        case _:
            return None


def _from_submitting(fact: Submitting, event: e.Event) -> Fact | None:
    match event:
        case e.Accepted(task_id=task_id):
            return Running(fact.attempt, task_id)
        case e.NotSent(retry_at=at) | e.Throttled(retry_at=at):
            return Pending(fact.attempt, at)
        case e.Refused():
            return Pending(fact.attempt)
        case e.Rejected(problem=problem):
            return Failed(fact.attempt, FailureKind.REJECTED, problem)
        case e.Ambiguous(problem=problem) | e.Interrupted(problem=problem):
            return Unconfirmed(fact.attempt, problem)
        case _:
            return None


def _from_unconfirmed(fact: Unconfirmed, event: e.Event) -> Fact | None:
    match event:
        case e.Identified(task_id=task_id):
            return Running(fact.attempt, task_id)
        case e.Resubmitted():
            return Pending(fact.attempt)
        case e.Abandoned():
            return Failed(fact.attempt, FailureKind.ABANDONED, fact.problem)
        case _:
            return None


def _from_running(fact: Running, event: e.Event) -> Fact | None:
    match event:
        case e.Completed():
            urls, kinds, last = event.urls, event.kinds, event.last_frame_url
            return Downloading(fact.attempt, fact.task_id, urls, fact.renewals, kinds, last)
        case e.TaskFailed(again=True, retry_at=at):
            return Pending(fact.attempt, at)
        case e.TaskFailed(problem=problem, moderated=moderated):
            kind = FailureKind.MODERATED if moderated else FailureKind.PROVIDER
            return Failed(fact.attempt, kind, problem, fact.task_id)
        case e.Vanished(problem=problem):
            return Failed(fact.attempt, FailureKind.LOST, problem, fact.task_id)
        case _:
            return None


def _from_downloading(fact: Downloading, event: e.Event) -> Fact | None:
    match event:
        case e.Stored(output=output):
            return Succeeded(fact.attempt, fact.task_id, output)
        case e.LinkDied() if fact.renewals < MAX_RENEWALS:
            return Running(fact.attempt, fact.task_id, fact.renewals + 1)
        case e.LinkDied(problem=problem):
            return Failed(fact.attempt, FailureKind.EXPIRED, problem, fact.task_id)
        case _:
            return None


def money_after(event: e.Event, before: Fact | None = None) -> Money | None:
    """What the current attempt's money becomes with this event; None where it stays as it was.

    A completed task is spent, and so is a failed one that may have been charged. What can't be looked up stays at risk
    for ever, also after a person has abandoned or resubmitted it: a budget that forgets a possible charge is no budget
    (promise P5).
    """
    if isinstance(event, e.TaskFailed) and isinstance(before, Running) and before.renewals:
        return None  # it was complete once, and charged: a provider that says otherwise later is not believed
    match event:
        case e.Claimed() | e.Identified() | e.Accepted():
            return Money.RESERVED
        case e.TaskFailed(charged=True):
            return Money.SPENT
        case e.NotSent() | e.Throttled() | e.Refused() | e.Rejected() | e.TaskFailed():
            return Money.NONE
        case e.Ambiguous() | e.Interrupted():
            return Money.AT_RISK
        case e.Completed() | e.Vanished():
            return Money.SPENT
        case e.Resubmitted() | e.Abandoned() | e.Retried() | e.Withdrawn() | e.Stored() | e.LinkDied():
            return None
        case _:
            assert_never(event)
