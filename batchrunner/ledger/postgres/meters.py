"""Bounds besides an account's own, which all workers keep together: of single models (`limits: models:`), and of
several accounts that one batch needs. They are looked at before the account's, in the transaction that takes its places
and writes the intents."""

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

FLYING = "state IN ('submitting', 'unconfirmed', 'running', 'downloading') AND state IN ('submitting', 'running')"
"""Whether a `job` is in flight, as SQL: the first half is that of the index that has no others."""

ALL = "*"
"""The meter of several accounts together; no model has that name."""

_MODELS = f"""
SELECT name.name, now.at, greatest(meter.due_at, now.at),
  (SELECT count(*) FROM job WHERE {FLYING} AND job.model = name.name)
FROM unnest(?::text[]) AS name LEFT JOIN meter ON meter.name = name.name, (SELECT {NOW} AS at) AS now
"""

_TOGETHER = f"""
SELECT now.at, greatest((SELECT due_at FROM meter WHERE name = '{ALL}'), now.at),
  (SELECT count(*) FROM job WHERE {FLYING} AND job.provider = ANY(?))
FROM (SELECT {NOW} AS at) AS now
"""

_TAKE = f"""
INSERT INTO meter (name, due_at) VALUES (?1, {NOW} + ?2)
ON CONFLICT (name) DO UPDATE SET due_at = greatest(meter.due_at, {NOW}) + ?2
"""


@dataclass(frozen=True, slots=True)
class Together:
    """What several providers' accounts may do together."""

    providers: frozenset[str]
    limit: Limit


@dataclass(frozen=True, slots=True)
class Bounds:
    """What all workers together may do of an account.

    Attributes:
        submits: POSTs a second.
        in_flight: tasks.
        models: of single models.
        together: of this account and others.
        polls_per_minute: of all its tasks; None for `engine.ports.poll_budget`.
    """

    submits: float
    in_flight: int
    models: Mapping[str, Limit] = field(default_factory=dict)
    together: Together | None = None
    polls_per_minute: float | None = None


class Asking(Protocol):
    """A claim that asks for places."""

    @property
    def model(self) -> str:
        """Of its job."""

    def refuse(self, wait: float, model: str) -> None:
        """Nobody may send it for so many seconds, by a bound of this model; empty for one of the account."""


C = TypeVar("C", bound=Asking)


@dataclass(slots=True)
class _Room:
    """What is left of a bound, at the moment `at` of the database's clock."""

    at: float
    due_at: float
    interval: float
    free: float

    @classmethod
    def of(cls, bound: Limit, at: float, due_at: float, flight: int) -> _Room:
        free = math.inf if bound.in_flight is None else float(bound.in_flight - flight)
        return cls(at, due_at, _interval(bound), free)

    @property
    def wait(self) -> float:
        """0 where there is a place; else the seconds until it is worth asking again."""
        early = self.at + CATCHING_UP - self.due_at
        if early >= 0.0 and self.free > 0.0:
            return 0.0
        return max(-early, FULL if self.free <= 0.0 else 0.001)

    def take(self) -> None:
        """Take a place."""
        self.free -= 1.0
        self.due_at += self.interval


def with_room(connection: Connection, claims: Sequence[C], bounds: Bounds, before: int = 0) -> list[C]:
    """Those of one account's claims that these bounds let be sent now; the others are refused. `before`: places that
    were taken by other accounts' in the same transaction."""
    rooms: dict[str, _Room] = {}
    if bounds.together is not None:
        at, due_at, flight = connection.execute(_TOGETHER, (sorted(bounds.together.providers),)).fetchone()
        rooms[ALL] = _Room.of(bounds.together.limit, at, due_at, flight + before)
    asked = sorted({claim.model for claim in claims} & bounds.models.keys())
    if asked:
        for name, at, due_at, flight in connection.execute(_MODELS, (asked,)).fetchall():
            rooms[name] = _Room.of(bounds.models[name], at, due_at, flight)
    return [claim for claim in claims if _has_room(claim, rooms)] if rooms else list(claims)


def _has_room(claim: Asking, rooms: Mapping[str, _Room]) -> bool:
    """Take a claim's places, or refuse it."""
    of_all = [(rooms[name], name) for name in (ALL, claim.model) if name in rooms]
    for room, name in of_all:
        if room.wait:
            claim.refuse(room.wait, "" if name == ALL else name)
            return False
    for room, _ in of_all:
        room.take()
    return True


def take(connection: Connection, models: Iterable[str], bounds: Bounds) -> None:
    """Submissions of these models take their places in the models' rates."""
    for name, number in Counter(name for model in models for name in (model, ALL)).items():
        if interval := _interval_of(name, bounds):
            connection.execute(_TAKE, (name, number * interval))


def give_back(connection: Connection, model: str, bounds: Bounds) -> None:
    """A submission's places in these rates were not used."""
    for name in (model, ALL):
        if interval := _interval_of(name, bounds):
            connection.execute("UPDATE meter SET due_at = due_at - ? WHERE name = ?", (interval, name))


def _interval_of(name: str, bounds: Bounds) -> float:
    if name == ALL:
        return 0.0 if bounds.together is None else _interval(bounds.together.limit)
    return _interval(bounds.models[name]) if name in bounds.models else 0.0


def _interval(bound: Limit) -> float:
    """Seconds between two submissions; 0 where any number may be sent."""
    return 60.0 / bound.submits_per_minute if bound.submits_per_minute else 0.0
