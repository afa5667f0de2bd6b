"""Jobs as people and scripts read them: what `jobs` and `show` say. Every function takes a connection whose rows are
`Row`, and changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..core.chain import spoken
from ..core.selection import Selection
from ..core.states import State
from . import media, needs
from .errors import LedgerUnusable
from .naming import JOBS
from .selecting import where
from .sql import Connection, Cursor, Row

if TYPE_CHECKING:
    from ..core.media import Kept

EVERYTHING = Selection()


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
