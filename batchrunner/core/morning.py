"""What a batch came to, as plain values: what the ledger is asked for in the morning, and what the report renders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


class Step(NamedTuple):
    """One transition of one job.

    Attributes:
        at: unix seconds.
        event: what happened, as the history names it (`claimed`, `throttled`, `stored`, ...).
        to_state: the state that followed.
        in_flight: what it adds to the POSTs and running tasks together: 1, 0 or -1.
        by_person: whether a person's word made it.
    """

    at: float
    event: str
    to_state: str
    in_flight: int
    by_person: bool


@dataclass(frozen=True, slots=True)
class Attempt:
    """One submission of a job. Times are unix seconds, None where it has not happened.

    Attributes:
        number: 1, 2, ...
        sent_at: when the intent was recorded, just before the first byte.
        accepted_at: when the task id was read.
        completed_at: when the provider was first seen to be done.
        stored_at: when the file was safe.
        credits: its price, or what the provider says it charged, where it has said so.
        money: `reserved`, `at_risk`, `spent` or `none` (nothing created, or refunded).
        outcome: the last event of it, such as `stored` or `taskfailed`.
    """

    number: int
    sent_at: float
    answered_at: float | None
    accepted_at: float | None
    completed_at: float | None
    stored_at: float | None
    credits: int
    money: str
    outcome: str | None
    task_id: str | None
    request_id: str | None

    @property
    def took(self) -> float | None:
        """Seconds from the task id to the poll that found it done; None where either was not seen."""
        if self.accepted_at is None or self.completed_at is None:
            return None
        return max(0.0, self.completed_at - self.accepted_at)


@dataclass(frozen=True, slots=True)
class Entry:
    """One job, or an old revision of one.

    Attributes:
        job: as `jobs --json` prints it.
        name: what names it on a command line: the key, or `BATCH/KEY` where the key stands in several batches.
        revised: whether the key has other revisions, so that a command about it has to say which.
        estimated: its price in credits, None where none is known.
        attempts: its submissions, oldest first.
    """

    job: dict[str, Any]
    name: str
    revised: bool
    estimated: int | None
    attempts: tuple[Attempt, ...]

    def credits(self, money: str) -> int:
        """Credits of its attempts that are `spent`, `reserved` or `at_risk`."""
        return sum(a.credits for a in self.attempts if a.money == money)


@dataclass(frozen=True, slots=True)
class Morning:
    """A batch, read at one moment.

    Attributes:
        batch: its name.
        status: as `status --json` prints it; always of the whole batch.
        entries: the selected jobs, current ones in the manifest's order, then old revisions.
        steps: every transition of the selected jobs, in order of time.
        throttled: when (unix seconds) polls were answered with 429, and how many in that minute; of the whole batch,
            and nothing where jobs were selected.
        workers: the workers that the batch was left to, by host, as `ledger.workers.of_batch` has them.
    """

    batch: str
    status: dict[str, Any]
    entries: tuple[Entry, ...]
    steps: tuple[Step, ...]
    throttled: tuple[tuple[float, int], ...] = ()
    workers: tuple[dict[str, Any], ...] = ()
