"""How long what is left will take, with a range that holds four times out of five.

Two ways, the first where enough has finished of late, the second until then:

- **By throughput.** n jobs finished in the last T seconds, and `left` are left. With ends that come by themselves
  (Poisson) the time for `left` more is `left * T / n` times an F(2 left, 2 n) variable, whose logarithm has about the
  variance `1 / left + 1 / n` (delta method); so the range is the estimate divided and multiplied by
  `exp(Z * sqrt(1 / left + 1 / n))`.
- **By what is known of latencies.** The pending ones are let go at `min(rate, in_flight / mean latency)`; then the
  last k in flight end. The slowest of k has ended after `t` with probability `F(t)^k`, so its p-quantile is that of one
  task at `p^(1/k)`: p = 0.1, 0.5 and 0.9 give the range and its middle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from .polling import Lognormal

Z = 1.2816
"""The 90 % quantile of the normal distribution: 80 % lie within so many deviations."""

ENOUGH = 5
"""Jobs that must have finished before their rate says something."""


@dataclass(frozen=True, slots=True)
class Eta:
    """Seconds that what is left will take: likely, and the ends of a range that holds in four cases of five."""

    seconds: float
    low: float
    high: float

    def after(self, seconds: float) -> Eta:
        """The same, if nothing happens for so many seconds first."""
        return replace(self, seconds=self.seconds + seconds, low=self.low + seconds, high=self.high + seconds)


def by_throughput(left: int, finished: int, seconds: float) -> Eta | None:
    """From how many jobs finished in the last so many seconds; None where too few did."""
    if left <= 0:
        return Eta(0.0, 0.0, 0.0)
    if finished < ENOUGH or seconds <= 0.0:
        return None
    likely = left * seconds / finished
    spread = math.exp(Z * math.sqrt(1.0 / left + 1.0 / finished))
    return Eta(likely, likely / spread, likely * spread)


def by_latency(pending: int, in_flight: int, slots: int, rate: float, known: Lognormal) -> Eta:
    """From what is known of how long tasks take.

    Args:
        pending: jobs that are still to be submitted.
        in_flight: tasks that run now.
        slots: tasks that may be in flight together, 1 or more.
        rate: submissions a second that are allowed, > 0.
        known: how long a task takes.
    """
    mean = math.exp(known.mu + known.sigma**2 / 2.0)
    sending = pending / min(rate, slots / mean)
    last = max(1, min(slots, pending + in_flight))
    low, likely, high = (sending + known.quantile(p ** (1.0 / last)) for p in (0.1, 0.5, 0.9))
    return Eta(likely, low, high)
