"""The names of the states and of the ways to fail. Apart from `job`, so that a reader (`status`) need not build the
facts, which takes longer than its answer."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """The state of a job as users read it (`status`, `jobs --json`)."""

    PENDING = "pending"
    """Recorded; nothing sent, or the provider proved that it accepted nothing."""
    SUBMITTING = "submitting"
    """The intent to POST is durable; the POST may be on the wire."""
    UNCONFIRMED = "unconfirmed"
    """A POST may have been accepted and its answer was not read. Never sent again without a person's word."""
    RUNNING = "running"
    """The provider's task id is durable."""
    DOWNLOADING = "downloading"
    """The provider is done; the output is not yet safe on disk."""
    SUCCEEDED = "succeeded"
    """The output is complete under its final name, its hash recorded."""
    FAILED = "failed"
    """Ended without output; the failure kind says why."""
    CANCELLED = "cancelled"
    """The user withdrew it before it was sent."""


TERMINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})
"""States that a run never leaves by itself."""

IN_FLIGHT = frozenset({State.SUBMITTING, State.RUNNING})
"""States that hold one of the provider's slots (the manifest's `limits.in_flight`)."""

LEFT = (State.PENDING, State.SUBMITTING, State.RUNNING, State.DOWNLOADING)
"""States that a run, or workers, go on from by themselves: something is to be sent, or to come home."""

LIVE = frozenset({State.SUBMITTING, State.UNCONFIRMED, State.RUNNING, State.DOWNLOADING})
"""States in which money may have been committed and the end is not known yet."""


class FailureKind(StrEnum):
    """Why a job failed (`error.kind`)."""

    REJECTED = "rejected"
    """The provider refused the request itself; nothing was created, nothing charged."""
    MODERATED = "moderated"
    """The provider's content policy refused it; refunded. Never the same prompt again by itself."""
    PROVIDER = "provider"
    """The task failed at the provider; refunded."""
    LOST = "lost"
    """The provider has not known the task for 15 minutes. It may have been charged."""
    EXPIRED = "expired"
    """The task completed, but its output could not be fetched. It was charged."""
    ABANDONED = "abandoned"
    """A person gave up an unconfirmed submission. It may have been charged."""


PAID_FAILURES = frozenset({FailureKind.LOST, FailureKind.EXPIRED, FailureKind.ABANDONED})
"""Failures whose submission was, or may have been, charged: a new one is a second payment."""
