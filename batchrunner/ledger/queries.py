"""Questions to the ledger that change nothing. Every function takes a connection whose rows are `Row`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ..core.selection import Selection
from ..core.states import LEFT, LIVE, TERMINAL, State
from . import media, needs, pace
from .naming import JOBS
from .selecting import where
from .sql import Connection, Row, has_column

ALIVE_WITHIN = 15.0
"""Seconds since its last heartbeat within which a run that has not ended counts as alive."""

PROGRESS = (
    "eta_seconds",
    "eta_range",
    "per_minute",
    "in_flight",
    "in_flight_limit",
    "submits_per_minute",
    "submits_per_minute_limit",
    "polls_per_minute_limit",
    "hold",
    "paused_by",
)
"""What `status` tells of the progress of a run that is alive."""

NAMED = 3
"""Waiting jobs that the end of a run names."""

_ESTIMATED = "SELECT coalesce(sum(credits), 0) FROM job WHERE batch_id = ? AND current = 1"


def unfinished_models(connection: Connection, batches: Sequence[int]) -> list[str]:
    """The models of the batches' jobs that have not ended, sorted."""
    rows = connection.execute(
        f"SELECT DISTINCT model FROM job WHERE batch_id IN ({', '.join('?' * len(batches))}) "
        f"AND state NOT IN ({', '.join('?' * len(TERMINAL))}) ORDER BY model",
        (*batches, *TERMINAL),
    )
    return [row["model"] for row in rows]


def sinks(connection: Connection, names: Sequence[str]) -> list[tuple[str, str]]:
    """(batch, whom to tell, see `core.notice.kept`) of the named batches; of all that are unfinished where none is
    named. A ledger that is older knows of nobody."""
    if not has_column(connection, "batch", "notify"):
        return []
    condition, values = f"name IN ({', '.join('?' * len(names))})", tuple(names)
    if not names:
        condition = (
            "unrecorded > 0 OR EXISTS (SELECT 1 FROM job WHERE batch_id = batch.id "
            f"AND (current = 1 OR state <> 'pending') AND state NOT IN ({', '.join('?' * len(TERMINAL))}))"
        )
        values = tuple(TERMINAL)
    rows = connection.execute(f"SELECT name, notify FROM batch WHERE {condition} ORDER BY id", values)
    return [(row["name"], row["notify"]) for row in rows]


def unconfirmed_providers(connection: Connection, batches: Sequence[int]) -> list[str]:
    """The providers of the batches' jobs of which nobody knows whether they were accepted, sorted."""
    rows = connection.execute(
        f"SELECT DISTINCT provider FROM job WHERE batch_id IN ({', '.join('?' * len(batches))}) "
        "AND state = 'unconfirmed' ORDER BY provider",
        tuple(batches),
    )
    return [row["provider"] for row in rows]


def unfinished_providers(connection: Connection, batches: Sequence[int]) -> list[str]:
    """The providers that have to be called for the batches' jobs, sorted: something is to be sent, or to come home."""
    rows = connection.execute(
        f"SELECT DISTINCT provider FROM job WHERE batch_id IN ({', '.join('?' * len(batches))}) "
        f"AND state IN ({', '.join('?' * len(LEFT))}) ORDER BY provider",
        (*batches, *LEFT),
    )
    return [row["provider"] for row in rows]


def status(connection: Connection, batch: str, now: float) -> dict[str, Any] | None:
    """The counts of one batch, as `status --json` prints them; None where there is no such batch.

    `states` counts the current jobs. Old revisions and jobs no longer in the manifest stand in `old`, where there are
    any; their money is in `credits` all the same.
    """
    row = connection.execute("SELECT * FROM batch WHERE name = ?", (batch,)).fetchone()
    if row is None:
        return None
    states = dict.fromkeys((s.value for s in State), 0)
    old: dict[str, int] = {}
    for current, state, number in connection.execute(
        "SELECT current, state, count(*) FROM job WHERE batch_id = ? GROUP BY current, state", (row["id"],)
    ):
        (states if current else old)[state] = number
    found: dict[str, Any] = {
        "batch": batch,
        "jobs": sum(states.values()),
        "states": states,
        "credits": {
            "spent": row["spent"],
            "reserved": row["reserved"],
            "at_risk": row["at_risk"],
            "estimated": connection.execute(_ESTIMATED, (row["id"],)).fetchone()[0],
            "max": row["max_credits"],
        },
        "old": old,
        "output_dir": row["output_dir"],
        "media_warnings": media.warned(connection, row["id"]),
        "waiting": needs.stuck(connection, [row["id"]]) if states["pending"] else 0,
        "run": last_run(connection, batch, now),
        "unrecorded": row["unrecorded"] if "unrecorded" in row.keys() else 0,  # noqa: SIM118  a Row iterates over values
        "learned_limits": pace.known(connection, row["provider"]),
    }
    return found


def last_run(connection: Connection, batch: str, now: float) -> dict[str, Any] | None:
    """The newest run that worked on a batch: whether it is alive, its progress and ETA, how it ended."""
    row = connection.execute(
        "SELECT * FROM run WHERE EXISTS (SELECT 1 FROM json_each(batches) WHERE value = ?) ORDER BY id DESC LIMIT 1",
        (batch,),
    ).fetchone()
    if row is None:
        return None
    alive = row["ended_at"] is None and abs(now - row["heartbeat_at"]) < ALIVE_WITHIN
    progress = json.loads(row["progress"]) if alive else {}
    return {
        "alive": alive,
        "pid": row["pid"],
        "host": row["host"],
        "started_at": row["started_at"],
        "ended_at": row["ended_at"],
        "exit_code": row["exit_code"],
        "stop": row["stop"],
        **{key: progress.get(key) for key in PROGRESS},
    }


def selected_states(
    connection: Connection, batches: Sequence[int], selection: Selection
) -> tuple[dict[State, int], dict[State, int]]:
    """Counts by state that the exit code speaks of: the current selected jobs, and old revisions still live."""
    condition, values = where(selection)
    marks = ", ".join("?" * len(batches))
    current = connection.execute(
        f"SELECT state, count(*) FROM job WHERE batch_id IN ({marks}) AND current = 1 AND {condition} GROUP BY state",
        (*batches, *values),
    ).fetchall()
    live = ", ".join(f"'{s.value}'" for s in sorted(LIVE))
    old = connection.execute(
        f"SELECT state, count(*) FROM job WHERE batch_id IN ({marks}) AND current = 0 AND {condition} "
        f"AND state IN ({live}) GROUP BY state",
        (*batches, *values),
    ).fetchall()
    return {State(s): n for s, n in current}, {State(s): n for s, n in old}


def waiting_words(connection: Connection, batches: Sequence[int], selection: Selection) -> str:
    """Which selected jobs wait for what they need, in words; empty where none does."""
    condition, values = where(selection)
    count = needs.stuck(connection, batches, condition, values)
    if not count:
        return ""
    marks = ", ".join("?" * len(batches))
    rows = connection.execute(
        f"{JOBS} WHERE job.batch_id IN ({marks}) AND job.current = 1 AND job.state = 'pending' AND {condition} "
        f"AND {needs.UNMET} ORDER BY job.batch_id, job.position LIMIT {NAMED}",
        (*batches, *values),
    )
    named = [f"{r['key']} waits for {needs.words(r['needs'], r['state'])['waits_for']}" for r in rows]
    more = f"; and {count - NAMED} more" if count > NAMED else ""
    return "; ".join(named) + more


def unsent_outputs(
    connection: Connection, batches: Sequence[int], selection: Selection, after: Row | None, limit: int
) -> list[Row]:
    """Current selected jobs that may be sent, those behind `after` (the last row of the page before): row id, planned
    output, whether it is a full name, model, folder, every task id that its key has had (JSON), and where it stands.

    In the order of an index that has no other jobs: what a page costs does not grow with the pages before it."""
    condition, values = where(selection)
    first, place = (0, (-1, -1, 0)) if after is None else (after["batch_id"], (*[after["position"]] * 2, after["id"]))
    found: list[Row] = []
    for batch in sorted(batch for batch in batches if batch >= first):
        found += connection.execute(
            _UNSENT + f" AND {condition} ORDER BY position, job.id LIMIT ?",
            (batch, *(place if batch == first else (-1, -1, 0)), *values, limit - len(found)),
        ).fetchall()
        if len(found) >= limit:
            break
    return found


_UNSENT = """
SELECT job.id, job.batch_id, job.position, job.output, job.named, job.model, batch.output_dir,
       (SELECT json_group_array(a.task_id) FROM attempt a JOIN job o ON o.id = a.job_id
        WHERE o.batch_id = job.batch_id AND o.key = job.key AND a.task_id IS NOT NULL) AS task_ids
FROM job JOIN batch ON batch.id = batch_id
WHERE batch_id = ? AND current = 1 AND state = 'pending' AND position >= ? AND (position > ? OR job.id > ?)
"""


def output_folders(connection: Connection, limit: int) -> list[str]:
    """Output folders of the batches, newest batch first."""
    sql = "SELECT output_dir FROM batch GROUP BY output_dir ORDER BY max(id) DESC LIMIT ?"
    return [row["output_dir"] for row in connection.execute(sql, (limit,))]


def known_jobs(connection: Connection, batch: str) -> dict[str, list[Row]]:
    """key -> its revisions, oldest first (fingerprint, state, current, provider, request, shot, tags), for the diff
    of `plan`."""
    found: dict[str, list[Row]] = {}
    for row in connection.execute(
        "SELECT job.key, job.fingerprint, job.state, job.current, job.provider, job.request, job.credits, "
        "job.revision, job.shot, job.tags FROM job "
        "JOIN batch ON batch.id = job.batch_id WHERE batch.name = ? ORDER BY job.id",
        (batch,),
    ):
        found.setdefault(row["key"], []).append(row)
    return found


def committed(connection: Connection, batch: str) -> int | None:
    """Credits of a batch that are spent, reserved or at risk; None where there is no such batch."""
    row = connection.execute("SELECT spent + reserved + at_risk FROM batch WHERE name = ?", (batch,)).fetchone()
    return None if row is None else int(row[0])


def tasks_out(connection: Connection, batch: str) -> list[tuple[str, int | None, int]]:
    """(model, seconds asked for, how many) of the batch's tasks that the service works on."""
    rows = connection.execute(
        "SELECT model, seconds, count(*) FROM job WHERE batch_id = (SELECT id FROM batch WHERE name = ?) "
        "AND state IN ('submitting', 'running') GROUP BY model, seconds",
        (batch,),
    ).fetchall()
    return [(model, seconds, count) for model, seconds, count in rows]


def bound_origin(connection: Connection, provider: str) -> str | None:
    """The origin that the ledger belongs to; None where it was never used with one."""
    row = connection.execute("SELECT origin FROM account WHERE provider = ?", (provider,)).fetchone()
    return None if row is None else str(row["origin"])
