"""The rate limiter, the backoff, and what a Retry-After may do."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.core.pacing import MAX_RETRY_AFTER, Gcra, backoff, clamp_retry_after

SLACK = 1e-6
"""Seconds of rounding at the sizes used here."""


def test_evenly_spaced_with_a_burst_of_one() -> None:
    rate = Gcra(30.0)
    assert (rate.burst, rate.interval) == (1.0, 2.0)
    now, sent = 100.0, []
    for _ in range(4):
        now += rate.delay(now)
        rate.take(now)
        sent.append(now)
    assert sent == [100.0, 102.0, 104.0, 106.0]


def test_the_burst_is_one_seconds_worth() -> None:
    rate = Gcra(300.0)
    assert rate.burst == 5.0
    sent = 0
    while rate.delay(50.0) < SLACK:
        rate.take(50.0)
        sent += 1
    assert sent == 5
    assert rate.delay(50.0) == pytest.approx(0.2)


@pytest.mark.parametrize("burst", [1.0, 1.5, 9.0])
def test_a_burst_that_was_asked_for_stays(burst: float) -> None:
    assert Gcra(600.0, burst).burst == burst


def test_a_pause_saves_no_more_than_the_burst() -> None:
    rate = Gcra(60.0, burst=3.0)
    rate.take(0.0)
    sent = 0
    while rate.delay(10_000.0) < SLACK:
        rate.take(10_000.0)
        sent += 1
    assert sent == 3


def test_a_delay_reserves_nothing() -> None:
    rate = Gcra(60.0)
    rate.take(5.0)
    assert rate.delay(5.0) == rate.delay(5.0) == 1.0


@pytest.mark.parametrize("per_minute", [0.0, -1.0, math.nan])
def test_a_rate_must_be_positive(per_minute: float) -> None:
    with pytest.raises(ValueError, match=r"^per_minute must be more than 0$"):
        Gcra(per_minute)


def test_what_was_not_sent_may_be_sent_at_once() -> None:
    rate = Gcra(60.0)
    receipt = rate.take(10.0)
    assert rate.delay(10.0) == 1.0
    rate.give_back(receipt)
    assert rate.delay(10.0) == 0.0


def test_only_the_call_that_was_not_sent_is_given_back() -> None:
    rate = Gcra(60.0)
    rate.take(10.0)
    rate.give_back(rate.take(11.0))
    assert rate.delay(10.25) == 0.75


def test_a_late_give_back_does_not_bring_the_next_call_forward() -> None:
    """A call that timed out connecting long ago has no part in what was sent a second ago."""
    rate = Gcra(6.0)
    early = rate.take(0.0)
    rate.take(50.0)
    rate.give_back(early)
    assert rate.delay(51.0) == pytest.approx(9.0)


calls = st.lists(
    st.tuples(st.floats(0.0, 30.0), st.booleans(), st.booleans(), st.integers(0, 3)), min_size=1, max_size=60
)


@given(st.floats(1.0, 600.0), st.sampled_from([0.0, 1.0, 2.5, 7.0]), calls)
def test_never_more_than_the_burst_and_the_rate_in_any_window(
    per_minute: float, burst: float, steps: list[tuple[float, bool, bool, int]]
) -> None:
    """Whatever the calls, also when some are given back because they were certainly not sent."""
    rate = Gcra(per_minute, burst)
    now = 0.0
    sent: list[float] = []
    open_calls: list[tuple[float, float]] = []
    for pause, eager, failed, which in steps:
        now += pause
        if failed and open_calls:
            at, receipt = open_calls.pop(which % len(open_calls))
            sent.remove(at)
            rate.give_back(receipt)
        delay = rate.delay(now)
        assert delay >= 0.0
        if delay > SLACK and not eager:
            continue
        now += delay
        assert rate.delay(now) <= SLACK
        open_calls.append((now, rate.take(now)))
        sent.append(now)
    for i, first in enumerate(sent):
        for j in range(i, len(sent)):
            # ITU-T I.371: at most burst + rate * t cells in any window of t seconds.
            assert j - i + 1 <= rate.burst + (sent[j] - first + SLACK) * per_minute / 60.0 + SLACK


@given(st.floats(1.0, 600.0), st.integers(2, 80))
def test_the_rate_is_used(per_minute: float, count: int) -> None:
    """A crowd goes as fast as the rate allows: the burst at once, then one an interval."""
    rate = Gcra(per_minute)
    now = 0.0
    for _ in range(count):
        now += rate.delay(now)
        rate.take(now)
    assert now == pytest.approx(max(0.0, count - rate.burst) * rate.interval, abs=1e-6)


@given(st.integers(1, 10_000), st.floats(0.0, 1.0, exclude_max=True), st.floats(0.1, 10.0), st.floats(10.0, 600.0))
def test_backoff_stays_in_its_bounds(failures: int, fraction: float, base: float, cap: float) -> None:
    wait = backoff(failures, fraction, base, cap)
    assert base <= wait <= cap
    assert wait <= max(base, base * 2.0 ** min(failures, 30))


def test_backoff_grows_and_is_capped() -> None:
    assert [backoff(n, 0.999999) for n in (1, 2, 3, 4, 5, 6, 7, 1000)] == pytest.approx(
        [2, 4, 8, 16, 32, 60, 60, 60], rel=1e-5
    )
    assert backoff(9, 0.0) == 1.0


@pytest.mark.parametrize(
    ("said", "held"),
    [
        (None, 7.0),
        (math.nan, 7.0),
        (0.0, 0.0),
        (-5.0, 0.0),
        (2.5, 2.5),
        (3600.0, 3600.0),
        (1e12, 3600.0),
        (math.inf, 3600.0),
    ],
)
def test_clamp_retry_after(said: float | None, held: float) -> None:
    assert clamp_retry_after(said, 7.0) == held


@given(st.none() | st.floats(allow_nan=True, allow_infinity=True), st.floats(0.0, 60.0))
def test_a_hold_is_always_between_nothing_and_an_hour(said: float | None, fallback: float) -> None:
    assert 0.0 <= clamp_retry_after(said, fallback) <= MAX_RETRY_AFTER


def test_how_long_a_call_could_have_gone_already() -> None:
    """What tells whether the rate holds calls back: a call that comes the moment it may was waiting for it."""
    rate = Gcra(60.0, burst=2.0)
    rate.take(10.0)
    assert rate.idle(10.0) == 0.0
    assert rate.idle(12.5) == 2.5
    rate.take(10.0)
    assert (rate.delay(10.0), rate.idle(10.0)) == (1.0, 0.0)
    assert (rate.delay(11.0), rate.idle(11.0)) == (0.0, 0.0)
    assert rate.idle(11.75) == 0.75
    slow = Gcra(30.0, burst=3.0)
    slow.take(10.0)
    assert slow.idle(10.0) == 2.0, "two more could have gone at once, and the rate is one in 2 s"
