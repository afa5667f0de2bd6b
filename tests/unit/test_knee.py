"""How many tasks are served at once by a service that queues the rest."""

from __future__ import annotations

import math
import random

import pytest

from batchrunner.core.knee import COHORT, MARGIN, Knee

KLING = ("kling", 5)


def cohort(knee: Knee, first: int, flight: int, took: list[float | None], key: tuple[str, int | None] = KLING) -> None:
    """Accept a cohort with `flight` in flight, and let it end, the fast ones first."""
    for n in range(len(took)):
        knee.accepted(first + n, key, flight)
    for n, seconds in sorted(enumerate(took), key=lambda pair: pair[1] or math.inf):
        knee.ended(first + n, key, seconds)


def test_no_limit_while_tasks_take_their_own_time() -> None:
    knee, draw = Knee(), random.Random(3)
    for n in range(40):
        cohort(knee, 100 * n, 10 * n, [draw.lognormvariate(4.0, 0.5) for _ in range(COHORT)])
    assert knee.limit == math.inf


@pytest.mark.parametrize("served", [5, 40, 200])
def test_a_queue_shows_in_how_long_tasks_take(served: int) -> None:
    knee = Knee()
    cohort(knee, 0, 1, [60.0] * COHORT)
    flight = 10 * served
    cohort(knee, 1000, flight, [60.0 * flight / served] * COHORT)
    assert knee.limit == pytest.approx(MARGIN * served, rel=0.05)


def test_the_limit_rises_when_the_queue_has_gone() -> None:
    knee = Knee()
    cohort(knee, 0, 40, [60.0] * COHORT)
    cohort(knee, 100, 400, [600.0] * COHORT)
    assert knee.limit == pytest.approx(80.0, rel=0.05)
    cohort(knee, 200, 80, [60.0] * COHORT)
    assert knee.limit == pytest.approx(160.0, rel=0.1)
    cohort(knee, 300, 10, [60.0] * COHORT)
    assert knee.limit == pytest.approx(160.0, rel=0.1), "few in flight for want of jobs"


def test_the_first_to_end_do_not_stand_for_all() -> None:
    knee = Knee()
    for n in range(COHORT):
        knee.accepted(n, KLING, 40)
    for n in range(COHORT // 2):
        knee.ended(n, KLING, 1.0)
    cohort(knee, 100, 40, [60.0] * COHORT)
    assert knee.limit == math.inf, "half of the first cohort was faster; its median is not known yet"


def test_kinds_of_task_are_compared_with_their_own() -> None:
    knee = Knee()
    cohort(knee, 0, 10, [5.0] * COHORT, ("image", None))
    cohort(knee, 100, 10, [300.0] * COHORT, ("kling", 15))
    assert knee.limit == math.inf


def test_failures_and_strangers_are_no_measure() -> None:
    knee = Knee()
    cohort(knee, 0, 40, [60.0] * COHORT)
    cohort(knee, 100, 400, [None] * COHORT)
    knee.ended(9999, KLING, 5.0)
    assert knee.limit == math.inf


def test_nothing_is_kept_of_what_has_ended() -> None:
    knee = Knee()
    for n in range(50):
        cohort(knee, 100 * n, 10, [60.0] * COHORT)
    assert knee._of == {}
    assert list(knee._own) == [KLING]


def test_a_service_that_has_become_slower_is_believed_in_the_end() -> None:
    knee = Knee()
    cohort(knee, 0, 40, [60.0] * COHORT)
    for n in range(1, 20):
        cohort(knee, 100 * n, min(40, int(knee.limit)) if math.isfinite(knee.limit) else 40, [180.0] * COHORT)
    assert knee.limit >= 40


@pytest.mark.parametrize("flight", [150, 400])
def test_the_limit_does_not_drift_while_more_than_it_are_in_flight(flight: int) -> None:
    """What took long because too many were in flight says nothing of the service's own time."""
    knee = Knee()
    cohort(knee, 0, 1, [60.0] * COHORT)
    for n in range(1, 20):
        cohort(knee, 100 * n, flight, [60.0 * flight / 40] * COHORT)
    assert knee.limit == pytest.approx(80.0, rel=0.05)


def test_one_cohort_that_was_fast_by_chance_is_forgotten() -> None:
    knee = Knee()
    cohort(knee, 0, 40, [40.0] * COHORT)
    for n in range(1, 30):
        cohort(knee, 100 * n, 40, [60.0] * COHORT)
    cohort(knee, 9000, 40, [110.0] * COHORT)
    assert knee.limit == math.inf


def test_a_cohort_counts_once() -> None:
    """When half of it has ended; the rest neither measures again nor lets the own time be forgotten."""
    knee = Knee()
    cohort(knee, 0, 40, [60.0] * COHORT)
    cohort(knee, 100, 40, [150.0] * COHORT)
    assert knee.limit == pytest.approx(MARGIN * 40 / (150 / 61.8), rel=0.01)


def test_a_cohort_that_is_not_complete_is_no_measure() -> None:
    knee = Knee()
    for n in range(COHORT - 4):
        knee.accepted(n, KLING, 10)
    for n in range(COHORT - 4):
        knee.ended(n, KLING, 1.0)
    for n in range(COHORT - 4, COHORT):
        knee.accepted(n, KLING, 10)
    cohort(knee, 100, 40, [60.0] * COHORT)
    assert knee.limit == math.inf


def test_a_short_queue_raises_the_limit_by_less() -> None:
    knee = Knee()
    cohort(knee, 0, 40, [60.0] * COHORT)
    cohort(knee, 100, 400, [600.0] * COHORT)
    cohort(knee, 200, 80, [61.8 * 1.5] * COHORT)
    assert knee.limit == pytest.approx(MARGIN * 80 / 1.5, rel=0.02)
