"""How long a night will take, from what is known of latencies and limits.

N tasks are sent at no more than `rate` a second, at most `slots` of them are out at once, and each takes a lognormal
time that earlier nights have taught (`polling.Latencies`). Then, with W the sum of the expected times and V that of
their variances:

- the last task is sent no earlier than `(N - 1) / rate` after the first;
- the slots have at least `W / slots` to do; and where the tasks are more than the slots, the last of them waits no
  longer than the others keep every slot busy (Graham, "Bounds on multiprocessing timing anomalies", 1969);
- of the tasks that are out last, `min(N, slots)` at most, all end within the quantile `0.9 ** (1 / that many)` of one
  of them, with probability 0.9.

    low  = max((N - 1) / rate + q10,  (W - 1.28 sqrt(V)) / slots,  L)
    high = max((N - 1) / rate,        (W' + 1.28 sqrt(V')) / slots) + H

q10 is the quickest kind's 10 % quantile; L what the longest task hardly takes less than (of n that take alike, the
quantile `0.1 ** (1 / n)`); H the slowest kind's quantile of the third line; 1.28 the normal's 90 % quantile. W' and V'
are without the longest task, and 0 where there is a slot for every task. Tasks that are out already count in `high`
only, as if they had just begun.

What it does not know: a service that is slower tonight than when it taught, 429s and the search for a limit that was
not met yet, new submissions after failed tasks, other users of the account, downloads (seconds at the end), and the
time between a task's end and the poll that sees it, for which its slot is held (it matters for tasks of seconds).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .polling import Lognormal

Z90 = 1.2815515594
"""90 % quantile of the standard normal distribution."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Tasks that take alike: how many, and how long each (None where too few have ended to say)."""

    count: int
    known: Lognormal | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """How long it will take.

    Attributes:
        low: seconds that it hardly takes less than.
        high: seconds that it hardly takes more than; None where the time of some tasks is not known.
        unknown: tasks whose time is not known.
    """

    low: float
    high: float | None
    unknown: int = 0


def forecast(waiting: Sequence[Kind], out: Sequence[Kind], rate: float, slots: int) -> Forecast:
    """How long it takes until everything has ended.

    Args:
        waiting: tasks to be sent.
        out: tasks that are at the service already.
        rate: submissions a second that are allowed, above 0.
        slots: tasks that may be out at once, at least 1.
    """
    every = [k for k in (*waiting, *out) if k.count]
    unknown = sum(k.count for k in every if k.known is None)
    known = [(k.count, k.known) for k in waiting if k.count and k.known is not None]
    count = sum(k.count for k in waiting)
    sending = max(0, count - 1) / rate
    work, spread = _work(known)
    quickest = min((fit.quantile(0.1) for _, fit in known), default=0.0)
    longest = max((fit.quantile(0.1 ** (1.0 / n)) for n, fit in known), default=0.0)
    low = max(sending + quickest, (work - Z90 * spread) / slots, longest)
    if unknown:
        return Forecast(low, None, unknown)
    all_known = [(k.count, k.known) for k in every if k.known is not None]
    waits = sum(n for n, _ in all_known) > slots
    work, spread = _work(all_known, but_longest=True) if waits else (0.0, 0.0)
    last = max((fit.quantile(0.9 ** (1.0 / min(n, slots))) for n, fit in all_known), default=0.0)
    return Forecast(low, max(low, max(sending, (work + Z90 * spread) / slots) + last))


def _work(kinds: Sequence[tuple[int, Lognormal]], *, but_longest: bool = False) -> tuple[float, float]:
    """Expected seconds of all tasks together, and the deviation of that sum; without one of the longest kind."""
    found = [(n, math.exp(fit.mu + fit.sigma**2 / 2.0), fit.sigma) for n, fit in kinds]
    if but_longest:
        found.append((-1, *max((mean, sigma) for _, mean, sigma in found)))
    work = math.fsum(n * mean for n, mean, _ in found)
    variance = math.fsum(n * mean**2 * math.expm1(sigma**2) for n, mean, sigma in found)
    return work, math.sqrt(max(0.0, variance))
