"""The bounds of single models (`limits: models:`), which all workers keep together: looked at before an account's own,
in the transaction that takes its places and writes the intents."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from ...core.limits import Bounds as Limit
from ..sql import Connection

CATCHING_UP = 0.05
"""Seconds by which a submission may be early against the even pace, where earlier ones were late: so much of a second's
limit can come on top in the worst second. Whoever asks for places less often than that leaves some unused."""

FULL = 0.25
"""Seconds after which it is worth asking again where as many tasks as may be are in flight."""

NOW = "extract(epoch FROM clock_timestamp())::float8"

_MODELS = f"""
SELECT name.name, now.at, greatest(meter.due_at, now.at), (SELECT count(*) FROM job
  WHERE state IN ('submitting', 'unconfirmed', 'running', 'downloading') AND state IN ('submitting', 'running')
  AND job.model = name.name)
FROM unnest(?::text[]) AS name LEFT JOIN meter ON meter.name = name.name, (SELECT {NOW} AS at) AS now
"""

_TAKE = f"""
INSERT INTO meter (name, due_at) VALUES (?1, {NOW} + ?2)
ON CONFLICT (name) DO UPDATE SET due_at = greatest(meter.due_at, {NOW}) + ?2
"""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What all workers together may do: POSTs a second, and tasks in flight, of an account; bounds of single models."""

    submits: float
    in_flight: int
    models: Mapping[str, Limit] = field(default_factory=dict)


class Asking(Protocol):
    """A claim that asks for places."""

    @property
    def model(self) -> str:
        """Of its job."""

    def refuse(self, wait: float, model: str) -> None:
        """Nobody may send it for so many seconds, by a bound of this model."""


C = TypeVar("C", bound=Asking)


@dataclass(slots=True)
class _Room:
    """What is left of a model's bounds, at the moment `at` of the database's clock."""

    at: float
    due_at: float
    interval: float
    free: float

    def take(self) -> float:
        """Take a place. Returns 0; where there is none, the seconds until it is worth asking again."""
        early = self.at + CATCHING_UP - self.due_at
        if early >= 0.0 and self.free > 0.0:
            self.free -= 1.0
            self.due_at += self.interval
            return 0.0
        return max(-early, FULL if self.free <= 0.0 else 0.001)


def with_room(connection: Connection, claims: Sequence[C], bounds: Bounds) -> list[C]:
    """Those of the claims that their models' bounds let be sent now; the others are refused."""
    asked = sorted({claim.model for claim in claims} & bounds.models.keys())
    if not asked:
        return list(claims)
    rooms = {}
    for name, at, due_at, flight in connection.execute(_MODELS, (asked,)).fetchall():
        bound = bounds.models[name]
        free = math.inf if bound.in_flight is None else float(bound.in_flight - flight)
        rooms[name] = _Room(at, due_at, _interval(bound), free)
    found = []
    for claim in claims:
        room = rooms.get(claim.model)
        wait = 0.0 if room is None else room.take()
        if wait:
            claim.refuse(wait, claim.model)
        else:
            found.append(claim)
    return found


def take(connection: Connection, models: Iterable[str], bounds: Bounds) -> None:
    """Submissions of these models take their places in the models' rates."""
    for name, number in Counter(models).items():
        interval = _interval(bounds.models[name]) if name in bounds.models else 0.0
        if interval:
            connection.execute(_TAKE, (name, number * interval))


def give_back(connection: Connection, model: str, bounds: Bounds) -> None:
    """A place in a model's rate that was not used."""
    interval = _interval(bounds.models[model]) if model in bounds.models else 0.0
    if interval:
        connection.execute("UPDATE meter SET due_at = due_at - ? WHERE name = ?", (interval, model))


def _interval(bound: Limit) -> float:
    """Seconds between two submissions; 0 where any number may be sent."""
    return 60.0 / bound.submits_per_minute if bound.submits_per_minute else 0.0
