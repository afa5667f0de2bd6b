"""That a batch which was left to workers has ended, and who tells of it: one of them, whoever it was that ended it."""

from __future__ import annotations

from dataclasses import dataclass

from ..needs import UNMET
from ..runs import forget_latencies
from ..sql import Connection
from .doubts import OF_GIVEN
from .peers import AFFORDABLE, NOW
from .terms import OPEN

_ENDED = f"""
FROM given JOIN batch ON batch.id = given.batch_id
WHERE NOT EXISTS (SELECT 1 FROM job WHERE job.batch_id = given.batch_id
  AND state IN ('submitting', 'unconfirmed', 'running', 'downloading') AND state <> 'unconfirmed')
AND NOT {OF_GIVEN}
AND NOT EXISTS (SELECT 1 FROM job WHERE job.batch_id = given.batch_id AND job.current = 1 AND job.state = 'pending'
  AND NOT {UNMET} AND {OPEN} AND {AFFORDABLE})
"""

_CLAIM = f"""
INSERT INTO ending (batch_id, submissions, at, worker_id)
SELECT given.batch_id, (SELECT count(*) FROM attempt WHERE attempt.batch_id = given.batch_id), {NOW}, ?1
{_ENDED} AND given.batch_id = ?2
ON CONFLICT (batch_id, submissions) DO UPDATE SET worker_id = excluded.worker_id
WHERE ending.told_at IS NULL AND (ending.worker_id = ?1 OR EXISTS (SELECT 1 FROM worker
  WHERE worker.id = ending.worker_id AND (worker.ended_at IS NOT NULL OR worker.beat_at < {NOW} - ?3)))
RETURNING submissions, (SELECT identity::text FROM ledger) AS ledger
"""


@dataclass(frozen=True, slots=True)
class Ending:
    """An end of a batch.

    Attributes:
        batch: its row id.
        submissions: how many there had been; with the batch, what this end is known by.
        ledger: the ledger's own name.
    """

    batch: int
    submissions: int
    ledger: str


def ended(connection: Connection) -> set[int]:
    """The batches left to workers of which nothing is under way, nothing can be sent, and no service is to be asked:
    all has ended, waits for another job's output, for money, or for a person, or was left to them on other terms."""
    return {row[0] for row in connection.execute(f"SELECT given.batch_id {_ENDED}").fetchall()}


def claim_end(connection: Connection, batch: int, worker: int, within: float) -> Ending | None:
    """Be the one who tells of a batch's end.

    Args:
        connection: in everybody's turn.
        batch: its row id.
        worker: who asks.
        within: seconds without a sign of life after which one that has not told is taken for dead.

    Returns:
        None where the batch goes on, or another one tells, or has told.
    """
    row = connection.execute(_CLAIM, (worker, batch, within)).fetchone()
    return None if row is None else Ending(batch, int(row[0]), str(row[1]))


def was_told(connection: Connection, batch: int) -> bool:
    """Whether a batch's latest end was told."""
    row = connection.execute(
        "SELECT told_at IS NOT NULL FROM ending WHERE batch_id = ? ORDER BY submissions DESC LIMIT 1", (batch,)
    ).fetchone()
    return row is not None and bool(row[0])


def told(connection: Connection, ending: Ending) -> None:
    """It was told; nobody tells again. And what the end of a run does besides: old latencies are forgotten."""
    connection.execute(
        f"UPDATE ending SET told_at = {NOW} WHERE batch_id = ? AND submissions = ?", (ending.batch, ending.submissions)
    )
    forget_latencies(connection)
