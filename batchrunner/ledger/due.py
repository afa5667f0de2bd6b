"""What there is to do, as rows: the questions of the engine to the ledger."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from ..core.job import RetryBudget, State
from ..core.limits import Limits, unpacked
from ..core.pacing import MAX_RETRY_AFTER
from ..core.places import Place, place_of
from ..core.selection import Selection
from .needs import UNMET
from .rows import JOB_COLUMNS
from .selecting import where
from .sql import Connection, Row


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of the ledger, as the engine needs it."""

    id: int
    name: str
    output_dir: Place
    submits_per_minute: float
    in_flight: int
    retry: RetryBudget
    unrecorded: int = 0
    """Jobs of its manifest that are not in the ledger."""
    limits: Limits = Limits()  # noqa: RUF009  frozen
    """Bounds of single providers and models."""


def marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _rows(connection: Connection, sql: str, values: Sequence[object]) -> list[Row]:
    cursor = connection.cursor()
    cursor.row_factory = sqlite3.Row
    return cursor.execute(sql, values).fetchall()


def batches(names: tuple[str, ...], connection: Connection) -> list[Batch]:
    condition = f"WHERE name IN ({marks(names)})" if names else ""
    rows = _rows(connection, f"SELECT * FROM batch {condition} ORDER BY id", names)
    return [
        Batch(
            r["id"],
            r["name"],
            place_of(r["output_dir"]),
            r["submits_per_minute"],
            r["in_flight"],
            RetryBudget(r["retry_provider"], r["retry_moderated"]),
            r["unrecorded"],
            unpacked(r["limits"]),
        )
        for r in rows
    ]


def pending(
    batches: tuple[int, ...],
    selection: Selection,
    limit: int,
    now: float,
    without: Sequence[tuple[str, int | None]],
    provider: str | None,
    models: Sequence[str],
    connection: Connection,
) -> tuple[list[Row], float | None]:
    if not batches:
        return [], None
    condition, values = where(selection)
    condition += " AND NOT (model = ? AND coalesce(seconds, -1) = coalesce(?, -1))" * len(without)
    known: tuple[object, ...] = (*values, *(value for kind in without for value in kind))
    if models:
        condition, known = f"{condition} AND model NOT IN ({marks(models)})", (*known, *models)
    if provider is not None:
        condition, known = f"{condition} AND provider = ?", (*known, provider)
    due = f"batch_id IN ({marks(batches)}) AND state = 'pending' AND current = 1 AND {condition} AND NOT {UNMET}"
    rows = _rows(
        connection,
        f"SELECT {JOB_COLUMNS}, fingerprint FROM job INDEXED BY job_due WHERE {due} "
        "AND NOT (not_before > ? AND not_before <= ?) ORDER BY batch_id, position LIMIT ?",
        (*batches, *known, now, now + MAX_RETRY_AFTER, limit),
    )
    next_at = None
    if len(rows) < limit:
        next_at = connection.execute(
            f"SELECT min(not_before) FROM job INDEXED BY job_due WHERE {due} AND not_before > ? AND not_before <= ?",
            (*batches, *known, now, now + MAX_RETRY_AFTER),
        ).fetchone()[0]
    return rows, next_at


def in_state(batches: tuple[int, ...], state: State, connection: Connection) -> list[Row]:
    """The states stand in the text so that SQLite sees that the index `job_live` holds them all."""
    return _rows(
        connection,
        f"SELECT {JOB_COLUMNS}, next_poll_at, polls, updated_at FROM job "
        "WHERE state IN ('submitting', 'unconfirmed', 'running', 'downloading') AND state = ? "
        f"AND batch_id IN ({marks(batches)}) ORDER BY next_poll_at NULLS FIRST, id",
        (state.value, *batches),
    )


def by_id(ids: tuple[int, ...], connection: Connection) -> list[Row]:
    return _rows(connection, f"SELECT {JOB_COLUMNS} FROM job WHERE id IN ({marks(ids)}) ORDER BY id", ids)


def selected(batches: tuple[int, ...], selection: Selection, state: State, connection: Connection) -> list[Row]:
    condition, values = where(selection)
    return _rows(
        connection,
        f"SELECT {JOB_COLUMNS} FROM job WHERE batch_id IN ({marks(batches)}) AND current = 1 AND state = ? "
        f"AND {condition} ORDER BY id",
        (*batches, state.value, *values),
    )
