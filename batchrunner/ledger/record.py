"""Recording a manifest: the jobs it asks for against the jobs that are known, in one transaction."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from ..core.job import JobSpec, RetryBudget, State
from ..core.keys import canonical_json
from . import needs
from .errors import LedgerError
from .sql import Connection, Row, has_grown


@dataclass(frozen=True, slots=True)
class BatchSpec:
    """What a manifest says of its batch as a whole. `max_credits` is the cap in force, None for none; `notify` whom to
    tell, see `core.notice.kept`."""

    name: str
    provider: str
    manifest: str
    profile: str | None
    output_dir: str
    max_credits: int | None
    submits_per_minute: float
    in_flight: int
    retry: RetryBudget
    notify: str = "[]"
    limits: str = "{}"
    """See `core.limits.Limits.packed`."""


class OutputClash(LedgerError):
    """Two batches of the ledger would write one file."""


_UPSERT_BATCH = """
INSERT INTO batch (name, provider, manifest, profile, output_dir, max_credits, submits_per_minute, in_flight,
                   retry_provider, retry_moderated, notify, limits, created_at, updated_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET
  provider = excluded.provider, manifest = excluded.manifest, profile = excluded.profile,
  output_dir = excluded.output_dir, max_credits = excluded.max_credits,
  submits_per_minute = excluded.submits_per_minute, in_flight = excluded.in_flight,
  retry_provider = excluded.retry_provider, retry_moderated = excluded.retry_moderated, notify = excluded.notify,
  limits = excluded.limits,
  unrecorded = 0, updated_at = excluded.updated_at
RETURNING id
"""

_INCOMING = """
CREATE TEMP TABLE incoming (
  position INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, fingerprint TEXT NOT NULL, shot TEXT NOT NULL,
  take INTEGER NOT NULL, matrix TEXT NOT NULL, tags TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL,
  request TEXT NOT NULL, seconds INTEGER, credits INTEGER, output TEXT NOT NULL, named INTEGER NOT NULL)
"""

# What the manifest asked for when it was last recorded, in its order. It has no say in what was promoted.
_PRESENT = """
SELECT id, position, key, fingerprint, tags, credits, output, named, state FROM job
WHERE batch_id = ? AND current = 1 AND id NOT IN (SELECT job_id FROM promotion) ORDER BY position
"""

# A job that the manifest no longer asks for, or asks for differently.
_RETIRE = """
UPDATE job SET current = 0 WHERE id = ? AND NOT EXISTS (
  SELECT 1 FROM incoming i WHERE i.key = job.key AND i.fingerprint = job.fingerprint)
"""

# Known jobs that are asked for (again). What a job asks for never changes; where it stands may (see `_unchanged`).
_REFRESH = """
UPDATE job SET current = 1, position = i.position, tags = i.tags, credits = i.credits,
  output = CASE WHEN job.state IN ('pending', 'failed') THEN i.output ELSE job.output END,
  named  = CASE WHEN job.state IN ('pending', 'failed') THEN i.named  ELSE job.named  END
FROM incoming i
WHERE job.batch_id = ? AND job.key = i.key AND job.fingerprint = i.fingerprint AND (
  job.current = 0 OR job.position <> i.position OR job.tags <> i.tags
  OR coalesce(job.credits, -1) <> coalesce(i.credits, -1)
  OR (job.state IN ('pending', 'failed') AND (job.output <> i.output OR job.named <> i.named)))
"""

_INSERT_NEW = """
INSERT INTO job (batch_id, key, revision, fingerprint, position, shot, take, matrix, tags, provider, model, request,
                 seconds, credits, output, named, created_at, updated_at)
SELECT ?1, i.key, 1 + coalesce((SELECT max(revision) FROM job o WHERE o.batch_id = ?1 AND o.key = i.key), 0),
       i.fingerprint, i.position, i.shot, i.take, i.matrix, i.tags, i.provider, i.model, i.request, i.seconds,
       i.credits, i.output, i.named, ?2, ?2
FROM incoming i
WHERE NOT EXISTS (SELECT 1 FROM job o WHERE o.batch_id = ?1 AND o.key = i.key AND o.fingerprint = i.fingerprint)
ORDER BY i.position
"""

# `+`: by row id, so that what it takes grows with the jobs that are new and not with the batch.
_BORN = """
INSERT INTO history (job_id, at, attempt, from_state, to_state, event, reason)
SELECT id, ?2, 0, NULL, 'pending', 'recorded', 'revision ' || revision FROM job WHERE +batch_id = ?1 AND id > ?3
"""

# Jobs yet to be sent whose file another job has, or may still get.
_CLASHES = """
SELECT j.id, j.output, j.named, o.batch_id, ob.name FROM job j
JOIN batch b ON b.id = j.batch_id
JOIN job o ON o.output = j.output AND o.id <> j.id
JOIN batch ob ON ob.id = o.batch_id AND ob.output_dir = b.output_dir
WHERE j.batch_id = ? AND j.current = 1 AND j.state IN ('pending', 'failed')
  AND (o.state IN ('submitting', 'unconfirmed', 'running', 'downloading', 'succeeded')
       OR (o.batch_id <> j.batch_id AND o.current = 1 AND o.state <> 'cancelled')
       OR EXISTS (SELECT 1 FROM promotion WHERE job_id = o.id))
ORDER BY j.id, o.batch_id = j.batch_id
"""

_APPEND = """
INSERT INTO job (batch_id, position, key, fingerprint, shot, take, matrix, tags, provider, model, request, seconds,
                 credits, output, named, revision, created_at, updated_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?)
"""

# A name that any batch has planned in the same folder.
_TAKEN = """
SELECT 1 FROM job JOIN batch ON batch.id = job.batch_id
WHERE job.output = ? AND batch.output_dir = (SELECT output_dir FROM batch WHERE id = ?)
"""


def record(connection: Connection, batch: BatchSpec, jobs: Iterable[JobSpec], now: float) -> int:
    """Write a manifest into the ledger, inside the caller's transaction.

    Same key and fingerprint: the same job. Same key, new fingerprint: a new revision; the old one keeps its history
    and cost and is followed to its end if it was sent. Repeating it changes nothing.

    Returns:
        the batch's row id.

    Raises:
        OutputClash: another batch of this ledger writes one of the files.
    """
    batch_id = _upsert(connection, batch, now)
    connection.execute("DROP TABLE IF EXISTS incoming")
    connection.execute(_INCOMING)
    marks = ", ".join("?" * 14)
    others: list[int] = []
    asked = _changed(jobs, connection.execute(_PRESENT, (batch_id,)), others)
    connection.executemany(f"INSERT INTO incoming VALUES ({marks})", asked)
    has_grown(connection, "incoming")
    newest = connection.execute("SELECT coalesce(max(id), 0) FROM job").fetchone()[0]
    connection.executemany(_RETIRE, [(job_id,) for job_id in others])
    connection.execute(_REFRESH, (batch_id,))
    connection.execute(_INSERT_NEW, (batch_id, now))
    connection.execute(_BORN, (batch_id, now, newest))
    needs.save(connection, newest)
    _separate_outputs(connection, batch_id)
    connection.execute("DROP TABLE incoming")
    return batch_id


def streams(connection: Connection, batch: BatchSpec) -> bool:
    """Whether a batch may be recorded in parts: nothing in the ledger can contradict it, as it is new, and no other
    batch writes into its folder."""
    sql = "SELECT 1 FROM batch WHERE name = ? OR output_dir = ?"
    return connection.execute(sql, (batch.name, batch.output_dir)).fetchone() is None


def begin(connection: Connection, batch: BatchSpec, first: Iterable[JobSpec], left: int, now: float) -> int:
    """Write the first jobs of a batch that `streams`, and how many are left for `append`, inside the caller's
    transaction. Returns the batch's row id."""
    batch_id = record(connection, batch, first, now)
    connection.execute("UPDATE batch SET unrecorded = ? WHERE id = ?", (left, batch_id))
    return batch_id


def append(connection: Connection, batch_id: int, jobs: Sequence[JobSpec], position: int, now: float) -> None:
    """Write the next jobs of a batch that was begun, inside the caller's transaction.

    Args:
        connection: the writing one.
        batch_id: what `begin` returned.
        jobs: the next in the manifest's order.
        position: how many stand before them.
        now: unix seconds.
    """
    newest = connection.execute("SELECT coalesce(max(id), 0) FROM job").fetchone()[0]
    rows = [(batch_id, *row, now, now) for row in _incoming_rows(jobs, position)]
    connection.executemany(_APPEND, rows)
    connection.execute(_BORN, (batch_id, now, newest))
    needs.save(connection, newest)
    connection.execute("UPDATE batch SET unrecorded = unrecorded - ? WHERE id = ?", (len(rows), batch_id))


def _upsert(connection: Connection, batch: BatchSpec, now: float) -> int:
    row = connection.execute(
        _UPSERT_BATCH,
        (
            batch.name,
            batch.provider,
            batch.manifest,
            batch.profile,
            batch.output_dir,
            batch.max_credits,
            batch.submits_per_minute,
            batch.in_flight,
            batch.retry.provider,
            batch.retry.moderated,
            batch.notify,
            batch.limits,
            now,
            now,
        ),
    ).fetchone()
    return int(row[0])


_MOVABLE = frozenset({State.PENDING.value, State.FAILED.value})
"""States in which a job's file may still get another name; as in `_REFRESH`."""


@functools.lru_cache(maxsize=4096)
def _tags(tags: tuple[str, ...]) -> str:
    """Nearly every shot has the tags of many others."""
    return json.dumps(tags, ensure_ascii=False)


def _incoming_rows(jobs: Iterable[JobSpec], first: int = 0) -> Iterator[tuple[object, ...]]:
    return (_incoming(position, job) for position, job in enumerate(jobs, first))


def _incoming(position: int, job: JobSpec) -> tuple[object, ...]:
    return (
        position,
        job.key,
        job.fingerprint,
        job.shot,
        job.take,
        json.dumps(job.matrix, ensure_ascii=False) if job.matrix else "{}",
        _tags(job.tags),
        job.provider,
        job.model,
        canonical_json(job.request).decode(),
        job.seconds,
        job.credits,
        job.output,
        int(job.named),
    )


def _changed(jobs: Iterable[JobSpec], present: Iterable[Row], others: list[int]) -> Iterator[tuple[object, ...]]:
    """The rows of the jobs that are not in the ledger already, each in its place and with all that may change.

    A manifest that is run again asks for nearly the same: its jobs and those of the ledger are walked side by side, and
    none is held.

    Args:
        jobs: what the manifest asks for.
        present: `_PRESENT`.
        others: receives the row ids of `present` that no job was found unchanged by.
    """
    rows = iter(present)
    row = next(rows, None)
    for position, job in enumerate(jobs):
        while row is not None and row[1] < position:
            others.append(row[0])
            row = next(rows, None)
        if row is not None and _unchanged(row, position, job):
            row = next(rows, None)
        else:
            yield _incoming(position, job)
    if row is not None:
        others.append(row[0])
    others += [row[0] for row in rows]


def _unchanged(row: Row, position: int, job: JobSpec) -> bool:
    """Whether a row of `_PRESENT` is the job, and nothing of it would be written: neither `_REFRESH` nor any other
    statement of `record` would touch it. What is not compared is covered by the fingerprint, or by the key."""
    _, at, key, fingerprint, tags, credits_, output, named, state = row
    return (
        fingerprint == job.fingerprint
        and key == job.key
        and at == position
        and tags == _tags(job.tags)
        and credits_ == job.credits
        and (state not in _MOVABLE or (output == job.output and named == job.named))
    )


def _separate_outputs(connection: Connection, batch_id: int) -> None:
    """Give a new revision a file name of its own (`name.r2.mp4`) where an older one has, or may get, the plain name:
    a finished file is never overwritten."""
    moved: set[int] = set()
    for job_id, output, named, other_batch, other_name in connection.execute(_CLASHES, (batch_id,)).fetchall():
        if other_batch != batch_id:
            raise OutputClash(
                f"batch {other_name} of this ledger writes {output} into the same folder; "
                "change output.dir or output.name of one of them"
            )
        if job_id not in moved:
            moved.add(job_id)
            name = free_name(connection, batch_id, output, bool(named))
            connection.execute("UPDATE job SET output = ? WHERE id = ?", (name, job_id))


def taken(connection: Connection, batch_id: int, output: str) -> bool:
    """Whether any job of any batch has planned a file of that name in the batch's folder."""
    return connection.execute(_TAKEN, (output, batch_id)).fetchone() is not None


def free_name(connection: Connection, batch_id: int, output: str, named: bool) -> str:
    """The first of `name.r2.mp4`, `name.r3.mp4`, ... that is not taken."""
    path = PurePosixPath(output)
    stem, suffix = (str(path.with_suffix("")), path.suffix) if named else (output, "")
    number = 2
    while True:
        name = f"{stem}.r{number}{suffix}"
        if not taken(connection, batch_id, name):
            return name
        number += 1
