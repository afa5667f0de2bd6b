"""What it takes to ask a service for an unconfirmed submission, and what it said."""

from __future__ import annotations

from ..core.keys import submission_token
from .sql import Connection

_KNOWN = (
    "SELECT b.name AS batch, b.created_at AS begun, j.key, j.fingerprint, j.created_at AS added "
    "FROM job j JOIN batch b ON b.id = j.batch_id WHERE j.id = ?"
)
"""Batch, key and fingerprint are unique in a ledger; the two times tell ledgers apart. None of it ever changes."""

_DOUBTED = "SELECT 1 FROM job WHERE id = ? AND attempt = ? AND state = 'unconfirmed'"
_NOTE = (
    "INSERT INTO history (job_id, at, attempt, from_state, to_state, event, reason, who) "
    "VALUES (?, ?, ?, 'unconfirmed', 'unconfirmed', 'lookup', ?, ?)"
)


def token(connection: Connection, job_id: int, attempt: int) -> str:
    """The name of a job's n-th submission; see `submission_token`. It is durable before it is sent."""
    return submission_token(*connection.execute(_KNOWN, (job_id,)).fetchone(), attempt)


def note(connection: Connection, job_id: int, attempt: int, now: float, said: str, who: str) -> None:
    """Write into the history of a job that is still unconfirmed what the service said of it."""
    if connection.execute(_DOUBTED, (job_id, attempt)).fetchone() is not None:
        connection.execute(_NOTE, (job_id, now, attempt, said, who))
