"""What the service allows, found from its answers: which of its limits (`core.measured`) an answer 429 speaks of.

Pure: time is an argument. Docs: docs/adr/0005-adaptive-pacing.md.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from .measured import CAUTIOUS, Flight, Rate


@dataclass(frozen=True, slots=True)
class Ticket:
    """A POST that was let go: when, as which one in flight, and whether the rate had held it back."""

    at: float
    flight: int
    used: bool


@dataclass(frozen=True, slots=True)
class Learned:
    """What is kept for the next night. None: no such limit was met.

    Attributes:
        submits: POSTs a second.
        in_flight: POSTs and running tasks together.
        calls: POSTs and polls a second together, where polls are limited too.
    """

    submits: float | None = None
    in_flight: int | None = None
    calls: float | None = None


RECENT = 20
"""POSTs accepted in a row whose rate counts as one that the service bears."""

HEADROOM = 0.85
"""Share of a common bucket that polls and POSTs may take: a POST should always find a place, and a poll can wait."""


@dataclass(slots=True)
class Pace:
    """Both limits, and which of them a 429 speaks of; the service doesn't say.

    Attributes:
        posts: POSTs a second.
        flight: POSTs and running tasks together.
        calls: every call a second; exists from the first poll on that was answered with 429.
        wire: POSTs on the wire at once: one after a refusal, until the next is accepted.
    """

    posts: Rate
    flight: Flight
    max_wire: int
    calls: Rate | None = None
    wire: int = 0
    refusals: int = 0
    _acted_at: float = float("-inf")
    _in_a_row: int = 0
    _since_blame: int = 0
    _flight_blames: int = 0
    _running_then: int = 0
    _rate_then: float = 0.0
    _holds: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=8))
    _good: float = 0.0
    _times: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    _polled_at: float = float("-inf")
    _every: deque[float] = field(default_factory=lambda: deque(maxlen=256))

    @classmethod
    def of(cls, submits: float, in_flight: int, max_wire: int, known: Learned) -> Pace:
        """Bounds, and what was learned on other nights."""
        posts = Rate(submits, top=known.submits if known.submits and known.submits < submits else None)
        flight = Flight(in_flight, top=known.in_flight if known.in_flight and known.in_flight < in_flight else None)
        calls = None if known.calls is None else Rate(float("inf"), top=known.calls)
        return cls(posts, flight, max_wire, calls, wire=max_wire)

    def rebound(self, submits: float, in_flight: int, known: Learned) -> None:
        """Other bounds, by a person's word; `known`: what was learned until now, below any bound."""
        self.posts.rebound(submits, known.submits)
        self.flight.rebound(in_flight, known.in_flight)

    @property
    def crowd(self) -> int:
        """POSTs that may be on the wire at once: few while more in flight is being tried."""
        return min(self.wire, max(1, self.flight.step // 4)) if self.flight.trying else self.wire

    @property
    def submits(self) -> float:
        """POSTs a second that are allowed: with a common bucket the polls need half of it."""
        return self.posts.value if self.calls is None else min(self.posts.value, self.calls.value / 2.0)

    def polls(self, bound: float, now: float) -> float:
        """Polls a second that are allowed: what the POSTs leave of a common bucket."""
        if self.calls is None:
            return bound
        posts = sum(1 for at in self._times if at > now - 10.0) / 10.0
        return min(bound, max(HEADROOM * self.calls.value - posts, self.calls.value / 4.0))

    @property
    def learned(self) -> Learned:
        calls = self.calls.top if self.calls is not None else None
        return Learned(self.posts.top, self.flight.top, calls)

    # --- Answers to POSTs --------------------------------------------------------------------------------

    def accepted(self, ticket: Ticket, now: float, running: int) -> None:
        """A POST was accepted; `running` tasks run now, its own too."""
        self._in_a_row = 0
        self._since_blame += 1
        self.wire = min(self.max_wire, self.wire * 2)
        self._times.append(now)
        if len(self._times) == RECENT and self._times[0] > self._acted_at:
            self._good = max(self._good, (RECENT - 1) / max(now - self._times[0], 1e-3))
        self.posts.accepted(now, ticket.used)
        self.flight.accepted(now, ticket.flight, running)
        self._call(now, ticket.used)

    def refused(self, ticket: Ticket, now: float, running: int, hold: float) -> None:
        """A POST was answered with 429. Those that were on the wire with it say nothing new."""
        self.refusals += 1
        if ticket.at <= self._acted_at:
            return
        self._in_a_row += 1
        in_flight = self._speaks_of_flight(ticket, now, running)
        rate, known = self.posts.value, self.posts.top or self.posts.value
        if in_flight:
            self._flight_blames = self._flight_blames + 1 if self._since_blame < RECENT else 1
            self.flight.refused(now, hold, running, self._flight_blames if self._in_a_row > 1 else 1)
        elif self.calls is not None and self._common(self.calls, now):
            self._flight_blames = 0
            self.calls.refused(now, hold)
        else:
            self._flight_blames = 0
            self.posts.refused(now, hold, self._lately(now))
            self._good = min(self._good, 1.5 * self.posts.value)
        self._since_blame = 0
        if in_flight or not self._as_before(running):
            self._running_then, self._rate_then = running, min(rate, known)
        self._holds.append((now, hold))
        self._acted_at = now
        self.wire = 1

    def _speaks_of_flight(self, ticket: Ticket, now: float, running: int) -> bool:
        """A bucket of calls fills with time, a place in flight comes free with the end of a task.

        So it was for what is in flight where a POST is refused again right after a hold; where one more was being
        tried; and where about as many were in flight as at the last refusal, at a rate far below one that was borne
        before.
        """
        if self._in_a_row > 1:
            return True
        if self._since_blame < RECENT and self._flight_blames > 1:
            return False  # it was said twice, and did not help
        flight = self.flight
        at_limit = flight.top is not None and ticket.flight >= 0.95 * flight.value
        if flight.trying and ticket.flight > flight.base:
            return True
        as_before = self._as_before(running)
        if (at_limit or as_before) and self._lately(now, awake=True) < 0.5 * self._good:
            return True
        return as_before and not self._flight_blames and self.posts.value < 0.75 * self._rate_then

    def _as_before(self, running: int) -> bool:
        """Whether as many run as when refusals began to come at about that number."""
        return abs(running - self._running_then) <= 0.08 * self._running_then

    def _lately(self, now: float, *, awake: bool = False) -> float:
        """POSTs a second that were accepted of late; `awake`: holds not counted."""
        if not self._times:
            return 0.0
        held = sum(hold for at, hold in self._holds if at >= self._times[0]) if awake else 0.0
        return len(self._times) / max(now - self._times[0] - held, 1.0)

    def _common(self, calls: Rate, now: float) -> bool:
        """Whether all calls together were about as many as polls were refused at."""
        if calls.top is None or not self._every:
            return False
        return len(self._every) / max(now - self._every[0], 1.0) > 0.85 * calls.top

    # --- Answers to polls --------------------------------------------------------------------------------

    def polled(self, now: float, used: bool) -> None:
        """A poll was answered."""
        self._call(now, used)

    def poll_refused(self, sent: float, now: float, hold: float) -> None:
        """A poll was answered with 429: polls are limited too, alone or with the POSTs. Both ways it is safe to count
        them together: the polls then have what the POSTs leave."""
        self.refusals += 1
        if sent <= max(self._polled_at, self._acted_at):
            return
        self._polled_at = now
        if self.calls is None:
            span = max(now - self._every[0], 1.0) if self._every else 1.0
            self.calls = Rate(float("inf"))
            self.calls.top = None
            # A first refusal among few calls says little; `refused` halves this.
            self.calls.value = max(CAUTIOUS, 2.0 * 0.8 * len(self._every) / span)
        self.calls.refused(now, hold)

    def _call(self, now: float, used: bool) -> None:
        self._every.append(now)
        if self.calls is not None:
            self.calls.accepted(now, used)
