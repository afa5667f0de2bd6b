"""What the names on a command line mean: BATCH, JOB, BATCH/KEY, and globs of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .needs import NEEDS
from .sql import Connection, Row

JOBS = f"""
SELECT job.*, batch.name AS batch,
  (SELECT coalesce(sum(credits), 0) FROM attempt WHERE job_id = job.id AND money <> 'none') AS cost,
  (SELECT verdict FROM verdict WHERE job_id = job.id ORDER BY id DESC LIMIT 1) AS verdict,
  {NEEDS} AS needs, promotion.profile, source.key AS source_key, source.revision AS source_revision
FROM job JOIN batch ON batch.id = job.batch_id
LEFT JOIN promotion ON promotion.job_id = job.id LEFT JOIN job AS source ON source.id = promotion.from_job
"""
"""`job` with its batch's name, what it has cost so far, its verdict, what it needs and where it was promoted from: the
beginning of a statement."""


def batch_names(connection: Connection) -> list[str]:
    """Every batch, oldest first."""
    return [row["name"] for row in connection.execute("SELECT name FROM batch ORDER BY id")]


class Unknown(Exception):
    """No job or batch of that name. The message says what is there."""


def find_jobs(connection: Connection, name: str, *, any_revision: bool = False) -> list[Row]:
    """The rows of `job` that a JOB on a command line names: a key, `BATCH/KEY`, or a glob of either.

    A plain key names the current revision, or the newest where none is current; a glob names current jobs only, unless
    `any_revision`.

    Raises:
        Unknown: nothing matches, or a plain key stands in several batches.
    """
    batch, _, key = name.rpartition("/")
    pattern = is_glob(name)
    condition = "glob(?, job.key)" if pattern else "job.key = ?"
    values: list[Any] = [key]
    if batch:
        condition += " AND glob(?, batch.name)" if pattern else " AND batch.name = ?"
        values.append(batch)
    if pattern and not any_revision:
        condition += " AND job.current = 1"
    order = "batch.id, job.position, job.revision" if pattern else "job.current DESC, job.revision DESC"
    rows = connection.execute(f"{JOBS} WHERE {condition} ORDER BY {order}", values).fetchall()
    if not rows:
        raise Unknown(f"no job {name}" + _near_job(connection, key))
    if pattern:
        return rows
    if len({row["batch_id"] for row in rows}) > 1:
        places = ", ".join(dict.fromkeys(f"{row['batch']}/{key}" for row in rows))
        raise Unknown(f"{key} stands in several batches; say which: {places}")
    return rows[:1]


@dataclass(frozen=True, slots=True)
class Named:
    """What a BATCH or JOB on a command line means: rows of `job` (with `batch`, its name), and whether the name was one
    job's exact key."""

    rows: list[Row]
    exact: bool


def find_named(connection: Connection, name: str) -> Named:
    """The current jobs of a batch, or what `find_jobs` finds.

    Raises:
        Unknown: there is neither a batch nor a job of that name, or there are both.
    """
    batch = connection.execute("SELECT id FROM batch WHERE name = ?", (name,)).fetchone()
    if batch is None:
        try:
            rows = find_jobs(connection, name)
        except Unknown as unknown:
            near = _near_batch(connection, name)
            raise Unknown(f"no batch and {unknown}" if not near else f"no batch or job {name}{near}") from None
        return Named(rows, exact=not is_glob(name))
    if connection.execute("SELECT 1 FROM job WHERE key = ?", (name,)).fetchone() is not None:
        raise Unknown(f"{name} is both a batch and a job; write '{name}/*' for the batch, or BATCH/{name} for the job")
    rows = connection.execute(
        "SELECT job.id, job.batch_id, job.key, job.revision, job.current, job.state, job.attempt, "
        "job.error_kind, job.credits, job.provider, job.model, job.task_id, batch.name AS batch "
        "FROM job JOIN batch ON batch.id = job.batch_id "
        "WHERE batch.id = ? AND job.current = 1 ORDER BY job.position",
        (batch["id"],),
    ).fetchall()
    return Named(rows, exact=False)


def is_glob(name: str) -> bool:
    """Whether a name on a command line is a pattern."""
    return any(c in name for c in "*?[")


def find_unconfirmed(connection: Connection, name: str, revision: int | None = None) -> list[Row]:
    """The unconfirmed jobs that a JOB on a command line names, old revisions too: one for a key, any number for a glob.

    Raises:
        Unknown: nothing matches, nothing of it is unconfirmed, or several revisions of a plain key are.
    """
    batch, _, key = name.rpartition("/")
    pattern = is_glob(name)
    condition, parameters = "glob(?, job.key)" if pattern else "job.key = ?", [key]
    if batch:
        condition += " AND glob(?, batch.name)" if pattern else " AND batch.name = ?"
        parameters.append(batch)
    rows = [
        row
        for row in connection.execute(
            f"{JOBS} WHERE {condition} AND job.state = 'unconfirmed' ORDER BY batch.id, job.position, job.revision",
            parameters,
        )
        if revision is None or row["revision"] == revision
    ]
    if not rows:
        found = find_jobs(connection, name, any_revision=True)
        state = f"is {found[0]['state']}, not unconfirmed" if not pattern else "names no unconfirmed job"
        raise Unknown(f"{name} {state}; `batchrunner jobs --state unconfirmed` lists the ones that are")
    if len(rows) > 1 and not pattern:
        if len({row["batch_id"] for row in rows}) > 1:
            places = ", ".join(dict.fromkeys(f"{row['batch']}/{key}" for row in rows))
            raise Unknown(f"{key} stands in several batches; say which: {places}")
        revisions = ", ".join(str(row["revision"]) for row in rows)
        raise Unknown(f"{name} has {len(rows)} unconfirmed revisions; say which with --revision: {revisions}")
    return rows


def _near_batch(connection: Connection, name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, batch_names(connection), 1)
    return f"; did you mean the batch {near[0]}?" if near else ""


def _near_job(connection: Connection, key: str) -> str:
    import difflib

    keys = [row["key"] for row in connection.execute("SELECT DISTINCT key FROM job ORDER BY key LIMIT 20000")]
    near = difflib.get_close_matches(key, keys, 1)
    return f"; did you mean {near[0]}?" if near else "; `batchrunner jobs` lists them"


def find_batch(connection: Connection, name: str) -> Row:
    """The row of a batch.

    Raises:
        Unknown: there is none of that name.
    """
    import difflib

    row = connection.execute("SELECT * FROM batch WHERE name = ?", (name,)).fetchone()
    if row is None:
        names = batch_names(connection)
        near = difflib.get_close_matches(name, names, 1)
        hint = f"; did you mean {near[0]}?" if near else f"; there are: {', '.join(names[:10])}" if names else ""
        raise Unknown(f"no batch {name}{hint}")
    found: Row = row
    return found
