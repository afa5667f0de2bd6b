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

COHORT = 32
"""Tasks accepted one after another whose median is compared. By acceptance, not by end: the first to end are the
fast ones, and the median of a cohort is known when half of it has ended."""

REMEMBERED = 12
"""Medians of which the smallest is the service's own time; a service that has become slower is believed in the end."""

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
    """`limit`: how many may be in flight; infinite while tasks take their own time."""

    limit: float = math.inf
    _open: dict[Key, _Cohort] = field(default_factory=dict)
    _of: dict[int, _Cohort] = field(default_factory=dict)
    _medians: dict[Key, list[float]] = field(default_factory=dict)

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
        medians = self._medians.setdefault(key, [])
        medians.append(now)
        del medians[:-REMEMBERED]
        stretch = now / min(medians)
        self.limit = MARGIN * (cohort.flight / cohort.size) / stretch if stretch > MARGIN else math.inf
