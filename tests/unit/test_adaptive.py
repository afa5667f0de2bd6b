"""Which of its limits a service speaks of when it answers 429."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.core.adaptive import HEADROOM, Learned, Pace, Ticket
from batchrunner.core.limits import AGAIN


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
