"""How many tasks in flight are still served at once, where the service queues instead of refusing.

A queue shows in how long tasks take: with `n` in flight, of which `c` are served, a task takes `n / c` times its own
time (Little's law). That is TCP Vegas' estimate (Brakmo and Peterson, 1995; also in Netflix's concurrency-limits), with
a wide margin: over-submitting costs no time, so only what is beyond a queue as long again as what is served is taken
away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import median

COHORT = 24
"""Tasks accepted one after another whose median is compared. By acceptance, not by end: the first to end are the
fast ones, and the median of a cohort is known when half of it has ended."""

FORGETS = 1.03
"""By what factor a service's own time, the shortest median, is taken to be longer with each cohort that shows no queue:
the shortest of many is too short by chance."""

BELIEVED = 1.08
"""The same for a cohort that took long although no more were in flight than the limit allows: a service that has become
slower is believed in the end."""

MARGIN = 2.0
"""Times what is served that may be in flight."""

Key = tuple[str, int | None]


@dataclass(slots=True)
class _Cohort:
    flight: int = 0
    size: int = 0
    took: list[float] = field(default_factory=list)
    done: bool = False


@dataclass(slots=True)
class Knee:
    """`limit`: how many may be in flight; infinite until a queue was seen. Without a queue it doubles with each cohort
    that uses it."""

    limit: float = math.inf
    _open: dict[Key, _Cohort] = field(default_factory=dict)
    _of: dict[int, _Cohort] = field(default_factory=dict)
    _own: dict[Key, float] = field(default_factory=dict)

    def accepted(self, job_id: int, key: Key, flight: int) -> None:
        """A task was accepted as the `flight`-th. `key`: what tasks of its kind have in common."""
        cohort = self._open.get(key)
        if cohort is None or cohort.size == COHORT:
            cohort = self._open[key] = _Cohort()
        cohort.size += 1
        cohort.flight += flight
        self._of[job_id] = cohort

    def ended(self, job_id: int, key: Key, took: float | None) -> None:
        """A task has ended; `took` seconds, None where it failed or was lost."""
        cohort = self._of.pop(job_id, None)
        if cohort is None:
            return
        cohort.took.append(math.inf if took is None else took)
        if cohort.done or cohort.size < COHORT or len(cohort.took) <= COHORT // 2:
            return
        cohort.done = True
        now = median(cohort.took)
        if math.isinf(now):
            return  # most of it has failed
        own = min(now, self._own.get(key, now))
        stretch, flight = now / own, cohort.flight / cohort.size
        within = math.isfinite(self.limit) and flight <= 1.1 * self.limit
        self._own[key] = own * (FORGETS if stretch <= MARGIN else BELIEVED if within else 1.0)
        if stretch > MARGIN:
            self.limit = MARGIN * flight / stretch
        else:
            self.limit = max(self.limit, MARGIN * flight / stretch)
