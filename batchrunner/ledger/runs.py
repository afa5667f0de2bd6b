"""The account that a ledger belongs to, and the runs that worked on it."""

from __future__ import annotations

import os
import socket

from .errors import LedgerUnusable
from .sql import Connection, has_table

LATENCIES_KEPT = 500
"""Latency samples kept for each model: enough for a fit, few enough to follow drift."""


def bind(provider: str, origin: str, connection: Connection) -> None:
    row = connection.execute("SELECT origin FROM account WHERE provider = ?", (provider,)).fetchone()
    if row is None:
        connection.execute("INSERT INTO account (provider, origin) VALUES (?, ?)", (provider, origin))
    elif row[0] != origin:
        raise LedgerUnusable(
            f"this ledger belongs to {row[0]}, and the run would use {origin}; its task ids mean nothing there. "
            "Use another ledger with --db, or set REAPI_BASE_URL back (or use --simulate, for the simulator's)"
        )


def hold(provider: str, connection: Connection) -> float:
    row = connection.execute("SELECT hold_until FROM account WHERE provider = ?", (provider,)).fetchone()
    return row[0] if row else 0.0


def start_run(batches: str, now: float, connection: Connection) -> int:
    row = connection.execute(
        "INSERT INTO run (started_at, heartbeat_at, pid, host, batches) VALUES (?, ?, ?, ?, ?) RETURNING id",
        (now, now, os.getpid(), socket.gethostname(), batches),
    ).fetchone()
    return int(row[0])


THROTTLED = (
    "INSERT INTO throttle (run_id, minute, at, polls) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (run_id, minute) DO UPDATE SET polls = throttle.polls + excluded.polls"
)
"""Run, minute (unix seconds / 60), unix seconds of the first of them, and how many polls were answered with 429 since
the last time."""


def throttles(connection: Connection, batch: str) -> list[tuple[float, int]]:
    """When (unix seconds) polls of a batch's runs were answered with 429, and how many in that minute; in order of
    time. Nothing of a ledger that is older."""
    if not has_table(connection, "throttle"):
        return []
    rows = connection.execute(
        "SELECT t.at, t.polls FROM throttle t JOIN run ON run.id = t.run_id "
        "WHERE EXISTS (SELECT 1 FROM json_each(run.batches) WHERE value = ?) ORDER BY t.at",
        (batch,),
    )
    return [(at, polls) for at, polls in rows]


def end_run(run_id: int, stop: str | None, exit_code: int, now: float, connection: Connection) -> None:
    connection.execute(
        "UPDATE run SET ended_at = ?, heartbeat_at = ?, stop = ?, exit_code = ? WHERE id = ?",
        (now, now, stop, exit_code, run_id),
    )
    forget_latencies(connection)


def forget_latencies(connection: Connection) -> None:
    """Of each model keep the newest samples only."""
    connection.execute(
        "DELETE FROM latency WHERE id IN (SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY model "
        "ORDER BY id DESC) AS n FROM latency) AS ranked WHERE n > ?)",
        (LATENCIES_KEPT,),
    )
