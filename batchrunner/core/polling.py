"""When to look at a task again: where news is likeliest, at a price a poll.

The cost of waiting `d` seconds for the next poll is one poll (price `c`) and, if the task ends meanwhile, about
`d / 2` seconds of delay. With h the hazard of ending now given that it has not ended yet, the best interval is
`sqrt(2 c / h)` (PERFORMANCE.md, "When to poll"). The hazard of a young task rises, so it is taken in the middle of the
interval: d solves `d^2 h(t + d / 2) = 2 c`. Measured on lognormal tasks: at its start the first poll of a narrow spread
comes far too late, at its end every poll comes too soon.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

ENOUGH = 10
"""Samples from which on a lognormal fit beats a plain backoff (PERFORMANCE.md)."""

KEPT = 200
"""Newest samples that a fit uses, so that it follows drift."""

MIN_SIGMA = 0.15
"""Narrowest spread (of ln seconds) that is believed: a fit of equal samples must not be certain."""


@dataclass(frozen=True, slots=True)
class PollPolicy:
    """How eagerly to poll.

    Attributes:
        price: c, the price of one poll in seconds of delay.
        shortest: shortest interval, seconds.
        longest: longest interval, seconds; a model that suddenly takes longer is never left alone for more.
        growth: factor of the backoff that is used until enough is known.
    """

    price: float = 0.45
    shortest: float = 1.0
    longest: float = 30.0
    growth: float = 1.5


@dataclass(frozen=True, slots=True)
class Lognormal:
    """ln(seconds) is normal with mean `mu` and deviation `sigma`."""

    mu: float
    sigma: float

    def hazard(self, t: float) -> float:
        """Density over survival at `t` seconds, per second."""
        if t <= 0:
            return 0.0
        z = (math.log(t) - self.mu) / self.sigma
        survival = 0.5 * math.erfc(z / math.sqrt(2.0))
        if survival < 1e-12:
            return max(z, 1.0) / (self.sigma * t)  # Mills ratio: density / survival of a normal tends to z
        density = math.exp(-0.5 * z * z) / (t * self.sigma * math.sqrt(2.0 * math.pi))
        return density / survival

    def quantile(self, p: float) -> float:
        """Seconds within which a share `p` (0..1) of the tasks has ended."""
        from statistics import NormalDist

        return math.exp(self.mu + self.sigma * NormalDist().inv_cdf(p))


def fit(samples: Iterable[float]) -> Lognormal | None:
    """A lognormal through the samples (seconds), by moments of their logarithms; None for fewer than `ENOUGH`."""
    logs = [math.log(max(s, 1e-3)) for s in samples]
    if len(logs) < ENOUGH:
        return None
    mu = math.fsum(logs) / len(logs)
    variance = math.fsum((x - mu) ** 2 for x in logs) / (len(logs) - 1)
    return Lognormal(mu, max(MIN_SIGMA, math.sqrt(variance)))


def interval(policy: PollPolicy, known: Lognormal | None, age: float) -> float:
    """Seconds until the next poll of a task that is `age` seconds old and was just seen alive.

    Without a fit: a backoff, a share of the age that makes successive polls grow by `policy.growth`; longer where a
    poll is dearer than usual.
    """
    if known is None:
        wait = max(policy.shortest, age * (policy.growth - 1.0)) * max(1.0, math.sqrt(policy.price / USUAL))
        return min(policy.longest, wait)
    wait = policy.shortest
    while wait < policy.longest and wait * wait * known.hazard(age + wait / 2.0) < 2.0 * policy.price:
        wait *= 1.1
    return min(policy.longest, wait)


@dataclass(slots=True)
class Latencies:
    """What is known of how long tasks take, by model and length asked for."""

    _samples: dict[tuple[str, int | None], deque[float]] = field(default_factory=dict)
    _fits: dict[tuple[str, int | None], Lognormal | None] = field(default_factory=dict)

    def add(self, model: str, seconds: int | None, took: float) -> None:
        """Learn that a task of `model` for a clip of `seconds` took `took` seconds."""
        for key in {(model, seconds), (model, None)}:
            self._samples.setdefault(key, deque(maxlen=KEPT)).append(took)
            self._fits.pop(key, None)

    def of(self, model: str, seconds: int | None) -> Lognormal | None:
        """The fit for clips of that length, else for the model, else None."""
        return self._fit((model, seconds)) or self._fit((model, None))

    def every(self) -> Lognormal | None:
        """The fit over every model and length; None where too little is known."""
        return fit(took for (_, seconds), samples in self._samples.items() if seconds is None for took in samples)

    def _fit(self, key: tuple[str, int | None]) -> Lognormal | None:
        if key not in self._fits:
            self._fits[key] = fit(self._samples.get(key, ()))
        return self._fits[key]


EAGER = 0.02
"""Price of a poll while results free slots that others wait for: 30 polls for a task of a minute, 1 s of delay."""

USUAL = 0.5
"""Price of a poll that the backoff of unknown tasks is made for: 7 polls for a task of a minute."""

FILLED = 0.97
"""Share of the budget that the plan may take, so that what is due is polled when it is due."""


@dataclass(slots=True)
class Price:
    """What a poll costs now: no less than it is worth, and so much that all who watch stay within the budget.

    The demand, one over each planned interval, goes as `1 / sqrt(price)`. So each plan's share is noted as it would
    be at the price 1, and `(sum / budget)**2` is the price that meets the budget. Raised for all alike it takes the
    polls away where they bring the least news, which being late at the head of a queue does not.
    """

    policy: PollPolicy
    now: float = 0.0
    _wanted: float = 0.0

    def __post_init__(self) -> None:
        self.now = self.policy.price

    def add(self, wait: float) -> float:
        """A task is planned to be polled in `wait` seconds. Returns what to give back to `remove`."""
        # At the longest interval a higher price changes nothing, and must not call for a higher one.
        price = self.now if wait < self.policy.longest else min(self.now, self.policy.price)
        share = math.sqrt(price) / max(wait, self.policy.shortest)
        self._wanted += share
        return share

    def remove(self, share: float) -> None:
        """That poll is made."""
        self._wanted = max(0.0, self._wanted - share)

    def settle(self, budget: float, *, eager: bool) -> PollPolicy:
        """The policy for the next plan.

        Args:
            budget: polls a second that all who watch may make together.
            eager: whether others wait for the slots in flight.
        """
        floor = min(EAGER, self.policy.price) if eager else self.policy.price
        self.now = max(floor, (self._wanted / (FILLED * budget)) ** 2)
        usual = self.policy
        return PollPolicy(self.now, usual.shortest, usual.longest, usual.growth)
