"""Rows to values and back: the one place that knows which column carries what."""

from __future__ import annotations

import json
from typing import Any

from ..core.job import (
    Cancelled,
    Downloading,
    Fact,
    Failed,
    FailureKind,
    Job,
    Output,
    Pending,
    Problem,
    RetryBudget,
    Running,
    State,
    Submitting,
    Succeeded,
    Unconfirmed,
)
from .sql import Row

AMBIGUOUS = "ambiguous"
"""`error.kind` of an unconfirmed job."""

FACT_COLUMNS = (
    "state",
    "attempt",
    "not_before",
    "task_id",
    "urls",
    "renewals",
    "error_kind",
    "error_code",
    "error_message",
    "error_status",
    "error_request_id",
    "file",
    "sha256",
    "bytes",
)

JOB_COLUMNS = (
    "id, batch_id, key, provider, model, request, seconds, credits, output, named, "
    "retries_provider, retries_moderated, " + ", ".join(FACT_COLUMNS)
)


def fact_values(fact: Fact) -> tuple[Any, ...]:
    """The values of `FACT_COLUMNS` for a fact."""
    not_before, task_id, urls, renewals = 0.0, None, None, 0
    kind: str | None = None
    problem: Problem | None = None
    output: Output | None = None
    match fact:
        case Pending():
            not_before = fact.not_before
        case Unconfirmed():
            kind, problem = AMBIGUOUS, fact.problem
        case Running():
            task_id, renewals = fact.task_id, fact.renewals
        case Downloading():
            task_id, renewals = fact.task_id, fact.renewals
            urls = _links(fact)
        case Succeeded():
            task_id, output = fact.task_id, fact.output
        case Failed():
            task_id, kind, problem = fact.task_id, fact.kind.value, fact.problem
        case Submitting() | Cancelled():
            pass
    error = (problem.code, problem.message, problem.http_status, problem.request_id) if problem else (None,) * 4
    file = (output.path, output.sha256, output.size) if output else (None,) * 3
    return (fact.state.value, fact.attempt, not_before, task_id, urls, renewals, kind, *error, *file)


def fact_of(row: Row) -> Fact:
    """The fact that a row of `job` states."""
    attempt: int = row["attempt"]
    task_id: str = row["task_id"]
    match State(row["state"]):
        case State.PENDING:
            return Pending(attempt, row["not_before"])
        case State.SUBMITTING:
            return Submitting(attempt)
        case State.UNCONFIRMED:
            return Unconfirmed(attempt, problem_of(row))
        case State.RUNNING:
            return Running(attempt, task_id, row["renewals"])
        case State.DOWNLOADING:
            return _downloading(attempt, task_id, json.loads(row["urls"]), row["renewals"])
        case State.SUCCEEDED:
            return Succeeded(attempt, task_id, Output(row["file"], row["sha256"], row["bytes"]))
        case State.FAILED:
            return Failed(attempt, FailureKind(row["error_kind"]), problem_of(row), row["task_id"])
        case State.CANCELLED:
            return Cancelled(attempt)


def _links(fact: Downloading) -> str:
    """Where the outputs are: a list of URLs; an object where there is more to say of them."""
    if not fact.kinds and fact.last_frame_url is None:
        return json.dumps(fact.urls)
    return json.dumps({"urls": fact.urls, "kinds": fact.kinds, "last_frame": fact.last_frame_url})


def _downloading(attempt: int, task_id: str, links: Any, renewals: int) -> Downloading:
    if isinstance(links, list):
        return Downloading(attempt, task_id, tuple(links), renewals)
    return Downloading(attempt, task_id, tuple(links["urls"]), renewals, tuple(links["kinds"]), links["last_frame"])


def problem_of(row: Row) -> Problem:
    return Problem(row["error_message"] or "", row["error_code"], row["error_status"], row["error_request_id"])


def job_of(row: Row, retry: RetryBudget) -> Job:
    """The job that a row (`JOB_COLUMNS`) holds; `retry` comes from its batch."""
    return Job(
        id=row["id"],
        batch_id=row["batch_id"],
        key=row["key"],
        provider=row["provider"],
        model=row["model"],
        request=json.loads(row["request"]),
        credits=row["credits"] or 0,
        output=row["output"],
        named=bool(row["named"]),
        fact=fact_of(row),
        retry=retry,
        retries_used=RetryBudget(row["retries_provider"], row["retries_moderated"]),
        seconds=row["seconds"],
    )
