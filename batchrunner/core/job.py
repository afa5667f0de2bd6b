"""What a job is, and the facts that it can be in.

A state is a durable fact, not an activity. Each fact is a frozen dataclass that carries exactly the data
which that fact needs: a `Running` without a task id can't be built.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .states import IN_FLIGHT, LIVE, PAID_FAILURES, TERMINAL, FailureKind, State


@dataclass(frozen=True, slots=True)
class Problem:
    """What was seen when something went wrong.

    Attributes:
        message: for people; from the provider or ours. Never branched on.
        code: the provider's code (an int such as 80006) or a short word of ours (`timeout`, `no_task_id`).
        http_status: status of the response, where one was read.
        request_id: the provider's id of the request, where it gave one.
    """

    message: str
    code: int | str | None = None
    http_status: int | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """A finished file.

    Attributes:
        path: absolute path.
        sha256: lower-case hex digest of its bytes.
        size: its length in bytes.
    """

    path: str
    sha256: str
    size: int


# --- The facts -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pending:
    """Nothing is at the provider. `not_before` (unix seconds) holds it back after a 429 or a failed connection."""

    attempt: int = 0
    not_before: float = 0.0
    state = State.PENDING


@dataclass(frozen=True, slots=True)
class Submitting:
    """The intent of attempt `attempt` (1, 2, ...) is durable."""

    attempt: int
    state = State.SUBMITTING


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """The POST of `attempt` may have been accepted; `problem` is the evidence."""

    attempt: int
    problem: Problem
    state = State.UNCONFIRMED


@dataclass(frozen=True, slots=True)
class Running:
    """The provider works on `task_id`. `renewals` counts how often dead output URLs sent the job back here."""

    attempt: int
    task_id: str
    renewals: int = 0
    state = State.RUNNING


@dataclass(frozen=True, slots=True)
class Downloading:
    """The task is complete; `urls` are where its outputs can be fetched, until they expire.

    `kinds` says of each URL what it gives, where the task's outputs are of several kinds; empty where all are of the
    model's own. `last_frame_url` gives a picture of the clip's end.
    """

    attempt: int
    task_id: str
    urls: tuple[str, ...]
    renewals: int = 0
    kinds: tuple[str, ...] = ()
    last_frame_url: str | None = None
    state = State.DOWNLOADING


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The output is complete under its final name."""

    attempt: int
    task_id: str
    output: Output
    state = State.SUCCEEDED


@dataclass(frozen=True, slots=True)
class Failed:
    """The job ended without output."""

    attempt: int
    kind: FailureKind
    problem: Problem
    task_id: str | None = None
    state = State.FAILED


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Withdrawn before it was sent."""

    attempt: int
    state = State.CANCELLED


Fact = Pending | Submitting | Unconfirmed | Running | Downloading | Succeeded | Failed | Cancelled
"""What is durably known of a job."""


# --- What a job asks for ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JobSpec:
    """One expanded (shot, matrix point, take): what the manifest asks for.

    Attributes:
        key: readable, stable, safe in a shell and a file name; unique in its batch.
        fingerprint: 32 hex digits over provider, model and the exact request.
        shot: the shot's id.
        take: 1, 2, ...
        matrix: the matrix point, variable to value; empty without a matrix.
        tags: the shot's tags, in the manifest's order.
        provider: provider name, such as `reapi`.
        model: model name, such as `kling-3-0-turbo`.
        request: the exact JSON object to POST, `model` included.
        credits: estimated price in whole credits; None where no price is known.
        output: path relative to the output folder, `/` between parts, without an extension where
            `named` is false (then the extension of what came is added).
        named: whether `output.name` of the manifest made the path.
        seconds: length of the clip asked for, where the model has one (for latency statistics and checks).
    """

    key: str
    fingerprint: str
    shot: str
    take: int
    matrix: dict[str, Any]
    tags: tuple[str, ...]
    provider: str
    model: str
    request: dict[str, Any]
    credits: int | None
    output: str
    named: bool
    seconds: int | None = None


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """How many new submissions may follow a failed, refunded task, by kind (`retry:` in the manifest)."""

    provider: int = 0
    moderated: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """A job of the ledger, as the engine holds it while it is in flight.

    Attributes:
        id: row id in the ledger.
        batch_id: row id of its batch.
        key: see `JobSpec.key`.
        provider, model, request: see `JobSpec`.
        credits: the price reserved for a submission; 0 where unknown.
        output: planned path relative to the batch's output folder.
        named: see `JobSpec.named`.
        fact: what is durably known.
        retries_used: new submissions made so far after failed, refunded tasks, by kind.
        retry: how many are allowed.
        seconds: see `JobSpec.seconds`.
    """

    id: int
    batch_id: int
    key: str
    provider: str
    model: str
    request: dict[str, Any]
    credits: int
    output: str
    named: bool
    fact: Fact
    retry: RetryBudget = RetryBudget()
    retries_used: RetryBudget = RetryBudget()
    seconds: int | None = None

    @property
    def state(self) -> State:
        return self.fact.state

    def after(self, fact: Fact, retries_used: RetryBudget) -> Job:
        """The same job, of which now `fact` is known. Each field by its name: `dataclasses.replace` takes five times
        as long, and every transition does this."""
        return Job(
            id=self.id,
            batch_id=self.batch_id,
            key=self.key,
            provider=self.provider,
            model=self.model,
            request=self.request,
            credits=self.credits,
            output=self.output,
            named=self.named,
            fact=fact,
            retry=self.retry,
            retries_used=retries_used,
            seconds=self.seconds,
        )


__all__ = [
    "IN_FLIGHT",
    "LIVE",
    "PAID_FAILURES",
    "TERMINAL",
    "Cancelled",
    "Downloading",
    "Fact",
    "Failed",
    "FailureKind",
    "Job",
    "JobSpec",
    "Output",
    "Pending",
    "Problem",
    "RetryBudget",
    "Running",
    "State",
    "Submitting",
    "Succeeded",
    "Unconfirmed",
]
