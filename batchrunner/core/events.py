"""Everything that can happen to a job, as frozen values.

Providers answer with these (`SubmitAnswer`, `PollAnswer`), the engine and people add the rest, and
`lifecycle.advance(fact, event)` says what follows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from .job import Output, Problem
from .media import Kept

# --- Submitting ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Claimed:
    """A rate slot, budget and a connection are held: the intent, committed before the first byte.

    `request` is what is sent, where the job's own names other jobs' outputs; None where it is the job's own.
    """

    request: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider answered with a usable task id."""

    task_id: str
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class NotSent:
    """Proven: not one byte of the request left this machine. `retry_at` is unix seconds, 0 for now."""

    problem: Problem
    retry_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Throttled:
    """429 in the provider's own envelope: nothing created, nothing charged.

    `retry_after` is in seconds from the answer, None where the server did not say.
    `retry_at` (unix seconds) is filled in by the engine before the event is recorded.
    """

    problem: Problem
    retry_after: float | None = None
    retry_at: float = 0.0


class Refusal(StrEnum):
    """Why the provider refuses every call, not just this one."""

    CREDENTIALS = "credentials"
    CREDIT = "credit"


@dataclass(frozen=True, slots=True)
class Refused:
    """401, 403 (credentials) or 402 (credit): nothing created; the run stops or pauses."""

    reason: Refusal
    problem: Problem


@dataclass(frozen=True, slots=True)
class Rejected:
    """400, 404, 413, 422 in the provider's envelope: this request will never be accepted; not charged."""

    problem: Problem


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """A POST may have been accepted and no task id was read. `problem` is the evidence."""

    problem: Problem


@dataclass(frozen=True, slots=True)
class Interrupted:
    """Found `submitting` at start-up: the runner died between the intent and the answer."""

    problem: Problem = field(
        default=Problem("the runner stopped between sending the request and reading its answer", "interrupted")
    )


# --- A person's word -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Identified:
    """A person (or the spool) says which task an unconfirmed submission became."""

    task_id: str
    who: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Resubmitted:
    """A person consents to another submission of an unconfirmed job."""

    who: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Abandoned:
    """A person gives an unconfirmed job up."""

    who: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Retried:
    """A person asks for a failed job to be submitted anew."""

    who: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A person cancels a job before it was sent."""

    who: str
    why: str = ""


# --- Running and downloading -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StillRunning:
    """The poll found the task alive. `status` is the provider's word; `known` whether it is documented."""

    status: str = "processing"
    known: bool = True


@dataclass(frozen=True, slots=True)
class Completed:
    """The task is done. `credits` is what the provider says it charged, where it says so; `kinds` and
    `last_frame_url` are as in `job.Downloading`."""

    urls: tuple[str, ...]
    credits: int | None = None
    last_frame_url: str | None = None
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """The task failed. `moderated` where the content policy did it; `charged` where it may have cost something all the
    same, so that it counts as spent: some services promise no refund.

    `again` is filled in by the engine from the retry budget: True sends the job back to pending.
    """

    problem: Problem
    moderated: bool = False
    again: bool = False
    retry_at: float = 0.0
    charged: bool = False


@dataclass(frozen=True, slots=True)
class Missing:
    """404 in the provider's envelope: it does not know the task (now). Not a transition by itself."""

    problem: Problem


@dataclass(frozen=True, slots=True)
class PollFailed:
    """The poll itself failed (network, 5xx, nonsense). Says nothing about the task."""

    problem: Problem


@dataclass(frozen=True, slots=True)
class Vanished:
    """The provider has not known the task for 15 minutes."""

    problem: Problem


@dataclass(frozen=True, slots=True)
class Stored:
    """Every output is verified, complete and durable under its final name; `output` is the first, `kept` are all."""

    output: Output
    kept: tuple[Kept, ...] = ()


@dataclass(frozen=True, slots=True)
class LinkDied:
    """The output can't be fetched from the URLs that we have (403, 404, 410, or what came is not the file)."""

    problem: Problem


SubmitAnswer = Accepted | NotSent | Throttled | Refused | Rejected | Ambiguous
"""What a provider's `submit` returns. It never raises for what a server or a network does."""

PollAnswer = StillRunning | Completed | TaskFailed | Missing | Throttled | Refused | PollFailed
"""What a provider's `poll` returns."""

Event = (
    Claimed
    | Accepted
    | NotSent
    | Throttled
    | Refused
    | Rejected
    | Ambiguous
    | Interrupted
    | Identified
    | Resubmitted
    | Abandoned
    | Retried
    | Withdrawn
    | Completed
    | TaskFailed
    | Vanished
    | Stored
    | LinkDied
)
"""What `lifecycle.advance` takes: everything that makes a transition."""
