"""The timeline: the steps of a batch, told apart into nights, each cut into equal slices of time. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ..core.morning import Step

PAUSE = 3600.0
"""Seconds without a step, and with nothing in flight, after which another night begins."""

ABSENCE = 6 * 3600.0
"""The same where something was left in flight, such as by a runner that was killed."""

SLICES = 96
"""Most slices of a night."""

WIDTHS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)
"""Seconds that a slice may last."""

SUBMITTED, COMPLETED, THROTTLED = "claimed", "stored", "throttled"


@dataclass(slots=True)
class Slice:
    """What happened in a slice of time. `in_flight` is the most POSTs and running tasks at once."""

    submitted: int = 0
    completed: int = 0
    failed: int = 0
    throttled: int = 0
    polls_throttled: int = 0
    in_flight: int = 0


@dataclass(slots=True)
class Night:
    """A stretch of work.

    Attributes:
        start, end: unix seconds of its first and last step.
        began: unix seconds at which the first slice begins, a multiple of `width`.
        width: seconds of a slice.
        slices: in order, none left out.
    """

    start: float
    end: float
    began: float
    width: int
    slices: list[Slice] = field(default_factory=list)

    def total(self, name: str) -> int:
        """The sum of one of the slices' counts."""
        return sum(getattr(s, name) for s in self.slices)

    @property
    def most_in_flight(self) -> int:
        return max(s.in_flight for s in self.slices)


def nights(steps: Sequence[Step], throttled: Sequence[tuple[float, int]] = ()) -> list[Night]:
    """Nights, oldest first; none where nothing was ever sent.

    A person's word in the morning is no work, and begins or prolongs no night.

    Args:
        steps: in order of time.
        throttled: see `Morning`; they make no night.
    """
    found: list[Night] = []
    flying = 0
    for stretch in _stretches(steps):
        start, end = stretch[0].at, stretch[-1].at
        width = next((w for w in WIDTHS if (end - start) / w < SLICES - 1), WIDTHS[-1])
        began = start // width * width
        night = Night(start, end, began, width, [Slice() for _ in range(int((end - began) // width) + 1)])
        flying = _fill(night, stretch, flying)
        found.append(night)
    for at, polls in throttled:
        for night in found:
            if night.start <= at <= night.end:
                piece = night.slices[int((at - night.began) // night.width)]
                piece.throttled += polls
                piece.polls_throttled += polls
    return found


def _stretches(steps: Sequence[Step]) -> Iterator[list[Step]]:
    stretch: list[Step] = []
    flying, last = 0, 0.0
    for step in steps:
        if step.by_person:
            flying += step.in_flight
            continue
        gap = step.at - last
        if stretch and (gap > ABSENCE or (gap > PAUSE and flying <= 0)):
            yield stretch
            stretch = []
        stretch.append(step)
        flying += step.in_flight
        last = step.at
    if stretch:
        yield stretch


def _fill(night: Night, stretch: list[Step], flying: int) -> int:
    """Put the steps into the slices; returns what is in flight at the end."""
    at = 0
    night.slices[0].in_flight = flying
    for step in stretch:
        index = int((step.at - night.began) // night.width)
        while at < index:
            at += 1
            night.slices[at].in_flight = flying
        piece = night.slices[at]
        flying = max(0, flying + step.in_flight)
        piece.in_flight = max(piece.in_flight, flying)
        piece.submitted += step.event == SUBMITTED
        piece.completed += step.event == COMPLETED
        piece.throttled += step.event == THROTTLED
        piece.failed += step.to_state == "failed"
    return flying


# --- Latency ---------------------------------------------------------------------------------------------

BARS = 32
"""Most bars of a distribution."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How long tasks took, in seconds.

    Attributes:
        count: tasks.
        median, p90, longest: of all.
        width: seconds of a bar.
        bars: tasks by duration, the first bar from 0; the last holds all that took longer too.
    """

    count: int
    median: float
    p90: float
    longest: float
    width: float
    bars: tuple[int, ...]


def spread(seconds: Sequence[float]) -> Spread | None:
    """The distribution of durations; None of none. Percentiles by nearest rank."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    count = len(ordered)
    median, p90, p99 = (ordered[min(count - 1, int(count * share))] for share in (0.5, 0.9, 0.99))
    widths = (0.1, 0.2, 0.5, *WIDTHS)
    width = next((w for w in widths if p99 / w < BARS - 1), widths[-1])
    bars = [0] * (min(BARS - 1, int(ordered[-1] // width)) + 1)
    for took in ordered:
        bars[min(len(bars) - 1, int(took // width))] += 1
    return Spread(count, median, p90, ordered[-1], width, tuple(bars))
