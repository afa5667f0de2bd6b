"""What the live page asks the ledger for: finished outputs page by page, and what went wrong last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core.places import is_url
from . import media
from .described import job_dict
from .naming import JOBS
from .sql import Connection, Cursor

_PAGE = """
SELECT job.id FROM job JOIN batch ON batch.id = job.batch_id
WHERE job.state = 'succeeded' AND (CAST(?1 AS TEXT) IS NULL OR batch.name = ?1)
ORDER BY job.updated_at DESC, job.id DESC LIMIT ?2 OFFSET ?3
"""

_TROUBLE = """
SELECT job.id FROM job JOIN batch ON batch.id = job.batch_id
WHERE batch.name = ? AND job.current = 1 AND job.state IN ('unconfirmed', 'failed')
ORDER BY job.state = 'unconfirmed' DESC, job.updated_at DESC, job.id DESC LIMIT ?
"""


def finished(connection: Connection, batch: str | None, limit: int, offset: int) -> list[dict[str, Any]]:
    """Outputs of a batch (None: of all), the newest first, each as `jobs --json` prints it with its row's `id`."""
    return _with_ids(connection, connection.execute(_PAGE, (batch, limit, offset)))


def trouble(connection: Connection, batch: str, limit: int) -> list[dict[str, Any]]:
    """Current jobs of a batch that are unconfirmed or failed: the unconfirmed first, then the newest."""
    return _with_ids(connection, connection.execute(_TROUBLE, (batch, limit)))


def _with_ids(connection: Connection, ids: Cursor) -> list[dict[str, Any]]:
    rows = (connection.execute(f"{JOBS} WHERE job.id = ?", (row["id"],)).fetchone() for row in ids)
    kept = media.reader(connection)
    return [{"id": row["id"], **job_dict(row, kept)} for row in rows]


def output(connection: Connection, job_id: int) -> tuple[Path, Path] | None:
    """(output folder, file) of a finished job, by its row's id; None where this machine has none."""
    row = connection.execute(
        "SELECT batch.output_dir, job.file FROM job JOIN batch ON batch.id = job.batch_id "
        "WHERE job.id = ? AND job.state = 'succeeded' AND job.file IS NOT NULL",
        (job_id,),
    ).fetchone()
    return None if row is None or is_url(row["file"]) else (Path(row["output_dir"]), Path(row["file"]))
