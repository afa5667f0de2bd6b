"""What the live page asks the ledger for: finished outputs page by page, and what went wrong last."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from . import media
from .naming import JOBS
from .queries import job_dict

_PAGE = """
SELECT job.id FROM job JOIN batch ON batch.id = job.batch_id
WHERE job.state = 'succeeded' AND (?1 IS NULL OR batch.name = ?1)
ORDER BY job.updated_at DESC, job.id DESC LIMIT ?2 OFFSET ?3
"""

_TROUBLE = """
SELECT job.id FROM job JOIN batch ON batch.id = job.batch_id
WHERE batch.name = ? AND job.current = 1 AND job.state IN ('unconfirmed', 'failed')
ORDER BY job.state = 'unconfirmed' DESC, job.updated_at DESC, job.id DESC LIMIT ?
"""


def finished(connection: sqlite3.Connection, batch: str | None, limit: int, offset: int) -> list[dict[str, Any]]:
    """Outputs of a batch (None: of all), the newest first, each as `jobs --json` prints it with its row's `id`."""
    return _with_ids(connection, connection.execute(_PAGE, (batch, limit, offset)))


def trouble(connection: sqlite3.Connection, batch: str, limit: int) -> list[dict[str, Any]]:
    """Current jobs of a batch that are unconfirmed or failed: the unconfirmed first, then the newest."""
    return _with_ids(connection, connection.execute(_TROUBLE, (batch, limit)))


def _with_ids(connection: sqlite3.Connection, ids: sqlite3.Cursor) -> list[dict[str, Any]]:
    rows = (connection.execute(f"{JOBS} WHERE job.id = ?", (row["id"],)).fetchone() for row in ids)
    kept = media.reader(connection)
    return [{"id": row["id"], **job_dict(row, kept)} for row in rows]


def output(connection: sqlite3.Connection, job_id: int) -> tuple[Path, Path] | None:
    """(output folder, file) of a finished job, by its row's id; None where there is none."""
    row = connection.execute(
        "SELECT batch.output_dir, job.file FROM job JOIN batch ON batch.id = job.batch_id "
        "WHERE job.id = ? AND job.state = 'succeeded' AND job.file IS NOT NULL",
        (job_id,),
    ).fetchone()
    return None if row is None else (Path(row["output_dir"]), Path(row["file"]))
