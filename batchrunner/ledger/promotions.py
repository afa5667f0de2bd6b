"""Verdicts, and the jobs that `promote` asks for: what `record` is to a manifest, in one transaction each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.job import JobSpec, RetryBudget
from ..core.keys import canonical_json
from ..core.promotion import Verdict, Winner
from . import needs
from .record import free_name, taken
from .sql import Connection

_NEWEST = "(SELECT verdict FROM verdict WHERE job_id = job.id ORDER BY id DESC LIMIT 1)"

_WINNERS = f"""
SELECT job.* FROM job
WHERE job.batch_id = ? AND job.state = 'succeeded' AND {_NEWEST} = 'approved'
  AND NOT EXISTS (SELECT 1 FROM promotion WHERE promotion.job_id = job.id)
  AND job.id = (SELECT o.id FROM job o WHERE o.batch_id = job.batch_id AND o.key = job.key
                ORDER BY o.current DESC, o.revision DESC LIMIT 1)
ORDER BY job.position, job.id
"""

# What else a batch is (its folder, its profile, whether all of it was recorded) is for `record` to say.
_BOUNDS = """
UPDATE batch SET max_credits = ?, submits_per_minute = ?, in_flight = ?, retry_provider = ?, retry_moderated = ?,
  limits = ?, updated_at = ? WHERE name = ? RETURNING id
"""

_INSERT = """
INSERT INTO job (batch_id, key, revision, fingerprint, position, shot, take, matrix, tags, provider, model, request,
                 seconds, credits, output, named, created_at, updated_at)
SELECT ?1, ?2, 1 + coalesce((SELECT max(revision) FROM job WHERE batch_id = ?1 AND key = ?2), 0), ?3,
       1 + coalesce((SELECT max(position) FROM job WHERE batch_id = ?1), -1), ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12,
       ?13, ?14, ?15, ?15
RETURNING id, revision
"""

_BORN = (
    "INSERT INTO history (job_id, at, attempt, from_state, to_state, event, reason, who) "
    "VALUES (?, ?, 0, NULL, 'pending', 'recorded', ?, ?)"
)

_NOT_SENT = "current = 1 AND state = 'pending' AND id IN (SELECT job_id FROM promotion WHERE {})"
"""Promotions that no longer count, and were not sent: nobody asks for them any more."""


_KEY = "SELECT o.id FROM job o JOIN job j ON o.batch_id = j.batch_id AND o.key = j.key WHERE j.id = ?"
"""Every revision of a job's key."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict to be recorded, on jobs by row id."""

    jobs: Sequence[int]
    verdict: Verdict
    note: str
    who: str


def judge(connection: Connection, judgement: Judgement, now: float) -> None:
    """Record a verdict; the same one again, without a new note, changes nothing. What was promoted from a rejected job,
    in any revision of it, and not sent yet will not be sent."""
    for job_id in judgement.jobs:
        last = connection.execute(
            "SELECT verdict, note FROM verdict WHERE job_id = ? ORDER BY id DESC LIMIT 1", (job_id,)
        ).fetchone()
        if last is None or last[0] != judgement.verdict or judgement.note not in ("", last[1]):
            connection.execute(
                "INSERT INTO verdict (job_id, at, verdict, note, who) VALUES (?, ?, ?, ?, ?)",
                (job_id, now, judgement.verdict.value, judgement.note, judgement.who),
            )
        if judgement.verdict is Verdict.REJECTED:
            connection.execute(
                f"UPDATE job SET current = 0 WHERE {_NOT_SENT.format(f'from_job IN ({_KEY})')}", (job_id,)
            )


def winners(connection: Connection, batch_id: int) -> list[Winner]:
    """The approved jobs of a batch's manifest, by what a JOB names: the current revision, or the newest where none is.
    An approved revision that another took the place of is no winner, and a promoted job is promoted no further."""
    return [
        Winner(
            row["id"],
            row["key"],
            row["revision"],
            row["shot"],
            row["take"],
            json.loads(row["matrix"]),
            tuple(json.loads(row["tags"])),
            row["provider"],
            json.loads(row["request"]),
            row["output"],
            bool(row["named"]),
        )
        for row in connection.execute(_WINNERS, (batch_id,))
    ]


@dataclass(frozen=True, slots=True)
class Promoted:
    """What `promote` asks for.

    Attributes:
        batch: the batch's name.
        profile: the profile's name.
        jobs: every winner, and the job that it becomes.
        max_credits: the cap in force, None for none.
        submits_per_minute, in_flight, retry, limits: see `BatchSpec`.
        who: who asks.
    """

    batch: str
    profile: str
    jobs: Sequence[tuple[Winner, JobSpec]]
    max_credits: int | None
    submits_per_minute: float
    in_flight: int
    retry: RetryBudget
    limits: str
    who: str


def promote(connection: Connection, asked: Promoted, now: float) -> None:
    """Write the promotions of a batch to one profile.

    Same key and fingerprint: the same job. Same key, new fingerprint: a new revision, as in `record`. Those of an
    earlier call that are asked for no more and were not sent are not sent. Repeating it changes nothing.
    """
    retry = asked.retry
    bounds = (
        asked.max_credits,
        asked.submits_per_minute,
        asked.in_flight,
        retry.provider,
        retry.moderated,
        asked.limits,
    )
    (batch_id,) = connection.execute(_BOUNDS, (*bounds, now, asked.batch)).fetchone()
    wanted = []
    for winner, spec in asked.jobs:
        wanted.append(_put(connection, batch_id, winner, spec, asked, now))
    pending = connection.execute(
        f"SELECT id FROM job WHERE batch_id = ? AND {_NOT_SENT.format('profile = ?')}", (batch_id, asked.profile)
    ).fetchall()
    gone = {row[0] for row in pending}.difference(wanted)
    connection.executemany("UPDATE job SET current = 0 WHERE id = ?", [(job_id,) for job_id in sorted(gone)])


def _put(connection: Connection, batch_id: int, winner: Winner, spec: JobSpec, asked: Promoted, now: float) -> int:
    """The row id of a promoted job, which is current from now on."""
    connection.execute(
        "UPDATE job SET current = 0 WHERE batch_id = ? AND key = ? AND current = 1 AND fingerprint <> ?",
        (batch_id, spec.key, spec.fingerprint),
    )
    known = connection.execute(
        "SELECT id FROM job WHERE batch_id = ? AND key = ? AND fingerprint = ?", (batch_id, spec.key, spec.fingerprint)
    ).fetchone()
    if known is not None:
        connection.execute(
            "UPDATE job SET current = 1, credits = CASE WHEN state = 'pending' THEN ?2 ELSE credits END WHERE id = ?1",
            (known[0], spec.credits),
        )
        return int(known[0])
    output = spec.output
    if taken(connection, batch_id, output):
        output = free_name(connection, batch_id, output, spec.named)
    values = (
        batch_id,
        spec.key,
        spec.fingerprint,
        spec.shot,
        spec.take,
        json.dumps(spec.matrix, ensure_ascii=False),
        json.dumps(spec.tags, ensure_ascii=False),
        spec.provider,
        spec.model,
        canonical_json(spec.request).decode(),
        spec.seconds,
        spec.credits,
        output,
        int(spec.named),
        now,
    )
    job_id, revision = connection.execute(_INSERT, values).fetchone()
    connection.execute(
        "INSERT INTO promotion (job_id, from_job, profile, at, who) VALUES (?, ?, ?, ?, ?)",
        (job_id, winner.job_id, asked.profile, now, asked.who),
    )
    reason = f"revision {revision}, promoted from {winner.key} revision {winner.revision} with profile {asked.profile}"
    connection.execute(_BORN, (job_id, now, reason, asked.who))
    needs.save(connection, job_id - 1)
    return int(job_id)


# --- What is there ---------------------------------------------------------------------------------------


def promoted_specs(connection: Connection, batch: str) -> Iterator[JobSpec]:
    """The current promotions of a batch, as if a manifest asked for them."""
    for row in connection.execute(
        "SELECT job.* FROM job JOIN promotion ON promotion.job_id = job.id "
        "WHERE job.batch_id = (SELECT id FROM batch WHERE name = ?) AND job.current = 1 ORDER BY job.position, job.id",
        (batch,),
    ):
        yield JobSpec(
            row["key"],
            row["fingerprint"],
            row["shot"],
            row["take"],
            json.loads(row["matrix"]),
            tuple(json.loads(row["tags"])),
            row["provider"],
            row["model"],
            json.loads(row["request"]),
            row["credits"],
            row["output"],
            bool(row["named"]),
            row["seconds"],
        )


def lineage(connection: Connection, job_id: int) -> dict[str, Any]:
    """A job's verdicts, oldest first, and what was promoted from it, as `show --json` prints them."""
    verdicts = connection.execute("SELECT at, verdict, note, who FROM verdict WHERE job_id = ? ORDER BY id", (job_id,))
    promotions = connection.execute(
        "SELECT job.key AS job, job.revision, promotion.profile, job.state, promotion.at, promotion.who "
        "FROM promotion JOIN job ON job.id = promotion.job_id WHERE from_job = ? ORDER BY job.id",
        (job_id,),
    )
    return {"verdicts": [dict(row) for row in verdicts], "promotions": [dict(row) for row in promotions]}
