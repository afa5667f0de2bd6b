"""Two limits of the service, each found from its answers: calls a second, and tasks in flight.

Pure: time is an argument. Neither is TCP's saw-tooth: a refused POST costs a hold of every call, so each limit is
measured once, kept to, and tried again only when it has paid for the last hold. Which of the two an answer 429 speaks
of is `core.adaptive`'s. Docs: docs/adr/0005-adaptive-pacing.md.
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
        self._count += 1
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
        self._mark, self._count, self._full = now, 0, False
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
        # What a pause lets overflow only makes this less.
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
