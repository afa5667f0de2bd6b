"""The workers of a ledger in PostgreSQL, for people and scripts that look on. A ledger in a file has none."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from ..core.states import LEFT
from .sql import Connection

LATELY = 30.0
"""Seconds within which a worker that has not ended has given a sign of life."""

FORGOTTEN = 24 * 3600.0
"""Seconds after which one that died without a word is not listed any more."""

_NOW = "extract(epoch FROM clock_timestamp())::float8"

_WORKERS = f"""
SELECT id, host, pid, part, greatest(0, {_NOW} - beat_at), progress, provider FROM worker
WHERE ended_at IS NULL AND beat_at > {_NOW} - ? ORDER BY host, pid, id
"""

_GIVEN = f"""
SELECT batch.name, given.who, given.at, (SELECT count(*) FROM worker WHERE ended_at IS NULL AND beat_at > {_NOW} - ?)
FROM given JOIN batch ON batch.id = given.batch_id
"""

# What nobody does who is alive: the services of which jobs are left, by batch.
_UNSERVED = """
SELECT batch.name, array_agg(DISTINCT job.provider) FROM job JOIN batch ON batch.id = job.batch_id
WHERE job.batch_id IN (SELECT batch_id FROM given)
AND (job.state = 'pending' AND job.current = 1 OR job.state IN ('running', 'downloading'))
AND job.provider <> ALL(?::text[]) GROUP BY batch.name
"""

_SERVING = f"SELECT provider FROM worker WHERE ended_at IS NULL AND beat_at > {_NOW} - ?"

# What was said of more than whole batches, where it is the last word on a job.
_TERMS = f"""
SELECT batch.name, hand_over.id, who, at, selection, until_at, until_at <= {_NOW}, submissions FROM hand_over
JOIN (SELECT batch_id, hand_over_id FROM given UNION SELECT job.batch_id, handed.hand_over_id FROM handed
      JOIN job ON job.id = handed.job_id) AS on_what ON on_what.hand_over_id = hand_over.id
JOIN batch ON batch.id = on_what.batch_id WHERE narrow ORDER BY hand_over.id
"""

# Those that have sent a job of the batch last, and those that were at work while it was.
_OF_BATCH = f"""
SELECT worker.id, host, pid, part, started_at, ended_at, beat_at, greatest(0, {_NOW} - beat_at), stop, exit_code,
  coalesce(claimed.jobs, 0)
FROM worker JOIN given ON given.batch_id = ?1
LEFT JOIN (SELECT worker_id, count(*) AS jobs FROM claim JOIN job ON job.id = claim.job_id WHERE job.batch_id = ?1
           GROUP BY worker_id) AS claimed ON claimed.worker_id = worker.id
WHERE claimed.jobs > 0 OR (worker.beat_at >= given.at
  AND string_to_array(worker.provider, ' ') && (SELECT array_agg(DISTINCT provider) FROM job WHERE batch_id = ?1)
  AND worker.started_at <= (SELECT max(updated_at) FROM job WHERE batch_id = ?1))
ORDER BY host, worker.id
"""

_SENDER = """
SELECT worker.id, host, pid FROM claim JOIN job ON job.id = claim.job_id AND job.attempt = claim.attempt
JOIN worker ON worker.id = claim.worker_id WHERE claim.job_id = ?
"""


def workers(connection: Connection) -> list[dict[str, Any]]:
    """Workers that have not ended, as `status --json` lists them: host, process, what it does (`all`, `submit`,
    `download`) and of which services, seconds since its last sign of life, whether that is lately, and what it has in
    hand."""
    if not _shared(connection):
        return []
    return [_words(*row) for row in connection.execute(_WORKERS, (FORGOTTEN,)).fetchall()]


def with_workers(connection: Connection, statuses: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What `queries.status` says of batches, and of those that were left to workers: by whom, when (unix seconds), how
    many workers are alive, the services of which jobs are left whose key none of those has (`unserved`), and on what
    terms, where it was not all of it (`terms`: by whom, when, `only`, `tags`, `until`, whether the time is `up`,
    `submissions_left`), under `left_to_workers`."""
    if not _shared(connection):
        return statuses
    unserved, terms = _unserved(connection), _terms(connection)
    given = {
        name: {
            "by": who,
            "at": at,
            "workers": alive,
            "unserved": unserved.get(name, []),
            "terms": terms.get(name, []),
        }
        for name, who, at, alive in connection.execute(_GIVEN, (LATELY,)).fetchall()
    }
    return [{**one, "left_to_workers": given[one["batch"]]} if one["batch"] in given else one for one in statuses]


def _unserved(connection: Connection) -> dict[str, list[str]]:
    serving = {name for row in connection.execute(_SERVING, (LATELY,)).fetchall() for name in row[0].split()}
    rows = connection.execute(_UNSERVED, (sorted(serving),)).fetchall()
    return {row[0]: sorted(row[1]) for row in rows}


def _terms(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    if connection.execute("SELECT to_regclass('hand_over')").fetchone()[0] is None:
        return found
    for name, _, who, at, selection, until, up, left in connection.execute(_TERMS).fetchall():
        chosen = json.loads(selection)
        found.setdefault(name, []).append(
            {
                "by": who,
                "at": at,
                "only": chosen.get("only", []),
                "tags": chosen.get("tags", []),
                "until": until,
                "up": bool(up),
                "submissions_left": left,
            }
        )
    return found


def at_work(status: dict[str, Any]) -> bool:
    """Whether workers are alive who go on with a batch, by what `with_workers` says of it."""
    left = status.get("left_to_workers")
    return bool(left and left["workers"]) and any(status["states"][state] for state in LEFT)


def of_batch(connection: Connection, batch: int) -> list[dict[str, Any]]:
    """The workers of a batch, by host: when each was at work (unix seconds), how it ended, and of how many jobs it has
    sent the last submission."""
    if not _shared(connection):
        return []
    return [
        {
            "worker": number,
            "host": host,
            "pid": pid,
            "part": part,
            "started_at": started,
            "last_seen_at": beat if ended is None else ended,
            "ended": ended is not None,
            "alive": ended is None and silent < LATELY,
            "stop": stop,
            "exit_code": code,
            "jobs": jobs,
        }
        for number, host, pid, part, started, ended, beat, silent, stop, code, jobs in connection.execute(
            _OF_BATCH, (batch,)
        ).fetchall()
    ]


def sender(connection: Connection, job: int) -> dict[str, Any] | None:
    """Who has sent a job's last submission; None where it was no worker."""
    if not _shared(connection):
        return None
    row = connection.execute(_SENDER, (job,)).fetchone()
    return None if row is None else {"worker": row[0], "host": row[1], "pid": row[2]}


def _shared(connection: Connection) -> bool:
    if isinstance(connection, sqlite3.Connection):
        return False
    return connection.execute("SELECT to_regclass('claim')").fetchone()[0] is not None


def _words(number: int, host: str, pid: int, part: str, silent: float, progress: str, provider: str) -> dict[str, Any]:
    found = json.loads(progress)
    return {
        "worker": number,
        "host": host,
        "pid": pid,
        "part": part,
        "providers": provider.split(),
        "alive": silent < LATELY,
        "silent_seconds": round(silent, 1),
        "in_hand": found.get("in_hand", 0),
        "in_flight": found.get("in_flight", 0),
        "stop": found.get("stop"),
    }
