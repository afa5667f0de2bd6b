"""How long a night will take: the formula against nights that are played."""

from __future__ import annotations

import heapq
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.core.forecast import Forecast, Kind, forecast
from batchrunner.core.polling import Lognormal

MINUTE = Lognormal(math.log(60.0), 0.3)


def play(count: int, fit: Lognormal, rate: float, slots: int, dice: random.Random) -> float:
    """Send as soon as rate and slots allow; returns when the last has ended."""
    out: list[float] = []
    at = 0.0
    for number in range(count):
        at = max(at, number / rate)
        if len(out) == slots:
            at = max(at, heapq.heappop(out))
        heapq.heappush(out, at + dice.lognormvariate(fit.mu, fit.sigma))
    return max(out)


@pytest.mark.parametrize("sigma", [0.2, 0.8])
@pytest.mark.parametrize(
    ("count", "rate", "slots"),
    [(1, 1.0, 1), (8, 10.0, 8), (40, 10.0, 8), (300, 0.5, 50), (300, 5.0, 20), (300, 0.35, 20), (500, 100.0, 1)],
)
def test_four_of_five_nights_end_within_the_range(count: int, rate: float, slots: int, sigma: float) -> None:
    """Bound by the rate, by the slots, by both, by neither: the range holds what it says, and is no platitude."""
    fit, dice = Lognormal(math.log(60.0), sigma), random.Random(7)
    said = forecast([Kind(count, fit)], [], rate, slots)
    assert said.high is not None
    nights = [play(count, fit, rate, slots, dice) for _ in range(100)]
    assert sum(said.low <= night <= said.high for night in nights) >= 75
    assert sum(night <= said.high for night in nights) >= 80
    middle = sorted(nights)[50]
    assert said.low > 0.3 * middle
    assert said.high < 4.5 * middle


def test_nothing_to_do_takes_no_time() -> None:
    assert forecast([], [], 1.0, 5) == Forecast(0.0, 0.0)
    assert forecast([Kind(0, None)], [], 1.0, 5) == Forecast(0.0, 0.0)


def test_what_was_not_learned_is_said_and_what_the_rate_says_is_known() -> None:
    assert forecast([Kind(61, None)], [], 0.5, 5) == Forecast(120.0, None, 61)
    half = forecast([Kind(61, MINUTE), Kind(4, None)], [], 0.5, 5)
    assert (half.high, half.unknown) == (None, 4)
    assert half.low > 600.0, "61 minutes of work in 5 slots"


def test_what_is_out_already_only_raises_the_upper_end() -> None:
    alone = forecast([Kind(10, MINUTE)], [], 1.0, 5)
    beside = forecast([Kind(10, MINUTE)], [Kind(5, MINUTE)], 1.0, 5)
    assert beside.low == alone.low
    assert beside.high is not None
    assert alone.high is not None
    assert beside.high > alone.high
    followed = forecast([], [Kind(5, MINUTE)], 1.0, 5)
    assert followed.low == 0.0
    assert followed.high is not None
    assert followed.high > 60.0


@pytest.mark.parametrize("unit", [1.0, 0.001])
@pytest.mark.parametrize("slots", [4, 14, 15, 20])
def test_the_upper_end_is_the_formulas(slots: int, unit: float) -> None:
    """Bound by the slots, of which every one is busy until the last task, the longest; or with a slot for each."""
    short, long = Lognormal(math.log(60.0 * unit), 0.3), Lognormal(math.log(300.0 * unit), 0.5)
    said = forecast([Kind(10, short), Kind(5, long)], [], 1e9, slots)
    means = [math.exp(fit.mu + fit.sigma**2 / 2) for fit in (short, long)]
    variances = [mean**2 * (math.exp(fit.sigma**2) - 1) for mean, fit in zip(means, (short, long), strict=True)]
    work = 10 * means[0] + 4 * means[1]
    spread = math.sqrt(10 * variances[0] + 4 * variances[1])
    busy = (work + 1.2815515594 * spread) / slots if slots < 15 else 0.0
    last = max(short.quantile(0.9 ** (1 / min(10, slots))), long.quantile(0.9 ** (1 / min(5, slots))))
    assert said.high == pytest.approx(busy + last, rel=1e-6)


kinds = st.lists(
    st.builds(Kind, st.integers(0, 500), st.none() | st.builds(Lognormal, st.floats(-3, 8), st.floats(0.15, 2.0)))
)


@given(kinds, kinds, st.floats(0.01, 100.0), st.integers(1, 500))
def test_a_range_is_a_range(waiting: list[Kind], out: list[Kind], rate: float, slots: int) -> None:
    said = forecast(waiting, out, rate, slots)
    assert said.low >= 0.0
    assert (said.high is None) == (said.unknown > 0)
    if said.high is not None:
        assert said.low <= said.high < math.inf
