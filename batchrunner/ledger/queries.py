"""Questions to the ledger that change nothing. Every function takes a connection whose rows are `Row`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..core.chain import spoken
from ..core.selection import Selection
from ..core.states import LIVE, TERMINAL, State
from . import media, needs, pace
from .errors import LedgerUnusable
from .naming import JOBS, Unknown, batch_names, find_batch
from .selecting import where
from .sql import Connection, Cursor, Row, has_column

if TYPE_CHECKING:
    from ..core.media import Kept

EVERYTHING = Selection()

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


TO_BE_CALLED = (State.PENDING, State.SUBMITTING, State.RUNNING, State.DOWNLOADING)


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
        f"AND state IN ({', '.join('?' * len(TO_BE_CALLED))}) ORDER BY provider",
        (*batches, *TO_BE_CALLED),
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


def jobs(
    connection: Connection,
    batch: str | None = None,
    states: Sequence[str] = (),
    selection: Selection = EVERYTHING,
    verdicts: Sequence[str] = (),
) -> Iterator[dict[str, Any]]:
    """Jobs as `jobs --json` prints them, old revisions too, in the manifest's order. The verdict `none` is that of a
    job without one."""
    kept = media.reader(connection)
    return (job_dict(row, kept) for row in job_rows(connection, batch, states, selection, verdicts))


def job_rows(
    connection: Connection,
    batch: str | None,
    states: Sequence[str],
    selection: Selection,
    verdicts: Sequence[str] = (),
) -> Cursor:
    """The rows of `job` behind `jobs`, each with what `JOBS` says."""
    condition, values = where(selection)
    parts, parameters = [condition], list(values)
    if batch is not None:
        parts.append("batch.name = ?")
        parameters.append(batch)
    if states:
        parts.append(f"job.state IN ({', '.join('?' * len(states))})")
        parameters += states
    if verdicts:
        newest = "(SELECT verdict FROM verdict WHERE job_id = job.id ORDER BY id DESC LIMIT 1)"
        parts.append(f"coalesce({newest}, 'none') IN ({', '.join('?' * len(verdicts))})")
        parameters += verdicts
    return connection.execute(
        f"{JOBS} WHERE {' AND '.join(parts)} ORDER BY batch.id, job.current DESC, job.position, job.revision",
        parameters,
    )


def job_dict(row: Row, kept: Callable[[int, int], Sequence[Kept]]) -> dict[str, Any]:
    """One job, as scripts read it; `kept` as `media.reader` gives it."""
    done = row["state"] == State.SUCCEEDED.value
    return {
        "job": row["key"],
        "batch": row["batch"],
        "shot": row["shot"],
        "take": row["take"],
        "matrix": _decoded(row, "matrix"),
        "tags": _decoded(row, "tags"),
        "model": row["model"],
        "request": _request(row),
        "state": row["state"],
        "task_id": row["task_id"],
        "attempts": row["attempt"],
        "credits": row["cost"],
        "error": _error(row),
        "output": row["file"],
        "sha256": row["sha256"],
        "bytes": row["bytes"],
        "current": bool(row["current"]),
        "revision": row["revision"],
        "verdict": row["verdict"],
        "promoted_from": None
        if row["profile"] is None
        else {"job": row["source_key"], "revision": row["source_revision"], "profile": row["profile"]},
        **needs.words(row["needs"], row["state"]),
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
        **(media.words(kept(row["id"], row["attempt"]), _file(row)) if done else media.NOTHING),
    }


def _file(row: Row) -> tuple[Any, ...]:
    return row["file"], row["sha256"], row["bytes"]


def _decoded(row: Row, column: str) -> Any:
    try:
        return json.loads(row[column])
    except (ValueError, TypeError) as error:
        raise LedgerUnusable(f"job {row['id']} in the ledger is damaged ({error}); restore a copy") from None


def _request(row: Row) -> Any:
    found = _decoded(row, "request")
    return spoken(found) if isinstance(found, dict) else found


def _error(row: Row) -> dict[str, Any] | None:
    if row["error_kind"] is None:
        return None
    return {
        "kind": row["error_kind"],
        "code": row["error_code"],
        "message": row["error_message"],
        "request_id": row["error_request_id"],
    }


def show(connection: Connection, job_id: int) -> dict[str, Any]:
    """Everything about one job: what `jobs` says, its attempts and its history."""
    from .promotions import lineage  # which knows a job's every fact: `status` need not

    row = connection.execute(f"{JOBS} WHERE job.id = ?", (job_id,)).fetchone()
    found = job_dict(row, media.reader(connection))
    found["fingerprint"] = row["fingerprint"]
    found["planned_output"] = row["output"]
    found["renewals"] = row["renewals"]
    found |= lineage(connection, job_id)
    found["attempt_list"] = [
        _attempt(a) for a in connection.execute("SELECT * FROM attempt WHERE job_id = ? ORDER BY number", (job_id,))
    ]
    found["history"] = [
        {
            "at": h["at"],
            "attempt": h["attempt"],
            "from": h["from_state"],
            "to": h["to_state"],
            "event": h["event"],
            "reason": h["reason"],
            "who": h["who"],
        }
        for h in connection.execute("SELECT * FROM history WHERE job_id = ? ORDER BY id", (job_id,))
    ]
    found["revisions"] = [
        {"revision": r["revision"], "state": r["state"], "current": bool(r["current"])}
        for r in connection.execute(
            "SELECT revision, state, current FROM job WHERE batch_id = ? AND key = ? ORDER BY revision",
            (row["batch_id"], row["key"]),
        )
    ]
    return found


def _attempt(row: Row) -> dict[str, Any]:
    """A submission; `request` is what was sent, where that was not the job's own."""
    found = {k: row[k] for k in row.keys() if k not in {"job_id", "batch_id", "request"}}  # noqa: SIM118  a Row iterates over values
    sent = row["request"] if "request" in row.keys() else None  # noqa: SIM118
    return found if sent is None else {**found, "request": _decoded(row, "request")}


def revision_of(connection: Connection, job_id: int, revision: int) -> int | None:
    """The row id of another revision of a job; None where there is none."""
    row = connection.execute(
        "SELECT o.id FROM job JOIN job o ON o.batch_id = job.batch_id AND o.key = job.key "
        "WHERE job.id = ? AND o.revision = ?",
        (job_id, revision),
    ).fetchone()
    return None if row is None else int(row["id"])


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
    connection: Connection, batches: Sequence[int], selection: Selection, after: int, limit: int
) -> list[Row]:
    """Current selected jobs that may be sent, with row ids above `after`: row id, planned output, whether it is a full
    name, model, folder, and every task id that its key has had (JSON)."""
    condition, values = where(selection)
    marks = ", ".join("?" * len(batches))
    return connection.execute(
        "SELECT job.id, job.output, job.named, job.model, batch.output_dir, "
        "(SELECT json_group_array(a.task_id) FROM attempt a JOIN job o ON o.id = a.job_id "
        " WHERE o.batch_id = job.batch_id AND o.key = job.key AND a.task_id IS NOT NULL) AS task_ids "
        "FROM job JOIN batch ON batch.id = batch_id "
        f"WHERE batch_id IN ({marks}) AND current = 1 AND state = 'pending' AND {condition} AND job.id > ? "
        "ORDER BY job.id LIMIT ?",
        (*batches, *values, after, limit),
    ).fetchall()


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


__all__ = [
    "Unknown",
    "batch_names",
    "bound_origin",
    "committed",
    "find_batch",
    "job_dict",
    "job_rows",
    "jobs",
    "known_jobs",
    "last_run",
    "output_folders",
    "revision_of",
    "selected_states",
    "show",
    "status",
    "tasks_out",
    "unsent_outputs",
]
