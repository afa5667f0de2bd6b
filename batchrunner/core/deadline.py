"""When to stop: what can still be done by the deadline, and how far away a time of day is.

A deadline is a time of day to people, and seconds of a clock that never jumps to a run: it is worked out once, at the
start. What is done to the wall clock afterwards moves it no more.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable

from .polling import Lognormal

SURE = 0.95
"""Share of the tasks of its kind that a task must be as fast as to count as done in time. Whoever submits up to the
moment that this quantile gives has, of the very last tasks, one in twenty still running at the deadline."""

DAY = datetime.timedelta(days=1)


def in_time(left: float, known: Lognormal | None) -> bool:
    """Whether a task that is submitted now will be done before the deadline.

    Args:
        left: seconds until then.
        known: how long tasks of its kind take; None where nobody knows yet: then it is, until the time itself.
    """
    return left > 0.0 and (known is None or known.quantile(SURE) <= left)


def seconds_left(
    until: datetime.time,
    now: datetime.datetime,
    localize: Callable[[datetime.datetime], datetime.datetime],
    since: datetime.time | None = None,
) -> float:
    """Seconds until it is next `until` o'clock; 0 outside the hours from `since` to `until`, where these are given.

    On the night when clocks are set forward, a time that is skipped comes when the clock shows an hour more; when they
    are set back, a time that comes twice is meant the first time that is still ahead.

    Args:
        until, since: local times.
        now: local time, with its zone.
        localize: gives a naive local time its zone by the rules of that day: `datetime.astimezone`.
    """
    end = _next(until, now, localize)
    if since is not None and _next(since, now, localize) <= end:
        return 0.0  # the hours begin before they end: they have not begun
    return (end - now).total_seconds()


def _next(
    wanted: datetime.time, now: datetime.datetime, localize: Callable[[datetime.datetime], datetime.datetime]
) -> datetime.datetime:
    found = []
    for day in (now.date(), now.date() + DAY):
        naive = datetime.datetime.combine(day, wanted)
        first, second = localize(naive), localize(naive.replace(fold=1))
        found += [first, max(first, second)]  # of a time that is skipped, the earlier reading is an hour too soon
    return min(at for at in found if at > now)
