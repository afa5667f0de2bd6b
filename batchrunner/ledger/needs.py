"""Chains in the ledger: what jobs need of others, and what they wait for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.chain import needs
from ..core.places import is_url
from .errors import LedgerUnusable
from .sql import Connection

UNMET = """EXISTS (SELECT 1 FROM need LEFT JOIN job parent ON parent.batch_id = job.batch_id
  AND parent.key = need.parent AND parent.fingerprint = need.fingerprint
  WHERE need.job_id = job.id AND (coalesce(parent.state, '') <> 'succeeded' OR need.problem <> ''))"""
"""Whether a row of `job` waits for what it needs."""

# Texts in a request have their quotes escaped: none looks like a reference.
_NEW = """SELECT id, request FROM job WHERE id > ? AND request LIKE '%{"$output":{"%'"""
_SAVE = "INSERT INTO need (job_id, parent, fingerprint) VALUES (?, ?, ?)"

_PARENT = """
SELECT job.id, job.task_id, job.model, job.file, attempt.ended_at, media.url FROM job
JOIN attempt ON attempt.job_id = job.id AND attempt.number = job.attempt
LEFT JOIN media ON media.job_id = job.id AND media.attempt = job.attempt AND media.number = ?
WHERE job.batch_id = ? AND job.key = ? AND job.fingerprint = ? AND job.state = 'succeeded'
"""

_FRAME = "SELECT file FROM media WHERE job_id = ? AND number = ? AND file IS NOT NULL ORDER BY attempt DESC LIMIT 1"


@dataclass(frozen=True, slots=True)
class Parent:
    """A job whose output another one needs.

    Attributes:
        id: row id.
        task_id, model: of its task.
        file: the output that is meant, on disk; None where there is no such file.
        ended_at: when its task was seen to be complete, unix seconds.
        url: where that output was fetched from; None where it is not known.
    """

    id: int
    task_id: str
    model: str
    file: Path | None
    ended_at: float
    url: str | None


def save(connection: Connection, after: int) -> None:
    """Write what jobs with row ids above `after` need, by their requests, in the transaction that writes them."""
    for job_id, request in connection.execute(_NEW, (after,)).fetchall():
        parents = dict.fromkeys((need.job, need.of) for need in needs(json.loads(request)))
        connection.executemany(_SAVE, [(job_id, *parent) for parent in parents])


def any_in(connection: Connection, batches: Sequence[int]) -> bool:
    """Whether a job of the batches needs another one."""
    marks = ", ".join("?" * len(batches))
    sql = f"SELECT 1 FROM need JOIN job ON job.id = job_id WHERE batch_id IN ({marks}) LIMIT 1"
    return connection.execute(sql, tuple(batches)).fetchone() is not None


def parent(connection: Connection, batch_id: int, key: str, fingerprint: str, number: int) -> Parent | None:
    """A job that has succeeded, by what a reference says of it; None where there is none.

    Args:
        connection: the ledger.
        batch_id: of the child.
        key, fingerprint: of the parent.
        number: which of its files is meant, as `media.number`.
    """
    row = connection.execute(_PARENT, (number, batch_id, key, fingerprint)).fetchone()
    if row is None:
        return None
    job_id, task_id, model, file, ended_at, url = row
    if number != 1:
        frame = connection.execute(_FRAME, (job_id, number)).fetchone()
        file = None if frame is None else frame[0]
    return Parent(job_id, task_id, model, None if file is None or is_url(file) else Path(file), ended_at or 0.0, url)


def hold(connection: Connection, job_id: int, key: str, problem: str) -> None:
    """Note why what a job needs can't be had: it is not due any more.

    Raises:
        LedgerUnusable: the ledger does not know that the job needs it, and would say for ever that it is due.
    """
    sql = "UPDATE need SET problem = ? WHERE job_id = ? AND parent = ?"
    if not connection.execute(sql, (problem, job_id, key)).rowcount:
        raise LedgerUnusable(f"what job {job_id} needs is damaged in the ledger; restore a copy")


def forget(connection: Connection, batches: Sequence[int]) -> None:
    """A new run asks anew for what could not be had."""
    marks = ", ".join("?" * len(batches))
    ours = f"job_id IN (SELECT id FROM job WHERE batch_id IN ({marks}))"
    connection.execute(f"UPDATE need SET problem = '' WHERE problem <> '' AND {ours}", tuple(batches))


# --- For people and scripts ------------------------------------------------------------------------------


NEEDS = """(SELECT json_group_array(need.parent || '|' || CASE WHEN parent.state IS NULL THEN '' ELSE parent.state END
  || '|' || CASE WHEN parent.error_kind IS NULL THEN '' ELSE parent.error_kind END || '|' || need.problem) FROM need
  LEFT JOIN job parent ON parent.batch_id = job.batch_id AND parent.key = need.parent
  AND parent.fingerprint = need.fingerprint WHERE need.job_id = job.id)"""
"""What a row of `job` needs: JSON, for `words`. Only what is last may have any character in it."""


def words(found: str | None, state: str) -> dict[str, Any]:
    """`needs` and `waits_for` of a job as `jobs --json` prints them.

    Args:
        found: see `NEEDS`.
        state: the job's.
    """
    rows = sorted((text.split("|", 3) for text in json.loads(found or "[]")), key=lambda row: row[0])
    waits = [_why(*row) for row in rows if row[1] != "succeeded" or row[3]] if state == "pending" else []
    return {
        "needs": [
            {"job": key, "state": parent or None, "problem": problem or None} for key, parent, _, problem in rows
        ],
        "waits_for": ", ".join(waits) or None,
    }


def _why(key: str, state: str, kind: str, problem: str) -> str:
    if state == "succeeded":
        return f"{key}: {problem}"
    if not state:
        return f"{key}, which is not recorded yet"
    return f"{key}, which is {state}" + (f" ({kind})" if state == "failed" else "")


def stuck(connection: Connection, batches: Sequence[int], which: str = "TRUE", values: Sequence[Any] = ()) -> int:
    """How many current pending jobs of the batches, of those that a condition selects, wait for what they need."""
    marks = ", ".join("?" * len(batches))
    due = f"batch_id IN ({marks}) AND current = 1 AND state = 'pending'"
    sql = f"SELECT count(*) FROM job WHERE {due} AND {which} AND {UNMET}"
    return int(connection.execute(sql, (*batches, *values)).fetchone()[0])
