"""What the answers say of the service's limits: measured, kept to, and tried again."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.core.adaptive import AGAIN, CAUTIOUS, HEADROOM, SLOWEST, Flight, Learned, Pace, Rate, Ticket


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


# --- Flight ----------------------------------------------------------------------------------------------


def fill(flight: Flight, now: float, count: int) -> None:
    """Accept POSTs that each were the last that the limit let go."""
    for _ in range(count):
        flight.accepted(now, flight.value, flight.value)


def test_a_refusal_tells_the_limit_exactly() -> None:
    flight = Flight(500)
    assert flight.value == 500
    flight.refused(10.0, 1.0, running=40, in_a_row=1)
    assert (flight.value, flight.top) == (40, 40)


def test_one_more_is_tried_later_and_a_failure_costs_nothing_but_itself() -> None:
    flight = Flight(500)
    flight.refused(0.0, 1.0, running=40, in_a_row=1)
    flight.accepted(0.5, 40, 40)
    assert flight.value == 40, "not during the hold's aftermath"
    fill(flight, 100.0, AGAIN[0] - 1)
    assert flight.trying
    assert flight.value == 41
    flight.refused(101.0, 1.0, running=41, in_a_row=1)
    assert flight.value == 40
    fill(flight, 1000.0, AGAIN[1] - 1)
    assert flight.value == 40
    fill(flight, 1000.0, 1)
    assert flight.value == 41


def test_where_more_is_accepted_the_step_doubles() -> None:
    flight = Flight(500)
    flight.refused(0.0, 1.0, running=40, in_a_row=1)
    seen = []
    for _ in range(AGAIN[0] + 5):
        fill(flight, 100.0, 1)
        seen.append(flight.value)
    assert seen[-6:] == [41, 43, 47, 55, 71, 103]


def test_refused_again_and_again_it_goes_below_what_runs() -> None:
    flight = Flight(500, top=40)
    flight.refused(0.0, 1.0, running=40, in_a_row=2)
    flight.refused(2.0, 1.0, running=38, in_a_row=3)
    assert flight.value == 40 * 4 // 5 * 4 // 5


@given(st.integers(1, 600), st.lists(st.tuples(st.booleans(), st.integers(0, 700), st.integers(1, 5))))
def test_flight_stays_between_its_bounds(bound: int, steps: list[tuple[bool, int, int]]) -> None:
    flight, now = Flight(bound), 0.0
    for ok, running, row in steps:
        now += 50.0
        if ok:
            flight.accepted(now, running, running)
        else:
            flight.refused(now, 1.0, running, row)
        assert 1 <= flight.value <= bound


# --- Which of the two ------------------------------------------------------------------------------------


def pace_of(submits: float = 50.0, in_flight: int = 500, known: Learned = Learned()) -> Pace:  # noqa: B008
    return Pace.of(submits, in_flight, 32, known)


def submit(pace: Pace, now: float, count: int, running: int, step: float) -> tuple[float, int]:
    """Accept `count` POSTs, `step` seconds apart, each one more in flight."""
    for _ in range(count):
        now += step
        running += 1
        pace.accepted(Ticket(now - 0.1, running, used=True), now, running)
    return now, running


def test_the_first_refusal_is_put_down_to_the_rate() -> None:
    pace = pace_of()
    now, running = submit(pace, 0.0, 30, 0, 0.1)
    pace.refused(Ticket(now, running + 1, used=True), now + 0.1, running, 1.0)
    assert pace.flight.top is None
    assert pace.posts.top is not None
    assert pace.wire == 1


def test_refused_again_right_after_the_hold_it_was_for_what_is_in_flight() -> None:
    pace = pace_of()
    now, running = submit(pace, 0.0, 30, 0, 0.1)
    pace.refused(Ticket(now, running + 1, used=True), now + 0.1, running, 1.0)
    pace.refused(Ticket(now + 1.2, running + 1, used=False), now + 1.4, running, 2.0)
    assert pace.flight.value == running


def test_refusals_of_what_was_on_the_wire_count_once() -> None:
    pace = pace_of()
    now, running = submit(pace, 0.0, 30, 0, 0.1)
    tickets = [Ticket(now + n / 100, running + n, used=True) for n in range(1, 5)]
    for n, ticket in enumerate(tickets):
        pace.refused(ticket, now + 0.2 + n / 100, running, 1.0)
    assert pace.refusals == 4
    assert pace.flight.top is None


def test_more_in_flight_at_a_rate_that_is_borne_was_refused_for_what_is_in_flight() -> None:
    """A slow stream of POSTs that keeps 40 in flight is refused when 41 are tried."""
    pace = pace_of(known=Learned(submits=7.0, in_flight=40))
    now = 100.0
    for _ in range(AGAIN[0]):
        now += 1.5
        pace.accepted(Ticket(now - 0.1, 40, used=False), now, 40)
    assert pace.flight.value == 41
    before = pace.posts.value
    pace.refused(Ticket(now + 1.0, 41, used=False), now + 1.2, 40, 1.0)
    assert pace.flight.value == 40
    assert pace.posts.value == before


def test_a_refused_poll_makes_polls_and_posts_share() -> None:
    pace = pace_of(submits=50.0)
    assert pace.polls(1000.0, 0.0) == 1000.0
    for n in range(100):
        pace.polled(n / 20.0, used=True)
    pace.poll_refused(4.9, 5.0, 1.0)
    assert pace.calls is not None
    allowed = pace.polls(1000.0, 5.0)
    assert allowed <= HEADROOM * 20.0
    assert pace.submits <= pace.calls.value / 2.0
    assert pace.polls(3.0, 5.0) == 3.0


def test_what_is_learned_is_the_next_nights_start() -> None:
    pace = pace_of(known=Learned(7.0, 40, 20.0))
    assert pace.flight.value == 40
    assert 6.5 <= pace.posts.value <= 7.0
    assert pace.learned == Learned(7.0, 40, 20.0)


def test_bounds_win_over_what_was_learned() -> None:
    pace = pace_of(submits=2.0, in_flight=10, known=Learned(7.0, 40, None))
    assert pace.flight.value == 10
    assert pace.posts.value == 2.0
    assert pace.learned == Learned()


def test_without_any_limit_everything_stays_at_its_bounds() -> None:
    pace = pace_of(submits=5.0, in_flight=50)
    submit(pace, 0.0, 100, 0, 0.2)
    assert (pace.submits, pace.flight.value, pace.crowd) == (5.0, 50, 32)
    assert pace.polls(math.inf, 0.0) == math.inf


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


@given(st.lists(st.tuples(st.floats(0.01, 500.0), st.integers(1, 500), st.booleans()), max_size=12))
def test_no_bound_is_ever_exceeded_whatever_is_said(words: list[tuple[float, int, bool]]) -> None:
    pace, now = Pace.of(10.0, 50, 8, Learned()), 0.0
    for submits, flight, refused in words:
        pace.rebound(submits, flight, pace.learned)
        for _ in range(20):
            now += 1.0 / pace.submits
            ticket = Ticket(now, pace.flight.value, used=True)
            pace.accepted(ticket, now, pace.flight.value)
            assert 0.0 < pace.submits <= submits
            assert 1 <= pace.flight.value <= flight
        if refused:
            pace.refused(Ticket(now, pace.flight.value, used=True), now + 1.0, pace.flight.value, 1.0)
            assert 0.0 < pace.submits <= submits
            assert 1 <= pace.flight.value <= flight
