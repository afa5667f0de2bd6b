"""Unconfirmed submissions whose service can be asked: a question is opened with the doubt, in the same transaction, or
when its batch is left to workers again; one of them asks, and closes it with what the service said."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.selection import Selection
from .. import asking
from ..selecting import where
from ..sql import Connection

_JOINED = "FROM question JOIN job ON job.id = question.job_id"

# The attempt is the one in doubt: what was settled since is no question any more.
_STANDS = "question.open AND question.attempt = job.attempt AND job.state = 'unconfirmed'"

OPEN = f"EXISTS (SELECT 1 FROM question WHERE question.job_id = job.id AND {_STANDS})"
"""Whether a service is to be asked for a `job`, as SQL."""

OF_GIVEN = f"EXISTS (SELECT 1 {_JOINED} WHERE job.batch_id = given.batch_id AND {_STANDS})"
"""Whether one is for any job of a batch of `given`."""

_ASK = """
INSERT INTO question (job_id, attempt, open, consent)
SELECT job.id, job.attempt, true, {consent} FROM job WHERE job.provider IN (SELECT provider FROM askable)
AND job.state = 'unconfirmed' AND {which}
ON CONFLICT (job_id) DO UPDATE SET attempt = excluded.attempt, open = true, consent = coalesce(excluded.consent,
  CASE WHEN question.open AND question.attempt = excluded.attempt THEN question.consent END)
"""

_DOUBTED = _ASK.format(consent="NULL", which="job.id = ?")

CARRIED = """EXISTS (SELECT 1 FROM procrastinate_jobs p
  WHERE p.queueing_lock = 'job ' || job.id AND p.status IN ('todo', 'doing'))"""
"""Whether a job of the engine carries a `job`, as SQL."""

UNCARRIED = f"{_JOINED} WHERE {_STANDS} AND job.batch_id IN (SELECT batch_id FROM given) AND NOT {CARRIED}"
"""Those that none carries."""


def askable(connection: Connection, providers: Sequence[str]) -> None:
    """These services can be asked."""
    for name in providers:
        connection.execute("INSERT INTO askable (provider) VALUES (?) ON CONFLICT DO NOTHING", (name,))


def doubted(connection: Connection, job_id: int) -> None:
    """A job has become unconfirmed in this transaction: its question is opened, where the service can be asked."""
    connection.execute(_DOUBTED, (job_id,))


def ask_again(connection: Connection, batches: Sequence[int], selection: Selection, consent: str | None) -> None:
    """Ask for every doubt of batches (anew, where it was asked for already).

    Args:
        connection: in everybody's turn.
        batches: row ids.
        selection: the jobs that `consent` speaks of.
        consent: who has said that they may be sent again, once the service has said that it knows nothing of them.
    """
    connection.execute(_ASK.format(consent="NULL", which="job.batch_id = ANY(?)"), (list(batches),))
    if consent is not None:
        condition, values = where(selection)
        which = f"job.batch_id = ANY(?) AND job.current = 1 AND {condition}"
        connection.execute(_ASK.format(consent="?::text", which=which), (consent, list(batches), *values))


def question(connection: Connection, job_id: int) -> str | None:
    """Who has consented to another submission, empty for nobody, of a job whose service is to be asked; None where it
    is not to be."""
    sql = f"SELECT coalesce(consent, '') {_JOINED} WHERE job.id = ? AND {_STANDS}"
    row = connection.execute(sql, (job_id,)).fetchone()
    return None if row is None else str(row[0])


def closed(connection: Connection, job_id: int, attempt: int, now: float, said: str, who: str) -> None:
    """A service was asked, and what it said settles nothing: a person's word is needed."""
    asking.note(connection, job_id, attempt, now, said, who)
    connection.execute("UPDATE question SET open = false WHERE job_id = ? AND attempt = ?", (job_id, attempt))


def any_open(connection: Connection, batches: Sequence[int]) -> bool:
    """Whether a service is to be asked for a job of the batches."""
    sql = f"SELECT 1 {_JOINED} WHERE job.batch_id = ANY(?) AND {_STANDS} LIMIT 1"
    return connection.execute(sql, (list(batches),)).fetchone() is not None
