"""What several workers have learned of one account's limits. Each meets them with its own part of the calls, so what it
has found is its part of the limit; all of them together are the account's (docs/adr/0005-adaptive-pacing.md)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from ...core.adaptive import Learned
from .. import pace
from ..sql import Connection
from . import peers

KEYS = ("submits_per_minute", "in_flight", "calls_per_minute")


def save(connection: Connection, provider: str, worker: int, learned: Learned, now: float, within: float) -> None:
    """Keep what the account bears: the sum of what this worker and its peers have found. Of what one of them has not
    met nothing can be said, and what is known stays; what none has met any more is forgotten.

    Args:
        connection: in everybody's turn.
        provider: whose account.
        worker, learned: what this one has found.
        now: unix seconds.
        within: seconds within which peers that are alive have given a sign of life.
    """
    known = pace.read(provider, connection)
    found = [learned, *(_learned(one.progress, provider) for one in _peers(connection, provider, worker, within))]
    submits = _sum([one.submits for one in found], known.submits)
    flight = _sum([one.in_flight for one in found], known.in_flight)
    calls = _sum([one.calls for one in found], known.calls)
    total = Learned(submits, None if flight is None else round(flight), calls)
    if total != known:
        connection.execute(pace.SAVE, pace.row(provider, total, now))


def part(connection: Connection, provider: str, worker: int, within: float) -> Learned:
    """A worker's part of what the account bears, where all that are alive have as much."""
    known = pace.read(provider, connection)
    number = 1 + len(_peers(connection, provider, worker, within))
    return Learned(
        None if known.submits is None else known.submits / number,
        None if known.in_flight is None else math.ceil(known.in_flight / number),
        None if known.calls is None else known.calls / number,
    )


def _peers(connection: Connection, provider: str, worker: int, within: float) -> list[peers.Alive]:
    """The others that send to an account."""
    alive = peers.alive(connection, within)
    return [one for one in alive if one.id != worker and one.part != "download" and one.serves(provider)]


def _learned(progress: str, provider: str) -> Learned:
    """What a peer says of itself with its signs of life (`Pacer.progress`)."""
    said: dict[str, Any] = json.loads(progress)
    found = said.get("providers", {}).get(provider, said).get("learned") or {}
    submits, flight, calls = (found.get(key) for key in KEYS)
    return Learned(_second(submits), flight, _second(calls))


def _second(per_minute: float | None) -> float | None:
    return None if per_minute is None else per_minute / 60.0


def _sum(parts: Sequence[float | None], known: float | None) -> float | None:
    """The sum where every part is known, `known` where some are, None where none is."""
    met = [one for one in parts if one is not None]
    if not met:
        return None
    return sum(met) if len(met) == len(parts) else known
