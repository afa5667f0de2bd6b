"""What the service allows, found from its answers: calls a second, and tasks in flight.

Pure: time is an argument. `Rate` and `Flight` each keep one limit, `Pace` decides which of the two an answer 429 speaks
of. Neither is TCP's saw-tooth: a refused POST costs a hold of every call, so each limit is measured once, kept to, and
tried again only when it has paid for the last hold. Docs: docs/adr/0005-adaptive-pacing.md.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

CAUTIOUS = 5.0
"""Calls a second with which a run begins under a bound that is far higher: what is allowed where nobody says."""

DOUBLES_IN = 8
"""Accepted calls in which the rate doubles while no limit is known (TCP's slow start, in calls)."""

BELOW = 0.99
"""Share of the measured limit that is used."""

ENOUGH = 6
"""Accepted calls between two refusals from which on they are a measurement."""

JUST_BEFORE = 4.0
"""Seconds before a refusal in which a bucket is emptied."""

RISE = 12.0
"""Seconds in which a rate that is being tried doubles: slow at first, then ever faster (CUBIC, RFC 9438)."""

SLOWEST = 0.1
"""Calls a second below which no refusal takes a rate: below that the holds do the pacing."""

LONGEST = 900.0
"""Seconds after which a limit is tried again, whatever the last try has cost."""


@dataclass(slots=True)
class Rate:
    """Calls a second.

    Between two refusals a bucket of tokens goes from empty to empty, so what was accepted meanwhile, divided by the
    time, is the limit itself, whatever the bucket's size; a window of a minute measures the same way. What was accepted
    just before a refusal measures it too, less what a bucket of a second's worth, or of one call, may have held.

    Attributes:
        bound: calls a second that are never exceeded.
        value: calls a second that are allowed now.
        top: the limit as last measured; None where none was met.
    """

    bound: float
    value: float = 0.0
    top: float | None = None
    _used: float = 0.0
    _plateau: float = 0.0
    _mark: float = 0.0
    _count: int = 0
    _full: bool = True
    _last: float = 0.0
    _times: deque[float] = field(default_factory=lambda: deque(maxlen=256))

    def __post_init__(self) -> None:
        if self.top is not None:
            self._plateau = 20.0
        start = max(CAUTIOUS, self.bound / 10.0) if self.top is None else BELOW * self.top
        self.value = min(self.bound, max(start, SLOWEST))

    @property
    def trying(self) -> bool:
        """Whether it allows more than is known to be borne."""
        return self.top is None or self._used > self._plateau

    def rebound(self, bound: float, known: float | None) -> None:
        """Another bound, with what is known of the limit (calls a second): it goes on as a run that begins with them
        does, and no slower than it is."""
        fresh = Rate(bound, top=known if known and known < bound else None)
        if fresh.top != self.top:
            self.top, self._plateau, self._used = fresh.top, fresh._plateau, 0.0
        self.bound = bound
        self.value = min(bound, max(self.value, fresh.value))

    def accepted(self, now: float, used: bool) -> None:
        """A call was accepted. `used`: it had to wait for its place, so the rate is what held it back."""
        if not used and now - self._last > max(1.0, 3.0 / self.value):
            self._mark, self._count, self._full = now, 0, True  # a pause has filled the bucket: measure anew
        self._count += 1
        self._last = max(self._last, now)
        self._times.append(now)
        if not used:
            return
        self._used += 1.0 / self.value
        if self.top is None:
            self.value = min(self.bound, self.value * 2.0 ** (1.0 / DOUBLES_IN))
        elif self._used > self._plateau:
            self.value = min(self.bound, self.top * (1.0 + ((self._used - self._plateau) / RISE) ** 3))
            if self.value == self.bound:
                self.top = None

    def refused(self, now: float, hold: float, borne: float = SLOWEST) -> None:
        """A call was refused because of the rate, and every call is held for `hold` seconds. `borne`: calls a second
        that were accepted of late; the limit is not below that, whoever was to blame."""
        top = self._measured(now)
        sure = top > 0.0 and self.top is not None
        if top == 0.0:
            top = max((0.5 if self.top is None else 0.7) * self.value, min(borne, self.value))
        self.top = max(SLOWEST, top)
        self.value = min(self.bound, max(SLOWEST, BELOW * self.top))
        self._used = 0.0
        # A try costs a hold; it may cost 3 % of the time, and one refusal in 80 calls.
        self._plateau = min(LONGEST, max(30.0 * hold, 80.0 / self.value)) if sure else max(5.0, 10.0 / self.value)
        self._mark, self._count, self._full, self._last = now, 0, False, now + hold
        self._times.clear()

    def _measured(self, now: float) -> float:
        """The limit, 0 where too little is known."""
        if len(self._times) < ENOUGH:
            return 0.0
        lately = [at for at in self._times if at > now - JUST_BEFORE]
        if len(lately) < ENOUGH:
            lately = list(self._times)[-ENOUGH:]
        held = max(0.0, 1.0 - 1.0 / self.value)  # seconds' worth that a bucket holds beyond the next call
        just_before = (len(lately) - 1) / (lately[-1] - lately[0] + held)
        since = 0.0 if self._full else self._count / max(now - self._mark, 1e-3)
        # Less than a quarter at once is not believed: the rate may not be what held the calls back.
        return min(self.value, max(just_before, since, 0.25 * self.value))


AGAIN = (3, 30, 100)
"""POSTs accepted at the limit in flight before one more is tried: soon after the first refusal, which may have meant
something else; in the long run at most 1 % of the POSTs are refused for it."""


@dataclass(slots=True)
class Flight:
    """POSTs and running tasks together.

    A refusal tells the limit exactly: it is what runs. It is kept, and one more is tried after `AGAIN` POSTs at the
    limit; where that is accepted, the step doubles.

    Attributes:
        bound: upper bound.
        value: how many are allowed now.
        top: the limit as last measured; None where none was met.
    """

    bound: int
    value: int = 0
    top: int | None = None
    _edge: int = 0
    step: int = 1
    base: int = 0
    """Where the try began: so many are known to be borne."""
    _not_before: float = 0.0
    _tries: int = 0
    _fresh: bool = False

    def __post_init__(self) -> None:
        self.value = self.bound if self.top is None else max(1, min(self.bound, self.top))

    @property
    def trying(self) -> bool:
        """Whether it allows more than is known to be borne."""
        return self.step > 1

    def rebound(self, bound: int, known: int | None) -> None:
        """Another bound, with what is known of the limit. What is in flight beyond it comes home."""
        self.bound = bound
        self.top = known if known and known < bound else None
        self.value = bound if self.top is None else max(1, self.top)
        self._edge, self.step, self._fresh = 0, 1, False

    def accepted(self, now: float, flight: int, running: int) -> None:
        """A POST was accepted that was the `flight`-th; `running` tasks run now, its own too."""
        if self._fresh and running > self.value:
            self._set(running)  # it was on the wire when another was refused: the limit is not below what runs
            return
        if self.top is None or flight < self.value:
            return
        self._fresh = False
        self._edge += 1
        if self.value < self.top:
            self.value = min(self.top, self.value + max(1, self.value // 8))
        elif self.trying or (self._edge >= AGAIN[min(self._tries, len(AGAIN) - 1)] and now >= self._not_before):
            if not self.trying:
                self.base = self.value
            self._set(self.value + self.step)
            self.step *= 2

    def refused(self, now: float, hold: float, running: int, in_a_row: int) -> None:
        """A POST was refused because of what is in flight.

        Args:
            now: monotonic seconds.
            hold: for how many seconds every call is held.
            running: tasks that run.
            in_a_row: refusals since a POST was accepted. From the second on the limit must be below what runs.
        """
        failed = self.trying and running <= 1.1 * self.base + 1
        if in_a_row > 1:
            self.value = max(1, min(self.value, running) * 4 // 5)
        elif failed:
            self.top = self.value = self.base  # what ended unseen made room for a few, and no more
        else:
            self.top = self.value = max(1, min(running, self.bound))
        self._tries = self._tries + 1 if failed else 0
        self._fresh = not failed
        self._edge, self.step = 0, 1
        # Freed slots stay empty during a hold.
        self._not_before = now + min(LONGEST, (25.0 if self._tries else 5.0) * hold)

    def _set(self, value: int) -> None:
        self.value = min(self.bound, value)
        self.top = None if self.value == self.bound else self.value


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
