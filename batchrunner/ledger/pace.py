"""What the ledger keeps of how fast the service may be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .sql import Connection, has_table

if TYPE_CHECKING:
    from ..core.adaptive import Learned

LATEST_CLAIMS = 2000
"""Steps of the history looked through for the last submissions: more than a second's worth at any rate that a run has
reached, and read in a millisecond however long the history is."""

SAVE = (
    "INSERT INTO pace (provider, submits_per_minute, in_flight, calls_per_minute, learned_at) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (provider) DO UPDATE SET submits_per_minute = excluded.submits_per_minute, "
    "in_flight = excluded.in_flight, calls_per_minute = excluded.calls_per_minute, learned_at = excluded.learned_at"
)


def row(provider: str, learned: Learned, now: float) -> tuple[Any, ...]:
    """The values of `SAVE`."""
    return provider, _minute(learned.submits), learned.in_flight, _minute(learned.calls), now


def read(provider: str, connection: Connection) -> Learned:
    from ..core.adaptive import Learned  # a reader that only shows the limits need not pay for how they are found

    found = connection.execute(
        "SELECT submits_per_minute, in_flight, calls_per_minute FROM pace WHERE provider = ?", (provider,)
    ).fetchone()
    if found is None:
        return Learned()
    return Learned(_second(found[0]), found[1], _second(found[2]))


def known(connection: Connection, provider: str) -> dict[str, Any] | None:
    """The limits that were met, as `status --json` prints them; None where none was, or the ledger is older."""
    if not has_table(connection, "pace"):
        return None
    found = connection.execute(
        "SELECT submits_per_minute, in_flight, calls_per_minute, learned_at FROM pace WHERE provider = ?", (provider,)
    ).fetchone()
    if found is None or not any(found[:3]):
        return None
    return dict(zip(("submits_per_minute", "in_flight", "calls_per_minute", "learned_at"), found, strict=True))


def latencies(connection: Connection) -> list[tuple[str, int | None, float]]:
    """(model, seconds asked for, seconds taken), oldest first."""
    rows = connection.execute("SELECT model, seconds, took FROM latency ORDER BY id").fetchall()
    return [(model, seconds, took) for model, seconds, took in rows]


def claims(since: float, connection: Connection) -> list[float]:
    rows = connection.execute(
        "SELECT at FROM (SELECT id, at, to_state FROM history ORDER BY id DESC LIMIT ?) AS newest "
        "WHERE to_state = 'submitting' AND at >= ? ORDER BY id",
        (LATEST_CLAIMS, since),
    ).fetchall()
    return [at for (at,) in rows]


def _minute(rate: float | None) -> float | None:
    return None if rate is None else 60.0 * rate


def _second(rate: float | None) -> float | None:
    return None if rate is None else rate / 60.0
