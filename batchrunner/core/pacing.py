"""When the next call may be sent: a rate limiter that is one float (GCRA), and the hold of a 429."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Gcra:
    """Generic cell rate algorithm: evenly spaced, with a small burst, and no timer or lock.

    Formula (ITU-T I.371): a call at `now` conforms when `now >= tat - tolerance`; then
    `tat = max(now, tat) + interval`. `tolerance = (burst - 1) * interval`.

    Attributes:
        per_minute: calls a minute, > 0.
        burst: calls that may go at once after a pause; by default one second's worth or one,
            whichever is more (CONTRACT.md).
    """

    per_minute: float
    burst: float = 0.0
    _tat: float = 0.0

    def __post_init__(self) -> None:
        if not self.per_minute > 0:
            raise ValueError("per_minute must be more than 0")
        if self.burst < 1:
            self.burst = max(1.0, self.per_minute / 60.0)

    @property
    def interval(self) -> float:
        """Seconds between two calls at the full rate."""
        return 60.0 / self.per_minute

    def delay(self, now: float) -> float:
        """Seconds to wait at `now` (monotonic seconds) until a call conforms; reserves nothing."""
        return max(0.0, self._tat - (self.burst - 1) * self.interval - now)

    def idle(self, now: float) -> float:
        """Seconds for which a call would have conformed already at `now`; 0 where it still has to wait."""
        return max(0.0, now - self._tat + (self.burst - 1) * self.interval)

    def take(self, now: float) -> float:
        """Count a call at `now`; the caller has waited `delay(now)`. Returns a receipt for `give_back`."""
        self._tat = max(now, self._tat) + self.interval
        return self._tat

    def give_back(self, receipt: float) -> None:
        """Undo a `take`: the call was certainly not sent. Once another call was counted since, its place is past and
        stays unused: to hand it on would send two calls closer together than the rate allows."""
        if receipt == self._tat:
            self._tat -= self.interval


def backoff(failures: int, fraction: float, base: float = 1.0, cap: float = 60.0) -> float:
    """Capped full jitter: seconds to wait after `failures` failures in a row (1, 2, ...).

    `fraction * min(cap, base * 2**failures)`, at least `base`, so that a lucky draw is not a busy loop.
    Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 (full jitter).

    Args:
        failures: failures in a row, >= 1.
        fraction: a uniform random number in [0, 1), drawn by the caller.
        base: shortest wait, seconds.
        cap: longest wait, seconds.
    """
    ceiling = min(cap, base * 2.0 ** min(failures, 30))
    return min(cap, max(base, fraction * ceiling))


MAX_RETRY_AFTER = 3600.0
"""A Retry-After beyond one hour is clamped (FAILURES.md, Retries)."""


def clamp_retry_after(seconds: float | None, fallback: float) -> float:
    """Seconds to hold every call after a 429: the server's word, between 0 and one hour, or `fallback`."""
    if seconds is None or seconds != seconds:
        return fallback
    return min(MAX_RETRY_AFTER, max(0.0, seconds))
