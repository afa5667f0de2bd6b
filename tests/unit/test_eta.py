"""How long it will take: the ranges hold as often as they say."""

from __future__ import annotations

import math
import random

import pytest

from batchrunner.core.eta import ENOUGH, Eta, by_latency, by_throughput
from batchrunner.core.polling import Lognormal

MINUTE = Lognormal(math.log(60.0), 0.3)


def test_nothing_left_takes_no_time_and_too_little_known_says_nothing() -> None:
    assert by_throughput(0, 0, 0.0) == Eta(0.0, 0.0, 0.0)
    assert by_throughput(10, ENOUGH - 1, 60.0) is None
    assert (by_throughput(1, 10, 60.0) or Eta(0.0, 0.0, 0.0)).seconds == 6.0, "the last one takes time too"
    assert by_throughput(10, 100, 0.0) is None


def test_the_rate_goes_on() -> None:
    found = by_throughput(100, 50, 60.0)
    assert found is not None
    assert found.seconds == pytest.approx(120.0)
    assert found.low < 120.0 < found.high
    assert found.low * found.high == pytest.approx(120.0**2)


@pytest.mark.parametrize(("left", "finished"), [(5, 5), (10, 100), (100, 20), (1000, 400)])
def test_a_range_by_throughput_holds_four_times_out_of_five(left: int, finished: int) -> None:
    """n ends in a window that begins with one, as the runner measures it, and as many more as are left."""
    dice = random.Random(1)
    held = 0
    for _ in range(2000):
        window = dice.gammavariate(finished, 1.0)
        found = by_throughput(left, finished, window)
        assert found is not None
        held += found.low <= dice.gammavariate(left, 1.0) <= found.high
    assert 0.76 <= held / 2000 <= 0.86


@pytest.mark.parametrize(
    ("pending", "slots", "rate", "seconds"),
    [
        (0, 50, 1.0, 0.0),  # only the last ones are waited for
        (600, 1000, 1.0, 600.0),  # the rate is what holds it back
        (500, 50, 100.0, 10 * 62.8),  # the slots are: ten times a task's mean
    ],
)
def test_what_is_known_of_latencies_tells_before_anything_has_finished(
    pending: int, slots: int, rate: float, seconds: float
) -> None:
    found = by_latency(pending, 1, slots, rate, MINUTE)
    last = min(slots, pending + 1)
    assert found.seconds == pytest.approx(seconds + MINUTE.quantile(0.5 ** (1.0 / last)), rel=0.01)
    assert found.low < found.seconds < found.high


def test_a_range_by_latency_holds_four_times_out_of_five() -> None:
    dice = random.Random(2)
    found = by_latency(0, 20, 20, 1.0, MINUTE)
    held = 0
    for _ in range(2000):
        slowest = max(dice.lognormvariate(MINUTE.mu, MINUTE.sigma) for _ in range(20))
        held += found.low <= slowest <= found.high
    assert 0.77 <= held / 2000 <= 0.83


def test_a_hold_comes_first() -> None:
    assert Eta(10.0, 5.0, 20.0).after(30.0) == Eta(40.0, 35.0, 50.0)
