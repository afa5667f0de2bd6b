"""A pace in its first POSTs, for the tests of what it learns."""

from __future__ import annotations

from batchrunner.core.adaptive import Learned, Pace, Ticket


def pace_of(submits: float = 50.0, in_flight: int = 500, known: Learned = Learned()) -> Pace:  # noqa: B008
    return Pace.of(submits, in_flight, 32, known)


def submit(pace: Pace, now: float, count: int, running: int, step: float) -> tuple[float, int]:
    """Accept `count` POSTs, `step` seconds apart, each one more in flight."""
    for _ in range(count):
        now += step
        running += 1
        pace.accepted(Ticket(now - 0.1, running, used=True), now, running)
    return now, running
