"""Two limits of a service: measured, kept to, and tried again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.core.measured import CAUTIOUS, RISE, SLOWEST, Flight, Rate


def send(rate: Rate, now: float, count: int) -> float:
    """Accept calls at the rate's own pace; returns when the last one was."""
    for _ in range(count):
        now += 1.0 / rate.value
        rate.accepted(now, used=True)
    return now


# --- Rate ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bound", "start"), [(1.0, 1.0), (5.0, 5.0), (20.0, CAUTIOUS), (1000.0, 100.0)])
def test_a_rate_begins_cautiously_below_its_bound(bound: float, start: float) -> None:
    assert Rate(bound).value == start


def test_a_rate_doubles_until_it_meets_its_bound() -> None:
    rate = Rate(50.0)
    send(rate, 0.0, 8)
    assert rate.value == pytest.approx(2 * CAUTIOUS)
    send(rate, 10.0, 100)
    assert rate.value == 50.0


def test_what_did_not_wait_for_its_place_proves_nothing() -> None:
    rate = Rate(50.0)
    for n in range(100):
        rate.accepted(float(n), used=False)
    assert rate.value == CAUTIOUS


@pytest.mark.parametrize("limit", [1.0, 3.0, 7.0, 20.0, 50.0])
def test_between_two_refusals_the_limit_is_measured(limit: float) -> None:
    """A bucket goes from empty to empty meanwhile, whatever was asked for."""
    rate = Rate(1000.0)
    rate.refused(0.0, 1.0)
    now = 0.0
    for _ in range(200):
        now += 1.0 / limit
        rate.accepted(now, used=True)
    rate.value = 2.0 * limit
    rate.refused(now, 1.0)
    assert rate.top == pytest.approx(limit, rel=0.15)
    assert rate.value == pytest.approx(0.99 * (rate.top or 0.0))


def test_a_limit_is_kept_to_and_then_tried_again() -> None:
    rate = Rate(100.0, top=10.0)
    start = rate.value
    assert start <= 10.0
    assert not rate.trying
    now = send(rate, 0.0, 150)
    assert rate.value == start
    send(rate, now, 400)
    assert rate.value > 12.0


@given(st.floats(0.05, 500.0), st.lists(st.tuples(st.booleans(), st.floats(0.0, 20.0), st.floats(0.0, 3600.0))))
def test_a_rate_stays_between_its_bounds(bound: float, steps: list[tuple[bool, float, float]]) -> None:
    rate, now = Rate(bound), 0.0
    for ok, pause, hold in steps:
        now += pause
        if ok:
            rate.accepted(now, used=pause < 1.0)
        else:
            rate.refused(now, hold)
        assert min(SLOWEST, bound) <= rate.value <= bound


# --- Other bounds, by a person's word --------------------------------------------------------------------


def test_a_higher_bound_is_approached_as_a_run_begins() -> None:
    rate = Rate(1.0)
    rate.rebound(100.0, None)
    assert (rate.bound, rate.value) == (100.0, 10.0)
    rate.rebound(2.0, None)
    assert rate.value == 2.0


def test_what_was_measured_outlives_a_bound_below_it() -> None:
    rate = Rate(100.0, top=10.0)
    rate.rebound(1.0, 10.0)
    assert (rate.value, rate.top) == (1.0, None)
    rate.rebound(50.0, 10.0)
    assert rate.top == 10.0
    assert rate.value == pytest.approx(9.9)
    assert not rate.trying
    flight = Flight(100, top=20)
    flight.rebound(5, 20)
    assert (flight.value, flight.top) == (5, None)
    flight.rebound(50, 20)
    assert (flight.value, flight.top) == (20, 20)


def test_a_bound_that_changes_nothing_leaves_the_trying_alone() -> None:
    rate = Rate(100.0, top=10.0)
    now = send(rate, 0.0, 600)
    before = rate.value
    assert rate.trying
    rate.rebound(200.0, 10.0)
    assert rate.trying
    assert rate.value == before
    send(rate, now, 50)
    assert rate.value > before


# --- What a refusal measures -----------------------------------------------------------------------------


def steady(rate: Rate, first: float, step: float, count: int) -> float:
    """Accept calls that did not wait for their place, so that the rate stays; returns when the last one was."""
    now = first
    for n in range(count):
        now = first + n * step
        rate.accepted(now, used=False)
    return now


def test_what_was_accepted_just_before_a_refusal_measures_less_what_a_bucket_held() -> None:
    rate = Rate(1000.0)
    rate.value = 20.0
    now = steady(rate, 0.05, 0.1, 200)
    rate.refused(now, 1.0)
    # 40 calls in the last 4 s, 3.9 s apart, from a bucket of a second's worth less the next call.
    assert rate.top == pytest.approx(39 / (3.9 + 1.0 - 1.0 / 20.0), rel=1e-3)


@pytest.mark.parametrize("count", [6, 10])
def test_slow_calls_are_measured_by_the_last_few(count: int) -> None:
    rate = Rate(1000.0)
    rate.value = 2.0
    rate.refused(steady(rate, 1.0, 1.0, count), 1.0)
    assert rate.top == pytest.approx(5 / (5.0 + 0.5), rel=1e-3)


def test_less_than_a_quarter_at_once_is_not_believed() -> None:
    rate = Rate(1000.0)
    assert rate.value == 100.0
    rate.refused(steady(rate, 1.0, 10.0, 8), 1.0)
    assert rate.top == 25.0


@pytest.mark.parametrize("start", [0.0, 1000.0])
def test_from_empty_to_empty_the_limit_is_measured_itself(start: float) -> None:
    rate = Rate(1000.0, top=40.0)
    rate.refused(start, 0.0)
    rate.refused(steady(rate, start + 0.1, 0.1, 200), 1.0)
    assert rate.top == pytest.approx(10.0)


def test_half_a_second_is_long_enough_to_measure() -> None:
    rate = Rate(1000.0)
    rate.refused(0.0, 0.0)
    rate.value = 50.0
    rate.refused(steady(rate, 0.025, 0.025, 20), 1.0)
    assert rate.top == pytest.approx(20 / 0.5)


def test_a_hold_is_no_pause() -> None:
    """The bucket fills during it, from empty: what it let go afterwards is of the whole time."""
    rate = Rate(1000.0)
    rate.refused(0.0, 0.6)
    rate.value = 20.0
    rate.refused(steady(rate, 0.65, 0.05, 20), 1.0)
    assert rate.top == pytest.approx(20 / 1.6)


def test_a_burst_after_a_pause_is_not_the_limit() -> None:
    rate = Rate(1000.0)
    rate.refused(0.0, 1.0)
    rate.value = 20.0
    rate.refused(steady(rate, 2.5, 0.02, 20), 1.0)
    assert rate.top == pytest.approx(19 / (0.38 + 0.95))


def test_an_unmeasured_refusal_halves_a_rate_that_was_a_guess_and_takes_less_of_a_limit_that_was_known() -> None:
    rate = Rate(50.0)
    rate.refused(0.0, 1.0)
    assert rate.top == CAUTIOUS / 2
    before = rate.value
    rate.refused(2.0, 1.0)
    assert rate.top == pytest.approx(0.7 * before)
    assert rate.value < rate.top


def test_a_limit_is_not_below_what_was_borne_whoever_was_to_blame() -> None:
    rate = Rate(50.0, top=10.0)
    rate.refused(0.0, 1.0, borne=9.0)
    assert rate.top == 9.0
    rate.refused(2.0, 1.0, borne=50.0)
    assert rate.top == pytest.approx(0.99 * 9.0), "nor above what was allowed"


def kept_to(rate: Rate, now: float) -> float:
    """Seconds of use until the limit is tried again."""
    start = now
    while not rate.trying:
        now = send(rate, now, 1)
    return now - start


@pytest.mark.parametrize(("hold", "seconds"), [(10.0, 300.0), (0.1, 80 / 9.9), (600.0, 900.0)])
def test_a_measured_limit_is_tried_again_when_the_hold_is_paid_for(hold: float, seconds: float) -> None:
    """A try may cost 3 % of the time and one refusal in 80 calls, and comes after 15 minutes whatever it costs."""
    rate = Rate(1000.0, top=40.0)
    rate.refused(0.0, 0.0)
    now = steady(rate, 0.1, 0.1, 200)
    rate.refused(now, hold)
    assert kept_to(rate, now + hold) == pytest.approx(seconds, abs=0.21)


@pytest.mark.parametrize(("limit", "seconds"), [(20.0, 5.0), (1.0, 10 / (0.99 * 0.7 * 0.99))])
def test_a_guess_is_tried_again_soon(limit: float, seconds: float) -> None:
    rate = Rate(1000.0, top=limit)
    rate.refused(0.0, 100.0)
    assert kept_to(rate, 100.0) == pytest.approx(seconds, abs=1.5 / limit)


def test_a_limit_of_another_night_is_kept_to_for_a_while_and_so_is_one_that_comes_with_another_bound() -> None:
    rate = Rate(100.0, top=10.0)
    assert kept_to(rate, 0.0) == pytest.approx(20.0, abs=0.2)
    rate = Rate(100.0, top=10.0)
    now = send(rate, 0.0, 100)
    rate.rebound(50.0, 8.0)
    assert kept_to(rate, now) == pytest.approx(20.0, abs=0.2)


def test_a_rate_that_has_met_its_bound_knows_no_limit() -> None:
    rate = Rate(12.0, top=10.0)
    send(rate, 0.0, 600)
    assert (rate.value, rate.top) == (12.0, None)
    rate.rebound(10.0, 10.0)
    assert (rate.value, rate.top) == (10.0, None), "nor one whose limit is the bound"


def test_a_try_begins_at_the_limit_and_doubles_it_in_a_while() -> None:
    rate = Rate(1000.0, top=10.0)
    begun = now = kept_to(rate, 0.0)
    assert rate.value == pytest.approx(10.0, rel=0.01)
    values = []
    for share in (0.5, 1.0):
        while now < begun + share * RISE:
            now = send(rate, now, 1)
        values.append(rate.value)
    assert values == pytest.approx([10.0 * (1 + 0.5**3), 20.0], rel=0.03)


def test_a_limit_of_less_than_a_call_a_second_is_a_measurement_too() -> None:
    rate = Rate(1000.0, top=2.0)
    rate.refused(0.0, 0.0)
    now = steady(rate, 2.0, 2.0, 100)
    rate.refused(now, 10.0)
    assert rate.top == pytest.approx(0.5)
    assert kept_to(rate, now + 10.0) == pytest.approx(300.0, abs=2.1)
