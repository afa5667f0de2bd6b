"""How fast a run goes: the one whom submitter and poller ask, and tell what the service said.

The rules are in `core.adaptive`, `core.knee` and `core.polling`; here they meet the clock, the slots and the ledger.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..core.adaptive import Learned, Pace, Ticket
from ..core.events import PollAnswer, Throttled
from ..core.job import Job
from ..core.knee import Knee
from ..core.pacing import Gcra
from ..core.polling import PollPolicy, Price
from ..core.states import State
from .ports import Deps, Settings, poll_budget
from .slots import Slots

LEAST = 4
"""Tasks in flight below which no estimate of a queue takes the limit."""

LATELY = 60.0
LATELY_KEPT = 2048
"""Seconds over which the rate of submissions is counted for people, and most of them that are kept for it."""

SPARE = 0.02
"""Share of a second's polls that may go at once; the rest of the second is evenly spaced, so that no second has more
than the budget."""


BURST = 0.25
"""Seconds' worth of POSTs that may go at once. The manifest allows a second's worth; a service that nobody knows may
count more strictly."""


@dataclass(frozen=True, slots=True)
class Place:
    """A POST's place in the rate and in flight."""

    ticket: Ticket
    receipt: float
    per_minute: float


class Pacer:
    """One account's limits in one run. Bounds come from the settings, the rest from the answers."""

    def __init__(
        self,
        deps: Deps,
        settings: Settings,
        slots: Slots,
        known: Learned = Learned(),  # noqa: B008  frozen
        sent: Sequence[float] = (),
        shared: Gcra | None = None,
        models: Mapping[str, float] | None = None,
    ) -> None:
        """
        Args:
            deps: the ledger, the clock, and who watches.
            settings: the bounds.
            slots: what is in flight; their limit is moved here.
            known: what other nights have found.
            sent: monotonic times of the last run's submissions, oldest first: a restart adds no burst.
            shared: the run's own rate, where it has several accounts.
            models: POSTs a minute of single models.
        """
        self._deps = deps
        self._slots = slots
        self._shared = shared
        self._models = {name: Gcra(per_minute) for name, per_minute in (models or {}).items()}
        self._known = known
        self._saved = self._told = known
        self._bound = (settings.submits_per_minute / 60.0, settings.in_flight)
        self._polls_per_minute = settings.polls_per_minute
        self._poll_bound = (settings.polls_per_minute or poll_budget(settings.in_flight)) / 60.0
        self._pace = Pace.of(*self._bound, settings.max_posts, known)
        self._knee = Knee()
        self._price = Price(settings.poll)
        self._posts = Gcra(60.0 * self._pace.submits)
        self._polls = Gcra(60.0 * self._poll_bound)
        self._poll_used = False
        self._accepted: deque[float] = deque(maxlen=LATELY_KEPT)
        self._began = deps.clock.monotonic()
        self._adjust()
        for at in sent:
            if self._posts.delay(at) < self._posts.interval:  # a rate that was higher then is not held against us
                self._posts.take(at)

    def poll_at_most(self, per_minute: float | None) -> None:
        """Another budget of polls from the next `rebound` on; None for `poll_budget`."""
        self._polls_per_minute = per_minute

    def rebound(self, submits_per_minute: float | None, in_flight: int | None, polls: float = 1.0) -> None:
        """Other upper bounds from now on, None for the one that holds; what was learned stays. `polls`: this run's part
        of the polls that the account may make."""
        self._known = self.learned
        submits, flight = self._bound
        self._bound = (submits if submits_per_minute is None else submits_per_minute / 60.0, in_flight or flight)
        self._poll_bound = polls * (self._polls_per_minute or poll_budget(self._bound[1])) / 60.0
        self._pace.rebound(*self._bound, self._known)
        self._adjust()

    # --- Submitting --------------------------------------------------------------------------------------

    def delay(self, now: float) -> float:
        """Seconds until a POST may be sent, as far as the rate goes."""
        own = self._posts.delay(now)
        return own if self._shared is None else max(own, self._shared.delay(now))

    @property
    def submits(self) -> float:
        """POSTs a second that are allowed now."""
        return self._posts.per_minute / 60.0

    def crowded(self, posts: int) -> bool:
        """Whether no more POSTs may be on the wire than these."""
        return posts >= self._pace.crowd

    def model_delay(self, model: str, now: float) -> float:
        """Seconds until a POST of this model may be sent, as far as the model's own rate goes."""
        meter = self._models.get(model)
        return 0.0 if meter is None else meter.delay(now)

    def take(self, now: float, model: str = "") -> Place:
        """A POST is let go; its slot is taken already."""
        if model in self._models:
            self._models[model].take(now)
        used = self._posts.idle(now) < self._posts.interval
        receipt = self._posts.take(now)
        if self._shared is not None:
            self._shared.take(now)
        return Place(Ticket(now, self._slots.used, used), receipt, self._posts.per_minute)

    def give_back(self, place: Place) -> None:
        """It was certainly not sent."""
        if place.per_minute == self._posts.per_minute:
            self._posts.give_back(place.receipt)

    def accepted(self, place: Place, job: Job, others: int) -> None:
        """It was accepted, while `others` were on the wire."""
        now = self._deps.clock.monotonic()
        self._accepted.append(now)
        self._pace.accepted(place.ticket, now, self._slots.used - others)
        self._knee.accepted(job.id, (job.model, job.seconds), place.ticket.flight)
        self._adjust()

    def throttled(self, place: Place, hold: float, others: int) -> None:
        """It was answered with 429, and every call is held for `hold` seconds."""
        now = self._deps.clock.monotonic()
        self._pace.refused(place.ticket, now, self._slots.used - others - 1, hold)
        self._tell()

    # --- Polling -----------------------------------------------------------------------------------------

    def poll_delay(self, now: float) -> float:
        """Seconds until a poll may be made."""
        if self._pace.calls is not None:
            self._rate_polls(self._pace.polls(self._poll_bound, now))
        return self._polls.delay(now)

    def poll_taken(self, now: float, share: float) -> None:
        """A poll is made that was planned with `share`."""
        self._price.remove(share)
        self._poll_used = self._polls.idle(now) < self._polls.interval
        self._polls.take(now)

    def planned(self, wait: float) -> float:
        """A poll is planned `wait` seconds from now. Returns its share for `poll_taken`."""
        return self._price.add(wait)

    def unplanned(self, share: float) -> None:
        """A poll that was planned is not made."""
        self._price.remove(share)

    @property
    def policy(self) -> PollPolicy:
        """When to poll, at today's price. Results are worth more while others wait for their slots."""
        return self._price.settle(self._polls.per_minute / 60.0, eager=self._eager)

    @property
    def _eager(self) -> bool:
        """Whether others wait for slots that results free; at a service that queues they wait anyway. A worker counts
        only what it has moved itself, never comes back to 0, and so takes it that others wait."""
        return (
            self._deps.tally.states.get(State.PENDING, 0) != 0
            and self._slots.used >= 0.9 * self._slots.limit
            and math.isinf(self._knee.limit)
        )

    def polled(self, answer: PollAnswer) -> None:
        """A poll was answered; of a 429 `poll_throttled` hears."""
        if not isinstance(answer, Throttled):
            self._pace.polled(self._deps.clock.monotonic(), self._poll_used)

    def poll_throttled(self, asked_at: float, hold: float) -> None:
        """A poll was answered with 429, and every call is held for `hold` seconds."""
        self._pace.poll_refused(asked_at, self._deps.clock.monotonic(), hold)
        self._tell()

    def ended(self, job: Job, took: float | None) -> None:
        """A task has ended after `took` seconds; None where that is no measure."""
        self._knee.ended(job.id, (job.model, job.seconds), took)
        self._adjust()

    # --- What is learned ---------------------------------------------------------------------------------

    @property
    def learned(self) -> Learned:
        """What other runs should know. A limit above this run's bound was not met: it stays as it was."""
        now, (submits, in_flight) = self._pace.learned, self._bound
        if now.submits is None and (self._known.submits or 0.0) >= submits:
            now = replace(now, submits=self._known.submits)
        if now.in_flight is None and (self._known.in_flight or 0) >= in_flight:
            now = replace(now, in_flight=self._known.in_flight)
        return now

    def flush(self) -> None:
        """Write what was learned behind."""
        if self.learned != self._saved:
            self._saved = self.learned
            self._deps.ledger.save_pace(self._deps.provider.name, self._saved)

    def _submitted(self) -> float:
        """POSTs accepted a minute, lately."""
        now = self._deps.clock.monotonic()
        while self._accepted and self._accepted[0] < now - LATELY:
            self._accepted.popleft()
        since = self._accepted[0] if len(self._accepted) == LATELY_KEPT else max(self._began, now - LATELY)
        return len(self._accepted) * 60.0 / max(now - since, 1.0)

    def progress(self) -> dict[str, Any]:
        """The limits that hold now, and what is used of the rate, for people who watch."""
        return {
            "submits_per_minute": round(self._submitted(), 1),
            "in_flight_limit": self._slots.limit,
            "submits_per_minute_limit": round(60.0 * self._pace.submits, 2),
            "polls_per_minute_limit": round(self._polls.per_minute, 1),
            "submits_per_minute_bound": round(60.0 * self._bound[0], 2),
            "in_flight_bound": self._bound[1],
            "polls_per_minute_bound": round(60.0 * self._poll_bound, 1),
            "learned": in_minutes(self.learned),
        }

    def _tell(self) -> None:
        """Say what is known, where it is news."""
        self._adjust()
        if _is_news(self.learned, self._told):
            self._told = self.learned
            self._deps.observe("limits", **self.progress())

    def _adjust(self) -> None:
        """Let the new limits hold."""
        pace = self._pace
        knee = max(LEAST, math.ceil(self._knee.limit)) if math.isfinite(self._knee.limit) else self._bound[1]
        self._slots.limit = min(pace.flight.value, knee)
        rate = pace.submits
        self._posts.per_minute = 60.0 * rate
        self._posts.burst = max(1.0, rate * BURST)
        self._rate_polls(pace.polls(self._poll_bound, self._deps.clock.monotonic()))

    def _rate_polls(self, rate: float) -> None:
        self._polls.burst = max(1.0, SPARE * rate)
        self._polls.per_minute = 60.0 * rate * (1.0 - SPARE)


def in_minutes(learned: Learned) -> dict[str, float | int | None]:
    """As people and scripts read it."""
    return {
        "submits_per_minute": _per_minute(learned.submits),
        "in_flight": learned.in_flight,
        "calls_per_minute": _per_minute(learned.calls),
    }


def _is_news(now: Learned, then: Learned) -> bool:
    """Whether a limit is new, or has moved by more than a tenth."""
    pairs = ((now.submits, then.submits), (now.in_flight, then.in_flight), (now.calls, then.calls))
    return any((a is None) != (b is None) or (a and b and abs(a - b) > 0.1 * b) for a, b in pairs)


def _per_minute(rate: float | None) -> float | None:
    return None if rate is None else round(60.0 * rate, 2)
