"""The workers of a ledger in PostgreSQL, for people and scripts that look on."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from .sql import Connection

LATELY = 30.0
"""Seconds within which a worker that has not ended has given a sign of life."""


def workers(connection: Connection) -> list[dict[str, Any]]:
    """Workers that have not ended, as `status --json` lists them: host, process, what it does (`all`, `submit`,
    `download`), seconds since its last sign of life, whether that is lately, and what it has in hand. A ledger in a
    file has none."""
    if isinstance(connection, sqlite3.Connection):
        return []
    if connection.execute("SELECT to_regclass('worker')").fetchone()[0] is None:
        return []
    rows = connection.execute(
        "SELECT id, host, pid, part, greatest(0, extract(epoch FROM clock_timestamp())::float8 - beat_at), progress "
        "FROM worker WHERE ended_at IS NULL ORDER BY host, pid, id"
    ).fetchall()
    return [_words(*row) for row in rows]


def _words(number: int, host: str, pid: int, part: str, silent: float, progress: str) -> dict[str, Any]:
    found = json.loads(progress)
    return {
        "worker": number,
        "host": host,
        "pid": pid,
        "part": part,
        "alive": silent < LATELY,
        "silent_seconds": round(silent, 1),
        "in_hand": found.get("in_hand", 0),
        "in_flight": found.get("in_flight", 0),
        "stop": found.get("stop"),
    }
