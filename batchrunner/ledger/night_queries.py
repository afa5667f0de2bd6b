"""What the report asks the ledger: a batch with every submission and every step of it, at one moment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..core.job import IN_FLIGHT
from ..core.morning import Attempt, Entry, Morning, Step
from ..core.selection import Selection
from . import described, media, queries, runs, workers
from .naming import find_batch
from .selecting import where
from .sql import Connection

_TIMES = """
SELECT h.job_id, h.attempt, h.event, min(h.at) AS at FROM history h JOIN job ON job.id = h.job_id
WHERE job.batch_id = ? AND h.event IN ('accepted', 'completed', 'stored') GROUP BY h.job_id, h.attempt, h.event
"""
_ATTEMPTS = """
SELECT job_id, number, intent_at, answered_at, credits, money, outcome, task_id, request_id FROM attempt
WHERE batch_id = ? ORDER BY job_id, number
"""
_ELSEWHERE = """
SELECT DISTINCT key FROM job WHERE batch_id = ?1 AND EXISTS (
  SELECT 1 FROM job o WHERE o.key = job.key AND o.batch_id <> ?1)
"""

_REVISED = "SELECT key FROM job WHERE batch_id = ? GROUP BY key HAVING count(*) > 1"


def morning(
    connection: Connection,
    batch: str,
    states: Sequence[str],
    selection: Selection,
    now: float,
) -> Morning:
    """The selected jobs of a batch with all that the report says of them, read in one transaction.

    Args:
        connection: a reader; a run may be writing beside it.
        batch: its name.
        states: only jobs in one of these; all where empty.
        selection: only these, old revisions too.
        now: unix seconds, to tell whether a run is alive.

    Raises:
        Unknown: there is no such batch.
    """
    with _one_moment(connection):
        batch_id = find_batch(connection, batch)["id"]
        known = queries.status(connection, batch, now)
        status = workers.with_workers(connection, [known] if known else [])[0]  # find_batch has found it
        elsewhere = {row["key"] for row in connection.execute(_ELSEWHERE, (batch_id,))}
        revised = {row["key"] for row in connection.execute(_REVISED, (batch_id,))}
        attempts = _attempts(connection, batch_id)
        kept = media.reader(connection)
        entries = tuple(
            Entry(
                described.job_dict(row, kept),
                f"{batch}/{row['key']}" if row["key"] in elsewhere else row["key"],
                row["key"] in revised,
                row["credits"],
                tuple(attempts.get(row["id"], ())),
            )
            for row in described.job_rows(connection, batch, states, selection)
        )
        steps = tuple(_steps(connection, batch_id, states, selection))
        throttled = () if states or selection else tuple(runs.throttles(connection, batch))
        return Morning(batch, status, entries, steps, throttled, tuple(workers.of_batch(connection, batch_id)))


@contextmanager
def _one_moment(connection: Connection) -> Iterator[None]:
    """Everything inside is read from one snapshot (sqlite.org/isolation.html)."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")


def _attempts(connection: Connection, batch_id: int) -> dict[int, list[Attempt]]:
    times: dict[tuple[int, int], dict[str, float]] = defaultdict(dict)
    for row in connection.execute(_TIMES, (batch_id,)):
        times[row["job_id"], row["attempt"]][row["event"]] = row["at"]
    found: dict[int, list[Attempt]] = defaultdict(list)
    for row in connection.execute(_ATTEMPTS, (batch_id,)):
        at = times.get((row["job_id"], row["number"]), {})
        found[row["job_id"]].append(
            Attempt(
                number=row["number"],
                sent_at=row["intent_at"],
                answered_at=row["answered_at"],
                accepted_at=at.get("accepted"),
                completed_at=at.get("completed"),
                stored_at=at.get("stored"),
                credits=row["credits"],
                money=row["money"],
                outcome=row["outcome"],
                task_id=row["task_id"],
                request_id=row["request_id"],
            )
        )
    return found


def _steps(connection: Connection, batch_id: int, states: Sequence[str], selection: Selection) -> Iterator[Step]:
    condition, values = where(selection)
    parameters: list[Any] = [batch_id, *values, *states]
    if states:
        condition += f" AND job.state IN ({', '.join('?' * len(states))})"
    for at, event, before, after, who in connection.execute(
        "SELECT h.at, h.event, h.from_state, h.to_state, h.who FROM history h JOIN job ON job.id = h.job_id "
        f"WHERE job.batch_id = ? AND h.from_state IS NOT NULL AND {condition} ORDER BY h.at, h.id",
        parameters,
    ):
        yield Step(at, event, after, (after in IN_FLIGHT) - (before in IN_FLIGHT), bool(who))
